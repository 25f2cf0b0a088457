"""The least-privileged ACL user that the operator needs, and what a given user lacks of it.

Whoever may run ACL SETUSER can make itself anything, so this user is an administrator of users in
the end. It still cannot read or write keys outside ``mt:*``, flush, script, reconfigure, replicate
or shut down by a slip.
"""

from __future__ import annotations

from dataclasses import dataclass

from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError

from memtenant.functions.versions import function_prefix
from memtenant.stores.connection import Command, NodeClient
from memtenant.stores.refusals import translated
from memtenant.tenancy.keys import STORE_EPOCH, STORE_OWNER

__all__ = ["Lacking", "admin_rules", "instance_rules", "missing_permissions"]

_SAMPLE_KEY = "mt:{store.permissions}:o:limits"
_SAMPLE_USER = "mt.store.permissions.check.a"

# Each command that the operator sends, as a call that is queued, judged and discarded. What the
# Functions do that erase a person runs as the operator's user too, command by command.
_USED: tuple[tuple[str, Command], ...] = (
    ("acl|cat", ("ACL", "CAT")),
    ("acl|deluser", ("ACL", "DELUSER", _SAMPLE_USER)),
    ("acl|dryrun", ("ACL", "DRYRUN", _SAMPLE_USER, "PING")),
    ("acl|getuser", ("ACL", "GETUSER", _SAMPLE_USER)),
    ("acl|save", ("ACL", "SAVE")),
    ("acl|setuser", ("ACL", "SETUSER", _SAMPLE_USER)),
    ("acl|users", ("ACL", "USERS")),
    ("bgrewriteaof", ("BGREWRITEAOF",)),
    ("bgsave", ("BGSAVE", "SCHEDULE")),
    ("client|kill", ("CLIENT", "KILL", "USER", _SAMPLE_USER)),
    ("client|list", ("CLIENT", "LIST")),
    ("command|docs", ("COMMAND", "DOCS", "get")),
    ("command|getkeys", ("COMMAND", "GETKEYS", "get", _SAMPLE_KEY)),
    ("command|info", ("COMMAND", "INFO", "get")),
    ("command|list", ("COMMAND", "LIST")),
    ("del", ("DEL", STORE_EPOCH)),
    ("eval_ro", ("EVAL_RO", "return 1", "1", _SAMPLE_KEY)),
    ("exists", ("EXISTS", _SAMPLE_KEY)),
    ("expire", ("EXPIRE", _SAMPLE_KEY, "1")),
    ("fcall", ("FCALL", f"{function_prefix()}delete", "1", _SAMPLE_KEY)),
    ("fcall_ro", ("FCALL_RO", f"{function_prefix()}read", "1", _SAMPLE_KEY)),
    ("function|delete", ("FUNCTION", "DELETE", "memtenant_0")),
    ("function|list", ("FUNCTION", "LIST")),
    ("function|load", ("FUNCTION", "LOAD", "#!lua name=memtenant_0")),
    ("get", ("GET", STORE_EPOCH)),
    ("hdel", ("HDEL", _SAMPLE_KEY, "field")),
    ("hexists", ("HEXISTS", _SAMPLE_KEY, "field")),
    ("hget", ("HGET", _SAMPLE_KEY, "field")),
    ("hgetall", ("HGETALL", STORE_OWNER)),
    ("hincrby", ("HINCRBY", _SAMPLE_KEY, "field", "0")),
    ("hkeys", ("HKEYS", _SAMPLE_KEY)),
    ("hlen", ("HLEN", _SAMPLE_KEY)),
    ("hmget", ("HMGET", _SAMPLE_KEY, "field")),
    ("hset", ("HSET", _SAMPLE_KEY, "field", "value")),
    ("hsetnx", ("HSETNX", STORE_OWNER, "field", "value")),
    ("hstrlen", ("HSTRLEN", _SAMPLE_KEY, "field")),
    ("info", ("INFO", "server")),
    ("lindex", ("LINDEX", _SAMPLE_KEY, "-1")),
    ("llen", ("LLEN", _SAMPLE_KEY)),
    ("lrange", ("LRANGE", _SAMPLE_KEY, "0", "0")),
    ("lrem", ("LREM", _SAMPLE_KEY, "0", "value")),
    ("lset", ("LSET", _SAMPLE_KEY, "0", "value")),
    ("ltrim", ("LTRIM", _SAMPLE_KEY, "1", "0")),
    ("memory|usage", ("MEMORY", "USAGE", _SAMPLE_KEY)),
    ("persist", ("PERSIST", _SAMPLE_KEY)),
    ("pexpire", ("PEXPIRE", _SAMPLE_KEY, "1")),
    ("ping", ("PING",)),
    ("pttl", ("PTTL", _SAMPLE_KEY)),
    ("rpop", ("RPOP", _SAMPLE_KEY)),
    ("rpush", ("RPUSH", _SAMPLE_KEY, "value")),
    ("scan", ("SCAN", "0")),
    ("set", ("SET", STORE_EPOCH, "value")),
    ("time", ("TIME",)),
    ("type", ("TYPE", _SAMPLE_KEY)),
    ("unlink", ("UNLINK", _SAMPLE_KEY)),
    ("zadd", ("ZADD", _SAMPLE_KEY, "NX", "0", "member")),
    ("zcard", ("ZCARD", _SAMPLE_KEY)),
    ("zrangebyscore", ("ZRANGEBYSCORE", _SAMPLE_KEY, "0", "0")),
    ("zrem", ("ZREM", _SAMPLE_KEY, "member")),
    ("zscore", ("ZSCORE", _SAMPLE_KEY, "member")),
)
_IN_CLUSTER: tuple[tuple[str, Command], ...] = (
    ("asking", ("ASKING",)),
    ("cluster|info", ("CLUSTER", "INFO")),
    ("cluster|nodes", ("CLUSTER", "NODES")),
    ("readonly", ("READONLY",)),
)
_FRAME = ("client|setinfo", "discard", "exec", "multi", "unwatch", "watch")
_OPTIONAL = ("config|get",)
_MANAGED = frozenset({"acl|deluser", "acl|getuser", "acl|setuser", "acl|users"})


def admin_rules(commands: frozenset[str] | None = None) -> tuple[str, ...]:
    """ACL SETUSER rules of the operator's user, without flags and passwords.

    ``commands`` is the server's COMMAND LIST; None leaves out what Redis 7.0 does not know.
    """
    used = {name for name, _ in (*_USED, *_IN_CLUSTER)}
    names = sorted(used | {*_FRAME, *_OPTIONAL})
    known = [
        name
        for name in names
        if (name != "client|setinfo" if commands is None else name in commands)
    ]
    return ("resetkeys", "resetchannels", "-@all", "~mt:*", *(f"+{name}" for name in known))


def instance_rules() -> tuple[str, ...]:
    """The operator's rules on an instance of a tenant's own, whose size it also sets. Without what
    Redis 7.0 does not know: they are written before the server is asked."""
    return (*admin_rules(), "+config|set")


@dataclass(frozen=True, slots=True)
class Lacking:
    """Commands that the operator's user may not run (``denied``), and those among the user
    management that the server does not offer to anybody (``withheld``)."""

    denied: tuple[str, ...]
    withheld: tuple[str, ...]


async def missing_permissions(node: NodeClient, *, in_cluster: bool = False) -> Lacking:
    """Ask the server about every command, without an effect: queued in MULTI, then discarded.

    Raises `StoreRefused` (``StoreFull``) where a full Redis 7.0 queues nothing at all.
    """
    used = (*_USED, *_IN_CLUSTER) if in_cluster else _USED
    async with node.session() as session:
        first = (await session.run([("MULTI",)]))[0]
        if isinstance(first, NoPermissionError):
            return Lacking(("multi",), ())
        replies = await session.run([*(command for _, command in used), ("DISCARD",)])
    denied: list[str] = []
    withheld: list[str] = []
    for (name, _), reply in zip(used, replies, strict=False):
        if not isinstance(reply, ResponseError) or isinstance(reply, ReadOnlyError):
            continue
        if isinstance(reply, OutOfMemoryError) and name in _MANAGED:
            raise translated(reply, str(node.address))
        if isinstance(reply, NoPermissionError):
            denied.append(name)
        elif name in _MANAGED:
            withheld.append(name)
    return Lacking(tuple(denied), tuple(withheld))
