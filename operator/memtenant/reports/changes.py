"""What changed, by the operator's word in the sealed log: specs, holds that ended, times in which
nothing was audited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from memtenant.clock import rfc3339
from memtenant.reports.evidence import Period, moment
from memtenant.reports.revisions import Revision
from memtenant.resources.port import Kind

__all__ = ["Changes"]

_EXAMPLES: Final = 5


@dataclass(slots=True)
class Changes:
    """Those of one log. ``was_new``: the log has the tenant's first day. The others are those of
    `memtenant.reports.evidence.TenantEvents`."""

    period: Period
    specs: dict[tuple[str, str], int] = field(default_factory=dict)
    acted: dict[tuple[str, str], datetime] = field(default_factory=dict)
    revisions: dict[str, list[Revision]] = field(default_factory=dict)
    policies: list[tuple[str, datetime]] = field(default_factory=list)
    unnamed: int = 0
    released: list[str] = field(default_factory=list)
    unaudited: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    audited_since: datetime | None = None
    untold_until: datetime | None = None
    was_new: bool = False
    _started: bool = False
    _stopped_at: int = 0
    _unread_at: int = 0

    def spec(self, detail: Mapping[str, object], at: int) -> None:
        """A generation of a spec was acted upon."""
        generation = detail.get("generation")
        if not isinstance(generation, int):
            return
        kind, name = detail.get("kind", Kind.TENANT.value), detail.get("name", "")
        parts = (kind, detail.get("namespace", ""), name)
        seen = "/".join(str(part) for part in parts if part), str(detail.get("uid", ""))
        when = moment(at)
        if generation > self.specs.get(seen, -1):
            self.acted[seen] = when
            if kind == Kind.POLICY.value:
                self._revised(str(name), detail, when)
        self.specs[seen] = max(generation, self.specs.get(seen, 0))
        self.unnamed += when in self.period and not detail.get("by")

    def named(self, policy: object, at: int) -> None:
        """The tenant is under this policy from then on."""
        last = self.policies[-1][0] if self.policies else None
        if isinstance(policy, str) and policy != last:
            self.policies.append((policy, moment(at)))

    def hold_ended(self, detail: Mapping[str, object], at: int) -> None:
        """A hold was released, or what protected something was put aside."""
        when = moment(at)
        if when in self.period and len(self.released) < _EXAMPLES:
            what = detail.get("matter") or detail.get("what") or ""
            by = f" by {detail['by']}" if detail.get("by") else ""
            self.released.append(f"{what} at {rfc3339(when)}{by}")

    def provisioned(self, *, is_whole: bool) -> None:
        """The tenant is new: before, there was nothing to audit."""
        self.was_new = self.was_new or (is_whole and not self._started)
        self._started = True

    def audit_started(self, detail: Mapping[str, object], at: int, *, is_whole: bool) -> None:
        """The audit began, or goes on otherwise. ``is_whole``: the log has all that was before."""
        if self._stopped_at:
            self._note(self.unaudited, self._stopped_at, at)
            self.untold_until = moment(at)
        elif is_whole and not self._started:
            self.untold_until = moment(at)
            if moment(at) in self.period:
                self.audited_since = moment(at)
        self._started, self._stopped_at = True, 0
        if not detail.get("reads"):
            self._unread_at = self._unread_at or at
        elif self._unread_at:
            self._note(self.unread, self._unread_at, at)
            self._unread_at = 0

    def audit_stopped(self, at: int) -> None:
        """The audit ended."""
        self._stopped_at = at

    def ended(self, now: int) -> None:
        """All of it was read, by this time."""
        if self._stopped_at:
            self._note(self.unaudited, self._stopped_at, now)
            self.untold_until = moment(now)

    def _note(self, spans: list[str], since: int, until: int) -> None:
        first, last = moment(since), moment(until)
        if last > self.period.since and first < self.period.until and len(spans) < _EXAMPLES:
            spans.append(f"from {rfc3339(first)} to {rfc3339(last)}")

    def _revised(self, name: str, detail: Mapping[str, object], when: datetime) -> None:
        revision = Revision.told(name, detail, when)
        if revision is not None:
            self.revisions.setdefault(name, []).append(revision)
