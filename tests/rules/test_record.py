from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.errors import KeyUnavailable
from memtenant.rules.credentials import Credential, Principal
from memtenant.rules.record import KeyMotion, Phase, TenantRecord, record_labels, record_name
from memtenant.tenancy.identity import TenantId
from tests.rules.builders import NOW, PASSWORD, TENANT, record

NAME = "support.acme-keyring"
KEYRING = b"a keyring that nobody may see"

moments = st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
texts = st.text(max_size=20)
credentials = st.builds(Credential, texts, st.integers(1, 2**32), moments)


@st.composite
def principals(draw: st.DrawFn) -> Principal:
    active, other = draw(st.sampled_from([("a", "b"), ("b", "a")]))
    slots = {active: draw(credentials)}
    if draw(st.booleans()):
        slots[other] = replace(draw(credentials), retiring_since=draw(st.none() | moments))
    return Principal(active, slots)


names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
records = st.builds(
    TenantRecord,
    tenant=st.builds(TenantId, names, names),
    uid=texts,
    incarnation=texts,
    namespace_uid=texts,
    store=texts,
    phase=st.sampled_from(Phase),
    since=moments,
    principals=st.dictionaries(names, principals(), max_size=3),
    keyring=st.binary(min_size=1, max_size=40),
    agents=st.lists(names, max_size=3).map(tuple),
    last_version=st.integers(0, 2**32),
    rotate_token=texts,
    deletion_policy=st.sampled_from(["Retain", "Delete", "Shred"]),
    isolation=st.sampled_from(["Moderate", "Minimal"]),
    encryption=st.sampled_from(["Enabled", "Disabled"]),
    quota_bytes=st.integers(0, 2**60),
    left=texts,
    motion=st.builds(
        KeyMotion, texts, st.none() | moments, st.integers(0, 2**32), st.none() | moments
    ),
    shred_through=st.integers(0, 2**32),
    shred_due=st.none() | moments,
)


def damaged(
    change: Callable[[dict[str, Any]], object], file: str = "record.json"
) -> dict[str, bytes]:
    """The data of a good record after an edit of one of its documents."""
    data = record(keyring=KEYRING).to_data()
    document = json.loads(data[file])
    change(document)
    return data | {file: json.dumps(document).encode()}


# -- round trip ------------------------------------------------------------------------------------


@given(records)
def test_a_record_is_read_as_it_was_written(before: TenantRecord) -> None:
    assert TenantRecord.from_data(before.to_data(), record_name(before.tenant)) == before


@given(records)
def test_writing_what_was_read_changes_no_byte(before: TenantRecord) -> None:
    """Otherwise a reconcile without a difference would write."""
    data = before.to_data()
    assert TenantRecord.from_data(data, record_name(before.tenant)).to_data() == data


def test_a_secret_has_three_documents_and_keys_only_in_the_keyring() -> None:
    data = record(keyring=KEYRING).to_data()
    assert sorted(data) == ["credentials.json", "keyring.json", "record.json"]
    assert data["keyring.json"] == KEYRING
    assert PASSWORD.encode() not in data["record.json"]


def test_the_shape_of_the_documents_stays() -> None:
    """An operator of before an upgrade wrote them."""
    data = record(rotate_token="now", left="").to_data()
    assert json.loads(data["record.json"]) == {
        "format": 1,
        "tenantId": "support.acme",
        "uid": "uid-1",
        "incarnation": "uid-1",
        "namespaceUid": "namespace-1",
        "store": "shared",
        "phase": "Active",
        "since": "2026-03-15T12:30:00Z",
        "agents": ["default"],
        "lastVersion": 1,
        "rotateToken": "now",
        "policy": "",
        "matters": "{}",
        "deletionPolicy": "Retain",
        "isolation": "Moderate",
        "encryption": "Enabled",
        "quotaBytes": 268435456,
        "left": "",
    }
    assert json.loads(data["credentials.json"]) == {
        "default": {
            "active": "a",
            "slots": {"a": {"password": PASSWORD, "version": 1, "created": "2026-03-15T12:30:00Z"}},
        }
    }


def test_a_record_of_an_earlier_version_asks_for_no_key_to_be_destroyed() -> None:
    motion = KeyMotion("now", NOW, 2, NOW)
    data = record(motion=motion, shred_through=3, shred_due=NOW).to_data()
    document = json.loads(data["record.json"])
    assert (document.pop("shredThrough"), document.pop("shredDue")) == (3, "2026-03-15T12:30:00Z")
    assert document.pop("keys") == {
        "token": "now",
        "shownSince": "2026-03-15T12:30:00Z",
        "least": 2,
        "leastSince": "2026-03-15T12:30:00Z",
    }
    earlier = TenantRecord.from_data(data | {"record.json": json.dumps(document).encode()}, NAME)
    assert earlier == record()


# -- damage ----------------------------------------------------------------------------------------

DAMAGES: dict[str, dict[str, bytes]] = {
    "no documents": {},
    "no keyring": {k: v for k, v in record().to_data().items() if k != "keyring.json"},
    "an emptied keyring": record().to_data() | {"keyring.json": b""},
    "an emptied keyring of a retained tenant": record(phase=Phase.RETAINED).to_data()
    | {"keyring.json": b""},
    "a cut document": record().to_data() | {"record.json": record().to_data()["record.json"][:-9]},
    "bytes that are not text": record().to_data() | {"record.json": b"\xff\xfe"},
    "a list": record().to_data() | {"record.json": b"[]"},
    "a depth without end": record().to_data() | {"credentials.json": b"[" * 100_000},
    "another format": damaged(lambda it: it.update(format=2)),
    "an id of no tenant": damaged(lambda it: it.update(tenantId="support")),
    "another tenant's record": damaged(lambda it: it.update(tenantId="support.beta")),
    "an unknown phase": damaged(lambda it: it.update(phase="Gone")),
    "a number for a text": damaged(lambda it: it.update(uid=7)),
    "a text for a number": damaged(lambda it: it.update(lastVersion="7")),
    "an infinite number": record().to_data()
    | {
        "record.json": record()
        .to_data()["record.json"]
        .replace(b'"lastVersion":1', b'"lastVersion":Infinity')
    },
    "a time beyond the calendar": damaged(lambda it: it.update(since="0001-01-01T00:00:00+23:59")),
    "an agent of no name": damaged(lambda it: it.update(agents=["*"])),
    "a missing field": damaged(lambda it: it.pop("incarnation")),
    "an agent without its active slot": damaged(
        lambda it: it["default"].update(active="b"), "credentials.json"
    ),
    "an agent with a third slot": damaged(
        lambda it: it["default"]["slots"].update(c=it["default"]["slots"]["a"]), "credentials.json"
    ),
    "an active credential that retires": damaged(
        lambda it: it["default"]["slots"]["a"].update(retiringSince="2026-03-15T12:30:00Z"),
        "credentials.json",
    ),
    "a password that is no text": damaged(
        lambda it: it["default"]["slots"]["a"].update(password=None), "credentials.json"
    ),
    "credentials of nobody": damaged(lambda it: it.update({"": it["default"]}), "credentials.json"),
}


@pytest.mark.parametrize("data", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_said_to_be_damaged_and_never_replaced(data: dict[str, bytes]) -> None:
    with pytest.raises(KeyUnavailable, match="restore the Secret from a backup") as error:
        TenantRecord.from_data(data, NAME)
    assert error.value.reason == "RecordDamaged"
    assert NAME in str(error.value)
    assert not error.value.retryable


@given(
    st.sampled_from(["record.json", "credentials.json"]),
    st.integers(0, 400),
    st.binary(max_size=3),
)
def test_whatever_is_done_to_its_bytes_a_record_is_read_or_refused(
    file: str, at: int, bytes_: bytes
) -> None:
    data = record(keyring=KEYRING).to_data()
    spoiled = data[file][:at] + bytes_ + data[file][at + len(bytes_) :]
    try:
        found = TenantRecord.from_data(data | {file: spoiled}, NAME)
    except KeyUnavailable as error:
        said = f"{error} {error.__cause__!r}"
    else:
        said = ""
        assert found.tenant == TENANT
        assert all(principal.shown in principal.slots for principal in found.principals.values())
    assert PASSWORD not in said


@pytest.mark.parametrize("phase", [Phase.DELETING, Phase.ORPHANED])
def test_only_what_is_on_its_way_out_may_have_lost_its_keys(phase: Phase) -> None:
    shredded = record(phase=phase, keyring=b"", principals={})
    assert TenantRecord.from_data(shredded.to_data(), NAME).keyring == b""


# -- what it tells and what it does not ------------------------------------------------------------


def test_no_secret_is_in_a_records_repr() -> None:
    shown = repr(record(keyring=KEYRING)) + repr(
        Principal("a", {"a": Credential(PASSWORD, 1, NOW)})
    )
    assert PASSWORD not in shown
    assert KEYRING.decode() not in shown
    assert "support" in shown


def test_it_knows_every_username_that_may_exist_and_those_that_wait_to_be_revoked() -> None:
    old = Credential("old", 1, NOW, retiring_since=NOW + timedelta(hours=1))
    some = record(
        principals={
            "triage": Principal("b", {"b": Credential("new", 2, NOW), "a": old}),
            "audit": Principal("a", {"a": Credential("only", 1, NOW)}),
        }
    )
    assert some.all_users() == (
        "mt.support.acme.audit.a",
        "mt.support.acme.triage.a",
        "mt.support.acme.triage.b",
    )
    assert some.retiring_users() == {"mt.support.acme.triage.a"}


def test_a_pending_username_does_not_wait_to_be_revoked() -> None:
    made = Principal("a", {"a": Credential("x", 1, NOW), "b": Credential("y", 2, NOW)})
    assert record(principals={"triage": made}).retiring_users() == frozenset()


def test_records_are_found_by_namespace_tenant_and_phase() -> None:
    assert record_labels(record(phase=Phase.RETAINED)) == {
        "memtenant.dev/component": "tenant-record",
        "memtenant.dev/tenant-namespace": "support",
        "memtenant.dev/tenant": "acme",
        "memtenant.dev/phase": "Retained",
    }


@given(st.lists(st.builds(TenantId, names, names), min_size=2, max_size=6, unique=True))
def test_records_of_different_tenants_have_different_names(tenants: list[TenantId]) -> None:
    assert len({record_name(tenant) for tenant in tenants}) == len(tenants)


def test_the_longest_name_is_still_one_of_a_secret() -> None:
    assert len(record_name(TenantId("n" * 63, "t" * 40))) <= 253
