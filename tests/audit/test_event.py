"""An audit event byte for byte, and what a reader makes of bytes that are none."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.audit import (
    MAX_DETAIL_BYTES,
    NOBODY,
    Entry,
    Event,
    Failure,
    Operation,
    Outcome,
    Reference,
    is_authentic,
    parse_sequences,
    sequences_to_bytes,
)
from memtenant.crypto.primitives import SecretKey, new_key
from memtenant.crypto.record import Place
from memtenant.errors import AuditEventMalformed
from memtenant.tenancy.identity import MAX_NAME, TenantId
from tests.audit import independent, vectors
from tests.crypto import vectors as records

KEY = SecretKey(bytes(range(32)))
DATA_KEY = SecretKey(bytes(range(1, 33)))
PLACE = Place(TenantId("support", "acme"), "_", "conversation")
EVENT = Event(Operation.APPEND, "triage", 3, b"writer-1", 7, 2, b"s" * 16, b"p" * 16, b"c" * 16)

events = st.builds(
    Event,
    operation=st.sampled_from(Operation),
    agent=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True),
    binding_version=st.integers(1, 10**9 - 1),
    writer=st.binary(min_size=8, max_size=8),
    counter=st.integers(1, 2**32 - 1),
    count=st.integers(0, 1000),
    subject=st.binary(min_size=16, max_size=16),
    place=st.binary(min_size=16, max_size=16),
    commitment=st.binary(min_size=16, max_size=16),
    detail=st.binary(max_size=100),
)


@given(events)
def test_an_event_reads_back(event: Event) -> None:
    data = event.to_bytes(KEY)
    assert Event.parse(data) == event
    assert is_authentic(KEY, data)
    assert not is_authentic(new_key(), data)


def test_an_event_of_an_append_has_about_a_hundred_bytes_and_the_longest_fits() -> None:
    assert len(EVENT.to_bytes(KEY)) == 91
    longest = replace(EVENT, agent="a" * MAX_NAME, detail=bytes(MAX_DETAIL_BYTES))
    assert len(longest.to_bytes(KEY)) <= 4096


@given(st.data())
def test_every_flipped_bit_is_noticed(data: st.DataObject) -> None:
    whole = bytearray(EVENT.to_bytes(KEY))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    assert not is_authentic(KEY, bytes(whole))


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda rest: b"\xe1\x01" + rest))
def test_whatever_an_agent_pushes_is_an_event_or_is_told(data: bytes) -> None:
    for read in (Event.parse, Entry.parse, parse_sequences):
        with suppress(AuditEventMalformed):
            read(data)
    assert not is_authentic(KEY, data)


def test_an_entry_is_the_event_and_the_servers_word() -> None:
    event = EVENT.to_bytes(KEY)
    entry = Entry.parse(event + b"C" + (1769851800000).to_bytes(6, "big") + bytes(4) + b"\x09")
    assert entry == Entry(event, Outcome.CONFLICT, 1769851800000, 9)
    with pytest.raises(AuditEventMalformed, match="outcome"):
        Entry.parse(event + b"X" + bytes(11))


@given(st.lists(st.integers(1, 10**12), max_size=200, unique=True))
def test_sequences_read_back_in_their_order(sequences: list[int]) -> None:
    detail = sequences_to_bytes(sequences)
    assert list(parse_sequences(detail)) == sorted(sequences) == independent.sequences(detail)


def test_what_an_event_says_of_a_subject_dies_with_its_data_key() -> None:
    one, other = Reference.of(DATA_KEY, PLACE), Reference.of(new_key(), PLACE)
    elsewhere = Reference.of(DATA_KEY, replace(PLACE, conversation="another"))
    assert one == Reference.of(DATA_KEY, PLACE)
    assert one.subject == elsewhere.subject
    assert one.place != elsewhere.place
    assert one.commit([b"record"]) != elsewhere.commit([b"record"])
    assert not {one.subject, one.place} & {other.subject, other.place}
    # Under Minimal isolation subjects share a key; whole subjects have no place.
    assert Reference.of(DATA_KEY, PLACE, b"tag-of-a").subject != one.subject
    assert Reference.of(DATA_KEY, None) == Reference(one.subject, bytes(16), None)


def test_a_commitment_is_to_the_records_and_their_order() -> None:
    here = Reference.of(DATA_KEY, PLACE)
    found = [here.commit(of) for of in ([b"a", b"b"], [b"b", b"a"], [b"ab"], [b"a"], [b"a", b""])]
    assert len(set(found)) == 5
    assert here.commit(()) == NOBODY.commit([b"a"]) == bytes(16)


def test_numbers_of_operations_are_for_ever() -> None:
    assert {one.name: one.value for one in (*Operation, *Failure)} == vectors.OPERATIONS


def test_the_documented_vectors_are_what_this_version_writes() -> None:
    assert vectors.documented() == vectors.build()


def test_a_second_implementation_reads_the_documented_vectors() -> None:
    found = {
        name: bytes.fromhex(value)
        for name, value in vectors.documented().items()
        if not value.startswith("{")
    }
    given = {name: str(value) for name, value in records.documented().items()}
    dek, tag = bytes.fromhex(given["dataKey"]), bytes.fromhex(given["subjectTag"])
    where = (given["tenant"], given["scope"], given["sessionAlias"])
    stored = [bytes.fromhex(given[name]) for name in ("record", "recordSuite0")]
    root = bytes.fromhex(given["installationRoot"])
    assert independent.audit_key(root, given["tenant"], "triage", 1) == found["auditKey"]
    of_operator = found["auditKey of the operator, installation"]
    assert independent.audit_key(root, "installation", "operator", 0) == of_operator
    assert independent.alias(dek, b"") == found["auditAlias"]
    assert independent.alias(dek, tag) == found["auditAliasWithTag"]
    assert independent.place(dek, *where) == found["place"]
    commitment = independent.commitment(dek, *where, stored)
    assert commitment == found["commitment to record and recordSuite0"]
    append = independent.event(found["auditKey"], found["append of both"])
    assert append == {
        "operation": 1,
        "binding": 1,
        "writer": bytes.fromhex(given["writer"]),
        "counter": 7,
        "count": 2,
        "alias": found["auditAlias"],
        "place": found["place"],
        "commitment": commitment,
        "agent": "triage",
        "detail": b"",
    }
    assert found["entry of that append"][:-12] == found["append of both"]
    removal = independent.event(found["auditKey"], found["remove of 2, 3 and 300"])
    detail = removal["detail"]
    assert isinstance(detail, bytes)
    assert independent.sequences(detail) == [2, 3, 300]
    failure = independent.event(found["auditKey"], found["decryption failed: tampered"])
    assert (failure["operation"], failure["detail"]) == (0x41, b"\x04")
    entry = found["entry of the operator: generation 4 of a policy was seen"]
    seen = independent.event(of_operator, entry[:-12])
    assert (seen["operation"], seen["agent"], seen["binding"]) == (0x5C, "operator", 0)
    assert json.loads(bytes(seen["detail"])) == vectors.SPEC_SEEN  # type: ignore[arg-type]
    listing = independent.event(found["auditKey"], found["list, of a user"])
    assert (listing["alias"], listing["place"]) == (found["auditAlias"], bytes(16))
