"""The process: one of two replicas, of which one leads and the other waits.

A standby follows what is declared and waits for the Lease. The leader runs until it is asked to
stop (SIGTERM: it drains, gives the Lease back and exits 0) or the Lease is lost: then it ends at
once with another code than 0, so that the pod starts again, as a candidate with a clean memory.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
from typing import NoReturn

from prometheus_client import generate_latest

from memtenant.controller import health, logs
from memtenant.controller.leading import Leader
from memtenant.controller.metrics import Metrics
from memtenant.controller.series import declared_series
from memtenant.controller.settings import Settings
from memtenant.controller.wiring import ReconcilerFactory
from memtenant.errors import MemtenantError
from memtenant.resources.connection import Connection, Limits
from memtenant.resources.instances import ClusterInstances
from memtenant.resources.kubernetes import KubernetesResources
from memtenant.resources.lease import Elector, LeadershipLost, LeaseTimes

__all__ = ["run"]

_log = logging.getLogger(__name__)

_COLLECT_AFTER = (50_000, 20, 20)
"""Objects, and collections of the generation below, after which Python looks for cycles: what lasts
here are thousands of tenants, without one."""


def run(settings: Settings, build: ReconcilerFactory) -> int:
    """Be one replica of the operator until it ends; the process' exit code.

    Does not return but ends the process where the Lease was lost: nothing that might ignore its
    cancellation may go on.
    """
    logs.configure(settings.log_format, settings.log_level)
    gc.set_threshold(*_COLLECT_AFTER)
    gc.freeze()  # what is imported stays
    if settings.kubeconfig is not None:
        # kopf's login reads it from there.
        os.environ["KUBECONFIG"] = str(settings.kubeconfig)
    return asyncio.run(_run(settings, build))


async def _run(settings: Settings, build: ReconcilerFactory) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopping.set)
    async with (
        Connection.open(kubeconfig=settings.kubeconfig) as connection,
        Connection.open(
            kubeconfig=settings.kubeconfig, limits=_lease_limits(settings)
        ) as lease_connection,
    ):
        metrics = Metrics()
        resources = KubernetesResources(
            connection, home=settings.home_namespace, instance=settings.identity
        )
        leader = Leader(
            settings,
            resources,
            metrics,
            build,
            stopping=stopping,
            instances=ClusterInstances(connection, home=settings.home_namespace),
            pages=resources.secret_pages,
        )
        elector = Elector(
            lease_connection,
            namespace=settings.home_namespace,
            name=settings.lease_name,
            # A container that is started again in its pod is another candidate.
            identity=f"{settings.identity}_{secrets.token_hex(4)}",
            times=LeaseTimes(
                settings.lease_duration, settings.lease_renew_deadline, settings.lease_retry_period
            ),
        )

        def unready() -> list[str]:
            if stopping.is_set():
                return ["this replica is stopping"]
            if not leader.mirror.synced:
                return ["this replica has not listed everything yet"]
            return []

        async def exposition() -> str:
            metrics.lease(elector.term)
            metrics.queue(leader.queue.agenda)
            metrics.watches(leader.watch_ages())
            text = generate_latest(metrics.registry).decode()
            if elector.term is None:
                return text
            return text + await declared_series(
                leader.mirror,
                tenant_limit=settings.tenant_series_limit,
                measured=leader.measured(),
            )

        async with health.serve(
            settings.health_host,
            settings.health_port,
            dead=leader.dead,
            unready=unready,
            metrics=exposition,
        ):
            return await _take_part(elector, leader, stopping)


async def _take_part(elector: Elector, leader: Leader, stopping: asyncio.Event) -> int:
    """Follow, wait, lead, end; the exit code."""
    taking_part = asyncio.create_task(_candidate(elector, leader), name="election")
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait({taking_part, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if elector.term is None and not taking_part.done():
        taking_part.cancel()  # a standby; a leader ends by itself, in order
    try:
        await taking_part
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise
    except MemtenantError as error:
        _log.error("the operator cannot go on: %s (%s)", error, error.reason)
        return 1
    _log.info("stopped in order")
    return 0


async def _candidate(elector: Elector, leader: Leader) -> None:
    """Who does not know what is declared does not ask for the Lease."""
    async with leader.following():
        try:
            await elector.run(leader.run)
        except LeadershipLost as lost:
            _log.error("%s", lost)
            _end_process(1)


def _end_process(code: int) -> NoReturn:
    logging.shutdown()
    os._exit(code)


def _lease_limits(settings: Settings) -> Limits:
    """Renewals never queue behind the work, and one that hangs leaves time for the next."""
    timeout = settings.lease_retry_period * 0.9
    return Limits(concurrency=2, connect_timeout=timeout, request_timeout=timeout, attempts=1)
