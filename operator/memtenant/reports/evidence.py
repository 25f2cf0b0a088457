"""What a report looked at: when, how much of it, and of what it could not look at, why not.

Nothing here judges. A check gets evidence, or a `Missing` in its place, and a control without its
evidence is an error: never a pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from memtenant.api.conditions import ConditionStatus, ConditionType, find
from memtenant.api.fields import Isolation
from memtenant.api.tenant import MemoryTenantSpec, MemoryTenantStatus
from memtenant.reports.revisions import Revisions, Under
from memtenant.rules.policy import PolicyFacts
from memtenant.rules.quota import QuotaState, Usage
from memtenant.rules.retention import Resolution
from memtenant.tenancy.identity import TenantId

__all__ = [
    "CLOCKS_APART",
    "Coverage",
    "Erasure",
    "Evidence",
    "LogEvidence",
    "LogKeyReaders",
    "Missing",
    "Opened",
    "Period",
    "RecordEvidence",
    "ReportFiles",
    "StoreEvidence",
    "TenantEvents",
    "TenantEvidence",
    "TenantFacts",
    "ToldReport",
    "UserDrift",
    "moment",
]


CLOCKS_APART: Final = timedelta(minutes=10)
"""So much clocks may differ. By one that is further behind, things look younger than they are."""


def moment(milliseconds: int) -> datetime:
    """A time of a header or event."""
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Missing:
    """What could not be looked at, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True, slots=True)
class Period:
    """What of the log a report tells: from ``since`` up to ``until``. ``chosen``: by who ran it, so
    that the next report does not begin where it ends."""

    since: datetime
    until: datetime
    chosen: bool = False

    def __contains__(self, moment: datetime) -> bool:
        return self.since <= moment < self.until


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """A tenant as it is declared, and what its policy makes of it. ``matters`` are the holds that
    stand now, each with its begin. ``gone``: it is not declared any more, and its memory is kept;
    ``spec`` then is as much as its store remembers, and of ``status`` nothing is known."""

    tenant: TenantId
    uid: str
    generation: int
    store: str
    spec: MemoryTenantSpec
    status: MemoryTenantStatus
    resolution: Resolution
    matters: Mapping[str, datetime] = field(default_factory=dict)
    gone: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the operator acts upon what is declared; else what it accepted before counts."""
        stalled = find(self.status.conditions, ConditionType.STALLED)
        is_stalled = stalled is not None and stalled.status is ConditionStatus.TRUE
        return self.status.observed_generation == self.generation and not is_stalled

    @property
    def server(self) -> str:
        """Which server has the tenant's memory, by its name in ``stores.json``: a store's, or the
        tenant's own instance."""
        strict = self.spec.isolation is Isolation.STRICT
        return str(self.tenant) if strict else self.store


@dataclass(frozen=True, slots=True)
class Opened:
    """Records that were opened with the tenant's keys. ``failures`` are counted by why."""

    opened: int
    tried: int
    of: int
    failures: Mapping[str, int] = field(default_factory=dict)
    texts: int = 0


@dataclass(frozen=True, slots=True)
class Erasure:
    """A receipt of an erasure that was not refused; ``ended`` is None while it goes on."""

    id: str
    phase: str
    asked: datetime
    ended: datetime | None

    def lasted(self, now: datetime) -> timedelta:
        """How long it took, or takes."""
        return (self.ended or now) - self.asked


@dataclass(frozen=True, slots=True)
class RecordEvidence:
    """What one tenant has in its store.

    records: entries with content. encrypted; authenticated: readable, under a MAC (encryption
    Disabled); plain: written around memtenant. expired: older than the cut-off, by class.
    oldest: by class. usage: as the operator measures it; quota: what the store says of it, which
    the users' rights follow. undated: what tells no time. misdated: what bears one to come, or one
    at which its writer could not write (any more). hits: values found in texts that could be read,
    by detector, of ``texts`` that were looked through. kek_versions: how many data keys are under
    each version. marks: erased persons. erasures_known: of how many persons there is
    a receipt, refused or not, or a request that waits; who was erased again counts again.
    erasures_open: of how many of them records may be there. erased_looked: persons whose erasure is
    so late that their tombstones stand, and were looked at; left: what was there of them, in words.
    dropped: events that the store counts and of which the log is not told yet.
    examples: where what is plain, undated, misdated or was found is: keys, those of a foreign name
    by a digest.
    """

    at: datetime
    records: int = 0
    encrypted: int = 0
    authenticated: int = 0
    plain: int = 0
    oldest: Mapping[str, datetime] = field(default_factory=dict)
    expired: Mapping[str, int] = field(default_factory=dict)
    undated: int = 0
    misdated: int = 0
    hits: Mapping[str, int] = field(default_factory=dict)
    texts: int = 0
    usage: Usage = field(default_factory=Usage)
    quota: QuotaState = field(default_factory=QuotaState)
    kek_versions: Mapping[int, int] = field(default_factory=dict)
    marks: int = 0
    erasures: int = 0
    erasures_known: int = 0
    erasures_slowest: tuple[Erasure, ...] = ()
    erasures_remaining: int = 0
    erasures_open: int = 0
    erased_looked: int = 0
    left: tuple[str, ...] = ()
    left_total: int = 0
    dropped: int = 0
    limits: Mapping[str, str] = field(default_factory=dict)
    matters: Mapping[str, str] = field(default_factory=dict)
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    opened: Opened | Missing = Missing("records", "not decrypted")


@dataclass(frozen=True, slots=True)
class Coverage:
    """Records against events. ``covered`` of ``records`` have a sealed event, ``waiting`` one in
    the queue, ``before`` are older than the log; ``uncovered`` have none. ``vanished`` events tell
    a record that is not there and that no event and no expiry explains, ``explained`` ones that is
    rightly gone, ``assumed`` ones are so if the tenant chose then what the log tells only later.
    ``oldest`` is the oldest time at which a live record was told, ``oldest_at`` where it is;
    ``places`` are some where a record has no event."""

    records: int
    covered: int
    waiting: int
    before: int
    uncovered: int
    explained: int
    vanished: int
    assumed: int = 0
    oldest: datetime | None = None
    oldest_at: str = ""
    places: tuple[str, ...] = ()

    @property
    def doubt(self) -> str:
        """What nobody knows of records that are gone, in words; empty where that is nothing."""
        if not self.assumed:
            return ""
        return (
            f"records that are gone: {self.assumed}, rightly if the tenant chose then what the log "
            "tells only later (a release before 0.2 told no choice, or what told it was removed)"
        )


@dataclass(frozen=True, slots=True)
class ToldReport:
    """An earlier report, as the sealed log was told of it: its run, and its manifest's SHA-256 in
    hexadecimal."""

    run: str
    manifest: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """The files of earlier reports that have to be kept, against what the log was told of them.

    wanted: since when they are kept, by the period of evidence; since: since when the log tells of
    them, which is later where its own period is shorter. due: how many it tells. lost: those of
    them whose files are gone or changed, in words, by run; lapsed: whose files are gone, and were
    to go by a period that was in force before. untold: whole ones that no leaf names,
    though the log was sealed since; waiting: those whose leaf may still be on its way.
    """

    at: datetime
    folder: str
    since: datetime
    wanted: datetime
    due: int = 0
    lost: Mapping[str, str] = field(default_factory=dict)
    lapsed: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TenantEvents:
    """What the sealed log says of a tenant, in the period but where said otherwise.

    by_operation, by_agent, refused: counts. subjects: distinct persons. gaps, bad, forged: counters
    that are missing, events whose MAC is not their agent's or that are no events, second outcomes
    of one event; those that were sealed in the period. first: time of the first event that is kept.
    destroyed: removals at or after the begin of a hold, in words; held_at: when the first hold was
    set. released: holds that ended or were overridden. specs: the latest generation that was seen
    of each object, by name and uid, by the operator's word; acted: when it was seen first; unnamed:
    how many of these changes name no person. revisions: of each policy, in all of the log that is
    kept; only the installation's has them. unaudited, unread: times in which no event was left of
    anything, or of reads, in words; audited_since: when the audit of a tenant began that was there
    before; untold_until: until when anything was stored without an event, in all of the log that is
    kept.
    policies: those that the tenant was under.
    erasures_asked: persons whom agents asked to forget, in all of the log that is kept.
    forgotten_alive: persons whom agents asked to forget, and of whom records live that were told
    before that; forgotten_records: how many, and forgotten_places where the first ones are.
    reports: of the policy, in all of the log that is kept; only the installation's has them.
    early: messages that went or are gone while their minimum stood, in words, of ``early_total``;
    floor_since: from when on the minimum is what it is.
    dropped: events that were dropped, by the store's count; put_back: how often that count became
    less; not_drained: times in which events were to be dropped, in words.
    """

    by_operation: Mapping[str, int] = field(default_factory=dict)
    by_agent: Mapping[str, int] = field(default_factory=dict)
    refused: int = 0
    subjects: int = 0
    gaps: int = 0
    bad: int = 0
    forged: int = 0
    total: int = 0
    first: datetime | None = None
    last: datetime | None = None
    destroyed: tuple[str, ...] = ()
    destroyed_total: int = 0
    held_at: datetime | None = None
    released: tuple[str, ...] = ()
    specs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    acted: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    revisions: Revisions = field(default_factory=dict)
    unnamed: int = 0
    unaudited: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    audited_since: datetime | None = None
    untold_until: datetime | None = None
    policies: Under = ()
    erasures_asked: int = 0
    forgotten_alive: int = 0
    forgotten_records: int = 0
    forgotten_places: tuple[str, ...] = ()
    reports: tuple[ToldReport, ...] = ()
    early: tuple[str, ...] = ()
    early_total: int = 0
    floor_since: datetime | None = None
    dropped: int = 0
    put_back: int = 0
    not_drained: tuple[str, ...] = ()
    coverage: Coverage | Missing = Missing("coverage", "the tenant's records were not read")


@dataclass(frozen=True, slots=True)
class UserDrift:
    """A user of a node that is not as it should be, in words that show no secret."""

    node: str
    user: str
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoreEvidence:
    """One store, node by node. ``open_nodes``: where anybody comes in without a password.
    strangers: users that memtenant did not make and that are not the declared administrator.
    checked: users compared."""

    name: str
    at: datetime
    address: str
    tls: bool
    loopback: bool
    nodes: tuple[str, ...]
    unreachable: tuple[str, ...] = ()
    open_nodes: tuple[str, ...] = ()
    drift: tuple[UserDrift, ...] = ()
    strangers: tuple[str, ...] = ()
    checked: int = 0
    durable: bool = True


@dataclass(frozen=True, slots=True)
class LogEvidence:
    """The sealed log as a whole. ``problems``: what does not verify, and where. ``anchored``: it
    contains a checkpoint that was held before. ``unverified``: why it could not be told.
    ``pruned``: logs whose first leaves are gone, and when the first that stays was sealed."""

    at: datetime
    verified: bool
    problems: tuple[str, ...] = ()
    unverified: str = ""
    anchored: bool = False
    size: int = 0
    checkpoint: str = ""
    sealed_at: datetime | None = None
    pruned: Mapping[str, datetime] = field(default_factory=dict)

    def begin_of(self, log_id: str) -> datetime | None:
        """From when on all of a log is there; None where nothing of it was removed. Months go
        whole."""
        first = self.pruned.get(log_id)
        return first and first.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class LogKeyReaders:
    """Who can read the key that seals the log, against those who are meant to, and who administers
    stores. ``single``: one account runs everything, as with a state folder."""

    at: datetime
    readers: tuple[str, ...]
    expected: tuple[str, ...]
    administrators: tuple[str, ...] = ()
    single: bool = False
    said: str = ""


@dataclass(frozen=True, slots=True)
class TenantEvidence:
    """All that is known of one tenant."""

    name: str
    facts: TenantFacts | Missing
    records: RecordEvidence | Missing
    events: TenantEvents | Missing


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a run found out about one policy and what is under it. ``uid`` and
    ``generation`` are the policy's, ``generations`` of the stores that its tenants are on: each by
    name and uid. ``doubts``: earlier reports that are changed or gone,
    in words. ``took``: for how long was read, from ``now`` on."""

    now: datetime
    period: Period
    policy: PolicyFacts
    uid: str
    generation: int
    tenants: tuple[TenantEvidence, ...]
    stores: Mapping[str, StoreEvidence | Missing]
    log: LogEvidence | Missing
    installation: TenantEvents | Missing
    readers: LogKeyReaders | Missing
    seal_every: int = 60
    generations: Mapping[tuple[str, str], int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    reports: ReportFiles | Missing = Missing("reports", "their folder was not looked at")
    took: timedelta = timedelta()

    def is_to_come(self, at: datetime) -> bool:
        """Whether a time that was read is still to come by this clock."""
        return at > self.now + self.took + CLOCKS_APART
