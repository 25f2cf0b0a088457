"""The sealer's process: beside the operator, under an identity of its own.

It reads what the operator wrote into the Secret ``memtenant-sealer``, as files of a mounted volume;
the log's key is in a namespace in which the operator has no right. SIGTERM drains and seals once
more, and ends.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

from prometheus_client import generate_latest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from memtenant.archive import ArchiveFolder, LogWriter
from memtenant.controller import health, logs
from memtenant.controller.sealer_metrics import SealerMetrics
from memtenant.controller.settings import LogFormat, LogLevel
from memtenant.crypto.primitives import KEY_BYTES, SecretKey
from memtenant.errors import ArchiveBusy, KeyUnavailable, MemtenantError, UsageError
from memtenant.jobs.budget import DAILY_SHARE
from memtenant.jobs.engine import Engine
from memtenant.jobs.logsecret import read_or_make
from memtenant.jobs.sealing import Sealing
from memtenant.resources.connection import Connection
from memtenant.resources.kubernetes import KubernetesResources
from memtenant.resources.logkey import publish_key
from memtenant.rules.systemusers import AUDIT_KEY, INSTALLATION
from memtenant.tenancy.storesfile import STORES_FILE, StoresFile

__all__ = ["SealerSettings", "run", "settings_from"]

_LOOK_AGAIN = 2.0
_DEAD_AFTER = 180.0
"""Seconds without a round after which liveness fails. A round may wait for a store and a disk."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class SealerSettings(BaseModel):
    """The sealer's settings, as its Deployment gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audit_namespace: str = Field(min_length=1, max_length=63)
    archive: Path
    files: Path
    tenant_share: int = Field(default=DAILY_SHARE, ge=1, le=100)
    kubeconfig: Path | None = None
    health_host: str = "0.0.0.0"  # noqa: S104 -- probes and Prometheus come from outside the pod
    health_port: int = Field(default=8080, ge=0, le=65_535)
    log_format: LogFormat = LogFormat.AUTO
    log_level: LogLevel = LogLevel.INFO


def settings_from(given: Mapping[str, object]) -> SealerSettings:
    """The settings; `UsageError` names those that are wrong."""
    try:
        return SealerSettings.model_validate(given)
    except ValidationError as error:
        found = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise UsageError(f"the sealer's settings are not valid: {found}") from None


def run(settings: SealerSettings) -> int:
    """Seal until told to stop; the process' exit code."""
    logs.configure(settings.log_format, settings.log_level)
    return asyncio.run(_Process(settings).run())


class _Process:
    def __init__(self, settings: SealerSettings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._metrics = SealerMetrics()
        self._engine: Engine | None = None
        self._sealing: Sealing | None = None
        self._waits_for = "the Secret that the operator writes"

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self._stopping.set)
        async with health.serve(
            self._settings.health_host,
            self._settings.health_port,
            dead=self._dead,
            unready=self._unready,
            metrics=self._exposition,
        ):
            try:
                await self._seal()
            except MemtenantError as error:
                _log.error("the sealer cannot go on: %s (%s)", error, error.reason)
                return 1
        _log.info("stopped in order")
        return 0

    async def _seal(self) -> None:
        settings = self._settings
        async with AsyncExitStack() as opened:
            connection = await opened.enter_async_context(
                Connection.open(kubeconfig=settings.kubeconfig)
            )
            resources = KubernetesResources(
                connection, home=settings.audit_namespace, instance="sealer"
            )
            audit_key = await self._until(lambda: _audit_key(settings.files))
            installation = await self._until(lambda: _read(settings.files, INSTALLATION).decode())
            archive = await self._until(lambda: ArchiveFolder.open(settings.archive, writable=True))
            if audit_key is None or installation is None or archive is None:
                return
            opened.callback(archive.close)
            origin = f"memtenant.dev/{installation}"
            fresh = not archive.names("checkpoints")
            secret = await read_or_make(resources, settings.audit_namespace, origin, fresh=fresh)
            await publish_key(connection, settings.audit_namespace, secret.key.public)
            engine = Engine(archive, lambda: LogWriter.open(archive, secret.key, secret), audit_key)
            sealing = Sealing(engine, self._stores, self._metrics, share=settings.tenant_share)
            opened.push_async_callback(sealing.close)
            self._engine, self._sealing = engine, sealing
            _log.info("sealing %s into %s", secret.key.public.name, settings.archive)
            await sealing.run(self._stopping)

    async def _until(self, attempt: Callable[[], T]) -> T | None:
        """What comes of it, once nothing is missing any more; None where it is to stop first."""
        while not self._stopping.is_set():
            try:
                return attempt()
            except (KeyUnavailable, ArchiveBusy) as error:
                if self._waits_for != str(error):
                    _log.warning("waiting: %s", error)
                self._waits_for = str(error)
            try:
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._stopping.wait()
            except TimeoutError:
                continue
        return None

    async def _stores(self) -> StoresFile:
        return StoresFile.from_json(_read(self._settings.files, STORES_FILE))

    def _dead(self) -> list[str]:
        if self._sealing is None:
            return []
        age = time.monotonic() - self._sealing.turned_at
        return [f"no round was made for {age:.0f} s"] if age > _DEAD_AFTER else []

    def _unready(self) -> list[str]:
        if self._stopping.is_set():
            return ["it is stopping"]
        if self._engine is None:
            return [f"it waits for {self._waits_for}"]
        return [str(self._engine.failure)] if self._engine.refuses else []

    async def _exposition(self) -> str:
        return generate_latest(self._metrics.registry).decode()


def _read(folder: Path, name: str) -> bytes:
    """A key of the mounted Secret."""
    try:
        data = (folder / name).read_bytes()
    except OSError:
        data = b""
    if not data:
        raise KeyUnavailable(
            f"{folder / name}: the operator writes it into Secret memtenant-sealer once a "
            "MemoryStore can be used"
        )
    return data


def _audit_key(folder: Path) -> SecretKey:
    data = _read(folder, AUDIT_KEY)
    if len(data) != KEY_BYTES:
        raise KeyUnavailable(f"{folder / AUDIT_KEY} does not hold {KEY_BYTES} bytes")
    return SecretKey(data)
