"""The turns of queues in a round over a store: which are read together, what became of each, and
what the round did in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from memtenant.archive import Space, Taken
from memtenant.jobs.budget import Budget
from memtenant.rules.sealing import LogReport
from memtenant.stores.sealing import Page, Queue

__all__ = ["PAGE", "Drained", "Turn", "groups"]

PAGE = 5000
"""Entries that are read, archived and removed together: some 600 KB, and one wait for the disk."""

_TOGETHER = 200
"""Queues whose entries are read, archived and removed together, where they are few: the disk and
the store are waited for once."""

_MOST_A_ROUND = 100_000
"""Entries of one queue before the next queue has its turn."""

_UNKNOWN = Space(0, 0)


@dataclass(frozen=True, slots=True)
class Drained:
    """What one round over a store did. ``waiting`` are entries that are left, ``refused`` logs that
    are not what was sealed, and ``shrunk`` queues that lost entries, by whomever. ``flooded`` are
    logs whose queue waits for its budget, ``stopped`` those that had their share of the archive for
    today, and ``held`` the entries in all of them. ``read_back`` are logs of which more has to be
    read before it is known what was sealed: the next round goes on."""

    entries: int = 0
    events: int = 0
    bad: int = 0
    gaps: int = 0
    duplicates: int = 0
    waiting: int = 0
    refused: tuple[str, ...] = ()
    shrunk: tuple[str, ...] = ()
    flooded: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    held: int = 0
    read_back: tuple[str, ...] = ()
    space: Space = _UNKNOWN
    unreadable: tuple[str, ...] = ()

    @property
    def silent(self) -> tuple[str, ...]:
        """Logs that get no heartbeat: nothing is added to them now."""
        return (*self.refused, *self.stopped, *self.read_back)

    def plus(self, taken: Taken, entries: int) -> Drained:
        """And a page more."""
        return replace(
            self,
            entries=self.entries + entries,
            events=self.events + taken.events,
            bad=self.bad + taken.bad,
            gaps=self.gaps + taken.gaps,
            duplicates=self.duplicates + taken.duplicates,
        )


@dataclass(slots=True, eq=False)
class Turn:
    """The turn of one queue in a round."""

    queue: Queue
    report: LogReport
    budget: Budget | None
    shrunk: bool
    taken: int = 0
    refused: bool = False
    is_read_back: bool = False
    is_over: bool = False

    @property
    def log(self) -> str:
        """Whose queue it is."""
        return self.queue.log

    @property
    def waiting(self) -> int:
        """Entries that are left."""
        return max(self.queue.length - self.taken, 0)

    @property
    def goes_on(self) -> bool:
        """Whether there is more that may be taken."""
        if self.refused or self.is_over:
            return False
        more = self.taken < min(self.queue.length, _MOST_A_ROUND)
        return more and not self.is_flooded and not self.is_stopped

    @property
    def is_flooded(self) -> bool:
        """Whether what is left waits for the tenant's budget."""
        return self.budget is not None and self.budget.spent

    @property
    def is_stopped(self) -> bool:
        """Whether the tenant had its share of the archive for today."""
        return self.budget is not None and self.budget.had_its_share

    def took(self, taken: Taken, page: Page, now: int) -> None:
        """A page is in the archive."""
        if self.budget is not None:
            self.budget.spend(page.entries, is_new=taken.duplicates < len(page.entries))
        self.report = replace(
            self.report,
            size=taken.size,
            gaps=self.report.gaps + taken.gaps,
            bad=self.report.bad + taken.bad,
            irregular_at=now if taken.gaps or taken.bad else self.report.irregular_at,
        )


def groups(queues: Iterable[Queue]) -> Iterator[list[Queue]]:
    """Queues whose entries fit into a page together; one that has more is by itself."""
    group: list[Queue] = []
    entries = 0
    for queue in queues:
        if group and (entries + queue.length > PAGE or len(group) >= _TOGETHER):
            yield group
            group, entries = [], 0
        group.append(queue)
        entries += queue.length
    if group:
        yield group
