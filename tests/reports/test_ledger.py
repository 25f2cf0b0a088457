"""Records against events: what explains that a record is gone, and what does not."""

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from memtenant.archive import Place, SealedEntry, SealedGap
from memtenant.audit import Deed, Entry, Event, Operation, Outcome, sequences_to_bytes
from memtenant.audit.deed import Turn
from memtenant.audit.leaf import Verdict
from memtenant.crypto.primitives import SecretKey
from memtenant.reports.absent import Part
from memtenant.reports.evidence import Coverage, Missing, Period, TenantEvents
from memtenant.reports.floor import Floor
from memtenant.reports.lapses import Lapses
from memtenant.reports.ledger import EventLedger
from memtenant.reports.parts import read_in_parts
from memtenant.reports.places import place_of
from memtenant.reports.records import RUN

NOW = datetime(2026, 11, 28, 22, 0, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
KEY = SecretKey(b"k" * 32)
LANE, CALLS = b"lane-abc", b"call-abc"
ADA, TALK, NOTHING = b"a" * 16, b"t" * 16, bytes(16)
WHERE = Place("support.acme", 0, "logs/support.acme/2026-11.log", 0)


def event(operation: Operation, *, counter: int = 1, count: int = 1, **said: object) -> Event:
    writer = LANE if operation is Operation.APPEND else CALLS
    fields: dict[str, object] = {"subject": ADA, "place": TALK, "detail": b"", **said}
    return Event(operation, "default", 1, writer, counter, count, commitment=NOTHING, **fields)  # type: ignore[arg-type]


def sealed(
    of: Event | bytes, sequence: int = 0, *, at: int = MS, outcome: Outcome = Outcome.DONE
) -> SealedEntry:
    raw = of if isinstance(of, bytes) else of.to_bytes(KEY)
    return SealedEntry(WHERE, NOW, Verdict.GOOD, Entry(raw, outcome, at, sequence).to_bytes())


def ledger(*live: tuple[int, int], **options: object) -> EventLedger:
    """With live messages of these counters, first and last."""
    runs = b"".join(RUN.pack(LANE, MS, first, last, TALK) for first, last in live)
    period = Period(NOW - timedelta(days=1), NOW + timedelta(days=1))
    return EventLedger(period, runs, **options)  # type: ignore[arg-type]


def result(of: EventLedger) -> TenantEvents:
    return of.result(of.ended(MS + 10))


def found(of: EventLedger) -> Coverage:
    coverage = result(of).coverage
    assert isinstance(coverage, Coverage)
    return coverage


def appended(of: EventLedger, many: int = 5) -> None:
    of.add(sealed(event(Operation.APPEND, count=many), many))


def test_a_record_is_told_by_the_log_or_waits_in_the_queue_or_nothing_tells_it() -> None:
    told = ledger((1, 9))
    appended(told, 5)
    told.waiting(sealed(event(Operation.APPEND, counter=6, count=2), 7).raw)
    coverage = found(told)
    assert (coverage.covered, coverage.waiting, coverage.uncovered) == (5, 2, 2)


def test_a_record_from_before_the_first_event_is_counted_apart() -> None:
    told = ledger((1, 5))
    told.add(sealed(event(Operation.READ), at=MS + 1))
    assert (found(told).before, found(told).uncovered) == (5, 0)


def test_the_oldest_telling_of_what_lives_says_where_it_is() -> None:
    told = ledger((4, 9))
    for at, counter in ((MS, 7), (MS - 5, 1), (MS + 1, 4)):
        told.add(sealed(event(Operation.APPEND, counter=counter, count=3), at=at))
    coverage = found(told)
    assert coverage.oldest == NOW  # of the first three none is there
    assert coverage.oldest_at == place_of(TALK)


def test_a_refused_append_tells_no_record() -> None:
    told = ledger((1, 1))
    told.add(sealed(event(Operation.APPEND), outcome=Outcome.REFUSED))
    assert found(told).uncovered == 1
    assert result(told).refused == 1


def deprovisioned(policy: str) -> SealedEntry:
    deed = Deed(Operation.DEPROVISIONED, {"deletionPolicy": policy, "uid": "u"})
    return sealed(deed.event(Turn(CALLS, 1), KEY))


@pytest.mark.parametrize(
    ("explain", "vanished"),
    [
        (lambda of: None, 5),
        (lambda of: of.add(sealed(event(Operation.CLEAR), 5)), 0),
        (lambda of: of.add(sealed(event(Operation.DELETE), 5)), 0),
        (lambda of: of.add(sealed(event(Operation.DELETE, place=NOTHING), 5)), 5),
        (lambda of: of.add(sealed(event(Operation.CLEAR), 5, outcome=Outcome.CONFLICT)), 5),
        (lambda of: of.add(sealed(event(Operation.POP), 5)), 4),
        (lambda of: of.add(sealed(event(Operation.FORGET))), 0),
        (lambda of: of.add(sealed(event(Operation.FORGET, subject=b"b" * 16))), 5),
        (lambda of: of.waiting(sealed(event(Operation.CLEAR), 5).raw), 0),
        (lambda of: of.add(sealed(Deed(Operation.PURGED).event(Turn(CALLS, 1), KEY))), 0),
        (lambda of: of.add(deprovisioned("Delete")), 0),
        (lambda of: of.add(deprovisioned("Retain")), 5),
        (
            lambda of: of.add(
                sealed(event(Operation.REMOVE, detail=sequences_to_bytes((1, 3, 9))), 3)
            ),
            3,
        ),
    ],
)
def test_what_explains_that_messages_are_gone(
    explain: Callable[[EventLedger], None], vanished: int
) -> None:
    told = ledger()
    appended(told)
    explain(told)
    assert (found(told).vanished, found(told).explained) == (vanished, 5 - vanished)


def test_what_has_expired_needs_no_event() -> None:
    told = ledger(expired_before=MS + 1)
    appended(told)
    assert (found(told).vanished, found(told).explained) == (0, 5)


def test_what_had_expired_when_a_hold_began_or_the_operator_removed_it_is_explained() -> None:
    hold = Deed(Operation.HOLD_SET, {"matter": "SEC-1"}).event(Turn(CALLS, 1), KEY)
    for before, vanished in ((MS, 5), (MS + 1, 0)):
        cut_off = Lapses(today=lambda at, before=before: before if at == MS + 2 else 0)  # type: ignore[misc]
        held = ledger(lapses=cut_off)
        appended(held)
        held.add(sealed(hold, at=MS + 2))
        assert found(held).vanished == vanished
        swept = ledger()
        appended(swept)
        deed = Deed(Operation.EXPIRED, {"messages": 5, "before": {"content": before}})
        swept.add(sealed(deed.event(Turn(CALLS, 1), KEY)))
        assert (found(swept).vanished, found(swept).explained) == (vanished, 5 - vanished)


def test_a_message_that_is_told_after_a_clear_is_not_explained_by_it() -> None:
    told = ledger()
    told.add(sealed(event(Operation.CLEAR), 5))
    appended(told)
    assert found(told).vanished == 5


def test_removals_count_from_the_begin_of_a_hold_and_from_its_declaration() -> None:
    def held(*entries: SealedEntry) -> TenantEvents:
        told = ledger(held_since=NOW - timedelta(days=7))
        for one in entries:
            told.add(one)
        return result(told)

    removal = sealed(event(Operation.CLEAR), 5)
    declared = Deed(Operation.HOLD_SET, {"matter": "SEC-1"}).event(Turn(CALLS, 1), KEY)
    released = Deed(Operation.HOLD_RELEASED, {"matter": "SEC-1", "by": "kim"})
    assert held(removal).destroyed_total == 1
    assert held(sealed(declared, at=MS + 1), removal).destroyed_total == 0
    assert held(sealed(declared, at=MS - 1), removal).destroyed_total == 1
    after = held(sealed(released.event(Turn(CALLS, 2), KEY))).released
    assert after == ("SEC-1 at 2026-11-28T22:00:00Z by kim",)


def test_the_latest_generation_of_each_object_and_who_named_nobody() -> None:
    told = ledger()
    for number, uid, by in ((1, "u", "kim"), (2, "u", ""), (1, "again", "kim")):
        detail = {"kind": "RetentionPolicy", "name": "gdpr", "generation": number, "by": by}
        detail["uid"] = uid
        told.add(sealed(Deed(Operation.SPEC_SEEN, detail).event(Turn(CALLS, number), KEY)))
    events = result(told)
    seen, again = ("RetentionPolicy/gdpr", "u"), ("RetentionPolicy/gdpr", "again")
    assert (events.specs, events.unnamed) == ({seen: 2, again: 1}, 1)


def test_what_is_wrong_in_the_log_counts_in_the_period_in_which_it_was_sealed() -> None:
    told = ledger()
    for at in (NOW, NOW - timedelta(days=9)):
        told.add(SealedGap(WHERE, at, LANE, 3, 5, "triage"))
        for verdict in (Verdict.BAD_MAC, Verdict.MALFORMED, Verdict.FORGED):
            told.add(SealedEntry(WHERE, at, verdict, b"whatever"))
    events = result(told)
    assert (events.gaps, events.bad, events.forged) == (3, 2, 1)


def test_an_event_of_no_known_operation_is_one_that_is_wrong() -> None:
    """Its agent may put any number there, and its MAC is right."""
    told = ledger((1, 5))
    raw = bytearray(event(Operation.APPEND).to_bytes(KEY))
    raw[1] = 0xFE
    told.add(sealed(bytes(raw)))
    appended(told, 5)
    assert (result(told).bad, found(told).covered) == (1, 5)


def early(
    *leaves: SealedEntry, since: int | None = MS - 1, keep_from: int = 0, live: bool = False
) -> tuple[int, str]:
    """Five messages under a minimum, and what became of them: how many went early, and how."""
    floor = Floor(lambda _at: keep_from or MS, since, MS + 9)
    told = ledger(*([(1, 5)] if live else []), floor=floor)
    appended(told)
    for one in leaves:
        told.add(one)
    events = result(told)
    return events.early_total, "; ".join(events.early)


def expired(at: int = MS + 5) -> SealedEntry:
    detail = {"messages": 5, "before": {"content": MS + 1}}
    return sealed(Deed(Operation.EXPIRED, detail).event(Turn(CALLS, 1), KEY), at=at)


@pytest.mark.parametrize(
    ("leaves", "says"),
    [
        ((), "1 to 5 of place 7474"),
        ((sealed(event(Operation.CLEAR), 5),), "CLEAR by agent default at 2026-11-28"),
        ((sealed(event(Operation.POP), 2),), "2 of place"),
        ((expired(),), "expired at"),
        ((sealed(Deed(Operation.PURGED).event(Turn(CALLS, 1), KEY)),), "deleted with the tenant"),
        ((sealed(event(Operation.FORGET)),), "no event says why"),
    ],
)
def test_whatever_took_a_message_under_its_minimum_took_it_too_early(
    leaves: tuple[SealedEntry, ...], says: str
) -> None:
    many, words = early(*leaves)
    assert many == 5
    assert says in words
    # Past the minimum, or before it stood, the same is as it should be.
    assert early(*leaves, keep_from=MS + 1) == (0, "")
    if leaves and says != "2 of place":
        assert early(*leaves, since=MS + 6) == (0, "")
        assert early(*leaves, since=None) == (0, "")


def test_what_is_there_is_not_early_and_another_policy_judged_for_itself() -> None:
    assert early(live=True) == (0, "")
    detail = {"kind": "MemoryTenant", "name": "acme", "uid": "u", "generation": 1}
    named = [
        sealed(
            Deed(Operation.SPEC_SEEN, {**detail, "policy": policy}).event(Turn(CALLS, at), KEY),
            at=MS + at,
        )
        for at, policy in ((1, "loose"), (9, "strict"))
    ]
    assert early(named[0], expired(), named[1]) == (0, "")
    assert early(named[0], named[1], expired(MS + 10))[0] == 5


def lapses(cut_off: int, **options: object) -> Lapses:
    """The rule of the policy ``short`` ended at a time and had this cut-off then."""
    then = {"short": cut_off}
    return Lapses(
        then=lambda under, _choice, at: then.get(under) if at == MS + 5 else 0,
        changes=deque([MS + 5]),
        **options,  # type: ignore[arg-type]
    )


def named(policy: str, at: int, **retention: str) -> SealedEntry:
    detail = {"kind": "MemoryTenant", "name": "acme", "uid": "u", "generation": 1}
    told = {**detail, "policy": policy, "retention": retention}
    return sealed(Deed(Operation.SPEC_SEEN, told).event(Turn(CALLS, 1), KEY), at=at)


def named_by_the_release_before(policy: str, at: int) -> SealedEntry:
    """It did not tell what the tenant chose."""
    detail = {"kind": "MemoryTenant", "name": "acme", "uid": "u", "generation": 1, "policy": policy}
    return sealed(Deed(Operation.SPEC_SEEN, detail).event(Turn(CALLS, 1), KEY), at=at)


def hold(operation: Operation, at: int) -> SealedEntry:
    return sealed(Deed(operation, {"matter": "SEC-1"}).event(Turn(CALLS, 2), KEY), at=at)


@pytest.mark.parametrize(
    ("leaves", "vanished"),
    [
        ((), 0),  # the log tells of no other policy than today's
        ((named("short", MS - 9),), 0),
        ((named("other", MS - 9),), 5),
        ((named_by_the_release_before("short", MS - 9),), 0),
        ((named_by_the_release_before("other", MS - 9),), 5),
        ((named("other", MS - 9), named("short", MS + 2)), 0),
        ((named("short", MS - 9), named("other", MS + 5)), 0),
        ((named("short", MS - 9), named("other", MS + 4)), 5),
        ((named("short", MS - 9), hold(Operation.HOLD_SET, MS + 2)), 5),
        (
            (
                named("short", MS - 9),
                hold(Operation.HOLD_SET, MS + 2),
                hold(Operation.HOLD_RELEASED, MS + 3),
            ),
            0,
        ),
    ],
)
def test_the_rule_that_was_in_force_decides_what_had_expired(
    leaves: tuple[SealedEntry, ...], vanished: int
) -> None:
    told = ledger(lapses=lapses(MS + 1, now=("short", {})))
    appended(told)
    for one in leaves:
        told.add(one)
    assert (found(told).vanished, found(told).explained) == (vanished, 5 - vanished)
    # What came after its cut-off is missed whatever the rule.
    told = ledger(lapses=lapses(MS, now=("short", {})))
    appended(told)
    for one in leaves:
        told.add(one)
    assert found(told).vanished == 5


@pytest.mark.parametrize(
    ("leaves", "assumed"),
    [
        ((named_by_the_release_before("short", MS - 9), named("short", MS + 7)), 5),
        (
            (
                named_by_the_release_before("short", MS - 9),
                named_by_the_release_before("short", MS + 7),
            ),
            5,
        ),
        ((named("short", MS + 7),), 5),  # what named it before is not kept any more
        ((named_by_the_release_before("other", MS - 9), named("short", MS + 7)), 0),
        ((named_by_the_release_before("short", MS - 9), named("other", MS + 7)), 0),
        ((named("other", MS - 9), named("short", MS + 7)), 0),
    ],
)
def test_a_choice_that_the_log_tells_only_later_is_taken_for_that_of_before_and_told(
    leaves: tuple[SealedEntry, ...], assumed: int
) -> None:
    told = ledger(lapses=lapses(MS + 1, now=("short", {})))
    appended(told)
    for one in leaves:
        told.add(one)
    coverage = found(told)
    assert (coverage.vanished, coverage.assumed) == (5 - assumed, assumed)


def test_more_than_is_followed_at_a_time_is_followed_in_parts() -> None:
    def place(number: int) -> bytes:
        return number.to_bytes(16, "big")

    leaves = [
        sealed(event(Operation.APPEND, counter=at + 1, count=3, place=place(at)), 3)
        for at in range(0, 300, 3)
    ]
    leaves += [sealed(event(Operation.CLEAR, place=place(at)), 3) for at in range(0, 150, 3)]
    leaves += [sealed(event(Operation.POP, place=place(at)), 2) for at in range(150, 180, 3)]
    queue = [sealed(event(Operation.DELETE, place=place(180)), 3).raw]

    def read(most: int) -> TenantEvents:
        def make(part: Part) -> EventLedger:
            floor = Floor(lambda _at: MS, MS - 1, MS + 9)
            return ledger(part=part, most=most, floor=floor)

        return read_in_parts(make, lambda: leaves, queue, MS + 10)

    whole, parts, too_much = read(1000), read(40), read(1)
    assert isinstance(whole.coverage, Coverage)
    assert (whole.coverage.explained, whole.coverage.vanished) == (150 + 10 + 3, 137)
    assert whole.early_total == 300
    assert parts.coverage == whole.coverage
    assert (parts.early_total, parts.total) == (whole.early_total, whole.total)
    assert "more messages are gone than could be followed" in str(too_much.coverage)
    assert isinstance(too_much.coverage, Missing)
