"""What is kept of a person, as files: JSON Lines and a manifest with the hash of each.

The files grow in a folder beside the destination, which becomes the destination when the manifest
is in it: an export that was cut short leaves nothing that looks like one.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final

from memtenant.clock import rfc3339
from memtenant.errors import UsageError
from memtenant.memory.codec import encode
from memtenant.memory.messages import StoredMessage
from memtenant.memory.subjects import Subject
from memtenant.memory.summaries import Summary

__all__ = [
    "MANIFEST",
    "ExportFile",
    "ExportItem",
    "ExportKind",
    "ExportManifest",
    "ExportWriter",
    "conversation_item",
    "message_item",
    "summary_item",
    "value_item",
]

MANIFEST: Final = "manifest.json"
_FORMAT = 1


class ExportKind(StrEnum):
    """What a line is about; each kind has a file."""

    CONVERSATION = "conversations"
    MESSAGE = "messages"
    SUMMARY = "summaries"
    VALUE = "values"


@dataclass(frozen=True, slots=True)
class ExportItem:
    """One line: what JSON can hold, in the clear."""

    kind: ExportKind
    fields: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExportFile:
    """One file of an export."""

    name: str
    sha256: str
    size: int
    lines: int


@dataclass(frozen=True, slots=True)
class ExportManifest:
    """What an export holds. ``subject`` is the person's alias."""

    tenant: str
    subject: str
    agent: str
    created_at: datetime
    files: tuple[ExportFile, ...]

    def count(self, kind: ExportKind) -> int:
        """How many lines of a kind there are."""
        return next(one.lines for one in self.files if one.name == _file_name(kind))

    def to_json(self) -> bytes:
        """What stands in ``manifest.json``."""
        document = {
            "format": _FORMAT,
            "tenantId": self.tenant,
            "subject": self.subject,
            "agent": self.agent,
            "createdAt": rfc3339(self.created_at),
            "files": [
                {"name": one.name, "sha256": one.sha256, "bytes": one.size, "lines": one.lines}
                for one in self.files
            ],
        }
        return json.dumps(document, indent=2).encode() + b"\n"


def conversation_item(alias: str, session: object, title: object) -> ExportItem:
    """A conversation; its messages name it."""
    fields = {"conversation": alias, "session": session, "title": title}
    return ExportItem(ExportKind.CONVERSATION, fields)


def message_item(alias: str, stored: StoredMessage) -> ExportItem:
    """A message as it was stored."""
    return ExportItem(
        ExportKind.MESSAGE,
        {
            "conversation": alias,
            "sequence": stored.sequence,
            "time": stored.time.isoformat(),
            "message": json.loads(encode(stored.message)),
        },
    )


def summary_item(alias: str, summary: Summary) -> ExportItem:
    """A summary of a conversation's messages."""
    return ExportItem(
        ExportKind.SUMMARY,
        {
            "conversation": alias,
            "first": summary.lineage.first,
            "last": summary.lineage.last,
            "time": summary.time.isoformat(),
            "text": summary.text,
            "facts": list(summary.facts),
        },
    )


def value_item(alias: str, name: str, version: int, time: datetime, value: Any) -> ExportItem:
    """A value of a shared context that is about the person."""
    fields = {"context": alias, "name": name, "version": version, "time": time.isoformat()}
    return ExportItem(ExportKind.VALUE, {**fields, "value": value})


class _Growing:
    """One file that is being written."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("xb")
        self._hash = hashlib.sha256()
        self._name = path.name
        self._size = self._lines = 0

    def add(self, fields: dict[str, Any]) -> None:
        line = json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n"
        data = line.encode("utf-8", "surrogatepass")
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)
        self._lines += 1

    def end(self) -> ExportFile:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return ExportFile(self._name, self._hash.hexdigest(), self._size, self._lines)

    def close(self) -> None:
        self._file.close()


class ExportWriter:
    """Writes an export; `finish` makes it visible, `abandon` leaves nothing."""

    def __init__(self, destination: Path) -> None:
        """Raises `UsageError` where the destination exists already, or cannot be made."""
        self._destination = destination
        if destination.exists():
            raise UsageError(
                f"{destination} exists already: name a folder that does not, which the export makes"
            )
        self._folder = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.part")
        try:
            self._folder.mkdir(mode=0o700)
        except OSError as error:
            raise UsageError(
                f"No folder can be made beside {destination} ({error.strerror}): name another place"
            ) from None
        self._files = {kind: _Growing(self._folder / _file_name(kind)) for kind in ExportKind}

    def add(self, item: ExportItem) -> None:
        """One line more."""
        self._files[item.kind].add(item.fields)

    def finish(self, subject: Subject, agent: str, now: datetime) -> ExportManifest:
        """The manifest, in its place with all files."""
        files = tuple(self._files[kind].end() for kind in ExportKind)
        created = now.replace(microsecond=0)
        manifest = ExportManifest(str(subject.tenant), subject.alias, agent, created, files)
        with (self._folder / MANIFEST).open("xb") as file:
            file.write(manifest.to_json())
            file.flush()
            os.fsync(file.fileno())
        self._folder.rename(self._destination)
        return manifest

    def abandon(self) -> None:
        """Remove what was written so far."""
        for growing in self._files.values():
            growing.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _file_name(kind: ExportKind) -> str:
    return f"{kind}.jsonl"
