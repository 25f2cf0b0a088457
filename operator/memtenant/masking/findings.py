"""A value that was found, and which of several that overlap decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from memtenant.tenancy.masking import Detector, MaskingAction

__all__ = ["STRENGTH", "Finding", "settled"]

STRENGTH: Mapping[MaskingAction, int] = {
    MaskingAction.MASK: 0,
    MaskingAction.TOKENISE: 0,
    MaskingAction.DROP: 1,
    MaskingAction.REJECT: 2,
}
"""Which action leaves less; a mask and a token leave as much."""

_PRIORITY = {detector: -place for place, detector in enumerate(Detector)}


class Finding(NamedTuple):
    """``value`` is the same however it was written; ``shown`` is what a mask may show of it."""

    start: int
    end: int
    detector: Detector
    value: str
    shown: str = ""


def settled(
    findings: Iterable[Finding], actions: Mapping[Detector, MaskingAction]
) -> list[Finding]:
    """One finding for each stretch of overlapping ones, in order: it covers all of them, so that
    no part of the others stays. The strongest action decides, then the longest, then priority."""
    ordered = sorted(findings)
    kept: list[Finding] = []
    best = (0, 0, 0)
    for one in ordered:
        rank = (STRENGTH[actions[one.detector]], one.end - one.start, _PRIORITY[one.detector])
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
            best = rank
            continue
        last = kept[-1]
        winner, best = (one, rank) if rank > best else (last, best)
        kept[-1] = winner._replace(start=last.start, end=max(last.end, one.end))
    return kept
