"""That the archive was read, noted in the archive for the sealer, who makes an event of it.

``memtenant audit`` needs no server and no key, so it can make no event itself. Where the archive
is the one that is sealed, and it may write there, it leaves a note in ``reads/``: no evidence until
the sealer has put it into the log of the installation. A copy has nobody who would.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from memtenant.archive.port import Archive
from memtenant.audit import Deed, Entry, Operation, Outcome
from memtenant.audit.deed import Turn, new_writer
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import ArchiveUnavailable
from memtenant.tenancy.document import DocumentInvalid, canonical_json, read_json

__all__ = ["ALIVE", "SEALER", "NotedRead", "is_sealed_now", "note_read", "noted_reads"]

ALIVE: Final = "state/alive"
"""The sealer writes the time into it, to see that it can."""

SEALER: Final = "sealer"
"""Who tells it: with version 0, which no agent's binding has."""

_FOLDER: Final = "reads"
_SUFFIX: Final = ".json"
_NAME: Final = re.compile(r"[0-9a-f]{16}\.json")
_PATIENCE: Final = timedelta(seconds=60)
_MOST: Final = 200
"""Notes of which events are made at a time: whoever may write to the archive could leave any
number."""
_LARGEST: Final = 2048
_MOST_NAMED: Final = 12
"""Logs in a note: so many of the longest names leave room for who it was."""


@dataclass(frozen=True, slots=True)
class NotedRead:
    """A note: its file, whose name is the event's writer, and what it says."""

    name: str
    writer: bytes
    time: int
    detail: Mapping[str, object]

    def entry(self, key: SecretKey) -> bytes:
        """For the log of the installation: of the same note the same bytes, so that it is one leaf
        however often it is taken."""
        event = Deed(Operation.LOG_READ, self.detail).event(Turn(self.writer, 1), key, SEALER)
        return Entry(event, Outcome.DONE, self.time, 0).to_bytes()


def is_sealed_now(archive: Archive, now: datetime) -> bool:
    """Whether a sealer wrote to it in the last minute."""
    try:
        at = datetime.fromisoformat(archive.read(ALIVE).decode("ascii"))
    except ValueError:
        return False
    return at.tzinfo is not None and abs(now - at) <= _PATIENCE


def note_read(
    archive: Archive, what: Mapping[str, object], logs: Sequence[str], now: datetime
) -> bool:
    """Leave a note of what is read (of all logs, if none is named), and by whom as the system knows
    them; whether that could be done."""
    writer = new_writer(now, secrets.token_bytes).hex()
    said = {**what, "by": _user(), "time": int(now.timestamp() * 1000)}
    if logs:
        more = [f"and {len(logs) - _MOST_NAMED} more"] if len(logs) > _MOST_NAMED else []
        said["logs"] = [*logs[:_MOST_NAMED], *more]
    try:
        archive.replace(f"{_FOLDER}/{writer}{_SUFFIX}", canonical_json(said))
    except ArchiveUnavailable:
        return False
    return True


def noted_reads(archive: Archive) -> list[NotedRead]:
    """The notes that are there, some at a time; of one that cannot be read, that it is there."""
    named = (one for one in archive.names(_FOLDER) if _NAME.fullmatch(one))
    return [_noted(archive, name) for name in islice(named, _MOST)]


def _noted(archive: Archive, name: str) -> NotedRead:
    file, data = f"{_FOLDER}/{name}", b""
    # It may belong to somebody who lets nobody read it.
    with suppress(ArchiveUnavailable):
        data = archive.read(file, 0, _LARGEST + 1)
    return _parsed(file, bytes.fromhex(name.removesuffix(_SUFFIX)), data)


def _parsed(name: str, writer: bytes, data: bytes) -> NotedRead:
    try:
        fields = read_json(data, limit=_LARGEST)
        detail: dict[str, object] = {
            field: fields.text(field, 256)
            for field in ("by", "command", "since", "until")
            if field in fields
        }
        if "logs" in fields:
            detail["logs"] = list(fields.texts("logs", 100, 128))
        return NotedRead(name, writer, fields.integer("time", 0, 2**47), detail)
    except DocumentInvalid:
        opened = int.from_bytes(writer[:4], "big") * 1000
        return NotedRead(name, writer, opened, {"unreadable": len(data)})


def _user() -> str:
    """The name of the process' user, or its number where it has none (as in most pods)."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
