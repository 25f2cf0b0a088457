"""A node asked what it is, what it knows, and whether the operator may do there what it has to."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

from memtenant.errors import StoreRefused, StoreUnavailable
from memtenant.stores.admin_acl import missing_permissions
from memtenant.stores.connection import Address, NodeClient, Reply
from memtenant.stores.nodes import AppendOnlyFile, Flavour, NodeFacts, Role
from memtenant.stores.refusals import required

__all__ = ["count_keys", "info_of", "inspect_node", "replays_transactions"]


async def inspect_node(
    node: NodeClient, mode: str = "standalone", *, before: NodeFacts | None = None
) -> NodeFacts:
    """Ask a node what it is. ``mode`` is what it should be: ``standalone`` or ``cluster``.
    ``before`` is what it was: the same process knows what it knew, and is not asked what the
    operator may there while the rules of its user stay.

    Raises `StoreUnavailable`, or `StoreRefused` with the reason ``ACLManagedElsewhere`` (ACL
    SETUSER is renamed or withheld, as managed services do), ``StorePermissionMissing`` (all that
    the operator's user lacks), ``StoreTooOld`` or ``StoreModeUnsupported``.
    """
    replies = await node.run(
        [
            ("INFO", "server"),
            ("INFO", "replication"),
            ("INFO", "persistence"),
            ("INFO", "memory"),
            ("ACL", "GETUSER", "default"),
            ("CONFIG", "GET", "aclfile", "appendfsync"),
            ("ACL", "GETUSER", node.username),
        ]
    )
    server, replication, persistence, memory = (info_of(node, reply) for reply in replies[:4])
    settings = _fields(replies[5])
    _check_kind(node, server, mode)
    run_id, rights = server.get("run_id", ""), _rights(replies[6])
    known = before if before is not None and run_id and before.run_id == run_id else None
    if known is None or not rights or known.rights != rights:
        await _check_permissions(node, in_cluster=mode == "cluster")
    if known is None:
        commands, categories = await _vocabulary(node)
    else:
        commands, categories = known.commands, known.categories
    role = Role.PRIMARY if replication.get("role") == "master" else Role.REPLICA
    online, syncing = _replicas(replication)
    flavour = Flavour.VALKEY if "valkey_version" in server else Flavour.REDIS
    return NodeFacts(
        address=node.address,
        role=role,
        flavour=flavour,
        version=server.get("valkey_version") or server["redis_version"],
        run_id=run_id,
        commands=commands,
        categories=categories,
        replicas=online,
        syncing=syncing,
        link_up=role is Role.PRIMARY or replication.get("master_link_status") == "up",
        append_only=persistence.get("aof_enabled") == "1",
        file=_append_only_file(persistence, settings),
        maxmemory=int(memory.get("maxmemory", "0")),
        maxmemory_policy=memory.get("maxmemory_policy", "unknown"),
        used_memory=int(memory.get("used_memory", "0")),
        users_persist=_aclfile_is_set(settings),
        default_user_open=_is_open(replies[4]),
        replays_transactions=replays_transactions(server, replies[4]),
        server_time=_server_time(server),
        follows=_followed(replication),
        rights=rights,
    )


def _check_kind(node: NodeClient, server: Mapping[str, str], expected: str) -> None:
    version = server.get("redis_version", "0")
    if int(version.partition(".")[0]) < 7:
        raise StoreRefused(
            f"{node.address} runs {version}: ACL selectors and Functions need Redis 7.0, Valkey 8 "
            "or later",
            reason="StoreTooOld",
        )
    mode = server.get("redis_mode") or server.get("server_mode", "standalone")
    if mode != expected:
        raise StoreRefused(
            f"{node.address} runs in {mode} mode, but the store is declared otherwise: say "
            f"{mode} in the MemoryStore",
            reason="StoreModeUnsupported",
        )


async def _check_permissions(node: NodeClient, *, in_cluster: bool) -> None:
    lacking = await missing_permissions(node, in_cluster=in_cluster)
    if lacking.withheld:
        raise StoreRefused(
            f"{node.address} does not let its clients manage users "
            f"({', '.join(lacking.withheld)}): a service that manages users by its own API "
            "cannot be a shared store",
            reason="ACLManagedElsewhere",
        )
    if lacking.denied:
        raise StoreRefused(
            f"{node.address}: the operator's user may not run {', '.join(lacking.denied)}. "
            "`memtenant store acl` prints the user that the operator needs",
            reason="StorePermissionMissing",
        )


async def _vocabulary(node: NodeClient) -> tuple[frozenset[str], Mapping[str, frozenset[str]]]:
    """The node's commands, and which of them its ACL categories hold."""
    listed, categories = (
        _texts(required(reply, node.address))
        for reply in await node.run([("COMMAND", "LIST"), ("ACL", "CAT")])
    )
    held = await node.run([("ACL", "CAT", name) for name in categories])
    return _commands(listed), {
        name: _commands(_texts(required(reply, node.address)))
        for name, reply in zip(categories, held, strict=True)
    }


def _commands(names: Iterable[str]) -> frozenset[str]:
    return _one_of(frozenset(sys.intern(name.lower()) for name in names))


@lru_cache(maxsize=256)
def _one_of(commands: frozenset[str]) -> frozenset[str]:
    """The one that was there first of all that are equal: a hundred instances know the same."""
    return commands


def _replicas(
    replication: Mapping[str, str],
) -> tuple[tuple[Address, ...], tuple[Address, ...]]:
    online: list[Address] = []
    syncing: list[Address] = []
    for number in range(int(replication.get("connected_slaves", "0"))):
        entry = replication.get(f"slave{number}", "")
        fields = dict(part.partition("=")[::2] for part in entry.split(","))
        if not fields.get("ip") or not fields.get("port", "").isdecimal():
            continue
        address = Address(fields["ip"], int(fields["port"]))
        (online if fields.get("state") == "online" else syncing).append(address)
    return tuple(online), tuple(syncing)


def _followed(replication: Mapping[str, str]) -> Address | None:
    host, port = replication.get("master_host"), replication.get("master_port", "")
    return Address(host, int(port)) if host and port.isdecimal() else None


def info_of(node: NodeClient, reply: Reply) -> dict[str, str]:
    """A section of INFO. Raises where the server refused it."""
    raw = required(reply, node.address)
    if not isinstance(raw, bytes):
        raise StoreUnavailable(f"{node.address} answered INFO in a way that is not understood")
    lines = raw.decode("utf-8", "replace").splitlines()
    return dict(line.partition(":")[::2] for line in lines if ":" in line)


async def count_keys(nodes: Iterable[NodeClient]) -> int:
    """How many keys the nodes have, of tenants and others."""
    total = 0
    for node in nodes:
        told = info_of(node, await node.call("INFO", "keyspace")).get("db0", "")
        fields = dict(part.partition("=")[::2] for part in told.split(","))
        total += int(fields.get("keys", "0"))
    return total


def _texts(reply: Reply) -> list[str]:
    if not isinstance(reply, list):
        return []
    return [item.decode("utf-8", "replace") for item in reply if isinstance(item, bytes)]


def _server_time(server: Mapping[str, str]) -> datetime | None:
    microseconds = server.get("server_time_usec", "")
    if not microseconds.isdecimal():
        return None
    return datetime.fromtimestamp(int(microseconds) / 1_000_000, UTC)


def _append_only_file(
    persistence: Mapping[str, str], settings: Mapping[object, object]
) -> AppendOnlyFile:
    fsync = settings.get(b"appendfsync")
    return AppendOnlyFile(
        writable=persistence.get("aof_last_write_status", "ok") == "ok",
        rewritten=persistence.get("aof_last_bgrewrite_status", "ok") == "ok",
        rewriting="1"
        in (
            persistence.get("aof_rewrite_in_progress"),
            persistence.get("aof_rewrite_scheduled"),
        ),
        rewrites=int(persistence.get("aof_rewrites", "0")),
        fsync=fsync.decode() if isinstance(fsync, bytes) else "",
    )


def _aclfile_is_set(settings: Mapping[object, object]) -> bool | None:
    """None where CONFIG GET is denied or withheld."""
    file = settings.get(b"aclfile")
    return None if file is None else bool(file)


def _is_open(reply: Reply) -> bool | None:
    if not isinstance(reply, list):
        return None
    flags = _fields(reply).get(b"flags", ())
    return isinstance(flags, list) and b"on" in flags and b"nopass" in flags


def _rights(user: Reply) -> bytes:
    """A digest of a user's rules, without its passwords; empty where it may not be asked."""
    fields = _fields(user)
    rules = [fields.get(name) for name in (b"flags", b"commands", b"keys", b"selectors")]
    return hashlib.sha256(repr(rules).encode()).digest() if fields else b""


def replays_transactions(server: Mapping[str, str], default: Reply) -> bool:
    """Whether a restart brings back what is in the append-only file, by INFO and by what GETUSER
    answered of `default`: Redis 7.0 and 8.2 read the file by that user's rules, also where it is
    off, and pass over a MULTI … EXEC that they do not allow."""
    fields = _fields(default)
    allowed = (fields.get(b"commands"), fields.get(b"keys")) == (b"+@all", b"~*")
    return "valkey_version" in server or allowed


def _fields(reply: Reply) -> dict[object, object]:
    if not isinstance(reply, list):
        return {}
    return dict(zip(reply[::2], reply[1::2], strict=False))
