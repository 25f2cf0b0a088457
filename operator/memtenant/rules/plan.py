"""The way from what is to what should be, as a list of printable actions.

A plan holds names and field names, never a secret: it is what ``memtenant plan`` prints and what
the reconcile executes, step by step in this order. Credentials exist in the home namespace before
any server knows them, on every server before they are proven, and are proven before a binding
shows them. An empty plan writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten

from memtenant.rules.acl import AclUser
from memtenant.rules.told import TOLD

__all__ = [
    "NOT_THE_OPERATORS",
    "Action",
    "AddFinalizer",
    "Differences",
    "Disconnect",
    "Prove",
    "RemoveBinding",
    "Revoke",
    "SaveRecord",
    "SetInstance",
    "SetState",
    "SetUsers",
    "WriteBinding",
    "changed_fields",
    "changed_limits",
    "user_actions",
]

NOT_THE_OPERATORS = frozenset({"audit_heartbeat"})
"""Fields of ``o:limits`` that the sealer writes."""

_SHOWN = 6
_LONGEST_WHAT = 100
"""Differences that one line shows, and characters of each: a whole rule has a thousand."""


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Before anything exists outside the object, so that its deletion waits for us."""

    def __str__(self) -> str:
        return "add finalizer"


@dataclass(frozen=True, slots=True)
class SetInstance:
    """Make a Strict tenant's instance what it should be; ``changes`` say what differs."""

    changes: tuple[str, ...]

    def __str__(self) -> str:
        return f"set instance: {'; '.join(self.changes)}"


@dataclass(frozen=True, slots=True)
class Revoke:
    """Remove users from every node and cut their connections."""

    users: tuple[str, ...]

    def __str__(self) -> str:
        return f"revoke ACL user {', '.join(self.users)} on every node"


@dataclass(frozen=True, slots=True)
class SaveRecord:
    """Create or update the tenant record in the home namespace."""

    name: str
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return f"save tenant record {self.name}: {', '.join(self.changes)}"


@dataclass(frozen=True, slots=True)
class SetState:
    """Write fields of the operator's hashes on the store: (hash, field, before, after). The hashes
    are ``access`` and ``limits`` of the tenant, and ``audited``, in which its entry is. ``deeds``
    are the operations that the audit is told of with them."""

    fields: tuple[tuple[str, str, str | None, str | None], ...]
    deeds: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = "; ".join(
            f"{name}.{field}: {_shown(before)} → {_shown(after)}"
            for name, field, before, after in self.fields
            if field != TOLD
        )
        told = f"tell the audit: {', '.join(self.deeds)}" if self.deeds else ""
        return "; ".join(part for part in (f"set {shown}" if shown else "", told) if part)


@dataclass(frozen=True, slots=True)
class SetUsers:
    """Make users on every node what they should be; ``differences`` are (node, user, what)."""

    users: tuple[str, ...]
    differences: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        shown = "; ".join(
            f"{user} on {node}: {shorten(what, _LONGEST_WHAT, placeholder=' …')}"
            for node, user, what in self.differences[:_SHOWN]
        )
        more = len(self.differences) - _SHOWN
        return f"set ACL user {shown}" + (f" (and {more} more)" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Cut the open connections of users that were switched off: `off` alone lets them go on."""

    users: tuple[str, ...]

    def __str__(self) -> str:
        return f"disconnect ACL user {', '.join(self.users)} on every node"


@dataclass(frozen=True, slots=True)
class Prove:
    """Show on every node that the users reach their own keys and nobody else's."""

    users: tuple[str, ...]
    live: bool

    def __str__(self) -> str:
        how = "by ACL and with live connections" if self.live else "by ACL"
        return f"prove isolation of {', '.join(self.users)} {how}"


@dataclass(frozen=True, slots=True)
class WriteBinding:
    """Create or update an agent's binding Secret; ``fields`` are the data keys that change."""

    name: str
    agent: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return f"write binding {self.name} of agent {self.agent}: {', '.join(self.fields)}"


@dataclass(frozen=True, slots=True)
class RemoveBinding:
    """Delete the binding Secret of an agent that is no longer declared."""

    name: str

    def __str__(self) -> str:
        return f"remove binding {self.name}"


Action = (
    AddFinalizer
    | SetInstance
    | Revoke
    | SaveRecord
    | SetState
    | SetUsers
    | Disconnect
    | Prove
    | WriteBinding
    | RemoveBinding
)
"""The closed union of what a tenant's reconcile does."""

Differences = Mapping[str, Mapping[str, tuple[str, ...]]]
"""By node address and username, in words, what differs from the wanted users."""


def user_actions(
    users: Sequence[AclUser], differing: Differences, live: bool
) -> tuple[Action, ...]:
    """What makes the users so on every node: nothing where nothing differs.

    ``live`` asks for probes with the users' own credentials, not only for a look at the rules.
    """
    found = tuple(
        (node, user, what)
        for node, by_user in sorted(differing.items())
        for user, differences in sorted(by_user.items())
        for what in differences
    )
    touched = tuple(sorted({user for _, user, _ in found}))
    off = tuple(user.name for user in users if not user.enabled and user.name in touched)
    on = tuple(user.name for user in users if user.enabled and (live or user.name in touched))
    actions: list[Action] = []
    if touched:
        actions.append(SetUsers(touched, found))
    if off:
        actions.append(Disconnect(off))
    if on:
        actions.append(Prove(on, live))
    return tuple(actions)


def changed_limits(
    before: Mapping[str, str], after: Mapping[str, str]
) -> tuple[tuple[str, str, str | None, str | None], ...]:
    """The fields of ``o:limits`` that differ; what the sealer writes there stays as it is."""
    own = {field: value for field, value in before.items() if field not in NOT_THE_OPERATORS}
    wanted = {field: value for field, value in after.items() if field not in NOT_THE_OPERATORS}
    return changed_fields("limits", own, wanted)


def changed_fields(
    name: str, before: Mapping[str, str], after: Mapping[str, str]
) -> tuple[tuple[str, str, str | None, str | None], ...]:
    """The fields of a hash that differ; a field that is not in ``after`` goes."""
    return tuple(
        (name, field, before.get(field), after.get(field))
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field)
    )


def _shown(value: str | None) -> str:
    return "none" if value is None else value or '""'
