"""The archive as the sealer's stores use it: one writer, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import TypeVar

from memtenant.archive import (
    READ_BACK,
    Allowance,
    Archive,
    Batch,
    Kept,
    LogWriter,
    MacKeys,
    Sealed,
    Space,
    Taken,
)
from memtenant.archive.reads import ALIVE, SEALER, noted_reads
from memtenant.audit import Deed
from memtenant.clock import Clock, system_clock
from memtenant.crypto.audit_keys import INSTALLATION_LOG, audit_mac_key
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import (
    ArchiveInconsistent,
    ArchiveMalformed,
    ArchiveUnavailable,
    InvalidResource,
    KeyInvalid,
    MemtenantError,
)
from memtenant.jobs.losses import loss_entries
from memtenant.tenancy.period import Period

__all__ = ["Engine"]

T = TypeVar("T")


class Engine:
    """The one `LogWriter` of a process, in a thread of its own: the disk holds nobody up, and what
    several stores bring goes in one after the other.

    ``read_back`` are the bytes of logs that a round over a store may read back."""

    def __init__(
        self,
        archive: Archive,
        open_writer: Callable[[], LogWriter],
        audit_root: SecretKey,
        clock: Clock = system_clock,
        read_back: int = READ_BACK,
    ) -> None:
        self.read_back = read_back
        self._archive = archive
        self._open_writer = open_writer
        self._root = audit_root
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._writer: LogWriter | None = None
        self._keys: dict[str, MacKeys] = {}
        self.sealed: Sealed | None = None
        self.failure: MemtenantError | None = None

    async def close(self) -> None:
        """Write down what makes the next start fast, and end the thread."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                await self._run(writer.close)
        finally:
            self._thread.shutdown(wait=True)

    async def open(self) -> None:
        """Read the archive: everything else does that too, where it was not done."""
        await self._run(self._opened)

    @property
    def refuses(self) -> bool:
        """Whether nothing is sealed before somebody acts. An API server that is away, where the
        signer's state is, is no reason to refuse agents: what they did is in the archive."""
        return self.failure is not None and not self.failure.retryable

    async def take(
        self, entries: Mapping[str, Sequence[bytes]], allowance: Allowance
    ) -> dict[str, Taken | Exception]:
        """Entries of each log; see `LogWriter.take_all`."""
        batches = [Batch(log, some, self._keys_of(log)) for log, some in entries.items()]
        now = self._clock.now()
        taken = await self._run(lambda: self._opened().take_all(batches, now, allowance))
        return dict(zip(entries, taken, strict=True))

    async def tell(self, deeds: Mapping[str, Sequence[Deed]]) -> dict[str, Taken | Exception]:
        """Add to logs what the sealer itself saw."""
        now = self._clock.now()
        entries = {
            log: loss_entries(some, audit_mac_key(self._root, log, SEALER, 0), now)
            for log, some in deeds.items()
            if some
        }
        return await self.take(entries, Allowance.unlimited()) if entries else {}

    async def seal(self) -> Sealed:
        """See `LogWriter.seal`."""
        now = self._clock.now()
        try:
            self.sealed = await self._run(lambda: self._opened().seal(now))
        except MemtenantError as error:
            self.failure = error
            raise
        self.failure = None
        return self.sealed

    async def size(self, log: str) -> int:
        """How many leaves a log has."""
        return await self._run(lambda: self._opened().size(log))

    async def prune(self, kept: Mapping[str, int], store_time: datetime) -> tuple[str, ...]:
        """Let months of logs go that are older than so many months; of which logs there were any.
        They go with the next seal. Nothing brings them back, so it is the sealer's clock and the
        store's that say so: of two, one may be years ahead. And by the seals: of a clock that was
        years behind, what it sealed is no older than they prove."""
        now = min(self._clock.now(), store_time)

        def work() -> tuple[str, ...]:
            writer, gone = self._opened(), []
            for log, months in kept.items():
                # Of a log that is not what was sealed nothing goes; it keeps nobody from sealing.
                with suppress(ArchiveInconsistent, ArchiveMalformed):
                    if writer.prune(log, writer.earliest(Period(months, "mo").before(now), now)):
                        gone.append(log)
            return tuple(gone)

        return await self._run(work)

    async def take_reads(self) -> int:
        """Bring what was noted of reads of the archive into the log of the installation; how many
        there were."""
        now = self._clock.now()
        key = audit_mac_key(self._root, INSTALLATION_LOG, SEALER, 0)
        keys = self._keys_of(INSTALLATION_LOG)

        def work() -> int:
            noted = noted_reads(self._archive)
            if not noted:
                return 0
            batch = Batch(INSTALLATION_LOG, [one.entry(key) for one in noted], keys)
            (taken,) = self._opened().take_all([batch], now)
            if isinstance(taken, Exception):
                return 0  # told as a log that is refused
            for one in noted:
                # Somebody else's file may stay: it is recognised when it is taken again.
                with suppress(ArchiveUnavailable):
                    self._archive.remove(one.name)
            return taken.events

        return await self._run(work)

    async def keep(self, told: Mapping[str, int]) -> dict[str, Kept]:
        """Say for how many months logs are kept (0: for ever); for how long each is kept, with
        those of which nothing is told any more."""

        def work() -> dict[str, Kept]:
            writer = self._opened()
            for log, months in told.items():
                writer.keep(log, months)
            return writer.kept()

        return await self._run(work)

    async def try_archive(self) -> None:
        """Write to the archive, opened. Raises `ArchiveUnavailable`, and what `open` raises."""
        now = str(self._clock.now()).encode()

        def work() -> None:
            self._opened()
            self._archive.replace(ALIVE, now)

        await self._run(work)

    async def space(self) -> Space:
        """How much room the archive has."""
        return await self._run(self._archive.space)

    def _opened(self) -> LogWriter:
        if self._writer is None:
            self._writer = self._open_writer()
        return self._writer

    def _keys_of(self, log: str) -> MacKeys:
        if log not in self._keys:
            self._keys[log] = self._mac_keys(log)
        return self._keys[log]

    def _mac_keys(self, log: str) -> MacKeys:
        def key(agent: str, version: int) -> SecretKey | None:
            try:
                return audit_mac_key(self._root, log, agent, version)
            except (InvalidResource, KeyInvalid):
                return None

        return key

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
