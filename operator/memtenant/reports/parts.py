"""A tenant's log, read once; or in several parts, where more is gone than is followed at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from memtenant.archive import SealedEntry, SealedGap
from memtenant.reports.absent import Fate, Part
from memtenant.reports.evidence import TenantEvents
from memtenant.reports.ledger import EventLedger

__all__ = ["read_in_parts"]

_MOST_PARTS: Final = 50
_ROOM: Final = 1.25
"""Parts are not all of one size."""

Leaves = Callable[[], Iterable[SealedEntry | SealedGap]]


def read_in_parts(
    make: Callable[[Part], EventLedger], leaves: Leaves, queue: Sequence[bytes], now: int
) -> TenantEvents:
    """What the log and then the queue come to. Raises what reading the log does."""
    whole = make(Part())
    fate = _read(whole, leaves, queue, now)
    parts = int((whole.most + fate.lost) * _ROOM / whole.most) + 1
    if fate.lost and parts <= _MOST_PARTS:
        fate = Fate()
        for index in range(parts):
            part = _read(make(Part(index, parts)), leaves, queue, now)
            fate = fate.with_part(part)
    return whole.result(fate)


def _read(ledger: EventLedger, leaves: Leaves, queue: Sequence[bytes], now: int) -> Fate:
    for leaf in leaves():
        ledger.add(leaf)
    for entry in queue:
        ledger.waiting(entry)
    return ledger.ended(now)
