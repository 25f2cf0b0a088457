"""What a sealer remembers of a log from run to run: a copy of what the archive says, to start fast.

``state/<log id>`` is never evidence. One that is missing, torn or older than the archive is
completed from the archive or made anew.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from memtenant.archive.port import Archive
from memtenant.archive.segments import Tail, segment_name
from memtenant.archive.writers import Standing, Writers
from memtenant.audit.merkle import Frontier
from memtenant.tenancy.document import DocumentInvalid, Fields, canonical_json, read_json

__all__ = ["recall_log", "recall_tail", "remember_log", "state_name", "tail_document"]

_FORMAT: Final = 2
_MOST: Final = 2**28
_WRITER: Final = struct.Struct(">HI6sBB")
_MARK: Final = 17
_ODD: Final = 8


def state_name(log_id: str) -> str:
    """The file of a log, or of the tree."""
    return f"state/{log_id}"


def tail_document(tail: Tail) -> dict[str, object]:
    """Where a log ends, as part of a JSON document."""
    return {
        "format": _FORMAT,
        "month": tail.month,
        "offset": tail.offset,
        "size": tail.size,
        "frontier": [peak.hex() for peak in tail.frontier.peaks],
    }


def recall_tail(fields: Fields, archive: Archive, folder: str) -> Tail:
    """Read `tail_document`; raises ``ValueError``."""
    fields.integer("format", _FORMAT, _FORMAT)
    peaks = [bytes.fromhex(one) for one in fields.texts("frontier", 64, 64)]
    frontier = Frontier(fields.integer("size"), peaks)
    month, offset = fields.text("month", 7), fields.integer("offset")
    if (archive.size(segment_name(folder, month)) or 0) < offset:
        raise ValueError("the archive is not as far")
    return Tail(archive, folder, month, offset, frontier)


def remember_log(tail: Tail, time: int, writers: Writers) -> bytes:
    """The file of a log."""
    body = b"".join(writers.odd) + b"".join(_packed(writers))
    document = tail_document(tail) | {
        "time": time,
        "forgotten": writers.forgotten,
        "odd": len(writers.odd),
        "checksum": crc32(body),
    }
    return canonical_json(document) + b"\n" + body


def recall_log(
    data: bytes, archive: Archive, folder: str, most: int
) -> tuple[Tail, int, Writers] | None:
    """What `remember_log` wrote: tail, time of the last leaf, writers. None for anything else."""
    header, _, body = data.partition(b"\n")
    try:
        fields = read_json(header, limit=64 * 1024)
        if fields.integer("checksum") != crc32(body):
            return None
        tail = recall_tail(fields, archive, folder)
        writers = Writers(most, fields.integer("forgotten"))
        time, start = fields.integer("time"), fields.integer("odd") * _ODD
    except (DocumentInvalid, ValueError):
        return None
    for place in range(0, start, _ODD):
        writers.odd[body[place : place + _ODD]] = None
    _unpack(body, start, writers)
    return tail, time, writers


def _packed(writers: Writers) -> Iterator[bytes]:
    for writer, (top, done, pending, heard) in writers.known.items():
        fixed = (len(writer), top, heard.to_bytes(6, "big"), bool(done), len(pending))
        yield _WRITER.pack(*fixed) + writer + done + b"".join(pending)


def _unpack(body: bytes, start: int, writers: Writers) -> None:
    while start < len(body):
        length, top, heard, is_done, many = _WRITER.unpack_from(body, start)
        start += _WRITER.size
        writer = body[start : start + length]
        start += length
        marks = [body[start + n * _MARK : start + (n + 1) * _MARK] for n in range(is_done + many)]
        start += _MARK * len(marks)
        done = marks[0] if is_done else b""
        pending = tuple(marks[1:] if is_done else marks)
        writers.known[writer] = Standing(top, done, pending, int.from_bytes(heard, "big"))
