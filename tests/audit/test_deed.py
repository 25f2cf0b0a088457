"""Events of the operator: who, what, and in order."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memtenant.audit import (
    OPERATOR,
    Deed,
    Entry,
    Event,
    Operation,
    Outcome,
    SpecSeen,
    Turn,
    Voice,
    is_authentic,
    spec_seen,
)
from memtenant.crypto.primitives import new_key
from memtenant.errors import AuditEventMalformed

KEY = new_key()
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
SEEN = {"kind": "RetentionPolicy", "name": "gdpr", "generation": 4, "uid": "u", "by": "ada"}


def event(deed: Deed) -> Event:
    return Event.parse(deed.event(Turn(b"w" * 8, 1), KEY))


def test_a_deed_is_an_event_of_the_operator_that_names_no_subject() -> None:
    (entry,) = Voice(KEY).tell([Deed(Operation.SPEC_SEEN, SEEN)], NOW).entries
    read = Entry.parse(entry)
    told = Event.parse(read.event)
    assert is_authentic(KEY, read.event)
    assert (read.outcome, read.time, read.sequence) == (Outcome.DONE, 1769851800000, 0)
    assert (told.agent, told.binding_version, told.counter) == (OPERATOR, 0, 1)
    assert told.subject == told.place == told.commitment == bytes(16)
    assert told.writer[:4] == int(NOW.timestamp()).to_bytes(4, "big")
    assert spec_seen(told) == SpecSeen("RetentionPolicy", "gdpr", 4, by="ada")
    assert spec_seen(told).object == "RetentionPolicy/gdpr"


def test_within_a_writer_no_counter_is_missing_whatever_fails() -> None:
    voice, deed = Voice(KEY), Deed(Operation.KEY_MADE, {"version": 2})
    first = voice.tell([deed, deed], NOW)
    voice.done(first)
    lost = voice.tell([deed], NOW)  # it may or may not have arrived: its writer is not used again
    after = voice.tell([deed], NOW)
    voice.done(after)
    last = voice.tell([deed], NOW)
    told = [
        [Event.parse(Entry.parse(one).event) for one in telling.entries]
        for telling in (first, lost, after, last)
    ]
    assert [[one.counter for one in events] for events in told] == [[1, 2], [3], [1], [2]]
    writers = [events[0].writer for events in told]
    assert writers[0] == writers[1] != writers[2] == writers[3]


def test_two_writes_at_once_have_writers_of_their_own() -> None:
    voice, deed = Voice(KEY), Deed(Operation.KEY_MADE)
    one, other = voice.tell([deed], NOW), voice.tell([deed], NOW)
    assert one.after.writer != other.after.writer


def test_more_than_an_event_can_hold_is_cut() -> None:
    told = event(Deed(Operation.EXPIRED, {"messages": 70_000}, 70_000))
    assert told.count == 0xFFFF
    assert event(Deed(Operation.ACCESS_CHANGED, {"agent": "a" * 4000})).detail == b'{"cut":4012}'


@pytest.mark.parametrize(
    "told",
    [
        event(Deed(Operation.SPEC_SEEN)),
        event(Deed(Operation.SPEC_SEEN, {"kind": 1})),
        event(Deed(Operation.SPEC_SEEN, {**SEEN, "generation": "4"})),
        event(Deed(Operation.KEY_MADE, SEEN)),
    ],
)
def test_another_detail_is_no_generation(told: Event) -> None:
    with pytest.raises(AuditEventMalformed):
        spec_seen(told)
