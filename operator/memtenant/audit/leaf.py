"""Leaves: what is written into the log of a tenant, and into the tree of the installation.

Each begins with its format and its kind. Big-endian; docs/audit-format.md has every byte.

======  ====  ==================================================================================
format  kind  then
======  ====  ==================================================================================
0xE2    1     an entry: sealed at (ms, 6 B), verdict (1 B), the queue's entry as it stood
0xE2    2     a gap: sealed at (ms, 6 B), writer (8 B), first and last missing counter (4 B each),
              name of the agent
0xE3    1     a log: size (8 B), root (32 B), log id
0xE3    2     a seal: window (8 B), time (ms, 6 B), SHA-256 of the checkpoint before (32 B; zeros
              in the first), then what came since: events (8 B), logs, bad, gaps, duplicates (4 B)
0xE3    3     a pruning: the first leaf that stays (8 B), root of those before it (32 B), log id
0xE3    4     a period: months for which a log is kept (4 B; 0 for ever), log id
======  ====  ==================================================================================
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.errors import ArchiveMalformed

__all__ = [
    "LOG_LEAF",
    "LONGEST_ENTRY",
    "NO_CHECKPOINT",
    "TREE",
    "TREE_LEAF",
    "EntryLeaf",
    "GapLeaf",
    "Keeping",
    "LogRoot",
    "Pruning",
    "Seal",
    "TreeLeaf",
    "Verdict",
    "is_log_id",
    "parse_log_leaf",
    "parse_tree_leaf",
]

LOG_LEAF: Final = 0xE2
TREE_LEAF: Final = 0xE3

TREE: Final = "tree"
"""The tree of the installation, where it is named beside logs."""

NO_CHECKPOINT: Final = bytes(32)

LONGEST_ENTRY: Final = 8192
"""Twice what a Function takes. Of a longer one the leaf has the SHA-256 (32 B) and length (8 B)."""

_ENTRY: Final = struct.Struct(">BB6sB")
_GAP: Final = struct.Struct(">BB6s8sII")
_ROOT: Final = struct.Struct(">BBQ32s")
_KEEPING: Final = struct.Struct(">BBI")
_SEAL: Final = struct.Struct(">BBQ6s32sQIIII")
_LOG_ID: Final = re.compile(
    INSTALLATION_LOG
    + r"|[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"
)


class Verdict(IntEnum):
    """What the sealer found of an entry. Numbers are for ever."""

    GOOD = 1
    """The MAC is that of the agent and binding that the event names."""
    BAD_MAC = 2
    MALFORMED = 3
    """No event of a format that this version knows."""
    UNKNOWN_BINDING = 4
    """The sealer has no key for the agent and binding that it names."""
    FORGED = 5
    """Its MAC is right, and its counter was used before for something else that was done."""
    OVERSIZED = 6
    """Longer than any event: the leaf has its SHA-256 and its length."""


@dataclass(frozen=True, slots=True)
class EntryLeaf:
    """An entry of the queue. ``sealed_at`` in milliseconds since 1970, by the sealer's clock."""

    sealed_at: int
    verdict: Verdict
    entry: bytes

    def to_bytes(self) -> bytes:
        """The leaf."""
        when = self.sealed_at.to_bytes(6, "big")
        return _ENTRY.pack(LOG_LEAF, 1, when, self.verdict) + self.entry


@dataclass(frozen=True, slots=True)
class GapLeaf:
    """Counters of an agent's writer that no entry told, when a later one came."""

    sealed_at: int
    writer: bytes
    first: int
    last: int
    agent: str

    def to_bytes(self) -> bytes:
        """The leaf."""
        when = self.sealed_at.to_bytes(6, "big")
        fixed = _GAP.pack(LOG_LEAF, 2, when, self.writer, self.first, self.last)
        return fixed + self.agent.encode("ascii")


@dataclass(frozen=True, slots=True)
class LogRoot:
    """How far a log is."""

    log_id: str
    size: int
    root: bytes

    def to_bytes(self) -> bytes:
        """The leaf."""
        return _ROOT.pack(TREE_LEAF, 1, self.size, self.root) + self.log_id.encode()


@dataclass(frozen=True, slots=True)
class Pruning:
    """A log (or `TREE`) has no leaves before ``first`` any more: their period had passed. ``root``
    is that of the tree of what went."""

    log_id: str
    first: int
    root: bytes

    def to_bytes(self) -> bytes:
        """The leaf."""
        return _ROOT.pack(TREE_LEAF, 3, self.first, self.root) + self.log_id.encode()


@dataclass(frozen=True, slots=True)
class Keeping:
    """From here on a log (or `TREE`) is kept for so many calendar months; 0 is for ever."""

    log_id: str
    months: int

    def to_bytes(self) -> bytes:
        """The leaf."""
        return _KEEPING.pack(TREE_LEAF, 4, self.months) + self.log_id.encode()


TreeLeaf = LogRoot | Pruning | Keeping
"""What a window has before its seal."""


@dataclass(frozen=True, slots=True)
class Seal:
    """The end of a window, which its checkpoint signs with all before it.

    window: from 1. before: SHA-256 of the checkpoint before, as it was published. The counts are
    of what was taken since.
    """

    window: int
    time: int
    before: bytes
    events: int = 0
    logs: int = 0
    bad: int = 0
    gaps: int = 0
    duplicates: int = 0

    def to_bytes(self) -> bytes:
        """The leaf."""
        return _SEAL.pack(
            TREE_LEAF,
            2,
            self.window,
            self.time.to_bytes(6, "big"),
            self.before,
            self.events,
            *(min(n, 2**32 - 1) for n in (self.logs, self.bad, self.gaps, self.duplicates)),
        )


def parse_log_leaf(leaf: bytes) -> EntryLeaf | GapLeaf:
    """Raises `ArchiveMalformed` for bytes that are no leaf of a log."""
    try:
        if leaf[:2] == b"\xe2\x01":
            _, _, when, verdict = _ENTRY.unpack_from(leaf)
            return EntryLeaf(int.from_bytes(when, "big"), Verdict(verdict), leaf[_ENTRY.size :])
        if leaf[:2] == b"\xe2\x02":
            _, _, when, writer, first, last = _GAP.unpack_from(leaf)
            agent = leaf[_GAP.size :].decode("ascii")
            return GapLeaf(int.from_bytes(when, "big"), writer, first, last, agent)
    except (struct.error, ValueError):
        pass
    raise ArchiveMalformed("A leaf of a log is of no format that this version of memtenant reads")


def parse_tree_leaf(leaf: bytes) -> TreeLeaf | Seal:
    """Raises `ArchiveMalformed` for bytes that are no leaf of the tree."""
    try:
        if leaf[:2] == b"\xe3\x02":
            _, _, window, time, before, *counts = _SEAL.unpack(leaf)
            return Seal(window, int.from_bytes(time, "big"), before, *counts)
        if leaf[:2] == b"\xe3\x04":
            return _keeping(leaf)
        _, _, size, root = _ROOT.unpack_from(leaf)
        log_id = leaf[_ROOT.size :].decode("ascii")
        if leaf[:2] == b"\xe3\x01" and is_log_id(log_id):
            return LogRoot(log_id, size, root)
        if leaf[:2] == b"\xe3\x03" and (log_id == TREE or is_log_id(log_id)):
            return Pruning(log_id, size, root)
    except (struct.error, ValueError):
        pass
    raise ArchiveMalformed(
        "A leaf of the tree is of no format that this version of memtenant reads"
    )


def _keeping(leaf: bytes) -> Keeping:
    _, _, months = _KEEPING.unpack_from(leaf)
    log_id = leaf[_KEEPING.size :].decode("ascii")
    if log_id != TREE and not is_log_id(log_id):
        raise ValueError(log_id)
    return Keeping(log_id, months)


def is_log_id(text: str) -> bool:
    """Whether a log may be named so: a tenant's id, or `INSTALLATION_LOG`."""
    return _LOG_ID.fullmatch(text) is not None
