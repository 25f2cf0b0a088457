"""The users of the installation's own processes on a store: the sealer's and the reporter's.

Neither administers anything. The sealer takes from the audit queues what it has archived, and says
that it lives; the reporter reads, and may add an event of its own. Patterns of Redis know no end of
a tenant's name, so ``mt:{*}:q`` also matches a key of content that an agent named so by hand.

One username a role: a new password is set beside the one before, which stays until every pod has
read the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from memtenant.clock import rfc3339
from memtenant.errors import KeyInvalid
from memtenant.rules.acl import AclUser, names_user
from memtenant.tenancy import keys
from memtenant.tenancy.document import DocumentInvalid, Fields, canonical_json, read_json
from memtenant.tenancy.identity import USER_PREFIX
from memtenant.tenancy.storesfile import STORES_FILE, StoreAccess, StoresFile

__all__ = [
    "AUDIT_KEY",
    "INSTALLATION",
    "ROTATE_AFTER",
    "Account",
    "SystemRole",
    "SystemSecret",
    "is_memtenants",
    "render_system_user",
]

ROTATE_AFTER = timedelta(days=30)
"""The age at which a password is replaced."""

AUDIT_KEY = "audit.key"
"""The key of a role's Secret that holds what it authenticates events with: 32 bytes."""

INSTALLATION = "installation"
"""The key of it that holds the installation's id."""

_ACCOUNTS = "accounts.json"
_MAX_BYTES = 1 << 20
_MOST_STORES = 10_000

_SESSION = ("acl|whoami", "client|setinfo", "client|setname", "info", "ping", "time")
# What somebody wrote by hand may have any type.
_READS = (
    "exists",
    "get",
    "getrange",
    "hget",
    "hgetall",
    "hlen",
    "hmget",
    "hscan",
    "lindex",
    "llen",
    "lrange",
    "memory|usage",
    "smembers",
    "sscan",
    "strlen",
    "type",
    "xrange",
    "zcard",
    "zrange",
    "zscan",
    "zscore",
)
_SERVER_READS = (
    "acl|cat",
    "acl|getuser",
    "acl|list",
    "acl|users",
    "cluster|info",
    "cluster|nodes",
    "command|list",
    "dbsize",
    "role",
    "scan",
)


class SystemRole(StrEnum):
    """Whose user it is; the word is in its name, and in the name of its Secret."""

    SEALER = "sealer"
    REPORTER = "reporter"

    @property
    def user(self) -> str:
        """The ACL username: no tenant's, whose names have four parts."""
        return f"{USER_PREFIX}{self.value}"

    @property
    def secret_name(self) -> str:
        """The Secret in the home namespace: fixed, so that it is mounted and granted by name."""
        return f"memtenant-{self.value}"


def is_memtenants(name: str) -> bool:
    """Whether memtenant makes and repairs the ACL user of that name."""
    return names_user(name) or name in _USERS


_USERS = frozenset(role.user for role in SystemRole)


def render_system_user(
    role: SystemRole, *, password_hashes: tuple[str, ...], commands: frozenset[str]
) -> AclUser:
    """The role's user on servers that know these commands (COMMAND LIST, lower case)."""
    rules = _sealer(commands) if role is SystemRole.SEALER else _reporter(commands)
    return AclUser(role.user, enabled=True, password_hashes=password_hashes, rules=rules)


def _sealer(commands: frozenset[str]) -> tuple[str, ...]:
    tenant = "mt:{*}:"
    return (
        "-@all",
        *_known(("discard", "exec", "multi", "unwatch", *_SESSION), commands),
        f"(+llen +lrange +ltrim ~{tenant}q ~{keys.INSTALLATION_QUEUE})",
        f"(+hgetall %R~{keys.STORE_AUDITED})",
        f"(+hget +hmget +hset +watch ~{tenant}o:limits)",
        f"(+hget %R~{tenant}u)",
        f"(+hget +hgetall +hset ~{tenant}o:audit ~{keys.STORE_SEALER})",
    )


def _reporter(commands: frozenset[str]) -> tuple[str, ...]:
    return (
        "-@all",
        "%R~mt:*",
        *_known((*_READS, *_SERVER_READS, *_SESSION), commands),
        f"(+rpush %W~{keys.INSTALLATION_QUEUE})",
    )


def _known(names: tuple[str, ...], commands: frozenset[str]) -> list[str]:
    return [f"+{name}" for name in sorted(names) if name in commands]


@dataclass(frozen=True, slots=True)
class Account:
    """One role's password on one store. The one before stays valid until ``overlap_ends``."""

    created: datetime
    before: str = ""
    overlap_ends: datetime | None = None


@dataclass(frozen=True, slots=True)
class SystemSecret:
    """What a role's Secret holds: its audit key, whose installation it is, the stores with its
    passwords, and how old they are."""

    audit_key: bytes = field(default=b"", repr=False)
    installation: str = ""
    stores: StoresFile = field(default_factory=StoresFile)
    accounts: Mapping[str, Account] = field(default_factory=dict, repr=False)

    def with_store(
        self,
        access: StoreAccess,
        now: datetime,
        mint: Callable[[], str],
        overlap: timedelta,
    ) -> Self:
        """With a store that is reached as ``access`` says, but with the password that is due; the
        one before is valid for another ``overlap``."""
        known, account = self.stores.get(access.name), self.accounts.get(access.name)
        now = now.replace(microsecond=0)
        if known is None or account is None:
            password, account = mint(), Account(now)
        elif now - account.created >= ROTATE_AFTER:
            before = hashlib.sha256(known.password.encode()).hexdigest()
            password, account = mint(), Account(now, before, now + overlap)
        elif account.overlap_ends is not None and account.overlap_ends <= now:
            password, account = known.password, Account(account.created)
        else:
            password = known.password
        return replace(
            self,
            stores=self.stores.put(replace(access, password=password)),
            accounts={**self.accounts, access.name: account},
        )

    def without_store(self, name: str) -> Self:
        """Without a store that is no longer declared."""
        kept = {store: account for store, account in self.accounts.items() if store != name}
        return replace(self, stores=self.stores.without(name), accounts=kept)

    def password_hashes(self, store: str) -> tuple[str, ...]:
        """SHA-256, in lower-case hex, of the passwords that are valid on the store."""
        access = self.stores.get(store)
        if access is None:
            return ()
        before = self.accounts[store].before
        current = hashlib.sha256(access.password.encode()).hexdigest()
        return (current, before) if before else (current,)

    def to_data(self) -> dict[str, bytes]:
        """As the Secret holds it."""
        return {
            AUDIT_KEY: self.audit_key,
            INSTALLATION: self.installation.encode(),
            STORES_FILE: self.stores.to_json(),
            _ACCOUNTS: canonical_json(
                {"stores": [_written(name, one) for name, one in sorted(self.accounts.items())]}
            ),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, bytes]) -> Self:
        """What the Secret holds. What cannot be read is as if it were not there: it is minted
        anew."""
        try:
            stores = StoresFile.from_json(data.get(STORES_FILE, b""))
            fields = read_json(data.get(_ACCOUNTS, b""), limit=_MAX_BYTES)
            accounts = dict(_account(one) for one in fields.each("stores", _MOST_STORES))
        except (KeyInvalid, DocumentInvalid):
            return cls()
        installation = data.get(INSTALLATION, b"").decode("utf-8", "replace")
        return cls(data.get(AUDIT_KEY, b""), installation, stores, accounts)


def _written(name: str, account: Account) -> dict[str, object]:
    overlap = {}
    if account.overlap_ends is not None:
        overlap = {"before": account.before, "overlapEnds": rfc3339(account.overlap_ends)}
    return {"name": name, "created": rfc3339(account.created), **overlap}


def _account(fields: Fields) -> tuple[str, Account]:
    overlaps = "overlapEnds" in fields
    return fields.text("name", 253), Account(
        fields.moment("created"),
        fields.text("before", 64) if overlaps else "",
        fields.moment("overlapEnds") if overlaps else None,
    )
