"""The archive as a folder: a disk, a volume, or a copy of one that somebody was handed."""

from __future__ import annotations

import fcntl
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from memtenant.archive.port import Part, Space
from memtenant.errors import ArchiveBusy, ArchiveUnavailable
from memtenant.files import make_folder, open_plain

__all__ = ["ArchiveFolder"]

T = TypeVar("T")

_MOST_OPEN = 128
_AT_ONCE = 16
"""Files that are waited for together: a disk's journal takes what comes together in one commit
(1,000 files: 0.7 s one after the other, 0.07 s so; measured)."""

_CHUNK = 1024 * 1024

_FILE_MODE, _FOLDER_MODE = 0o640, 0o750
"""A report job reads as the group of the volume; nobody else needs to."""


class ArchiveFolder:
    """`Archive` over the files below ``root``. Made by `open`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock: int | None = None
        self._open: OrderedDict[str, int] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None

    @classmethod
    def open(cls, root: Path, *, writable: bool) -> Self:
        """The archive in a folder. ``writable`` makes it where it is missing, and takes the lock
        until `close`: `ArchiveBusy` where another process has it."""
        archive = cls(root)
        with _telling(root):
            if writable:
                make_folder(root, _FOLDER_MODE)
                archive._take_lock()
            elif not root.is_dir():
                raise ArchiveUnavailable(
                    f"{root} is no folder: name the one that holds the archive of the audit log"
                )
        return archive

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def root(self) -> Path:
        """Where it is."""
        return self._root

    def close(self) -> None:
        """Let go of files and lock."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)
            self._threads = None
        while self._open:
            os.close(self._open.popitem()[1])
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted; nothing where there is none."""
        with _telling(self._root / folder):
            try:
                return sorted(os.listdir(self._root / folder))  # noqa: PTH208 - names are wanted
            except FileNotFoundError:
                return []

    def size(self, name: str) -> int | None:
        """How many bytes a file has; None for one that does not exist."""
        with _telling(self._root / name):
            try:
                return (self._root / name).stat().st_size
            except FileNotFoundError:
                return None

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """A part of a file; empty for one that does not exist or ends before."""
        file = self._root / name
        with _telling(file):
            try:
                with os.fdopen(open_plain(file, os.O_RDONLY), "rb", buffering=0) as opened:
                    opened.seek(offset)
                    return opened.read(-1 if length is None else length) or b""
            except FileNotFoundError:
                return b""

    def append(self, parts: Sequence[Part]) -> None:
        """Write to several files, of each once. Durable when it returns."""
        for start in range(0, len(parts), _MOST_OPEN):
            some = parts[start : start + _MOST_OPEN]
            self._together(self._append_one, some, [part.name for part in some])

    def settle(self, offsets: Mapping[str, int]) -> None:
        """Make durable what stands in files from a byte on, whoever wrote it."""
        places = sorted(offsets.items())
        for start in range(0, len(places), _MOST_OPEN):
            some = places[start : start + _MOST_OPEN]
            self._together(self._settle_one, some, [name for name, _ in some])

    def _together(self, work: Callable[[T], None], some: Sequence[T], names: Iterable[str]) -> None:
        """For several files at a time; when it returns or raises, nothing goes on."""
        waited: list[Future[None]] = []
        try:
            if len(some) == 1:
                work(some[0])
                return
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="archive-files")
            try:
                waited.extend(self._threads.submit(work, one) for one in some)
            finally:
                wait(waited)
            for one in waited:
                one.result()
        except BaseException:
            # After a failed fsync nobody knows what is on the disk: it is read and settled anew.
            for name in names:
                self._let_go(name)
            raise
        finally:
            self._bound()

    def _append_one(self, part: Part) -> None:
        with _telling(self._root / part.name):
            if part.before is not None:
                self.replace(*part.before)
            opened = self._writable(part.name)
            self._expect_end(opened, part.offset, part.name)
            written = 0
            while written < len(part.data):
                written += self._write(opened, part.data[written:], part.offset + written)
            self._sync(opened)

    def _settle_one(self, place: tuple[str, int]) -> None:
        name, offset = place
        file = self._root / name
        with _telling(file):
            if file.exists():
                opened = self._writable(name)
                # Written once more: a flush that failed may have left the pages marked as clean.
                while data := os.pread(opened, _CHUNK, offset):
                    offset += self._write(opened, data, offset)
                self._sync(opened)
            folder = file.parent
            self._sync_folder(folder)
            while folder != self._root:
                folder = folder.parent
                self._sync_folder(folder)

    def cut(self, name: str, size: int) -> None:
        """Take what is behind ``size`` away. Durable."""
        with _telling(self._root / name):
            opened = self._writable(name)
            self._bound()
            self._truncate(opened, size)
            self._sync(opened)

    def replace(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Make the whole file say this, or leave it as it was."""
        file = self._root / name
        beside = file.with_name(f".{file.name}.new")
        with _telling(file):
            self._make(file.parent)
            opened = open_plain(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _FILE_MODE)
            try:
                written = 0
                while written < len(data):
                    written += self._write(opened, data[written:], written)
                if durable:
                    self._sync(opened)
            finally:
                os.close(opened)
            self._let_go(name)
            self._rename(beside, file)
            if durable:
                self._sync_folder(file.parent)

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""
        file = self._root / name
        with _telling(file):
            self._let_go(name)
            self._unlink(file)
            if file.parent.is_dir():
                self._sync_folder(file.parent)

    def space(self) -> Space:
        """How much room there is."""
        with _telling(self._root):
            found = os.statvfs(self._root)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def _expect_end(self, opened: int, offset: int, name: str) -> None:
        if os.fstat(opened).st_size != offset:
            raise ArchiveUnavailable(
                f"{self._root / name} does not end where it did: something else writes it"
            )

    # What follows is all that touches the disk: tests cut it off at every one.

    def _write(self, opened: int, data: bytes, offset: int) -> int:
        return os.pwrite(opened, data, offset)

    def _sync(self, opened: int) -> None:
        os.fsync(opened)

    def _truncate(self, opened: int, size: int) -> None:
        os.ftruncate(opened, size)

    def _rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def _unlink(self, file: Path) -> None:
        file.unlink(missing_ok=True)

    def _sync_folder(self, folder: Path) -> None:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._sync(opened)
        finally:
            os.close(opened)

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        self._sync_folder(folder.parent)

    def _writable(self, name: str) -> int:
        """What is opened here stays open until `_bound`: threads share the files."""
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        file = self._root / name
        self._make(file.parent)
        opened = open_plain(file, os.O_RDWR | os.O_CREAT, _FILE_MODE)
        self._open[name] = opened
        if not os.fstat(opened).st_size:  # new, or made by who did not come to write it
            self._sync_folder(file.parent)
            if file.parent != self._root:  # nor to wait for the folder that was made for it
                self._sync_folder(file.parent.parent)
        return opened

    def _bound(self) -> None:
        while len(self._open) > _MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])

    def _let_go(self, name: str) -> None:
        opened = self._open.pop(name, None)
        if opened is not None:
            os.close(opened)

    def _take_lock(self) -> None:
        lock = open_plain(self._root / "lock", os.O_RDWR | os.O_CREAT, _FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ArchiveBusy(
                f"another process writes the archive in {self._root}: let it end, or stop it"
            ) from error
        self._lock = lock


@contextmanager
def _telling(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or file
        raise ArchiveUnavailable(f"{where} cannot be used: {error.strerror or error}") from error
