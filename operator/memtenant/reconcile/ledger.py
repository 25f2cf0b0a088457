"""How much memory is promised on each store, kept exact while reconciles run side by side.

A tenant is entered at the moment it is placed, before anything is written, so that two new tenants
cannot both take the last free bytes.
"""

from __future__ import annotations

from memtenant.rules.committed import Committed
from memtenant.tenancy.identity import TenantId

__all__ = ["Ledger"]


class Ledger:
    """Quotas in bytes by store and tenant. A tenant lies on at most one store."""

    def __init__(self) -> None:
        self._by_store: dict[str, Committed] = {}
        self._store_of: dict[TenantId, str] = {}

    def enter(self, store: str, tenant: TenantId, quota: int) -> None:
        """Count the tenant's quota on the store, and on no other."""
        if self._store_of.get(tenant) not in (None, store):
            self.strike(tenant)
        self._store_of[tenant] = store
        self._by_store.setdefault(store, Committed()).enter(tenant, quota)

    def strike(self, tenant: TenantId) -> None:
        """The tenant is gone from its store."""
        store = self._store_of.pop(tenant, None)
        if store is not None:
            self._by_store[store].strike(tenant)

    def entry(self, tenant: TenantId) -> tuple[str, int] | None:
        """The store that the tenant is counted on, and its quota there."""
        store = self._store_of.get(tenant)
        return None if store is None else (store, self._by_store[store][tenant])

    def store_of(self, tenant: TenantId) -> str | None:
        """The store that the tenant is counted on."""
        return self._store_of.get(tenant)

    def committed(self, store: str) -> Committed:
        """The quotas on the store, by tenant."""
        return self._by_store.get(store) or Committed()
