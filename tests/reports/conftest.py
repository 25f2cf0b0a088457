"""A policy with tenants on a real server, agents that work, and a log that is really sealed."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from memtenant import Tenant
from memtenant.archive import ArchiveFolder, FolderSigner, LogWriter
from memtenant.clock import Clock
from memtenant.crypto.audit_keys import INSTALLATION_LOG, audit_mac_key
from memtenant.crypto.primitives import SecretKey
from memtenant.memory.source import BindingSource
from memtenant.reports.collect import collect
from memtenant.reports.evidence import Evidence, Missing, Period
from memtenant.reports.folder import FolderSources
from memtenant.reports.history import kept_files
from memtenant.reports.looking import Progress
from memtenant.reports.making import Made, make_and_keep
from memtenant.reports.report import ControlResult, Report
from memtenant.reports.run import report_of
from memtenant.resources.reportobjects import reports_in_folder
from memtenant.rules.systemusers import SystemRole
from memtenant.stores.pace import Pace
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.memory.bindings import PATIENT
from tests.reconcile.conftest import Ground
from tests.support.servers import Server

ACME = TenantId("support", "acme")


@dataclass
class Scene:
    """One policy, one store, tenants of ``support``; a sealer that a test runs by hand."""

    ground: Ground
    folder: Path
    frameworks: tuple[str, ...] = ()
    ahead: timedelta = timedelta()
    decrypt: bool = False
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def server(self) -> Server:
        return self.ground.server

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def signer(self) -> Path:
        return self.folder / "signer"

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def declare(self, *names: str, policy: dict[str, Any] | None = None, **spec: Any) -> None:
        """Audited tenants under the policy, and everything settled; a sealer that lives."""
        self.ground.policy(
            frameworks=list(self.frameworks),
            **{"audit": {"mode": "Required", "reads": "Required"}, **(policy or {})},
        )
        for name in names or ("acme",):
            self.ground.tenant(name, **spec)
        await self.ground.settle()
        self.beat(*(names or ("acme",)))

    def beat(self, *names: str) -> None:
        """What a live sealer writes each round."""
        beat = str(int(datetime.now(UTC).timestamp() * 1000))
        with self.server.admin() as admin:
            admin.hset(keys.STORE_SEALER, "beat_at", beat)
            for name in names:
                admin.hset(keys.limits(_tenant(name)), "audit_heartbeat", beat)

    def agent(self, name: str = "acme", agent: str = "default") -> Tenant:
        """The SDK, by the agent's binding."""
        folder = self.folder / "state" / "bindings" / "support" / f"{name}-{agent}"
        tenant = Tenant(BindingSource(folder), options=PATIENT)
        self._stack.push_async_callback(tenant.aclose)
        return tenant

    async def seal(
        self, *names: str, now: datetime | None = None, prune: Sequence[str] = ()
    ) -> None:
        """One round of a sealer: what the queues hold goes into the archive, and is signed."""
        root = await self._audit_root()
        now = now or self.now()
        with ArchiveFolder.open(self.archive, writable=True) as archive:
            signer = FolderSigner(self.signer)
            writer = LogWriter.open(archive, signer.key("memtenant.dev/test"), signer)
            for log_id, queue in (
                *((str(one), keys.audit_queue(one)) for one in map(_tenant, names or ("acme",))),
                (INSTALLATION_LOG, keys.INSTALLATION_QUEUE),
            ):
                with self.server.admin() as admin:
                    entries = [bytes(one) for one in admin.lrange(queue, 0, -1)]
                    writer.take(log_id, entries, _keys(root, log_id), now)
                    admin.delete(queue)
            for log_id in prune:
                writer.prune(log_id, now)
            writer.seal(now)
            writer.close()

    def sources(self) -> FolderSources:
        """Where a run looks."""
        return FolderSources(
            self.ground.resources,
            archive=self.archive,
            signer=self.signer,
            decrypt=self.decrypt,
            clock=Clock(now=self.now),
        )

    async def evidence(
        self, progress: Progress = lambda _done, _due: None, **parts: object
    ) -> Evidence:
        """What a run finds now; ``parts`` take the place of what it found."""
        now = self.now()
        found = await collect(
            self.sources(),
            "standard",
            Period(now - timedelta(days=30), now + timedelta(seconds=1)),
            now=now,
            pace=Pace(duty=1.0),
            progress=progress,
        )
        kept = kept_files(self.folder / "reports" / "standard", found)
        return replace(replace(found, reports=kept), **parts)  # type: ignore[arg-type]

    async def keep(self, period: Period | None = None) -> Made:
        """A whole run: its files, its event, its object."""
        resources = self.ground.resources
        stored = await resources.get_secret(resources.home, SystemRole.REPORTER.secret_name)
        assert stored is not None
        return await make_and_keep(
            self.sources(),
            reports_in_folder(resources),
            "standard",
            self.folder / "reports",
            audit_key=SecretKey(stored.data["audit.key"]),
            period=period,
            clock=Clock(now=self.now),
        )

    async def report(self, previous: Report | None = None, **parts: object) -> Report:
        """The report on that."""
        return report_of(await self.evidence(**parts), "test", previous)

    async def judged(self, check: str, **parts: object) -> ControlResult:
        """The first control with this check."""
        report = await self.report(**parts)
        return next(one for one in report.results() if one.control.check == check)

    async def _audit_root(self) -> SecretKey:
        stored = await self.ground.resources.get_secret(
            self.ground.resources.home, SystemRole.SEALER.secret_name
        )
        assert stored is not None
        return SecretKey(stored.data["audit.key"])

    async def close(self) -> None:
        await self._stack.aclose()


def _tenant(name: str) -> TenantId:
    return TenantId("support", name)


def _keys(root: SecretKey, log_id: str) -> Callable[[str, int], SecretKey | None]:
    return lambda agent, version: audit_mac_key(root, log_id, agent, version)


def without(evidence: Evidence, part: str) -> Evidence:
    """The same evidence, of which this part of every tenant could not be looked at."""
    missing = Missing(part, "taken away by the test")
    return replace(
        evidence,
        tenants=tuple(replace(one, **{part: missing}) for one in evidence.tenants),  # type: ignore[arg-type]
    )


def words(result: ControlResult) -> str:
    return "\n".join(
        f"{one.status} {one.subject}: {one.words}" for one in result.judgement.findings
    )


def statuses(results: Iterable[ControlResult]) -> dict[str, str]:
    return {one.control.id: one.judgement.status.value for one in results}


@pytest.fixture
async def scene(valkey: Server, tmp_path: Path) -> AsyncIterator[Scene]:
    """Nothing declared but the store."""
    async with scene_on(valkey, tmp_path) as made:
        yield made


@pytest.fixture
async def each_scene(redis_server: Server, tmp_path: Path) -> AsyncIterator[Scene]:
    """The same on each flavour of server in turn."""
    async with scene_on(redis_server, tmp_path) as made:
        yield made


@asynccontextmanager
async def scene_on(server: Server, tmp_path: Path) -> AsyncIterator[Scene]:
    """Nothing declared but the server as a store."""
    ground = Ground(server, tmp_path / "state")
    ground.open()
    ground.store()
    made = Scene(ground, tmp_path)
    yield made
    await made.close()
    ground.close()
