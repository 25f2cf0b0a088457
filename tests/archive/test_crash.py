"""Whatever is cut off, and where: no event is lost, none is doubled, the tree goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memtenant.archive import (
    ArchiveFolder,
    ArchiveReader,
    FolderSigner,
    LogWriter,
    Part,
    Result,
    SignedHead,
    verify,
)
from memtenant.errors import ArchiveUnavailable
from tests.archive.making import (
    LOG,
    NEIGHBOUR,
    ORIGIN,
    START,
    Agent,
    Sealer,
    keys,
    neighbours_keys,
    pruned,
)
from tests.audit.auditor import audit


class Killed(BaseException):
    """The process is no more."""


class Failing(ArchiveFolder):
    """A folder whose process, disk or power fails at the n-th time that it touches the disk."""

    at = 0
    fault: type[BaseException] = Killed
    count = 0

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.synced: dict[int, int] = {}

    def _fails(self) -> bool:
        type(self).count += 1
        return type(self).count == self.at

    def _fail(self) -> None:
        raise Killed if self.fault is Killed else OSError(28, "No space left on device")

    def _write(self, opened: int, data: bytes, offset: int) -> int:
        if self._fails():
            super()._write(opened, data[: len(data) // 2], offset)
            self._fail()
        return super()._write(opened, data, offset)

    def _sync(self, opened: int) -> None:
        if self._fails():
            self._fail()
        self.synced[opened] = os.fstat(opened).st_size

    def _truncate(self, opened: int, size: int) -> None:
        if self._fails():
            self._fail()
        super()._truncate(opened, size)

    def _rename(self, source: Path, target: Path) -> None:
        if self._fails():
            self._fail()
        super()._rename(source, target)
        if self._fails():
            self._fail()

    def _unlink(self, file: Path) -> None:
        if self._fails():
            self._fail()
        super()._unlink(file)

    def lose_power(self) -> None:
        """What was not flushed is gone, half of it."""
        for opened in self._open.values():
            size, synced = os.fstat(opened).st_size, self.synced.get(opened, 0)
            os.ftruncate(opened, synced + (size - synced) // 2)


class Signer(FolderSigner):
    """The state of the signer, which may fail before or after it moved."""

    folder: Failing | None = None

    def advance(self, before: SignedHead | None, after: SignedHead) -> None:
        assert self.folder is not None
        try:
            if self.folder._fails():
                self.folder._fail()
            super().advance(before, after)
            if self.folder._fails():
                self.folder._fail()
        except OSError as error:
            raise ArchiveUnavailable("The state did not answer") from error


class Story:
    """A sealer that drains two queues, dies once, and begins again."""

    def __init__(self, root: Path, at: int, fault: type[BaseException], *, power: bool) -> None:
        self.root, self.power = root, power
        self.kind = type("At", (Failing,), {"at": at, "fault": fault, "count": 0})
        self.signer = Signer(root / "audit")
        self.now = START
        agent, other = Agent(), Agent(log_id=NEIGHBOUR)
        self.entries = {LOG: agent.some(7), NEIGHBOUR: other.some(3)}
        self.queues = {log_id: list(entries) for log_id, entries in self.entries.items()}
        self.published: list[bytes] = []
        self.steps = iter(
            [
                lambda: self.drain(LOG, 3),
                self.seal,
                lambda: self.drain(NEIGHBOUR, 3),
                lambda: self.drain(LOG, 2),
                self.seal,
                self.month,
                lambda: self.drain(LOG, 2),
                self.prune,
                self.seal,
                self.seal,
            ]
        )
        self.step = next(self.steps)

    def open(self) -> None:
        self.folder = self.kind.open(self.root / "archive", writable=True)
        self.signer.folder = self.folder
        try:
            self.writer = LogWriter.open(self.folder, self.signer.key(ORIGIN), self.signer)
        except ArchiveUnavailable:
            self.folder.close()
            raise

    def run(self) -> bool:
        """Whether it failed on the way."""
        failed = False
        while True:
            try:
                if not hasattr(self, "writer"):
                    self.open()
                while True:
                    self.step()
                    self.step = next(self.steps)
            except StopIteration:
                self.folder.close()
                return failed
            except (Killed, ArchiveUnavailable) as error:
                failed = True
                if isinstance(error, Killed):
                    if self.power:
                        self.folder.lose_power()
                    self.folder.close()
                    self.__dict__.pop("writer", None)

    def drain(self, log_id: str, many: int) -> None:
        of = keys if log_id == LOG else neighbours_keys
        self.writer.take(log_id, self.queues[log_id][:many], of, self.now)
        del self.queues[log_id][:many]

    def seal(self) -> None:
        sealed = self.writer.seal(self.now)
        self.published.append(sealed.checkpoint.note)

    def month(self) -> None:
        self.now = START.replace(month=2, day=1)

    def prune(self) -> None:
        self.writer.prune(LOG, self.now)


@pytest.mark.parametrize("kind", ["process", "disk"])
def test_cut_off_at_every_touch_of_the_disk_the_log_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what it would keep, `lose_power` keeps
    at = failed = 0
    while True:
        at += 1
        root = tmp_path / str(at)
        fault = OSError if kind == "disk" else Killed
        # Of what is not flushed, a power cut takes a part; a killed process leaves it all.
        story = Story(root, at, fault, power=at // 2 % 2 == 0)
        did_fail = story.run()
        failed += did_fail
        if story.kind.count < at:
            break
        reader = ArchiveReader.open(root / "archive")
        kept = [one.raw for one in reader.events(LOG)]
        assert kept == story.entries[LOG][7 - len(kept) :], at
        assert len(kept) in (2, 7), at
        assert [one.raw for one in reader.events(NEIGHBOUR)] == story.entries[NEIGHBOUR], at
        notes = list(reader.checkpoints())
        assert set(story.published) <= {one.note for one in notes}, at
        for note in (notes[0], notes[-1]):
            found = verify(reader, trusted=note)
            assert (found.result, found.findings) == (Result.GOOD, ()), at
    assert failed > 40


@pytest.mark.parametrize("at", range(6))
def test_of_months_of_the_tree_whose_removal_was_cut_off_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    sealer, remove, removed = Sealer(tmp_path), ArchiveFolder.remove, list[str]()

    def cut_off(folder: ArchiveFolder, name: str) -> None:
        if name.startswith(("tree/", "checkpoints/")):
            if len(removed) == at:
                raise Killed
            removed.append(name)
        remove(folder, name)

    monkeypatch.setattr(ArchiveFolder, "remove", cut_off)
    with pytest.raises(Killed):
        pruned(sealer)
    monkeypatch.undo()
    found = verify(sealer.reader, trusted=sealer.reader.latest())
    assert (found.result, found.findings) == (Result.GOOD, ())
    key, last = (sealer.root / "checkpoints/key").read_text(), sealer.reader.latest()
    assert last is not None
    assert audit(sealer.root, key, last.note).verdict == 0
    sealer.reopen()
    sealer.writer.prune("tree", sealer.now.replace(month=3, day=1))
    sealer.seal()
    found = verify(sealer.reader, trusted=sealer.reader.latest())
    assert (found.result, found.findings) == (Result.GOOD, ())
    assert [one.stem for one in sorted(sealer.root.glob("checkpoints/*.notes"))] == ["2026-03"]


_PROGRAM = """
import sys
from pathlib import Path
from datetime import UTC, datetime
from memtenant.archive import ArchiveFolder, FolderSigner, LogWriter
from tests.archive.making import LOG, ORIGIN, Agent, keys

root = Path(sys.argv[1])
signer = FolderSigner(root / "audit")
writer = LogWriter.open(
    ArchiveFolder.open(root / "archive", writable=True), signer.key(ORIGIN), signer
)
entries = Agent().some(20_000)
at = writer.size(LOG)
while True:  # as a queue that is trimmed after each take, and sometimes before the kill only later
    start = max(at - 50, 0)
    taken = writer.take(LOG, entries[start : at + 40], keys, datetime.now(UTC))
    assert taken.size == min(at + 40, len(entries)), taken
    at = taken.size
    writer.seal(datetime.now(UTC))
    print(at, flush=True)
"""


def test_a_sealer_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    anchor, chance = None, random.Random(7)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        time.sleep(chance.random() / 10)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reader = ArchiveReader.open(tmp_path / "archive")
        anchor = anchor or reader.latest()
    signer = FolderSigner(tmp_path / "audit")
    with ArchiveFolder.open(tmp_path / "archive", writable=True) as archive:
        size = LogWriter.open(archive, signer.key(ORIGIN), signer).size(LOG)
    assert [one.raw for one in reader.events(LOG)] == Agent().some(size)
    assert verify(reader, trusted=anchor).result is Result.GOOD


class Flushed(Failing):
    """And a kernel that knows which bytes are not on the disk: written and not flushed, or (as
    Linux does) taken for clean after a flush that failed."""

    dirty: dict[int, set[int]]
    lost: dict[int, set[int]]

    def _write(self, opened: int, data: bytes, offset: int) -> int:
        number = os.fstat(opened).st_ino
        places = set(range(offset, offset + len(data)))
        self.dirty.setdefault(number, set()).update(places)
        self.lost.setdefault(number, set()).difference_update(places)
        return super()._write(opened, data, offset)

    def _sync(self, opened: int) -> None:
        number = os.fstat(opened).st_ino
        try:
            super()._sync(opened)
        except OSError:
            self.lost.setdefault(number, set()).update(self.dirty.pop(number, set()))
            raise
        self.dirty.pop(number, None)

    def at_risk(self, log_id: str) -> bool:
        files = (self.root / "logs" / log_id).glob("*.log")
        numbers = {file.stat().st_ino for file in files}
        return any(kind.get(one) for kind in (self.dirty, self.lost) for one in numbers)


@pytest.mark.parametrize("kind", ["process", "disk"])
def test_what_was_taken_was_flushed_whoever_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A sealer is killed (or the disk fails) once what it took is written: the next finds it there,
    and the power is cut when the queue was shortened."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    fault = OSError if kind == "disk" else Killed
    at = 0
    while True:
        at += 1
        made = type("At", (Flushed,), {"at": at, "fault": fault, "dirty": {}, "lost": {}})
        signer = FolderSigner(tmp_path / str(at) / "audit")
        entries, taken = Agent().some(5), 0
        while taken < 5:
            with made.open(tmp_path / str(at) / "archive", writable=True) as folder:
                try:
                    writer = LogWriter.open(folder, signer.key(ORIGIN), signer)
                    while taken < 5:
                        writer.take(LOG, entries[taken : taken + 3], keys, START)
                        taken += 3
                        assert not folder.at_risk(LOG), at
                        if taken == 3:
                            writer.seal(START)
                except (Killed, ArchiveUnavailable):
                    continue
        if made.count < at:
            break
    assert at > 10


def test_a_folder_that_a_killed_process_had_just_made_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "logs" / LOG).mkdir(parents=True)
    told = []

    class Listening(ArchiveFolder):
        def _sync_folder(self, folder: Path) -> None:
            told.append(folder)
            super()._sync_folder(folder)

    with Listening.open(tmp_path, writable=True) as archive:
        archive.append([Part(f"logs/{LOG}/2026-01.log", 0, b"leaf")])
    assert told == [tmp_path / "logs" / LOG, tmp_path / "logs"]
