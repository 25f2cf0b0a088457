"""Files of a state folder: one writer, every write whole or not at all.

::

    lock                               held by the one process that writes
    meta.json                          {"uid", "reserved"}: whose folder; versions given out
    objects/<plural>/<namespace>/<name>.json   what was declared, in Kubernetes' JSON
    status/<plural>/<namespace>/<name>.json    {"resourceVersion", "status"}
    secrets/<namespace>/<name>.json    Secrets, mode 0600, folders 0700
    bindings/<namespace>/<name>/<key>  binding Secrets as files, for SERVICE_BINDING_ROOT
    events.log                         one JSON object a line, the latest MiB or two

``<namespace>`` is ``_`` for cluster-scoped objects. Names were checked before they come here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from memtenant.errors import InvalidResource, ResourceConflict, ResourceUnavailable
from memtenant.files import make_folder, open_plain, read_plain, sync_folder

__all__ = ["StateFolder", "check_name", "reading"]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

_RESERVE = 1000
_LARGEST_LOG = 1024 * 1024
_CURRENT = "..data"


class StateFolder:
    """The files below ``root``. Made by `open`; ``writable`` takes the lock until `close`."""

    def __init__(self, root: Path, *, writable: bool) -> None:
        self._root = root
        self._lock: int | None = None
        try:
            self._prepare(writable=writable)
        except OSError as error:
            self.close()
            raise ResourceUnavailable(
                f"state folder {root} cannot be used: {error.strerror}"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def root(self) -> Path:
        """Where it is."""
        return self._root

    @property
    def uid(self) -> str:
        """Drawn once for each folder."""
        return self._uid

    @property
    def writable(self) -> bool:
        """Whether this process may write."""
        return self._lock is not None

    @property
    def version(self) -> int:
        """The last one given out, or greater."""
        return self._version

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def next_version(self) -> int:
        """Greater than all that were given out before, also by processes that crashed."""
        if self._version >= self._reserved:
            self._reserve()
        self._version += 1
        return self._version

    def read_all(self, *folder: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Every JSON file below a folder. `InvalidResource` names one that is damaged."""
        for file in sorted(self._root.joinpath(*folder).glob("**/*.json")):
            yield file, self._read(file)

    def write(self, content: Mapping[str, Any], *place: str, private: bool = False) -> None:
        """Replace a JSON file; ``private``: for the owner alone."""
        with self._writing():
            file = self._file(place)
            self._make_folder(file.parent, 0o700 if private else 0o755)
            text = json.dumps(content, indent=2, sort_keys=True).encode() + b"\n"
            _replace(file, text, 0o600 if private else 0o644)

    def remove(self, *place: str) -> None:
        """Remove a JSON file, if it is there."""
        with self._writing():
            file = self._file(place)
            file.unlink(missing_ok=True)
            with suppress(OSError):  # other objects are in it
                file.parent.rmdir()

    def binding_is(self, namespace: str, name: str, data: Mapping[str, bytes]) -> bool:
        """Whether a binding's files are there and say just this."""
        folder = self._root / "bindings" / namespace / name
        if {file.name for file in folder.glob("*") if not file.name.startswith("..")} != set(data):
            return False
        try:
            return all(read_plain(folder / key) == value for key, value in data.items())
        except OSError:
            return False

    def lay_out_binding(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """A Secret as files, all of them changed at once as the kubelet does it: ``<key>`` links to
        ``..data/<key>``, and ``..data`` to the folder that holds this version.
        """
        with self._writing():
            folder = self._root / "bindings" / namespace / name
            self._make_folder(folder, 0o700)
            version = f"..{secrets.token_hex(8)}"
            self._make_folder(folder / version, 0o700)
            for key, value in data.items():
                _replace(folder / version / key, value, 0o600)
            fresh = folder / f"{_CURRENT}.new"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(version)
            fresh.replace(folder / _CURRENT)
            for key in data:
                if not (folder / key).is_symlink():
                    (folder / key).symlink_to(f"{_CURRENT}/{key}")
            for entry in folder.iterdir():
                if entry.name.startswith("..") and entry.name not in {_CURRENT, version}:
                    shutil.rmtree(entry)
                elif not entry.name.startswith("..") and entry.name not in data:
                    entry.unlink()
            sync_folder(folder)

    def remove_binding(self, namespace: str, name: str) -> None:
        """Remove a binding's files, if they are there."""
        with self._writing():
            shutil.rmtree(self._root / "bindings" / namespace / name, ignore_errors=True)

    def log_event(self, event: Mapping[str, Any]) -> None:
        """Append a line to ``events.log``; a full log becomes ``events.log.1``."""
        with self._writing():
            log = self._root / "events.log"
            if log.exists() and log.stat().st_size > _LARGEST_LOG:
                log.replace(self._root / "events.log.1")
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with os.fdopen(open_plain(log, flags, 0o644), "a", encoding="utf-8") as opened:
                opened.write(json.dumps(event, sort_keys=True) + "\n")

    def _prepare(self, *, writable: bool) -> None:
        meta = self._root / "meta.json"
        if writable:
            make_folder(self._root, 0o755)
            self._lock = _locked(self._root / "lock", self._root)
            for leftover in self._root.glob("**/.*.tmp"):  # of a process that was killed
                leftover.unlink()
        known: dict[str, Any]
        known = self._read(meta) if meta.exists() else {"uid": str(uuid4()), "reserved": 0}
        with reading(meta):
            self._uid = str(UUID(known["uid"]))
            self._version = self._reserved = int(known["reserved"])
        if writable:
            self._reserve()

    def _reserve(self) -> None:
        """Versions are given out from memory; what may have been used is on disk beforehand."""
        self._reserved = self._version + _RESERVE
        self.write({"uid": self._uid, "reserved": self._reserved}, "meta")

    def _file(self, place: tuple[str, ...]) -> Path:
        *folders, name = place
        return self._root.joinpath(*folders, f"{name}.json")

    def _make_folder(self, folder: Path, mode: int) -> None:
        """Like ``mkdir -p``, with ``mode`` for all below the root that are made."""
        if folder.is_dir():
            return
        if folder != self._root:
            self._make_folder(folder.parent, mode)
        folder.mkdir(mode=mode, exist_ok=True)
        sync_folder(folder.parent)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self._lock is None:
            raise ResourceConflict(f"state folder {self._root} was opened for reading only")
        try:
            yield
        except OSError as error:
            raise ResourceUnavailable(
                f"state folder {self._root} cannot be written: {error.strerror}"
            ) from error

    @staticmethod
    def _read(file: Path) -> dict[str, Any]:
        try:
            content = json.loads(read_plain(file))
        except OSError as error:
            raise ResourceUnavailable(f"{file} cannot be read: {error.strerror}") from error
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise _damaged(file)
        return content


def check_name(*names: str) -> None:
    """`InvalidResource` if one of these may not be a file's name: it is no name of Kubernetes."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise InvalidResource(
                f"{name!r} is no name of Kubernetes: use lower-case letters, digits, hyphens"
            )


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into `InvalidResource`."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(file) from error


def _damaged(file: Path) -> InvalidResource:
    return InvalidResource(f"{file} is damaged: restore it from a backup, or remove it")


def _locked(file: Path, root: Path) -> int:
    lock = open_plain(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ResourceConflict(
            f"another memtenant command is working in {root}: wait for it to end",
            reason="StateLocked",
        ) from error
    return lock


def _replace(file: Path, content: bytes, mode: int) -> None:
    """Write beside, flush to disk, rename over: a crash leaves the old file or the new one."""
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    beside.unlink(missing_ok=True)
    written = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(written, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)
