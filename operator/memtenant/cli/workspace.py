"""The state folder of a command: opened, declared into, settled, told about."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from memtenant.api.conditions import ConditionType
from memtenant.cli import output
from memtenant.cli.exits import ExitCode
from memtenant.cli.inputs import as_stored
from memtenant.cli.intents import Intents
from memtenant.cli.server import instances_of
from memtenant.errors import UsageError
from memtenant.reconcile.once import Happened, local_world, settle
from memtenant.resources.folder import FolderResources, Outcome
from memtenant.resources.port import Declared, Kind, ObjectKey, Resources
from memtenant.tenancy.identity import TenantId, agent_name, binding_name

__all__ = [
    "DEFAULT_STATE",
    "as_shown",
    "bindings_of",
    "declare",
    "declared_in",
    "exit_code",
    "is_audited",
    "is_made",
    "key_of",
    "kind_of",
    "objects_of",
    "problem_of",
    "run",
    "show_bindings",
    "tenant_key",
]

DEFAULT_STATE = Path(".memtenant")

_KINDS = {
    Kind.TENANT: ("memorytenant", "memorytenants", "mtenant", "tenant", "tenants"),
    Kind.STORE: ("memorystore", "memorystores", "mstore", "store", "stores"),
    Kind.POLICY: ("retentionpolicy", "retentionpolicies", "rp", "policy", "policies"),
    Kind.REPORT: ("compliancereport", "compliancereports", "mreport", "report", "reports"),
}


def kind_of(text: str) -> Kind:
    """The kind by any of the names that kubectl knows; `UsageError` for another."""
    for kind, names in _KINDS.items():
        if text.lower() in names:
            return kind
    known = ", ".join(names[0] for names in _KINDS.values())
    raise UsageError(f"{text!r} is no kind of memtenant: write one of {known}")


def key_of(text: str, namespace: str) -> ObjectKey:
    """``tenant/acme``, ``tenant/support/acme``, ``store/local``."""
    kind_text, *rest = text.split("/")
    kind = kind_of(kind_text)
    if kind.namespaced and len(rest) == 2:
        namespace, *rest = rest
    if len(rest) != 1 or not rest[0]:
        form = "KIND/NAMESPACE/NAME or KIND/NAME" if kind.namespaced else "KIND/NAME"
        raise UsageError(f"{text!r} names no object: write {form}")
    return ObjectKey(kind, namespace if kind.namespaced else "", rest[0])


def tenant_key(text: str, namespace: str) -> ObjectKey:
    """``acme`` or ``support/acme``."""
    where, slash, name = text.rpartition("/")
    if not name or (slash and not where) or "/" in where:
        raise UsageError(f"{text!r} names no tenant: write NAME or NAMESPACE/NAME")
    return ObjectKey.tenant(where or namespace, name)


def objects_of(state: Path) -> dict[ObjectKey, Declared]:
    """Everything that is declared in a state folder; empty where there is none."""
    if not is_made(state):
        return {}
    with FolderResources.open(state, writable=False) as resources:
        return asyncio.run(declared_in(resources))


async def declared_in(resources: Resources) -> dict[ObjectKey, Declared]:
    """Everything that is declared there."""
    return {one.key: one for kind in Kind for one in await resources.list(kind)}


def declare(resources: FolderResources, intents: Intents) -> dict[ObjectKey, Outcome]:
    """Make the folder say what is intended; what each declaration did."""
    for secret in intents.secrets:
        resources.declare_secret(
            secret.namespace,
            secret.name,
            secret.data,
            secret_type=secret.type,
            labels=secret.labels,
            annotations=secret.annotations,
        )
    outcomes = {}
    for intent in intents.objects:
        _, outcomes[intent.key] = resources.declare(
            intent.key, intent.spec, labels=intent.labels, annotations=intent.annotations
        )
    return outcomes


async def run(resources: FolderResources, what: str) -> list[Happened]:
    """Reconcile all of the folder until it is settled."""
    with output.progress(what) as told:
        async with local_world(resources, instances=instances_of(resources.root)) as world:
            return await settle(world, told)


def problem_of(happened: Happened) -> str:
    """Why the object is not as it should be; empty where it is."""
    declared = happened.declared
    if happened.error is not None:
        return str(happened.error)
    if declared is None:
        return ""
    conditions = declared.status.get("conditions", ())
    by_type = {one["type"]: one for one in conditions}
    if declared.deleting:
        blocked = by_type.get(ConditionType.DELETION_BLOCKED, {})
        return str(blocked.get("message") or "is not gone yet")
    ready = by_type.get(ConditionType.READY, {})
    return "" if ready.get("status") == "True" else str(ready.get("message") or "is not Ready")


def exit_code(happened: Iterable[Happened]) -> ExitCode:
    """`ExitCode.UNSETTLED` if anything is not as it should be."""
    return ExitCode.UNSETTLED if any(map(problem_of, happened)) else ExitCode.DONE


def is_audited(happened: Happened) -> bool:
    """Whether it is a tenant whose agents leave events in a log."""
    declared = happened.declared
    if declared is None or declared.key.kind is not Kind.TENANT:
        return False
    return dict(declared.status.get("audit") or {}).get("mode") == "Enabled"


def bindings_of(happened: Iterable[Happened], state: Path) -> list[dict[str, Any]]:
    """Where each agent's binding is."""
    found = []
    for one in happened:
        declared = one.declared
        if declared is None or declared.key.kind is not Kind.TENANT:
            continue
        tenant = TenantId(declared.key.namespace, declared.key.name)
        for binding in declared.status.get("bindings", ()):
            name = binding_name(tenant, agent_name(binding["agent"]))
            folder = state.resolve() / "bindings" / tenant.namespace / name
            if folder.is_dir():
                found.append(
                    {
                        "tenant": str(tenant),
                        "agent": binding["agent"],
                        "version": binding.get("version"),
                        "folder": str(folder),
                    }
                )
    return found


def show_bindings(bindings: Iterable[dict[str, Any]]) -> None:
    """The folders, and the variable by which a program finds them."""
    roots = []
    for binding in bindings:
        output.line(f"  {binding['tenant']}, agent {binding['agent']}: {binding['folder']}")
        root = str(Path(binding["folder"]).parent)
        if root not in roots:
            roots.append(root)
    for root in roots:
        output.line(f"export SERVICE_BINDING_ROOT={root}", style="bold")


def as_shown(declared: Declared) -> dict[str, Any]:
    """The object for ``-o json`` and ``-o yaml``, as kubectl shows it."""
    raw = as_stored(declared)
    raw["metadata"] |= {
        "uid": declared.uid,
        "generation": declared.generation,
        "resourceVersion": declared.resource_version,
        "creationTimestamp": declared.creation_timestamp.isoformat().replace("+00:00", "Z"),
    }
    if declared.deletion_timestamp is not None:
        moment = declared.deletion_timestamp.isoformat().replace("+00:00", "Z")
        raw["metadata"]["deletionTimestamp"] = moment
    return raw


def is_made(state: Path) -> bool:
    """Whether the folder is a state folder already; `UsageError` where it is none at all."""
    if state.exists() and not state.is_dir():
        raise UsageError(f"{state} is no folder: --state names the one that holds everything")
    return (state / "meta.json").exists()
