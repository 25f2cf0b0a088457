"""The series of /metrics that follow what is declared: one set per tenant, one per store.

They are read from the mirror at each scrape, so that a tenant or store that is gone takes its
series along, and written as text directly, a few hundred tenants at a time: building the client
library's objects for ten thousand tenants would hold up everything else.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from memtenant.clock import utc_from_rfc3339
from memtenant.reconcile.outcome import Measured
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import Declared, Kind, ObjectKey

__all__ = ["declared_series"]

_AT_A_TIME = 200

_HELP = {
    "tenants": "Declared tenants, by what their condition Ready says.",
    "tenant_condition": "1 for the status that a tenant's condition has, by type.",
    "tenant_usage_bytes": "Memory that a tenant's keys took when last measured.",
    "tenant_limit_bytes": "The quota that it is measured against.",
    "tenant_conversations": "Conversations that a tenant holds.",
    "tenant_conversations_limit": "The quota that they are measured against.",
    "tenant_oldest_record_timestamp_seconds": (
        "When the oldest record was written that the last pass left, in Unix time."
    ),
    "tenant_access": "1 for what the store lets a tenant's agents do now, by mode.",
    "tenant_access_since_timestamp_seconds": "Since when, in Unix time.",
    "tenant_keys_retiring": "Versions of a tenant's key that retire while it turns, else 0.",
    "tenant_keys_since_timestamp_seconds": "Since when a tenant's key turns, in Unix time.",
    "tenant_data_keys_remaining": "Data keys that are not under the active version yet.",
    "tenant_data_keys_unreadable": "Data keys that open with no version.",
    "policy_condition": "1 for the status that a policy's condition has, by type.",
    "policy_report_timestamp_seconds": "When a policy's newest report was made, in Unix time.",
    "policy_report_controls": "Controls of it that failed or lacked their evidence, by result.",
    "store_condition": "1 for the status that a store's condition has, by type.",
    "store_nodes": "Servers of a store, by role and by how their users stand.",
}

Lines = dict[str, list[str]]


async def declared_series(
    mirror: Mirror, *, tenant_limit: int, measured: Iterable[Measured] = ()
) -> str:
    """Prometheus' text format. ``measured`` are live figures, newer than those in a status.

    At most ``tenant_limit`` tenants have series of their own: those that are not Ready first, then
    those that are nearest to their quota.
    """
    lines: Lines = defaultdict(list)
    live = {str(one.tenant): one for one in measured}
    sights = ((key, mirror.sight(key)) for key in mirror.keys(Kind.TENANT))
    states = {key: sight.ready for key, sight in sights if sight is not None}
    ready: Counter[str] = Counter({"True": 0, "False": 0, "Unknown": 0})
    ready.update(states.values())

    def urgency(key: ObjectKey) -> tuple[bool, float, str, str]:
        found = live.get(f"{key.namespace}.{key.name}")
        share = found.memory / found.memory_limit if found and found.memory_limit else 0.0
        return states[key] == "True", -share, key.namespace, key.name

    shown = sorted(states, key=urgency)
    for number, key in enumerate(shown[:tenant_limit]):
        if number % _AT_A_TIME == 0:
            await asyncio.sleep(0)
        tenant = mirror.get(key)
        if tenant is not None:
            _add_tenant(lines, tenant, live)
    for state, count in ready.items():
        _add(lines, "tenants", {"ready": state}, count)
    for key in sorted(mirror.keys(Kind.STORE)):
        store = mirror.get(key)
        if store is not None:
            _add_store(lines, store)
    for key in sorted(mirror.keys(Kind.POLICY)):
        policy = mirror.get(key)
        if policy is not None:
            _add_policy(lines, policy)
    return "".join(_family(name, lines[name]) for name in _HELP if name in lines)


def _add_tenant(lines: Lines, tenant: Declared, live: Mapping[str, Measured]) -> None:
    name = f"{tenant.key.namespace}.{tenant.key.name}"
    whose = {"tenant": name}
    for condition, state in _conditions(tenant).items():
        _add(lines, "tenant_condition", {**whose, "condition": condition, "status": state}, 1)
    if (found := live.get(name)) is not None:
        for series, figure in (
            ("tenant_usage_bytes", found.memory),
            ("tenant_limit_bytes", found.memory_limit),
            ("tenant_conversations", found.conversations),
            ("tenant_conversations_limit", found.conversations_limit),
            (
                "tenant_oldest_record_timestamp_seconds",
                found.oldest / 1000 if found.oldest else None,
            ),
        ):
            if figure is not None:
                _add(lines, series, whose, figure)
    access = _mapping(tenant.status.get("access"))
    if mode := access.get("mode"):
        _add(lines, "tenant_access", {**whose, "mode": str(mode)}, 1)
    if since := _unix(access.get("since")):
        _add(lines, "tenant_access_since_timestamp_seconds", whose, since)
    _add_keys(lines, whose, tenant)


def _add_keys(lines: Lines, whose: Mapping[str, str], tenant: Declared) -> None:
    keys = _mapping(tenant.status.get("keys"))
    retiring = keys.get("retiring")
    _add(lines, "tenant_keys_retiring", whose, len(retiring) if isinstance(retiring, list) else 0)
    if since := _unix(keys.get("since")):
        _add(lines, "tenant_keys_since_timestamp_seconds", whose, since)
    for name in ("remaining", "unreadable"):
        if isinstance(count := keys.get(name), int):
            _add(lines, f"tenant_data_keys_{name}", whose, count)


def _add_store(lines: Lines, store: Declared) -> None:
    name = store.key.name
    for condition, state in _conditions(store).items():
        labels = {"store": name, "condition": condition, "status": state}
        _add(lines, "store_condition", labels, 1)
    nodes = Counter(
        (str(node.get("role")), str(node.get("acl")))
        for node in _mappings(store.status.get("nodes"))
    )
    for (role, acl), count in sorted(nodes.items()):
        _add(lines, "store_nodes", {"store": name, "role": role, "acl": acl}, count)


def _add_policy(lines: Lines, policy: Declared) -> None:
    whose = {"policy": policy.key.name}
    for condition, state in _conditions(policy).items():
        _add(lines, "policy_condition", {**whose, "condition": condition, "status": state}, 1)
    last = _mapping(policy.status.get("lastReport"))
    if made := _unix(last.get("time")):
        _add(lines, "policy_report_timestamp_seconds", whose, made)
        for result, count in (("fail", last.get("failed")), ("error", last.get("errors"))):
            if isinstance(count, int):
                _add(lines, "policy_report_controls", {**whose, "result": result}, count)


def _conditions(declared: Declared) -> dict[str, str]:
    return {
        str(condition.get("type")): str(condition.get("status"))
        for condition in _mappings(declared.status.get("conditions"))
    }


def _add(lines: Lines, name: str, labels: Mapping[str, str], figure: float) -> None:
    pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
    lines[name].append(f"memtenant_{name}{{{pairs}}} {figure}\n")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _family(name: str, samples: Iterable[str]) -> str:
    header = f"# HELP memtenant_{name} {_HELP[name]}\n# TYPE memtenant_{name} gauge\n"
    return header + "".join(samples)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _unix(moment: Any) -> float | None:
    try:
        return utc_from_rfc3339(str(moment)).timestamp() if moment else None
    except ValueError:
        return None
