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
from memtenant.errors import KeyUnavailable
from memtenant.rules.credentials import Credential, Principal
from memtenant.tenancy.identity import AgentName, TenantId, agent_user

__all__ = [
    "LABEL_NAME",
    "LABEL_NAMESPACE",
    "LABEL_PHASE",
    "RECORD_COMPONENT",
    "RECORD_LABEL",
    "RELEASE_ANNOTATION",
    "Phase",
    "TenantRecord",
    "record_labels",
    "record_name",
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


class Phase(StrEnum):
    """What stands behind a record."""

    ACTIVE = "Active"
    RETAINED = "Retained"
    DELETING = "Deleting"
    ORPHANED = "Orphaned"


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """The record's content. ``keyring`` is opaque here (`memtenant.crypto.keyring` reads it); it is
    empty once the keys were destroyed.

    ``incarnation`` is the uid of the MemoryTenant that first made it: the store's access hash names
    it too, so that data is never taken for another's. ``agents`` are those that have bindings;
    ``last_version`` is the highest version of any credential that ever was, so that none repeats.
    ``since`` is when ``phase`` began; ``rotate_token`` the last rotation request that was
    honoured; ``left`` says in words what an Orphaned tenant left behind.
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
    deletion_policy: str = "Retain"
    isolation: str = "Moderate"
    encryption: str = "Enabled"
    quota_bytes: int = 0
    left: str = ""

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
            "deletionPolicy": self.deletion_policy,
            "isolation": self.isolation,
            "encryption": self.encryption,
            "quotaBytes": self.quota_bytes,
            "left": self.left,
        }
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
            record = json.loads(data["record.json"])
            credentials = json.loads(data["credentials.json"])
            if record["format"] != _FORMAT:
                raise ValueError(record["format"])  # noqa: TRY301 - one message for all damage
            return cls(
                tenant=TenantId.parse(record["tenantId"]),
                uid=record["uid"],
                incarnation=record["incarnation"],
                namespace_uid=record["namespaceUid"],
                store=record["store"],
                phase=Phase(record["phase"]),
                since=utc_from_rfc3339(record["since"]),
                principals={
                    agent: Principal(
                        entry["active"],
                        {slot: _parse_credential(c) for slot, c in entry["slots"].items()},
                    )
                    for agent, entry in credentials.items()
                },
                keyring=data["keyring.json"],
                agents=tuple(record["agents"]),
                last_version=int(record["lastVersion"]),
                rotate_token=record["rotateToken"],
                deletion_policy=record["deletionPolicy"],
                isolation=record["isolation"],
                encryption=record["encryption"],
                quota_bytes=int(record["quotaBytes"]),
                left=record["left"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KeyUnavailable(
                f"The tenant record {name} in the home namespace is damaged "
                f"({type(error).__name__}): restore the Secret from a backup. Nothing new is made "
                "in its place, because that would make the tenant's data unreadable",
                reason="RecordDamaged",
            ) from None


def record_name(tenant: TenantId) -> str:
    """The record's Secret: dots cannot occur in either part, so names never collide."""
    return f"{tenant}-keyring"


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


def _parse_credential(entry: Mapping[str, str]) -> Credential:
    retiring = entry.get("retiringSince")
    return Credential(
        entry["password"],
        int(entry["version"]),
        utc_from_rfc3339(entry["created"]),
        None if retiring is None else utc_from_rfc3339(retiring),
    )


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
