"""What the tests of the rules are about, with as little said as possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from memtenant.api.policy import RetentionPolicySpec
from memtenant.api.store import MemoryStoreSpec
from memtenant.api.tenant import MemoryTenantSpec
from memtenant.crypto.audit_keys import audit_root
from memtenant.crypto.keyring import new_keyring
from memtenant.crypto.primitives import SecretKey
from memtenant.rules.audit import NOT_AUDITED
from memtenant.rules.committed import Committed
from memtenant.rules.credentials import Credential, Principal, RotationRules
from memtenant.rules.desired import Desired, Endpoint, Identity, Situation, desired
from memtenant.rules.keymotion import KeyAdvance
from memtenant.rules.placement import Applicant, PolicyView, StoreView
from memtenant.rules.policy import policy_facts
from memtenant.rules.quota import QuotaState
from memtenant.rules.record import Phase, TenantRecord
from memtenant.rules.told import Actors
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.masking import MaskingPolicy
from memtenant.tenancy.policy import SubjectRights

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)
TENANT = TenantId("support", "acme")
NEIGHBOUR = TenantId("support", "beta")
ROOT = SecretKey(bytes(range(32)))
INSTALLATION_ROOT = SecretKey(bytes(range(100, 132)))
PASSWORD = "correct-horse-battery-staple"

COMMANDS = frozenset(
    [
        "acl|whoami",
        "client|setinfo",
        "ping",
        "get",
        "set",
        "del",
        "hget",
        "hset",
        "hsetnx",
        "hincrby",
        "hmget",
        "lrange",
        "rpush",
        "lset",
        "zadd",
        "fcall",
        "fcall_ro",
    ]
)
"""Enough of a server's COMMAND LIST that every state of access differs from every other."""

RULES = RotationRules(
    every=None,
    min_overlap=timedelta(minutes=10),
    kubelet_lag=timedelta(minutes=3),
    grace=timedelta(hours=24),
)


def tenant_spec(**fields: Any) -> MemoryTenantSpec:
    """A spec in the words of its YAML; the policy is ``standard`` where none is named."""
    return MemoryTenantSpec.model_validate({"retentionPolicyRef": {"name": "standard"}} | fields)


def store_spec(**fields: Any) -> MemoryStoreSpec:
    least = {
        "standalone": {"endpoint": "valkey.redis.svc:6379"},
        "adminSecretRef": {"name": "valkey-admin", "key": "password"},
    }
    return MemoryStoreSpec.model_validate(least | fields)


def policy_spec(**fields: Any) -> RetentionPolicySpec:
    return RetentionPolicySpec.model_validate(fields)


def applicant(
    tenant: TenantId = TENANT, labels: Mapping[str, str] | None = None, **fields: Any
) -> Applicant:
    return Applicant(tenant, tenant_spec(**fields), labels or {})


def policy_view(name: str = "standard", **fields: Any) -> PolicyView:
    return policy_facts(name, policy_spec(**fields)).view


def store_view(
    name: str = "shared",
    committed: Mapping[TenantId, int] | None = None,
    **fields: Any,
) -> StoreView:
    return StoreView(name, store_spec(**fields), Committed(committed))


def minting() -> Callable[[], str]:
    """Passwords that tell their order: ``password-1``, ``password-2``, …"""
    numbers = count(1)
    return lambda: f"password-{next(numbers)}"


def one_credential(
    password: str = PASSWORD, version: int = 1, created: datetime = NOW, slot: str = "a"
) -> Principal:
    return Principal(slot, {slot: Credential(password, version, created)})


KEYS = new_keyring(TENANT, ROOT, now=NOW)


def record(**changes: Any) -> TenantRecord:
    """The record of a settled tenant with one agent."""
    settled = TenantRecord(
        tenant=TENANT,
        uid="uid-1",
        incarnation="uid-1",
        namespace_uid="namespace-1",
        store="shared",
        phase=Phase.ACTIVE,
        since=NOW,
        principals={"default": one_credential()},
        keyring=KEYS.keyring.to_json(),
        agents=("default",),
        last_version=1,
        quota_bytes=256 << 20,
    )
    return replace(settled, **changes)


def situation(spec: MemoryTenantSpec | None = None, **changes: Any) -> Situation:
    """A tenant that is seen for the first time."""
    first = Situation(
        identity=Identity(TENANT, "uid-1", "namespace-1"),
        spec=spec or tenant_spec(),
        endpoint=Endpoint("shared", "valkey.redis.svc", 6379, COMMANDS),
        record=None,
        keys=KeyAdvance(KEYS),
        keyring=KEYS.keyring.to_json(),
        audit_root=audit_root(INSTALLATION_ROOT),
        quota_state=QuotaState(),
        policy="standard",
        matters={},
        content_minimum=False,
        audit=NOT_AUDITED,
        audited="",
        told=None,
        new=False,
        actors=Actors(),
        cut_offs={},
        rights=SubjectRights(erasure=True, portability=True),
        masking=MaskingPolicy(),
        rotation=RULES,
        rotate_token="",
        shown={},
        idle=frozenset(),
    )
    return replace(first, **changes)


def settled(spec: MemoryTenantSpec | None = None, **changes: Any) -> tuple[Situation, Desired]:
    """A tenant whose first reconcile ended well, as the next one finds it."""
    first = situation(spec, **changes)
    made = desired(first, NOW, minting())
    stored = TenantRecord.from_data(made.record.to_data(), f"{TENANT}-keyring")
    shown: dict[str, str | None] = {
        name: principal.active for name, principal in stored.principals.items()
    }
    return replace(first, record=stored, shown=shown), made
