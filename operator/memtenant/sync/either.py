"""A tenant of either kind, for code that is called with asyncio and without."""

from __future__ import annotations

from memtenant.memory._async.tenant import Tenant as AsyncTenant
from memtenant.memory._sync.tenant import Tenant
from memtenant.memory.locks import ShortLock

__all__ = ["Either"]


class Either:
    """``asynchronous`` is None where the tenant was given without asyncio: use `plain` in a thread
    then."""

    def __init__(self, tenant: AsyncTenant | Tenant) -> None:
        self.asynchronous = tenant if isinstance(tenant, AsyncTenant) else None
        self._given = tenant
        self._opened: Tenant | None = None
        self._lock = ShortLock()

    def plain(self) -> Tenant:
        """The tenant without asyncio: opened at the first call that needs it."""
        if isinstance(self._given, Tenant):
            return self._given
        with self._lock:
            if self._opened is None:
                self._opened = self._given.opened_as(Tenant)
            return self._opened

    def close(self) -> None:
        """Close what was opened here."""
        if self._opened is not None:
            self._opened.close()
