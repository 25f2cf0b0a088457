"""Entries, keys and archives for tests of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from memtenant.archive import ArchiveFolder, ArchiveReader, FolderSigner, LogWriter
from memtenant.audit import NOBODY, Event, Operation
from memtenant.crypto.audit_keys import audit_mac_key
from memtenant.crypto.primitives import SecretKey

LOG = "support.acme"
NEIGHBOUR = "sales.globex"
ROOT = SecretKey(bytes(range(32)))
ORIGIN = "memtenant.dev/test"
START = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
OPENED = int(START.timestamp()) - 60
_KEYS: dict[tuple[str, str, int], SecretKey] = {}


def key(log_id: str, agent: str, version: int) -> SecretKey:
    name = log_id, agent, version
    if name not in _KEYS:
        _KEYS[name] = audit_mac_key(ROOT, *name)
    return _KEYS[name]


def keys(agent: str, version: int) -> SecretKey | None:
    return key(LOG, agent, version) if version else None


def neighbours_keys(agent: str, version: int) -> SecretKey | None:
    return key(NEIGHBOUR, agent, version) if version else None


@dataclass
class Agent:
    """Makes the entries of a queue, as an agent and the Function do."""

    number: int = 0
    opened: int = OPENED
    log_id: str = LOG
    name: str = "triage"
    counter: int = 1
    time: int = field(default=OPENED * 1000)

    @property
    def writer(self) -> bytes:
        return self.opened.to_bytes(4, "big") + self.number.to_bytes(4, "big")

    def event(self, counter: int, count: int = 1, detail: bytes = b"") -> bytes:
        made = Event(
            Operation.APPEND if count > 1 or not detail else Operation.REMOVE,
            self.name,
            1,
            self.writer,
            counter,
            count,
            NOBODY.subject,
            NOBODY.place,
            NOBODY.commit(()),
            detail,
        )
        return made.to_bytes(key(self.log_id, self.name, 1))

    def entry(self, counter: int, outcome: str = "O", count: int = 1, detail: bytes = b"") -> bytes:
        self.time += 1
        event = self.event(counter, count, detail)
        return event + outcome.encode() + self.time.to_bytes(6, "big") + bytes(5)

    def next(self, count: int = 1) -> bytes:
        self.counter += count
        return self.entry(self.counter - count, count=count)

    def some(self, many: int) -> list[bytes]:
        return [self.next() for _ in range(many)]


class Sealer:
    """A log writer over a folder, that can be opened again after anything."""

    def __init__(self, root: Path) -> None:
        self.root = root / "archive"
        self.signer_folder = root / "audit"
        self.signer = FolderSigner(self.signer_folder)
        self.now = START
        self.writer = self.open()

    def open(self) -> LogWriter:
        archive = ArchiveFolder.open(self.root, writable=True)
        self.archive = archive
        return LogWriter.open(archive, self.signer.key(ORIGIN), self.signer)

    def reopen(self) -> None:
        self.archive.close()
        self.writer = self.open()

    def tick(self, **by: int) -> datetime:
        self.now += timedelta(**(by or {"seconds": 1}))
        return self.now

    def take(self, entries: Iterable[bytes], log_id: str = LOG) -> tuple[int, int, int, int]:
        of = keys if log_id == LOG else neighbours_keys
        taken = self.writer.take(log_id, list(entries), of, self.tick())
        return taken.events, taken.bad, taken.gaps, taken.duplicates

    def seal(self, **by: int) -> None:
        self.writer.seal(self.tick(**by))

    @property
    def reader(self) -> ArchiveReader:
        return ArchiveReader.open(self.root)

    def entries(self, log_id: str = LOG) -> list[bytes]:
        return [one.raw for one in self.reader.events(log_id)]


def pruned(sealer: Sealer) -> None:
    """Three months, of which one was let go of a log and two of the tree; a log that is idle since
    the first."""
    agent = Agent()
    sealer.take(Agent(log_id=NEIGHBOUR).some(1), NEIGHBOUR)
    for log_id, months in ((LOG, 12), (NEIGHBOUR, 84), ("tree", 2)):
        sealer.writer.keep(log_id, months)
    for _ in range(3):
        sealer.take(agent.some(2))
        sealer.seal()
        sealer.tick(days=19)
    sealer.writer.keep(LOG, 1)
    sealer.writer.prune(LOG, sealer.now.replace(month=2, day=1))
    sealer.seal()
    sealer.writer.prune("tree", sealer.now.replace(month=3, day=1))
    sealer.seal()


def three_months(root: Path) -> Sealer:
    """Two leaves of a log in each of January, February and March."""
    sealer, agent = Sealer(root), Agent()
    for _ in range(3):
        sealer.take(agent.some(2))
        sealer.seal()
        sealer.tick(days=19)
    return sealer


def let_go(sealer: Sealer) -> None:
    """What is before March, of the log and of the tree."""
    for log_id in (LOG, "tree"):
        sealer.writer.prune(log_id, sealer.now.replace(month=3, day=1))
    sealer.seal()


@contextmanager
def meanwhile(sealer: Sealer, at: int, act: Callable[[], None]) -> Iterator[Iterator[int]]:
    """Before a reader looks at the disk for the ``at``-th time, from 0, the sealer acts. Gives how
    often it looked."""
    looks = count()

    def looking(folder: ArchiveFolder) -> None:
        if folder is not sealer.archive and next(looks) == at:
            act()

    with pytest.MonkeyPatch.context() as patched:
        for name in ("names", "read", "size"):
            look = getattr(ArchiveFolder, name)

            def first_acts(folder: ArchiveFolder, *of: object, _look: Any = look) -> Any:
                looking(folder)
                return _look(folder, *of)

            patched.setattr(ArchiveFolder, name, first_acts)
        yield looks
