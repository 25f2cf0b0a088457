"""The quotas that lie on one store, with their sums: each tenant that is placed asks for these.

A sum over all tenants for each of them would be a hundred million additions at ten thousand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from memtenant.tenancy.identity import TenantId

__all__ = ["Committed"]


class Committed(Mapping[TenantId, int]):
    """Quotas in bytes by tenant."""

    def __init__(self, quotas: Mapping[TenantId, int] | None = None) -> None:
        self.total = 0
        self._quotas: dict[TenantId, int] = {}
        self._of_namespace: Counter[str] = Counter()
        for tenant, quota in (quotas or {}).items():
            self.enter(tenant, quota)

    def __getitem__(self, tenant: TenantId) -> int:
        return self._quotas[tenant]

    def __iter__(self) -> Iterator[TenantId]:
        return iter(self._quotas)

    def __len__(self) -> int:
        return len(self._quotas)

    def enter(self, tenant: TenantId, quota: int) -> None:
        """Count the tenant with this quota, and with none that it had before."""
        self._add(tenant, quota - self._quotas.get(tenant, 0))
        self._quotas[tenant] = quota

    def strike(self, tenant: TenantId) -> None:
        """Count the tenant no more."""
        self._add(tenant, -self._quotas.pop(tenant, 0))
        if not self._of_namespace[tenant.namespace]:
            del self._of_namespace[tenant.namespace]

    def to_others(self, tenant: TenantId, namespace: str | None = None) -> int:
        """Bytes promised to all but this tenant: to those of one namespace, or of all."""
        own = self._quotas.get(tenant, 0)
        if namespace is None:
            return self.total - own
        return self._of_namespace[namespace] - (own if tenant.namespace == namespace else 0)

    def _add(self, tenant: TenantId, quota: int) -> None:
        self.total += quota
        self._of_namespace[tenant.namespace] += quota
