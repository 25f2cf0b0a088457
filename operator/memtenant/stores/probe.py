"""Proof of one tenant's isolation: its rules as they stand on the node, and its own connection.

The rules are compared and asked about by ACL DRYRUN without the tenant's credentials. A probe logs
in as the tenant and hears the denials itself; what would write is queued in MULTI, where the server
judges it, and discarded, so that nothing stays behind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from redis.exceptions import AskError, NoPermissionError, ReadOnlyError, ResponseError

from memtenant.errors import NotProven, StoreRefused
from memtenant.rules.acl import AclUser, UserName, parse_user
from memtenant.rules.acl_drift import Categories
from memtenant.stores.acl import differing, get_users
from memtenant.stores.connection import Command, NodeClient, Reply, StoreSettings
from memtenant.stores.keyspace import Keyspace
from memtenant.stores.refusals import required_all, shown
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["NEIGHBOUR", "Expectation", "expectations", "probe", "prove_users"]

NEIGHBOUR = TenantId("memtenant-proof", "neighbour")
"""A tenant that stands for all others; its keys need not exist to be denied."""

_COLLEAGUE = "-"
"""Stands for all other agents of a tenant under Strict isolation; no agent is named so."""

_BATCH = 100


@dataclass(frozen=True, slots=True)
class _Check:
    """A call, and whether the user may make it."""

    words: tuple[str, ...]
    allowed: bool


def _checks(owner: UserName, enabled: bool, own_keys: bool) -> tuple[_Check, ...]:
    own, other = owner.tenant, NEIGHBOUR
    colleague = (
        _Check(("GET", f"{_content(replace(owner, agent=_COLLEAGUE))}"), False),
        _Check(("HGET", keys.dek(own, keys.own_alias(_COLLEAGUE, "probe")), "dek"), False),
        _Check(("RPUSH", keys.subject_index(own, keys.own_alias(_COLLEAGUE, "x")), "x"), False),
    )
    return (
        _Check(("GET", _content(owner)), enabled),
        _Check(("HGET", keys.limits(own), "field"), enabled),
        _Check(("GET", f"{keys.records(other)}probe"), False),
        _Check(("RPUSH", keys.audit_queue(other), "value"), False),
        _Check(("HGET", keys.limits(other), "field"), False),
        _Check(("HSET", keys.limits(own), "field", "value"), False),
        _Check(("HGET", keys.access(own), "field"), False),
        _Check(("LRANGE", keys.audit_queue(own), "0", "-1"), False),
        _Check(("DEL", keys.dek(own, "probe")), False),
        _Check(("GET", keys.STORE_EPOCH), False),
        _Check(("SCAN", "0"), False),
        _Check(("EVAL", "return 1", "0"), False),
        *(colleague if own_keys else ()),
    )


def _content(owner: UserName) -> str:
    """A key of content that is the agent's under every isolation."""
    return f"{keys.records(owner.tenant)}{keys.own_scope(owner.agent)}:probe"


async def prove_users(
    node: NodeClient, users: Collection[AclUser], categories: Categories, *, own_keys: bool = False
) -> dict[str, tuple[str, ...]]:
    """What is wrong with the users on the node, in words, by name; proven users are absent.
    ``own_keys``: none may reach another agent's content either (Strict isolation)."""
    failures: dict[str, list[str]] = defaultdict(list)
    replies = await get_users(node, {user.name for user in users})
    for name, found in differing(users, replies, categories).items():
        failures[name] += [f"{node.address}: {name}: {difference}" for difference in found]
    owners = {user.name: parse_user(user.name) for user in users}
    questions = [
        (user.name, check)
        for user in users
        if (owner := owners[user.name]) is not None
        for check in _checks(owner, user.enabled, own_keys)
    ]
    for start in range(0, len(questions), _BATCH):
        batch = questions[start : start + _BATCH]
        commands: list[Command] = [("ACL", "DRYRUN", name, *check.words) for name, check in batch]
        for (name, check), reply in zip(batch, await node.run(commands), strict=True):
            failures[name] += _dryrun_failures(f"{node.address}: {name}", check, reply)
    for name, owner in owners.items():
        if owner is None:
            failures[name].append(f"{node.address}: {name} is not a user that memtenant made")
    return {name: tuple(found) for name, found in failures.items() if found}


def _dryrun_failures(who: str, check: _Check, reply: Reply) -> Iterator[str]:
    what = " ".join(check.words[:2])
    if isinstance(reply, ResponseError):
        yield f"{who}: {what} is not proven: {shown(reply)}"
    elif (reply == b"OK") != check.allowed:
        yield f"{who}: {what} is {'denied' if check.allowed else 'allowed'}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """Whether a user is on, and what it may write now, as the server says without its password."""

    enabled: bool
    writes: tuple[_Check, ...]


async def expectations(node: Keyspace, names: Collection[str]) -> dict[str, Expectation]:
    """What to expect of live probes of the users; `NotProven` for one that is not ours."""
    calls = {name: _writes(name) for name in names}
    replies = iter(
        await node.run(
            [
                command
                for name, writes in calls.items()
                for command in (
                    ("ACL", "GETUSER", name),
                    *(("ACL", "DRYRUN", name, *words) for words in writes),
                )
            ]
        )
    )
    found: dict[str, Expectation] = {}
    for name, writes in calls.items():
        user, *answers = islice(replies, 1 + len(writes))
        if user is None:
            raise NotProven(f"{node.address}: {name} is gone again from there")
        required_all((user, *answers), node.address)
        enabled = isinstance(user, list) and b"on" in user[user.index(b"flags") + 1]
        checks = (_Check(words, a == b"OK") for words, a in zip(writes, answers, strict=True))
        found[name] = Expectation(enabled, tuple(checks))
    return found


def _writes(name: str) -> tuple[tuple[str, ...], ...]:
    owner = parse_user(name)
    if owner is None:
        raise NotProven(f"{name} is not a user that memtenant made")
    content = _content(owner)
    return (("RPUSH", f"{content}:l", "x"), ("SET", content, "x"), ("DEL", content))


async def probe(
    node: NodeClient,
    settings: StoreSettings,
    name: str,
    password: str,
    expected: Expectation,
    *,
    own_keys: bool = False,
) -> None:
    """Log in to the node as the user and try what it may and what it may not.

    Everything goes in one round trip. Raises `NotProven` with everything that is wrong, and
    `StoreUnavailable`.
    """
    owner = parse_user(name)
    if owner is None:
        raise NotProven(f"{name} is not a user that memtenant made")
    checks = (*_checks(owner, expected.enabled, own_keys), *expected.writes)
    reading = [("ACL", "WHOAMI"), checks[0].words, checks[1].words]
    user = NodeClient(node.address, replace(settings, connections_per_node=1), login=False)
    try:
        async with user.session() as session:
            _, whoami, *answers = await session.run(
                [
                    ("AUTH", name, password),
                    *reading,
                    ("MULTI",),
                    *(check.words for check in checks),
                    ("DISCARD",),
                ]
            )
    except StoreRefused as refusal:
        if refusal.reason != "StoreWrongPassword":
            raise
        if not expected.enabled:
            return
        raise NotProven(f"{node.address}: {name} cannot log in with its password") from None
    finally:
        await user.close()
    if not expected.enabled:
        raise NotProven(f"{node.address}: {name} is off but could log in")
    failures = [] if whoami == name.encode() else ["the connection is somebody else's"]
    read, queued = answers[: len(reading) - 1], answers[len(reading) : -1]
    failures += [
        f"{' '.join(words[:2])} is denied"
        for words, reply in zip(reading[1:], read, strict=True)
        if isinstance(reply, NoPermissionError)
    ]
    for check, reply in zip(checks, queued, strict=True):
        failures += _live_failures(check, reply)
    if failures:
        raise NotProven(f"{node.address}: {name}: {'; '.join(failures)}")


def _live_failures(check: _Check, reply: Reply) -> Iterator[str]:
    what = " ".join(check.words[:2])
    denied = isinstance(reply, NoPermissionError)
    # A replica refuses writes, and a node of a Cluster redirects, only after it has judged the
    # permission.
    if isinstance(reply, ResponseError) and not isinstance(
        reply, (NoPermissionError, ReadOnlyError, AskError)
    ):
        yield f"{what} is not proven: {shown(reply)}"
    elif denied == check.allowed:
        yield f"{what} is {'denied' if check.allowed else 'allowed'}"
