"""A report as files: the document, the page, and the manifest by whose hash the log knows them."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from memtenant.errors import ReportInvalid, UsageError
from memtenant.files import make_folder, open_plain, sync_folder
from memtenant.reports.canonical import canonical
from memtenant.reports.page import page
from memtenant.reports.report import Report
from memtenant.tenancy.document import DocumentInvalid, read_json

__all__ = [
    "MANIFEST",
    "PAGE",
    "REPORT",
    "Format",
    "Manifest",
    "check_files",
    "is_unfinished",
    "make_room",
    "read_report",
    "write_report",
]

REPORT: Final = "report.json"
PAGE: Final = "report.html"
MANIFEST: Final = "manifest.json"

_MAX_BYTES: Final = 1024 * 1024
_MAX_REPORT: Final = 256 * 1024 * 1024
_MOST_FILES: Final = 64
_AT_ONCE: Final = 1024 * 1024
_UNFINISHED: Final = ".new"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Format = str
"""``JSON`` or ``HTML``."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """SHA-256 of each file, in hexadecimal, and which report they are of."""

    policy: str
    made: str
    files: Mapping[str, str]

    def to_json(self) -> bytes:
        """Canonical (RFC 8785)."""
        return canonical(
            {"format": 1, "policy": self.policy, "made": self.made, "files": dict(self.files)}
        )

    @property
    def run(self) -> str:
        """The name of the run: when it was made, as ``20260131t093000z``."""
        return self.made.replace("-", "").replace(":", "").lower()

    @property
    def digest(self) -> bytes:
        """SHA-256 of its bytes: what the audit log has."""
        return hashlib.sha256(self.to_json()).digest()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what `to_json` wrote; `ReportInvalid` otherwise."""
        try:
            fields = read_json(data, limit=_MAX_BYTES)
            if fields.integer("format") != 1:
                raise fields.wrong("format", "1: a newer memtenant wrote it")
            listed = fields.row("files")
            manifest = cls(
                fields.text("policy"),
                fields.text("made"),
                {name: str(digest) for name, digest in listed.items()},
            )
            fields.no_more()
        except DocumentInvalid as error:
            raise ReportInvalid(f"{MANIFEST} is no manifest of a report: {error}") from None
        if _written(manifest) != data or len(listed) > _MOST_FILES:
            raise ReportInvalid(f"{MANIFEST} is not as memtenant writes it: it was changed")
        if not all(_NAME.fullmatch(name) for name in listed):
            raise ReportInvalid(f"{MANIFEST} names a file outside of its folder")
        return manifest


def make_room(folder: Path) -> None:
    """Make the folder of a policy's reports. `UsageError` where none could be written into it: told
    before a run looks at everything, and not after."""
    try:
        make_folder(folder)
        probe = folder / f".{secrets.token_hex(4)}{_UNFINISHED}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error.strerror or error}. Reports are kept below --out"
        ) from None


def write_report(report: Report, folder: Path, *formats: Format) -> Manifest:
    """Write the files into a folder, which appears when all of them are on disk. ``formats``: all
    where none is named; the document is always written.

    Raises `UsageError` where there is something already: reports are not overwritten.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} holds something already: choose another folder")
    document = report.to_document()
    contents = {REPORT: canonical(document)}
    if not formats or "HTML" in formats:
        contents[PAGE] = page(report).encode()
    manifest = Manifest(
        report.policy,
        str(document["made"]),
        {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    )
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        make_folder(beside.parent)
        beside.mkdir()
        for name, data in (*contents.items(), (MANIFEST, manifest.to_json())):
            _write(beside / name, data)
        sync_folder(beside)
        beside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from None
    return manifest


def is_unfinished(folder: Path) -> bool:
    """Whether it is what a run leaves that was killed while it wrote: no report."""
    return folder.name.startswith(".") and folder.name.endswith(_UNFINISHED)


def read_report(folder: Path) -> tuple[Report, Manifest]:
    """The report of a folder, as the manifest knows it. `ReportInvalid` names what was changed."""
    manifest = check_files(folder)
    data = b"".join(_read(folder / REPORT, _MAX_REPORT))
    if hashlib.sha256(data).hexdigest() != manifest.files[REPORT]:
        raise ReportInvalid(f"{folder / REPORT} was changed while it was read")
    return Report.parse(data), manifest


def check_files(folder: Path) -> Manifest:
    """The manifest of a folder whose files are those that it names. `ReportInvalid` names what was
    changed."""
    try:
        manifest = Manifest.parse(b"".join(_read(folder / MANIFEST, _MAX_BYTES)))
    except ReportInvalid as error:
        raise ReportInvalid(f"{folder}: {error}") from None
    if REPORT not in manifest.files:
        raise ReportInvalid(f"{folder / MANIFEST} does not name {REPORT}: it proves no report")
    for name, digest in manifest.files.items():
        found = hashlib.sha256()
        for part in _read(folder / name, _MAX_REPORT):
            found.update(part)
        if found.hexdigest() != digest:
            raise ReportInvalid(f"{folder / name} is not the file that the manifest names")
    if PAGE not in manifest.files and (folder / PAGE).exists():
        raise ReportInvalid(f"{folder / PAGE} is not of this report: the manifest has no page")
    return manifest


def _written(manifest: Manifest) -> bytes:
    try:
        return manifest.to_json()
    except ValueError:
        return b""


def _read(file: Path, most: int) -> Iterator[bytes]:
    """A file of a report, part by part: a regular one that is in the folder itself."""
    try:
        opened = open_plain(file, os.O_RDONLY | os.O_NOFOLLOW)
        if os.fstat(opened).st_size > most:
            os.close(opened)
            raise ReportInvalid(f"{file} is no file of a report: it is too large")
        with os.fdopen(opened, "rb") as read:
            while part := read.read(_AT_ONCE):
                yield part
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror or error
        raise ReportInvalid(f"{file} cannot be read: {why}") from None


def _write(file: Path, data: bytes) -> None:
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    with os.fdopen(opened, "wb") as written:
        written.write(data)
        written.flush()
        os.fsync(opened)
