"""What an agent may do in Redis, as a pure function of (access, over quota, held, off).

The rules are an explicit allowlist, never categories: Redis 8 puts module commands into ``@read``
and ``@write``, and a category lets SCAN, CLIENT TRACKING or FUNCTION DUMP show a neighbour's names.
A plain Redis client gets strings, lists, hashes and sorted sets under its own prefix. What is left
out on purpose: everything that names no key but shows or changes the whole server (SCAN, KEYS,
DBSIZE, INFO, EVAL, SCRIPT, FUNCTION, PUBLISH), what leaves the accounted keyspace (COPY, MOVE,
SELECT of another database), what writes although it is flagged as a read (XREADGROUP, PFDEBUG) and
SORT, which reads keys that it does not name. HELLO, AUTH, RESET and QUIT cannot be denied by any
rule, so they are not in it.

Under Strict isolation (``own_keys``) the prefix is narrower: an agent reaches its own
conversations, data keys and indexes, and the shared contexts. What counts the tenant as a whole
(``x``, ``u``, ``q``) stays one for all its agents.

A Steward may erase and export a person; Redis sees no difference to ReadWrite. Any agent may push
to the queue of erasures; the operator honours what a Steward's audit key made. An export reads,
and only the SDK refuses it to others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

from memtenant.api.tenant import AccessMode, AgentAccess
from memtenant.errors import InvalidResource
from memtenant.tenancy import keys
from memtenant.tenancy.identity import (
    USER_PREFIX,
    AgentName,
    Slot,
    TenantId,
    agent_user,
)

__all__ = [
    "AccessMode",
    "AccessState",
    "AclUser",
    "AgentAccess",
    "UserName",
    "names_user",
    "parse_user",
    "render_user",
    "setuser_args",
    "template_digest",
]


@dataclass(frozen=True, slots=True)
class AccessState:
    """What restricts a tenant now, beyond the access of each agent.

    over_quota: content may be read and deleted, not written.
    held: a legal hold or a content minimum stands: content may be read and appended to; nothing
        overwrites, removes or expires it.
    off: bookkeeping was flooded, or access is revoked: nobody gets in.
    """

    over_quota: bool = False
    held: bool = False
    off: bool = False

    @property
    def mode(self) -> AccessMode:
        """The state's name; held and over quota together mean read-only."""
        if self.off:
            return AccessMode.OFF
        if self.held and self.over_quota:
            return AccessMode.HELD_OVER_QUOTA
        if self.held:
            return AccessMode.HELD
        return AccessMode.OVER_QUOTA if self.over_quota else AccessMode.READ_WRITE


@dataclass(frozen=True, slots=True)
class AclUser:
    """One ACL user as it should be on every node.

    password_hashes: SHA-256 in lower-case hex, without ``#``; the repr does not show them.
    rules: the arguments of ACL SETUSER after the passwords, selectors in parentheses.
    """

    name: str
    enabled: bool
    password_hashes: tuple[str, ...] = field(repr=False)
    rules: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, order=True)
class UserName:
    """Whose user an ACL username is."""

    tenant: TenantId
    agent: AgentName
    slot: Slot

    def __str__(self) -> str:
        return agent_user(self.tenant, self.agent, self.slot)


_AGENT = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_USER = re.compile(
    rf"{re.escape(USER_PREFIX)}(?=[^.]{{1,63}}\.){_LABEL}\.(?=[^.]{{1,40}}\.){_LABEL}"
    rf"\.(?=[^.]{{1,40}}\.){_LABEL}\.[ab]"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def names_user(name: str) -> bool:
    """Whether `parse_user` would tell whose user it is; for a look at all names of a server."""
    return _USER.fullmatch(name) is not None


def parse_user(name: str) -> UserName | None:
    """Whose user it is, or None for a user that memtenant did not name and never touches."""
    parts = name.removeprefix(USER_PREFIX).split(".")
    if not name.startswith(USER_PREFIX) or len(parts) != 4:
        return None
    namespace, tenant, agent, slot = parts
    if slot not in ("a", "b") or not _AGENT.fullmatch(agent):
        return None
    try:
        return UserName(TenantId(namespace, tenant), agent, slot)
    except InvalidResource:
        return None


# Without a key. redis-py sends CLIENT SETINFO at each connect, and a denial fills the ACL LOG;
# WAIT is what `durability: Replicated` sends. SELECT 0 is what other clients send.
_SESSION = (
    "acl|whoami",
    "client|setinfo",
    "client|setname",
    "discard",
    "echo",
    "exec",
    "multi",
    "ping",
    "select|0",
    "time",
    "unwatch",
    "wait",
    "watch",
)
_READS = (
    "exists",
    "expiretime",
    "get",
    "getrange",
    "hexists",
    "hget",
    "hgetall",
    "hkeys",
    "hlen",
    "hmget",
    "hscan",
    "hstrlen",
    "hvals",
    "lindex",
    "llen",
    "lpos",
    "lrange",
    "mget",
    "pexpiretime",
    "pttl",
    "strlen",
    "ttl",
    "type",
    "zcard",
    "zcount",
    "zmscore",
    "zrange",
    "zrangebyscore",
    "zrank",
    "zrevrange",
    "zscan",
    "zscore",
)
# Cannot make a key larger. No LSET: over quota it wrote 50 MB (measured).
_REMOVALS = (
    "del",
    "expire",
    "expireat",
    "getdel",
    "hdel",
    "lpop",
    "lrem",
    "ltrim",
    "pexpire",
    "pexpireat",
    "rpop",
    "unlink",
    "zrem",
    "zremrangebyrank",
    "zremrangebyscore",
)
_WRITES = (
    "append",
    "hincrby",
    "hset",
    "hsetnx",
    "incrby",
    "lpush",
    "lset",
    "persist",
    "rpush",
    "set",
    "setnx",
    "zadd",
    "zincrby",
)


def render_user(
    tenant: TenantId,
    agent: AgentName,
    slot: Slot,
    *,
    access: AgentAccess,
    state: AccessState,
    password_hashes: tuple[str, ...],
    commands: frozenset[str],
    own_keys: bool = False,
) -> AclUser:
    """The ACL user of one slot of an agent in this state.

    ``commands`` is the server's COMMAND LIST in lower case: SETUSER fails as a whole at a command
    that the server does not know (``client|setinfo`` on Redis 7.0). ``own_keys``: of the tenant's
    content only the agent's own and the shared contexts (Strict isolation). Raises ``ValueError``
    where a password hash is not 64 lower-case hex digits.
    """
    if not all(_SHA256.fullmatch(digest) for digest in password_hashes):
        raise ValueError(f"a password hash of {agent_user(tenant, agent, slot)} is not SHA-256 hex")
    return AclUser(
        name=agent_user(tenant, agent, slot),
        enabled=not state.off,
        password_hashes=password_hashes,
        rules=_rules(tenant, access, state, commands, agent if own_keys else ""),
    )


def _rules(
    tenant: TenantId,
    access: AgentAccess,
    state: AccessState,
    commands: frozenset[str],
    owner: AgentName = "",
) -> tuple[str, ...]:
    if state.mode is AccessMode.OFF:
        # Open connections outlive `off` until they are killed; without commands they do nothing.
        return ("-@all",)
    mode = AccessMode.HELD_OVER_QUOTA if access is AgentAccess.READ_ONLY else state.mode
    rules = _RulesFor(tenant, commands, owner)
    match mode:
        case AccessMode.READ_WRITE:
            return rules.normal()
        case AccessMode.OVER_QUOTA:
            return rules.over_quota()
        case AccessMode.HELD:
            return rules.held()
        case _:
            return rules.read_only()


@dataclass(frozen=True, slots=True)
class _RulesFor:
    """The rule forms of one tenant on one server (DATA.md, ACL); ``owner`` is the agent that
    reaches only its own content, empty where it reaches all of the tenant's."""

    tenant: TenantId
    commands: frozenset[str]
    owner: AgentName = ""

    def normal(self) -> tuple[str, ...]:
        return (
            *self._root("~", (*_SESSION, *_READS, *_REMOVALS, *_WRITES)),
            *self._appendable_bookkeeping(),
            *self._always(),
        )

    def over_quota(self) -> tuple[str, ...]:
        """Readable and deletable; the deleting Function still keeps its books.

        No new DEK and no new index entry: HSETNX pushed 60 MB past a quota (measured).
        """
        return (
            *self._root("~", (*_SESSION, *_READS, *_REMOVALS)),
            *self._bookkeeping_of_conversations(),
            *self._readable_bookkeeping(),
            *self._always(),
        )

    def held(self) -> tuple[str, ...]:
        """Appends only: LSET, LPOP and EXPIRE destroy as well as DEL does."""
        return (
            *self._root("%R~", (*_SESSION, *_READS)),
            self._selector(("rpush",), f"~{self._conversations}*:l"),
            *self._bookkeeping_of_conversations(),
            *self._appendable_bookkeeping(),
            *self._always(),
        )

    def read_only(self) -> tuple[str, ...]:
        return (
            *self._root("%R~", (*_SESSION, *_READS)),
            *self._readable_bookkeeping(),
            *self._always(),
        )

    def _root(self, permission: str, commands: tuple[str, ...]) -> tuple[str, ...]:
        patterns = (
            *self._content,
            keys.conversations(self.tenant),
            keys.usage(self.tenant),
        )
        return (
            "-@all",
            *(f"{permission}{pattern}" for pattern in patterns),
            *_allowed(commands, self.commands),
        )

    def _bookkeeping_of_conversations(self) -> tuple[str, ...]:
        heads = f"~{self._conversations}*:h"
        # PERSIST: the head of a deleted conversation expires; an append under a hold keeps it.
        return (
            self._selector(("hset", "hincrby", "persist"), heads, f"~{keys.usage(self.tenant)}"),
            self._selector(("zadd",), f"~{keys.conversations(self.tenant)}"),
        )

    def _appendable_bookkeeping(self) -> tuple[str, ...]:
        return (
            self._selector(("hsetnx", "hget"), *self._data_keys("~")),
            self._selector(("rpush", "lrange"), f"~{self._indexes}"),
        )

    def _readable_bookkeeping(self) -> tuple[str, ...]:
        return (
            self._selector(("hget",), *self._data_keys("%R~")),
            self._selector(("lrange",), f"%R~{self._indexes}"),
        )

    def _always(self) -> tuple[str, ...]:
        """Reading is audited and bounded, so these stay in every state.

        FCALL needs full permission on the keys that it declares; what the Function then does is
        checked command by command against the other rules.
        """
        return (
            self._selector(
                ("rpush",),
                f"%W~{keys.audit_queue(self.tenant)}",
                f"%W~{keys.erasure_requests(self.tenant)}",
            ),
            self._selector(("hget", "hmget"), f"%R~{keys.limits(self.tenant)}"),
            self._selector(("hget", "hgetall"), f"%R~{keys.erasure_receipts(self.tenant)}"),
            self._selector(("fcall", "fcall_ro"), f"~{keys.prefix(self.tenant)}*"),
        )

    @property
    def _conversations(self) -> str:
        """What the keys of the conversations begin with."""
        base = keys.records(self.tenant)
        return f"{base}{keys.own_scope(self.owner)}:" if self.owner else base

    @property
    def _content(self) -> tuple[str, ...]:
        if not self.owner:
            return (f"{self._conversations}*",)
        return f"{self._conversations}*", f"{keys.records(self.tenant)}c:*"

    def _data_keys(self, permission: str) -> tuple[str, ...]:
        aliases: tuple[str, ...] = ("*",)
        if self.owner:
            aliases = (keys.own_alias(self.owner, "*"), keys.shared_alias("*"))
        return tuple(f"{permission}{keys.dek(self.tenant, alias)}" for alias in aliases)

    @property
    def _indexes(self) -> str:
        alias = keys.own_alias(self.owner, "*") if self.owner else "*"
        return keys.subject_index(self.tenant, alias)

    def _selector(self, commands: Sequence[str], *patterns: str) -> str:
        return f"({' '.join((*(f'+{command}' for command in commands), *patterns))})"


@lru_cache(maxsize=64)
def _allowed(commands: tuple[str, ...], known: frozenset[str]) -> tuple[str, ...]:
    """The rules that allow these commands where the server knows them: the same objects for all
    tenants, whose users stay in memory."""
    return tuple(f"+{command}" for command in commands if command in known or command == "select|0")


def setuser_args(user: AclUser) -> tuple[str, ...]:
    """The arguments of ACL SETUSER that make the user exactly so, whatever it was before.

    One SETUSER is atomic, and repeating it keeps the user's connections (measured).
    """
    return (
        user.name,
        "reset",
        "on" if user.enabled else "off",
        *(f"#{digest}" for digest in user.password_hashes),
        *user.rules,
    )


def template_digest(commands: frozenset[str], *, own_keys: bool = False) -> str:
    """A digest of what `render_user` makes of these commands: a proof holds for one digest.

    Two releases, or two servers, that render the same rules have the same digest (hex SHA-256).
    """
    sample = TenantId("sample-namespace", "sample-tenant")
    digest = hashlib.sha256()
    flags = (False, True)
    for access, over_quota, held, off in product(AgentAccess, flags, flags, flags):
        state = AccessState(over_quota, held, off)
        rules = "\n".join(_rules(sample, access, state, commands, "sample" if own_keys else ""))
        digest.update(f"{access}/{state.mode}\n{rules}\n\n".encode())
    return digest.hexdigest()
