"""What the operator remembers of a tenant outside the tenant's namespace.

One Secret in the home namespace per tenant, ``<namespace>.<tenant>-keyring``: it outlives the
tenant's namespace, so a deletion of the namespace loses nothing that the deletion policy keeps.
It is written before anything that depends on it, by create or by a guarded update.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from memtenant.clock import rfc3339, utc_from_rfc3339
from memtenant.errors import InvalidResource, KeyUnavailable
from memtenant.rules.credentials import Credential, Principal
from memtenant.tenancy.identity import AgentName, TenantId, agent_name, agent_user

__all__ = [
    "LABEL_NAME",
    "LABEL_NAMESPACE",
    "LABEL_PHASE",
    "RECORD_COMPONENT",
    "RECORD_LABEL",
    "RELEASE_ANNOTATION",
    "KeyMotion",
    "Phase",
    "TenantRecord",
    "record_labels",
    "record_name",
    "recorded_tenant",
]

LABEL_NAMESPACE = "memtenant.dev/tenant-namespace"
LABEL_NAME = "memtenant.dev/tenant"
LABEL_PHASE = "memtenant.dev/phase"
RECORD_LABEL = "memtenant.dev/component"
RECORD_COMPONENT = "tenant-record"

RELEASE_ANNOTATION = "memtenant.dev/release-to"
"""Set by a platform admin on a retained tenant's record: the uid of the namespace that may adopt
it, or ``*`` for any namespace of the same name."""

_FORMAT = 1
_NAME_END = "-keyring"


class Phase(StrEnum):
    """What stands behind a record."""

    ACTIVE = "Active"
    RETAINED = "Retained"
    DELETING = "Deleting"
    ORPHANED = "Orphaned"


@dataclass(frozen=True, slots=True)
class KeyMotion:
    """How far a rotation of the tenant's keys has come (`memtenant.rules.keymotion`).

    ``token`` is the last request that was honoured; ``shown_since`` when all bindings were first
    seen to have the keyring as it is; ``least`` the least version of a data key that the Functions
    accept (0: whatever is alive), and ``least_since`` when the store was first seen to say so.
    """

    token: str = ""
    shown_since: datetime | None = None
    least: int = 0
    least_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """The record's content. ``keyring`` is opaque here (`memtenant.crypto.keyring_record` reads
    it); it is empty once the keys were destroyed, which only a record in deletion or an orphan may
    be.

    ``incarnation`` is the uid of the MemoryTenant that first made it: the store's access hash names
    it too, so that data is never taken for another's. ``agents`` are those that have bindings;
    ``last_version`` is the highest version of any credential that ever was, so that none repeats.
    ``policy`` is the RetentionPolicy in force and ``matters`` the holds that
    stand, as `rules.policy` writes them: they count when the store cannot be asked.
    ``since`` is when ``phase`` began; ``rotate_token`` the last rotation request that was
    honoured; ``left`` says in words what an Orphaned tenant left behind.

    ``shred_through`` (0: nothing) asks that every key version up to it be destroyed, because the
    data key of an erased subject was under one of them; ``shred_due`` is when a new version is
    begun for that, at the latest. Who erases raises the one and brings the other forward; both go
    when no version up to ``shred_through`` is left in the keyring and the bindings.
    """

    tenant: TenantId
    uid: str
    incarnation: str
    namespace_uid: str
    store: str
    phase: Phase
    since: datetime
    principals: Mapping[AgentName, Principal] = field(default_factory=dict, repr=False)
    keyring: bytes = field(default=b"", repr=False)
    agents: tuple[AgentName, ...] = ()
    last_version: int = 0
    rotate_token: str = ""
    policy: str = ""
    matters: str = "{}"
    deletion_policy: str = "Retain"
    isolation: str = "Moderate"
    encryption: str = "Enabled"
    quota_bytes: int = 0
    left: str = ""
    motion: KeyMotion = field(default_factory=KeyMotion)
    shred_through: int = 0
    shred_due: datetime | None = None

    def retiring_users(self) -> frozenset[str]:
        """The usernames that wait to be revoked."""
        return frozenset(
            agent_user(self.tenant, name, slot)
            for name, principal in self.principals.items()
            for slot, credential in principal.slots.items()
            if credential.retiring_since is not None
        )

    def all_users(self) -> tuple[str, ...]:
        """Every username that exists or may exist on a node because of this record."""
        return tuple(
            agent_user(self.tenant, name, slot)
            for name, principal in sorted(self.principals.items())
            for slot in sorted(principal.slots)
        )

    def to_data(self) -> dict[str, bytes]:
        """The Secret's data: ``record.json``, ``credentials.json`` and ``keyring.json``."""
        record = {
            "format": _FORMAT,
            "tenantId": str(self.tenant),
            "uid": self.uid,
            "incarnation": self.incarnation,
            "namespaceUid": self.namespace_uid,
            "store": self.store,
            "phase": self.phase.value,
            "since": rfc3339(self.since),
            "agents": list(self.agents),
            "lastVersion": self.last_version,
            "rotateToken": self.rotate_token,
            "policy": self.policy,
            "matters": self.matters,
            "deletionPolicy": self.deletion_policy,
            "isolation": self.isolation,
            "encryption": self.encryption,
            "quotaBytes": self.quota_bytes,
            "left": self.left,
        }
        # Only where there is something to say: an upgrade rewrites no record.
        if self.motion != KeyMotion():
            record["keys"] = _motion(self.motion)
        if self.shred_through:
            record["shredThrough"] = self.shred_through
        if self.shred_due is not None:
            record["shredDue"] = rfc3339(self.shred_due)
        credentials = {
            name: {
                "active": principal.active,
                "slots": {slot: _credential(c) for slot, c in sorted(principal.slots.items())},
            }
            for name, principal in sorted(self.principals.items())
        }
        return {
            "record.json": _canonical(record),
            "credentials.json": _canonical(credentials),
            "keyring.json": self.keyring,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, bytes], name: str) -> TenantRecord:
        """Read what `to_data` wrote; `KeyUnavailable` (never a new record) when it is damaged."""
        try:
            record = _parse(data)
            if record_name(record.tenant) != name:
                raise ValueError("another tenant's record")  # noqa: TRY301 - one message for all
        except (
            InvalidResource,
            AttributeError,
            KeyError,
            OverflowError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise KeyUnavailable(
                f"The tenant record {name} in the home namespace is damaged "
                f"({type(error).__name__}): restore the Secret from a backup. Nothing new is made "
                "in its place, because that would make the tenant's data unreadable",
                reason="RecordDamaged",
            ) from None
        return record


def record_name(tenant: TenantId) -> str:
    """The record's Secret: dots cannot occur in either part, so names never collide."""
    return f"{tenant}{_NAME_END}"


def recorded_tenant(secret: str) -> TenantId | None:
    """Whose record a Secret of this name in the home namespace may be; None: nobody's."""
    if not secret.endswith(_NAME_END):
        return None
    try:
        return TenantId.parse(secret.removesuffix(_NAME_END))
    except InvalidResource:
        return None


def record_labels(record: TenantRecord) -> dict[str, str]:
    """Labels by which records are found: of a namespace, of a tenant, in a phase."""
    return {
        RECORD_LABEL: RECORD_COMPONENT,
        LABEL_NAMESPACE: record.tenant.namespace,
        LABEL_NAME: record.tenant.name,
        LABEL_PHASE: record.phase.value,
    }


def _credential(credential: Credential) -> dict[str, object]:
    fields: dict[str, object] = {
        "password": credential.password,
        "version": credential.version,
        "created": rfc3339(credential.created),
    }
    if credential.retiring_since is not None:
        fields["retiringSince"] = rfc3339(credential.retiring_since)
    return fields


def _motion(motion: KeyMotion) -> dict[str, object]:
    fields = {
        "token": motion.token,
        "shownSince": rfc3339(motion.shown_since) if motion.shown_since else "",
        "least": motion.least,
        "leastSince": rfc3339(motion.least_since) if motion.least_since else "",
    }
    return {name: value for name, value in fields.items() if value}


def _parse(data: Mapping[str, bytes]) -> TenantRecord:
    fields = json.loads(data["record.json"])
    credentials = json.loads(data["credentials.json"])
    if fields["format"] != _FORMAT:
        raise ValueError("format")
    record = TenantRecord(
        tenant=TenantId.parse(_text(fields["tenantId"])),
        uid=_text(fields["uid"]),
        incarnation=_text(fields["incarnation"]),
        namespace_uid=_text(fields["namespaceUid"]),
        store=_text(fields["store"]),
        phase=Phase(fields["phase"]),
        since=utc_from_rfc3339(fields["since"]),
        principals={
            agent_name(agent): _parse_principal(entry) for agent, entry in credentials.items()
        },
        keyring=data["keyring.json"],
        agents=tuple(agent_name(agent) for agent in fields["agents"]),
        last_version=_count(fields["lastVersion"]),
        rotate_token=_text(fields["rotateToken"]),
        policy=_text(fields["policy"]),
        matters=_text(fields["matters"]),
        deletion_policy=_text(fields["deletionPolicy"]),
        isolation=_text(fields["isolation"]),
        encryption=_text(fields["encryption"]),
        quota_bytes=_count(fields["quotaBytes"]),
        left=_text(fields["left"]),
        motion=_parse_motion(fields.get("keys", {})),
        shred_through=_count(fields.get("shredThrough", 0)),
        shred_due=_moment(fields.get("shredDue")),
    )
    if not record.keyring and record.phase in (Phase.ACTIVE, Phase.RETAINED):
        # Read as a tenant that never had keys, it would get new ones over data under the old.
        raise ValueError("keyring")
    return record


def _parse_motion(entry: Mapping[str, object]) -> KeyMotion:
    return KeyMotion(
        token=_text(entry.get("token", "")),
        shown_since=_moment(entry.get("shownSince")),
        least=_count(entry.get("least", 0)),
        least_since=_moment(entry.get("leastSince")),
    )


def _parse_principal(entry: Mapping[str, Mapping[str, Mapping[str, object]]]) -> Principal:
    slots = {slot: _parse_credential(fields) for slot, fields in entry["slots"].items()}
    principal = Principal(_text(entry["active"]), slots)
    if not slots.keys() <= {"a", "b"} or slots[principal.active].retiring_since is not None:
        raise ValueError("slots")
    return principal


def _parse_credential(entry: Mapping[str, object]) -> Credential:
    return Credential(
        _text(entry["password"]),
        _count(entry["version"]),
        utc_from_rfc3339(_text(entry["created"])),
        _moment(entry.get("retiringSince")),
    )


def _moment(value: object) -> datetime | None:
    return None if value is None else utc_from_rfc3339(_text(value))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("not a whole number")
    return value


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
