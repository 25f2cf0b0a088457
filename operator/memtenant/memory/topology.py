"""Where a tenant's primary is: the questions to Sentinels and their answers, without I/O."""

from __future__ import annotations

from collections.abc import Sequence

from memtenant.functions.fcall import Words
from memtenant.memory.wire import ErrorReply
from memtenant.tenancy.sentinel import SentinelAccess

__all__ = ["Way", "asking_for_primary", "primary_from"]


class Way:
    """Which Sentinel is asked first. One for each process that opens connections."""

    def __init__(self) -> None:
        self._turns = 0

    def sentinels(self, access: SentinelAccess) -> tuple[tuple[str, int], ...]:
        """All Sentinels, the one that led to the primary last first."""
        first = self._turns % len(access.endpoints)
        return access.endpoints[first:] + access.endpoints[:first]

    def turn(self) -> None:
        """The first one did not lead there: another is asked first."""
        self._turns += 1


def asking_for_primary(access: SentinelAccess) -> tuple[Words, ...]:
    """What is sent to a Sentinel."""
    return (
        ("AUTH", access.username, access.password),
        ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", access.master),
    )


def primary_from(replies: Sequence[object]) -> tuple[str, int]:
    """Where the primary is; ``ConnectionError`` where the Sentinel does not say."""
    for reply in replies:
        if isinstance(reply, ErrorReply):
            raise ConnectionRefusedError(f"a Sentinel does not tell where it is ({reply.code})")
    address = replies[-1]
    if not isinstance(address, list) or len(address) != 2:
        raise ConnectionRefusedError("a Sentinel knows no primary of that name")
    host, port = address
    return bytes(host).decode("utf-8", "replace"), int(port)
