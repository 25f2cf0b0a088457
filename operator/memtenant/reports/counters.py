"""Runs of counters, first and last: what of one is in none of the others."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Runs", "extend", "merged", "without"]

Runs = list[tuple[int, int]]


def extend(runs: Runs, first: int, last: int) -> None:
    """Add a run; events of a writer come in order, so that most of them lengthen the last one."""
    if runs and runs[-1][0] <= first <= runs[-1][1] + 1:
        runs[-1] = (runs[-1][0], max(runs[-1][1], last))
    else:
        runs.append((first, last))


def merged(runs: Iterable[tuple[int, int]]) -> Runs:
    """In order, each counter once."""
    found: Runs = []
    for first, last in sorted(runs):
        extend(found, first, last)
    return found


def without(
    runs: Iterable[tuple[int, int]], others: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """What of the runs is in none of the others, which are `merged`."""
    for first, last in runs:
        at = first
        # The last of the others that begins before may reach into the run.
        start = max(bisect_left(others, (first, 0)) - 1, 0)
        for place in range(start, len(others)):
            a, b = others[place]
            if a > last:
                break
            if b < at:
                continue
            if a > at:
                yield at, a - 1
            at = max(at, b + 1)
        if at <= last:
            yield at, last
