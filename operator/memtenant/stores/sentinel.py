"""Sentinels: where the primary of a store is, and the one question that agents may ask there.

Whoever may command a Sentinel can send every agent, and its password, to a server of his own. So a
Sentinel that lets anybody in is refused, the operator's password for it is never given to agents,
and they get a user of their own, who may ask for the primary's address and nothing else. Sentinels
share no users: each gets it, and one that is new or was replaced gets it at the next look.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from redis.exceptions import ResponseError

from memtenant.errors import MemtenantError, StoreRefused, StoreUnavailable
from memtenant.stores.connection import Address, NodeClient, Reply, StoreSettings
from memtenant.stores.nodes import NodeResults, on_every_node
from memtenant.stores.refusals import shown, translated

__all__ = [
    "SentinelSettings",
    "SentinelWatch",
    "Told",
    "admit_agents",
    "agreed",
    "agreed_replicas",
    "ask",
    "chosen",
]

_QUESTION = "+sentinel|get-master-addr-by-name"


@dataclass(frozen=True, slots=True)
class SentinelSettings:
    """Whom to ask for which primary, with the operator's password; and the agents' own login."""

    endpoints: tuple[Address, ...]
    master: str
    password: Callable[[], str] = field(repr=False)
    agents_username: str
    agents_password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Told:
    """What one Sentinel says: who it is, where the primary is, as of which failover (they are
    counted), which other Sentinels there are, why it could not have a primary replaced now, if
    it could not, and how many replicas it knows, reached or not."""

    by: Address
    id: str
    primary: Address
    epoch: int
    others: tuple[Address, ...]
    without_quorum: str
    replicas: int = 0


class SentinelWatch:
    """The Sentinels of one store: those that were declared, and those of which these tell.
    ``replicas`` is how many the primary has, reached or not, as they said last."""

    def __init__(self, store: StoreSettings, settings: SentinelSettings) -> None:
        """``store`` says how its servers are reached, by TLS and in which time."""
        self._settings = settings
        self._store = replace(
            store, username="default", password=settings.password, connections_per_node=1
        )
        self._clients: dict[Address, NodeClient] = {}
        self._known = frozenset(settings.endpoints)
        self.replicas = 0

    async def close(self) -> None:
        """Close every connection."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def primary(self) -> Address:
        """Where the primary is now. Raises what `ask` and `chosen` raise."""
        master = self._settings.master
        declared = await self._ask(self._settings.endpoints)
        if not declared.results:
            declared.require_all()
        first = list(declared.results.values())
        beside = agreed(first) - set(self._settings.endpoints)
        ids = {told.id for told in first}
        more = [one for one in (await self._ask(beside)).results.values() if one.id not in ids]
        told = chosen([*first, *more], master)
        self.replicas = agreed_replicas([*first, *more])
        self._known = frozenset(self._settings.endpoints) | beside
        # All at once: another look may let go of them, too, while they are closed.
        gone = [self._clients.pop(one) for one in self._clients.keys() - self._known]
        for client in gone:
            await client.close()
        return told.primary

    async def _ask(self, sentinels: Iterable[Address]) -> NodeResults[Told]:
        """Those that do not answer are done without; one that lets anybody in is not."""
        asked = await on_every_node(
            sentinels, lambda address: ask(self._client(address), self._settings.master)
        )
        for failure in asked.failures.values():
            if failure.reason == "SentinelOpen":
                raise failure
        return asked

    async def admit_agents(self) -> int:
        """Make the agents' user on every Sentinel that answers; on how many it was not so."""
        login = self._settings
        found = await on_every_node(
            self._known,
            lambda address: admit_agents(
                self._client(address), login.agents_username, login.agents_password
            ),
        )
        if not found.results:
            found.require_all()
        return sum(found.results.values())

    def _client(self, address: Address) -> NodeClient:
        if address not in self._clients:
            self._clients[address] = NodeClient(address, self._store)
        return self._clients[address]


async def ask(sentinel: NodeClient, master: str) -> Told:
    """Raises `StoreUnavailable`, or `StoreRefused`: ``SentinelOpen``, ``SentinelRefused``,
    ``PrimaryUnknown``."""
    try:
        replies = await sentinel.run(
            [
                ("ACL", "GETUSER", "default"),
                ("SENTINEL", "MASTER", master),
                ("SENTINEL", "CKQUORUM", master),
                ("SENTINEL", "SENTINELS", master),
                ("SENTINEL", "MYID"),
            ]
        )
    except StoreRefused as refusal:
        raise _refused(sentinel, refusal) from None
    default, primary, quorum, others, identity = replies
    if _is_open(default):
        raise StoreRefused(
            f"Sentinel {sentinel.address} lets anybody in without a password, who could then send "
            "every agent to a server of his own: set requirepass there, and sentinel-pass for the "
            "Sentinels among themselves",
            reason="SentinelOpen",
        )
    if isinstance(primary, ResponseError):
        if "No such master" in str(primary):
            raise StoreRefused(
                f"Sentinel {sentinel.address} watches no primary named {master!r}: correct "
                "masterName",
                reason="PrimaryUnknown",
            )
        raise _refused(sentinel, translated(primary, str(sentinel.address)))
    fields = _fields(primary)
    return Told(
        by=sentinel.address,
        id=identity.decode() if isinstance(identity, bytes) else "",
        primary=_address(sentinel, fields),
        epoch=int(fields.get("config-epoch", "0")),
        others=tuple(
            _address(sentinel, _fields(one)) for one in (others if isinstance(others, list) else ())
        ),
        without_quorum=shown(quorum) if isinstance(quorum, ResponseError) else "",
        replicas=int(fields.get("num-slaves", "0")),
    )


def agreed(answers: list[Told]) -> frozenset[Address]:
    """The other Sentinels of which more than half tell: one alone could make up any number."""
    named = Counter(other for told in answers for other in {*told.others, told.by})
    return frozenset(other for other, times in named.items() if 2 * times > len(answers))


def agreed_replicas(answers: list[Told]) -> int:
    """As many as more than half know: one that was replaced knows none at first."""
    return sorted((told.replicas for told in answers), reverse=True)[len(answers) // 2]


def chosen(answers: list[Told], master: str) -> Told:
    """Whom to believe: more than half of those that are with a majority, of whatever failover one
    of the others tells.

    One that is cut off from the others may point to a primary that was replaced. Raises
    `StoreUnavailable`: ``SentinelsWithoutQuorum`` where all are cut off, ``SentinelsDisagree``.
    """
    sound = [told for told in answers if not told.without_quorum]
    if not sound:
        raise StoreUnavailable(
            f"The Sentinels of {master!r} could not replace a primary now, so that what they say "
            f"of it may be out of date: {answers[0].without_quorum}",
            reason="SentinelsWithoutQuorum",
        )
    votes = Counter(told.primary for told in sound)
    ((primary, most),) = votes.most_common(1)
    if 2 * most <= len(sound):
        named = ", ".join(str(address) for address in sorted(votes))
        raise StoreUnavailable(
            f"The Sentinels of {master!r} do not agree on its primary ({named}): one is being "
            "replaced, or one of them does not tell the truth",
            reason="SentinelsDisagree",
        )
    return max((told for told in sound if told.primary == primary), key=lambda told: told.epoch)


async def admit_agents(sentinel: NodeClient, username: str, password: str) -> bool:
    """Make the agents' user as it should be, and have the Sentinel keep it; whether it was not."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    if _is_so(await sentinel.call("ACL", "GETUSER", username), digest):
        return False
    rules = ("reset", "on", f"#{digest}", "-@all", _QUESTION)
    await sentinel.call("ACL", "SETUSER", username, *rules)
    await sentinel.call("SENTINEL", "FLUSHCONFIG")
    return True


def _is_so(user: Reply, digest: str) -> bool:
    if not isinstance(user, list):
        return False
    found = dict(zip(user[::2], user[1::2], strict=False))
    flags = found.get(b"flags", ())
    return (
        b"on" in flags
        and b"nopass" not in flags
        and found.get(b"passwords") == [digest.encode()]
        and found.get(b"commands") == f"-@all {_QUESTION}".encode()
        and not found.get(b"selectors")
    )


def _is_open(user: Reply) -> bool:
    fields = dict(zip(user[::2], user[1::2], strict=False)) if isinstance(user, list) else {}
    flags = fields.get(b"flags", ())
    return b"on" in flags and b"nopass" in flags


def _refused(sentinel: NodeClient, refusal: MemtenantError) -> StoreRefused:
    if refusal.reason in ("StoreWrongPassword", "StoreNoLogin"):
        return StoreRefused(
            f"Sentinel {sentinel.address} refused the operator's login: the Secret of "
            "sentinel.authSecretRef has to hold its requirepass",
            reason="SentinelRefused",
        )
    return StoreRefused(
        f"Sentinel {sentinel.address} does not let the operator in as it needs: {refusal}",
        reason="SentinelRefused",
    )


def _address(sentinel: NodeClient, fields: dict[str, str]) -> Address:
    host, port = fields.get("ip", ""), fields.get("port", "")
    if not host or not port.isdecimal():
        raise StoreUnavailable(
            f"Sentinel {sentinel.address} answered in a way that is not understood"
        )
    return Address(host, int(port))


def _fields(reply: Reply) -> dict[str, str]:
    if not isinstance(reply, list):
        return {}
    texts = [one.decode("utf-8", "replace") if isinstance(one, bytes) else "" for one in reply]
    return dict(zip(texts[::2], texts[1::2], strict=False))
