"""A compliance report over many tenants: how long, and what memory, as records and events grow.

Records, events and users are as the operator and agents make them, but sealed under keys of nobody:
a report looks at clear bytes. Each report runs in a process of its own, whose memory is its own.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from memtenant.archive import ArchiveFolder, ArchiveReader, FolderSigner, LogWriter
from memtenant.audit import NOBODY, Event, Operation, Outcome
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.primitives import SecretKey
from memtenant.functions.keyspace import ConversationKeys
from memtenant.reports.evidence import LogKeyReaders, Missing, Period
from memtenant.reports.log import ArchiveLog
from memtenant.reports.run import make_report
from memtenant.reports.sources import Declarations, StoreLogin
from memtenant.resources.port import Declared, ObjectKey
from memtenant.stores import Address, Pace, StoreSettings
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.bench.processes import peak_mb
from tests.bench.report import Row
from tests.support import servers
from tests.support.servers import Flavour, Server

__all__ = ["ReportCost", "measure", "rows"]

_KEY = SecretKey(b"a" * 32)
_TALKS = 10
_ORIGIN = "memtenant.dev/bench"


@dataclass(frozen=True, slots=True)
class ReportCost:
    """One run. ``start`` is the process's memory before it, ``peak`` the most that it had (MB)."""

    tenants: int
    records: int
    seconds: float
    start: float
    peak: float
    told: int


def measure(tenants: int = 1000, records: int = 1000) -> tuple[ReportCost, ReportCost]:
    """A report over so many tenants with a tenth of the records, then with all of them."""
    return _one(tenants, records // 10), _one(tenants, records)


def rows(costs: tuple[ReportCost, ReportCost]) -> list[Row]:
    """The table's lines about it."""
    few, many = costs
    return [
        Row(
            f"a report over {many.tenants:,} tenants with {many.records:,} records each, and as "
            "many events",
            "",
            f"{many.seconds:.0f} s; with {few.records:,} each {few.seconds:.0f} s",
            None,
        ),
        Row(
            "… its memory (peak)",
            "",
            f"{many.peak:.0f} MB; with {few.records:,} each {few.peak:.0f} MB; "
            f"before it began {many.start:.0f} MB",
            None,
        ),
    ]


def _one(tenants: int, records: int) -> ReportCost:
    with (
        tempfile.TemporaryDirectory(prefix="memtenant-bench-") as folder,
        servers.running(Flavour.VALKEY_9) as server,
    ):
        _fill(server, Path(folder), tenants, records)
        where = (str(server.port), server.admin_user, server.admin_password, folder)
        command = (sys.executable, "-m", __name__, *where, str(tenants), str(records))
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        return ReportCost(**json.loads(ended.stdout))


def _tenants(many: int) -> list[TenantId]:
    return [TenantId("many", f"t{number}") for number in range(many)]


def _fill(server: Server, folder: Path, tenants: int, records: int) -> None:
    """Each tenant with its records in ten conversations, and the events of all of them, sealed."""
    now = int(time.time() * 1000)
    with (
        ArchiveFolder.open(folder / "archive", writable=True) as archive,
        server.admin() as admin,
    ):
        signer = FolderSigner(folder / "signer")
        writer = LogWriter.open(archive, signer.key(_ORIGIN), signer)
        for tenant in _tenants(tenants):
            entries = []
            with admin.pipeline(transaction=False) as pipeline:
                pipeline.hset(keys.limits(tenant), mapping={"format": "1", "audit": "1"})
                for talk in range(_TALKS):
                    lane = (now // 1000).to_bytes(4, "big") + talk.to_bytes(4, "big")
                    listed, told = _conversation(lane, records // _TALKS, now)
                    name = ConversationKeys.of(tenant, "_", f"{talk:022}").list
                    pipeline.rpush(name, *listed)
                    entries += told
                pipeline.execute()
            moment = datetime.fromtimestamp(now / 1000, UTC)
            writer.take(str(tenant), entries, lambda _agent, _version: _KEY, moment)
        writer.seal(datetime.fromtimestamp(now / 1000, UTC))
        writer.close()


def _conversation(lane: bytes, many: int, now: int) -> tuple[list[bytes], list[bytes]]:
    listed, told = [], []
    for number in range(1, many + 1):
        header = b"\x10" + number.to_bytes(5, "big") + now.to_bytes(6, "big") + bytes(3)
        record = b"\xfa\x11" + bytes(16) + lane + number.to_bytes(4, "big") + bytes(12 + 150 + 16)
        listed.append(header + record)
        event = Event(Operation.APPEND, "default", 1, lane, number, 1, *_nobody())
        trailer = Outcome.DONE.value.encode() + now.to_bytes(6, "big") + number.to_bytes(5, "big")
        told.append(event.to_bytes(_KEY) + trailer)
    return listed, told


def _nobody() -> tuple[bytes, bytes, bytes]:
    return NOBODY.subject, NOBODY.place, bytes(16)


@dataclass
class _Made:
    """What a job gets from a cluster, made up."""

    settings: StoreSettings
    folder: Path
    many: int

    async def declarations(self) -> Declarations:
        born = datetime.now(UTC)
        policy = Declared(
            ObjectKey.policy("gdpr"), "p", "1", 1, born, spec={"frameworks": ["GDPR", "HIPAA"]}
        )
        tenants = tuple(
            Declared(
                ObjectKey.tenant(one.namespace, one.name),
                str(one),
                "1",
                1,
                born,
                spec={"retentionPolicyRef": {"name": "gdpr"}},
                status={"store": "shared"},
            )
            for one in _tenants(self.many)
        )
        return Declarations((policy,), (), tenants, {"many": {}})

    async def stores(self) -> Sequence[StoreLogin]:
        return [StoreLogin("shared", self.settings, frozenset({self.settings.username}))]

    def log(self) -> ArchiveLog:
        key = FolderSigner(self.folder / "signer").key(_ORIGIN).public
        return ArchiveLog(ArchiveReader.open(self.folder / "archive"), key)

    async def log_key_readers(self) -> LogKeyReaders | Missing:
        return Missing("log key", "nobody was asked")

    async def keyrings(self, _tenant: TenantId) -> Sequence[AgentKeyring]:
        return ()


async def _report(sources: _Made, records: int) -> ReportCost:
    start, began = peak_mb(os.getpid()), time.monotonic()
    now = datetime.now(UTC)
    period = Period(now - timedelta(days=1), now + timedelta(days=1))
    made = await make_report(sources, "gdpr", period, pace=Pace(duty=1.0))
    seconds = time.monotonic() - began
    told = sum(int(str(row.get("told", 0))) for row in made.tenants)
    if told != sources.many * records:
        raise RuntimeError(f"{told} records were found told, not {sources.many * records}")
    return ReportCost(sources.many, records, seconds, start, peak_mb(os.getpid()), told)


if __name__ == "__main__":
    port, user, password, where, tenants, records = sys.argv[1:]
    settings = StoreSettings(Address("127.0.0.1", int(port)), user, lambda: password)
    cost = asyncio.run(_report(_Made(settings, Path(where), int(tenants)), int(records)))
    print(json.dumps(asdict(cost)))
