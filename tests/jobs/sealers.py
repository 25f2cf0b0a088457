"""A sealer over a real server and a folder, also as a process that can be killed.

As a program: ``python -m tests.jobs.sealers FOLDER < stores.json`` seals until it is killed.
"""

import asyncio
import hashlib
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from memtenant.archive import (
    READ_BACK,
    ArchiveFolder,
    ArchiveReader,
    FolderSigner,
    LogWriter,
    Sealed,
    Space,
)
from memtenant.clock import Clock, system_clock
from memtenant.errors import MemtenantError
from memtenant.jobs import sealing as loop
from memtenant.jobs.engine import Engine
from memtenant.jobs.sealing import Sealing
from memtenant.jobs.turn import Drained
from memtenant.rules.systemusers import SystemRole, render_system_user
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.storesfile import Endpoint, StoreAccess, StoresFile
from tests.archive.making import LOG, ORIGIN, ROOT
from tests.stores.operators import PASSWORD, leading
from tests.support.servers import Server

ACME = TenantId.parse(LOG)


class Observed:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.windows: list[Sealed] = []
        self.failures: list[MemtenantError] = []

    def drained(self, store: str, drained: Drained) -> None:
        self.counts["events"] += drained.events
        self.counts["duplicates"] += drained.duplicates
        self.counts["shrunk"] += len(drained.shrunk)

    def room(self, space: Space) -> None:
        self.space = space

    def sealed(self, sealed: Sealed) -> None:
        self.windows.append(sealed)

    def failed(self, store: str, error: MemtenantError) -> None:
        self.failures.append(error)


async def admit(server: Server, *tenants: TenantId, seal_every: int = 1) -> StoresFile:
    """Make the sealer's user, and the tenants audited ones; how the sealer gets in."""
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    async with leading(server) as store:
        user = render_system_user(
            SystemRole.SEALER, password_hashes=(digest,), commands=store.facts.commands
        )
        await store.users.set([user])
        await store.users.save()
    with server.admin() as admin:
        for tenant in tenants or (ACME,):
            admin.hset(keys.STORE_AUDITED, str(tenant), Audited(seal_every).to_json())
            admin.hset(keys.limits(tenant), "format", "1")
    where = (Endpoint(server.host, server.port),)
    return StoresFile((StoreAccess("shared", "Standalone", where, "mt.sealer", PASSWORD),))


def engine_over(
    archive: ArchiveFolder,
    *,
    signer: FolderSigner,
    clock: Clock = system_clock,
    read_back: int = READ_BACK,
) -> Engine:
    def opened() -> LogWriter:
        return LogWriter.open(archive, signer.key(ORIGIN), signer)

    return Engine(archive, opened, ROOT, clock, read_back)


@asynccontextmanager
async def sealer(
    folder: Path,
    stores: StoresFile,
    observed: Observed | None = None,
    *,
    clock: Clock = system_clock,
    read_back: int = READ_BACK,
) -> AsyncIterator[Sealing]:
    """The sealer of an archive in a folder, closed in order."""

    async def known() -> StoresFile:
        return stores

    signer = FolderSigner(folder / "audit")
    with ArchiveFolder.open(folder / "archive", writable=True) as archive:
        engine = engine_over(archive, signer=signer, clock=clock, read_back=read_back)
        made = Sealing(engine, known, observed or Observed(), clock)
        try:
            yield made
        finally:
            await made.close()


def days_pass(folder: Path, moment: list[datetime], until: datetime) -> None:
    """A seal a day: what time passes without one is not counted where months go."""
    signer = FolderSigner(folder / "audit")
    with (
        patch("os.fsync"),
        ArchiveFolder.open(folder / "archive", writable=True) as archive,
    ):
        writer = LogWriter.open(archive, signer.key(ORIGIN), signer)
        while moment[0] < until:
            moment[0] = min(moment[0] + timedelta(days=1), until)
            writer.seal(moment[0])
        writer.close()


def sealed_entries(folder: Path, log: str = LOG) -> list[bytes]:
    """Every entry of a log, in its order."""
    return [one.raw for one in ArchiveReader.open(folder / "archive").events(log)]


async def _main(folder: Path, stores: StoresFile) -> None:
    loop._EVERY = 0.02
    async with sealer(folder, stores) as sealing:
        await sealing.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), StoresFile.from_json(sys.stdin.buffer.read())))
