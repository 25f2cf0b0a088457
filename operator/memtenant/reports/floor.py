"""Content under a minimum, held against the log: what was told, is gone, and had to be there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from memtenant.clock import rfc3339
from memtenant.reports.evidence import moment

__all__ = ["Floor"]

_EXAMPLES: Final = 5


@dataclass(slots=True)
class Floor:
    """One tenant's, in milliseconds. ``keep_from``: what was told from then on is under the minimum
    at a time. ``since``: from when on the minimum is what it is (None: the log does not say); what
    went before was under another one, or none."""

    keep_from: Callable[[int], int]
    since: int | None
    now: int
    total: int = 0
    examples: list[str] = field(default_factory=list)
    _policy: str = ""
    _forgotten: dict[bytes, int] = field(default_factory=dict)

    def named(self, policy: object, at: int) -> None:
        """The tenant is under this policy from then on. What another policy let go was its to
        judge."""
        if not isinstance(policy, str) or policy == self._policy:
            return
        if self._policy and self.since is not None:
            self.since = max(self.since, at)
            self.total = 0
            self.examples.clear()
        self._policy = policy

    def forgotten(self, subject: bytes, at: int) -> None:
        """An agent asked for it. While a minimum stands that is refused."""
        self._forgotten.setdefault(subject, at)

    def went(self, what: str, many: int, told: int, at: int, why: str) -> None:
        """So many records that were told at one time were removed at another."""
        if self.since is not None and at >= self.since and told >= self.keep_from(at):
            self._count(f"{what}, {why} at {rfc3339(moment(at))}", many)

    def missing(self, what: str, many: int, told: int, subject: bytes) -> None:
        """They are not there, and nothing tells why: but for who was forgotten before it stood."""
        asked = self._forgotten.get(subject)
        excused = asked is not None and (self.since is None or asked < self.since)
        if told >= self.keep_from(self.now) and not excused:
            self._count(f"{what}, and no event says why", many)

    def result(self) -> tuple[int, tuple[str, ...]]:
        """How many were early, and some of them in words."""
        return self.total, tuple(self.examples)

    def _count(self, words: str, many: int) -> None:
        self.total += many
        if len(self.examples) < _EXAMPLES:
            self.examples.append(words)
