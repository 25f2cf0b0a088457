"""The operator's own reconciler, put together for one leadership."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from memtenant.controller.wiring import Leadership
from memtenant.reconcile.outcome import Reconciler
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.world import Timing, World

__all__ = ["assemble"]


@asynccontextmanager
async def assemble(leadership: Leadership) -> AsyncIterator[Reconciler]:
    """A reconciler that writes under this leadership's term; at its end every store is closed."""
    settings = leadership.settings
    world = World(
        resources=leadership.resources,
        mirror=leadership.mirror,
        installation=leadership.installation,
        fence=lambda: leadership.term,
        instances=leadership.instances,
        ahead=leadership.ahead,
        service_account=settings.service_account,
        report_job=settings.report_job,
        changed_by_stamped=settings.changed_by_stamped,
        timing=Timing(
            kubelet_lag=timedelta(seconds=settings.kubelet_lag),
            credential_grace=timedelta(seconds=settings.credential_grace),
            key_grace=timedelta(seconds=settings.key_grace),
            shred_epoch=timedelta(seconds=settings.shred_epoch),
            store_gone_grace=timedelta(seconds=settings.store_gone_grace),
            expiry_pass=timedelta(seconds=settings.expiry_pass_interval),
        ),
    )
    try:
        yield WorldReconciler(world)
    finally:
        await world.close()
