"""Whose each object is that the operator writes in its home namespace.

Those homes are memtenant's alone, so whatever the labels say: what belongs to nobody was left
behind. Of Secrets only those that the operator made are asked about; people keep others there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from memtenant.controller.settings import Settings
from memtenant.jobs.logsecret import LOG_SECRET
from memtenant.reconcile.instancetls import AUTHORITY_SECRET
from memtenant.reconcile.world import ROOT_SECRET
from memtenant.resources.port import MANAGED_BY_LABEL, MANAGED_BY_VALUE, OWNER_LABEL
from memtenant.rules.instance import claim_name, instance_name
from memtenant.rules.record import Phase, record_name
from memtenant.rules.reporting import cron_job_name
from memtenant.rules.systemusers import SystemRole
from memtenant.tenancy.identity import TenantId
from tests.e2e.witness import Json

__all__ = ["KINDS", "Owners", "without_an_owner"]

KINDS = {
    "cronjobs": "CronJob",
    "leases": "Lease",
    "networkpolicies": "NetworkPolicy",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "secrets": "Secret",
    "services": "Service",
    "statefulsets": "StatefulSet",
}
"""Every kind that the operator may write there, by its plural."""

_OF_THE_INSTALLATION = {
    AUTHORITY_SECRET,
    LOG_SECRET,
    ROOT_SECRET,
    *(role.secret_name for role in SystemRole),
}


@dataclass(frozen=True, slots=True)
class Owners:
    """Who may own something: tenants and policies as they are declared, and all that records say,
    by tenant. A tenant that is gone keeps its claim while there is a record of it."""

    tenants: Mapping[TenantId, Json]
    records: Mapping[TenantId, Json]
    policies: Iterable[Json]

    def running(self) -> set[TenantId]:
        """Those that have an instance, or get one."""
        declared = {
            tenant
            for tenant, item in self.tenants.items()
            if item.get("spec", {}).get("isolation") == "Strict"
        }
        recorded = {
            tenant
            for tenant, fields in self.records.items()
            if fields["isolation"] == "Strict" and fields["phase"] == Phase.ACTIVE
        }
        return declared | recorded

    def keeping(self) -> set[TenantId]:
        """Those whose data an instance's volume holds."""
        return self.running() | {
            tenant for tenant, fields in self.records.items() if fields["isolation"] == "Strict"
        }


def without_an_owner(home: Mapping[str, Iterable[Json]], owners: Owners) -> Iterator[str]:
    """What there is ``home`` (by plural) of which nobody is the owner, in words."""
    instances = {instance_name(tenant) for tenant in owners.running()}
    claims = {claim_name(tenant) for tenant in owners.keeping()}
    secrets = {record_name(tenant) for tenant in owners.records} | instances | _OF_THE_INSTALLATION
    jobs = {(cron_job_name(name), uid) for name, uid in map(_identity, owners.policies)}
    belongs: dict[str, Callable[[Json], bool]] = {
        "cronjobs": lambda item: bool(jobs & {(_name(item), uid) for uid in _owned_by(item)}),
        "leases": lambda item: _name(item) == Settings.model_fields["lease_name"].default,
        "networkpolicies": lambda item: _name(item) in instances,
        "persistentvolumeclaims": lambda item: _name(item) in claims,
        "secrets": lambda item: not _is_ours(item) or _name(item) in secrets,
        "services": lambda item: _name(item) in instances,
        "statefulsets": lambda item: _name(item) in instances,
    }
    for plural, kind in KINDS.items():
        for item in home[plural]:
            if not belongs[plural](item):
                yield f"{kind} {item['metadata']['namespace']}/{_name(item)} belongs to nobody"


def _is_ours(secret: Json) -> bool:
    labels = secret["metadata"].get("labels", {})
    return labels.get(MANAGED_BY_LABEL) == MANAGED_BY_VALUE or OWNER_LABEL in labels


def _owned_by(item: Json) -> Iterator[str]:
    for owner in item["metadata"].get("ownerReferences", ()):
        yield owner["uid"]


def _identity(item: Json) -> tuple[str, str]:
    return _name(item), item["metadata"]["uid"]


def _name(item: Json) -> str:
    return str(item["metadata"]["name"])
