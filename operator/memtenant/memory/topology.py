"""Where a tenant's primary is: what Sentinels and nodes are asked, and their answers, without I/O.

In a Cluster all keys of a tenant are in one slot. So a client needs no map of it: any node says
where the slot is (MOVED), and one that is on its way says where a key may be already (ASK).
"""

from __future__ import annotations

from collections.abc import Sequence

from memtenant.functions.fcall import Words
from memtenant.memory.wire import ErrorReply
from memtenant.tenancy import keys
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.sentinel import SentinelAccess

__all__ = [
    "MOST_MOVES",
    "Endpoint",
    "Way",
    "asking",
    "asking_for_primary",
    "asking_for_slot",
    "moved_to",
    "primary_from",
    "redirected",
]

Endpoint = tuple[str, int]

MOST_MOVES = 4
"""Redirects that are followed for one connection: nodes that send in a circle know nothing."""


class Way:
    """Whom to ask first. One for each process that opens connections."""

    def __init__(self) -> None:
        self._turns = 0
        self._last: Endpoint | None = None

    def sentinels(self, access: SentinelAccess) -> tuple[Endpoint, ...]:
        """All Sentinels, the one that led to the primary last first."""
        return self._from_turn(access.endpoints)

    def nodes(self, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Nodes of a Cluster, the one that had the slot last first."""
        others = self._from_turn(endpoints)
        return others if self._last is None else (self._last, *others)

    def led(self, to: Endpoint) -> None:
        """A node of a Cluster has the slot, or another one said so."""
        self._last = to

    def turn(self) -> None:
        """Whoever was first did not lead there: another is asked first."""
        self._turns += 1
        self._last = None

    def _from_turn(self, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        first = self._turns % len(endpoints)
        return endpoints[first:] + endpoints[:first]


def asking_for_primary(access: SentinelAccess) -> tuple[Words, ...]:
    """What is sent to a Sentinel."""
    return (
        ("AUTH", access.username, access.password),
        ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", access.master),
    )


def primary_from(replies: Sequence[object]) -> Endpoint:
    """Where the primary is; ``ConnectionError`` where the Sentinel does not say."""
    for reply in replies:
        if isinstance(reply, ErrorReply):
            raise ConnectionRefusedError(f"a Sentinel does not tell where it is ({reply.code})")
    address = replies[-1]
    if not isinstance(address, list) or len(address) != 2:
        raise ConnectionRefusedError("a Sentinel knows no primary of that name")
    host, port = address
    return bytes(host).decode("utf-8", "replace"), int(port)


def asking_for_slot(binding: Binding) -> Words:
    """What is sent to a node of a Cluster, which answers it, or says who does."""
    return ("HGET", keys.limits(binding.tenant), "replicas")


def moved_to(reply: object, node: Endpoint) -> Endpoint | None:
    """Where the slot is instead; None where it is on the node. Raises ``ConnectionError`` where the
    Cluster has it nowhere."""
    if not isinstance(reply, ErrorReply):
        return None
    if reply.code == "CLUSTERDOWN":
        raise ConnectionRefusedError("its Cluster is down")
    return _target(reply, node) if reply.code == "MOVED" else None


def redirected(
    replies: Sequence[object], commands: Sequence[Words], node: Endpoint
) -> tuple[Endpoint, tuple[int, ...]] | None:
    """Where the slot is on its way to, and which of the commands to ask there: those whose keys are
    not here any more, and with a write a WAIT, which counts for the node that it is sent to."""
    asked = [
        at for at, one in enumerate(replies) if isinstance(one, ErrorReply) and one.code == "ASK"
    ]
    if not asked:
        return None
    first = replies[asked[0]]
    assert isinstance(first, ErrorReply)  # noqa: S101 - as it was found
    writes = any(commands[at][0] != "HGET" for at in asked)
    waits = [at for at, words in enumerate(commands) if writes and words[0] == "WAIT"]
    return _target(first, node), tuple(sorted({*asked, *waits}))


def asking(commands: Sequence[Words]) -> list[Words]:
    """The commands for a node to which their slot is on its way, each after an ASKING."""
    return [words for command in commands for words in (("ASKING",), command)]


def _target(redirect: ErrorReply, node: Endpoint) -> Endpoint:
    """``MOVED 3999 host:port``; without a host it is the node's own."""
    host, _, port = redirect.text.rpartition(" ")[2].rpartition(":")
    if not port.isdecimal():
        raise ConnectionRefusedError("a node of its Cluster redirects in a way that is not known")
    return host.strip("[]") or node[0], int(port)
