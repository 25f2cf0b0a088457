from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.crypto.datakey import (
    kek_version,
    rewrap_data_key,
    unwrap_data_key,
    wrap_data_key,
)
from memtenant.crypto.header import Header, peek_header
from memtenant.crypto.keyring import activate, add_version, agent_keyring, new_keyring
from memtenant.crypto.primitives import SecretKey, new_key
from memtenant.crypto.record import MESSAGE, OVERHEAD_BYTES, Place, Record, RecordKeys
from memtenant.errors import (
    KeyUnavailable,
    PlaintextRefused,
    RecordInvalid,
    RecordKeyMismatch,
    RecordMalformed,
    RecordTampered,
)
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.policy import EncryptionMode
from tests.crypto import independent, vectors

TENANT = TenantId("support", "acme")
PLACE = Place(TENANT, "_", "conversation-alias")
DATA_KEY = SecretKey(bytes(range(32)))
WRITER = b"writer-1"

ENABLED = RecordKeys(DATA_KEY, PLACE, EncryptionMode.ENABLED)
DISABLED = RecordKeys(DATA_KEY, PLACE, EncryptionMode.DISABLED)
BOTH = pytest.mark.parametrize("keys", [ENABLED, DISABLED], ids=["suite 1", "suite 0"])

modes = st.sampled_from([ENABLED, DISABLED])
counters = st.integers(0, 2**32 - 1)


@given(modes, st.binary(max_size=300), counters, st.text(max_size=10))
def test_a_record_opens_where_it_was_sealed(
    keys: RecordKeys, content: bytes, counter: int, kind: str
) -> None:
    sealed = keys.seal(kind, WRITER, counter, content)
    assert keys.open(kind, sealed) == Record(content, WRITER, counter)


def test_an_encrypted_record_shows_nothing_of_its_content() -> None:
    sealed = ENABLED.seal(MESSAGE, WRITER, 1, b"a very private sentence")
    assert b"private" not in sealed
    assert len(sealed) == len(b"a very private sentence") + OVERHEAD_BYTES
    assert OVERHEAD_BYTES == 58


def test_the_same_content_is_sealed_differently_each_time() -> None:
    assert ENABLED.seal(MESSAGE, WRITER, 1, b"x") != ENABLED.seal(MESSAGE, WRITER, 1, b"x")


@BOTH
def test_every_flipped_bit_is_noticed(keys: RecordKeys) -> None:
    sealed = keys.seal(MESSAGE, WRITER, 7, b"forty-two")
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordInvalid):
            keys.open(MESSAGE, bytes(changed))


@BOTH
def test_every_shortened_or_lengthened_record_is_noticed(keys: RecordKeys) -> None:
    sealed = keys.seal(MESSAGE, WRITER, 7, b"forty-two")
    for length in range(len(sealed)):
        with pytest.raises(RecordInvalid):
            keys.open(MESSAGE, sealed[:length])
    with pytest.raises(RecordTampered):
        keys.open(MESSAGE, sealed + b"\0")


@BOTH
@pytest.mark.parametrize(
    "place",
    [
        replace(PLACE, tenant=TenantId("support", "acme2")),
        replace(PLACE, tenant=TenantId("sales", "acme")),
        replace(PLACE, scope="triage"),
        replace(PLACE, conversation="another"),
        Place(TENANT, "_c", "onversation-alias"),
    ],
)
def test_a_record_moved_to_another_place_is_refused(keys: RecordKeys, place: Place) -> None:
    elsewhere = RecordKeys(DATA_KEY, place, EncryptionMode.DISABLED)
    with pytest.raises(RecordKeyMismatch):
        elsewhere.open(MESSAGE, keys.seal(MESSAGE, WRITER, 1, b"x"))


@BOTH
def test_a_record_of_another_subject_is_refused(keys: RecordKeys) -> None:
    other = RecordKeys(new_key(), PLACE, EncryptionMode.DISABLED)
    with pytest.raises(RecordKeyMismatch):
        other.open(MESSAGE, keys.seal(MESSAGE, WRITER, 1, b"x"))


@BOTH
@pytest.mark.parametrize(
    ("kind", "writer", "counter"),
    [("summary", WRITER, 7), (MESSAGE, b"writer-2", 7), (MESSAGE, WRITER, 8)],
    ids=["kind", "writer", "counter"],
)
def test_a_record_under_another_kind_writer_or_counter_is_refused(
    keys: RecordKeys, kind: str, writer: bytes, counter: int
) -> None:
    sealed = keys.seal(MESSAGE, WRITER, 7, b"x")
    relabelled = sealed[:18] + writer + counter.to_bytes(4, "big") + sealed[30:]
    with pytest.raises(RecordTampered):
        keys.open(kind, relabelled)


@BOTH
def test_the_right_key_id_on_a_foreign_record_does_not_help(keys: RecordKeys) -> None:
    foreign = RecordKeys(
        new_key(), PLACE, EncryptionMode.ENABLED if keys is ENABLED else EncryptionMode.DISABLED
    ).seal(MESSAGE, WRITER, 1, b"x")
    own = keys.seal(MESSAGE, WRITER, 1, b"x")
    with pytest.raises(RecordTampered):
        keys.open(MESSAGE, own[:18] + foreign[18:])


def test_suite_0_is_readable_and_authentic() -> None:
    sealed = DISABLED.seal(MESSAGE, WRITER, 1, b"readable")
    assert b"readable" in sealed
    with pytest.raises(RecordTampered):
        DISABLED.open(MESSAGE, sealed.replace(b"readable", b"forgeabl"))


def test_suite_0_is_refused_while_encryption_is_enabled() -> None:
    with pytest.raises(PlaintextRefused):
        ENABLED.open(MESSAGE, DISABLED.seal(MESSAGE, WRITER, 1, b"x"))


def test_a_tenant_without_encryption_reads_what_was_encrypted() -> None:
    sealed = ENABLED.seal(MESSAGE, WRITER, 1, b"x")
    assert DISABLED.open(MESSAGE, sealed).content == b"x"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xfa",
        b'{"role":"human","text":"written with redis-cli"}',
        b"hello",
        b"\xfa\x21" + bytes(80),
        b"\xfa\x12" + bytes(80),
        b"\xfa\x11" + bytes(55),
    ],
)
@BOTH
def test_what_is_no_record_is_refused(keys: RecordKeys, value: bytes) -> None:
    with pytest.raises(RecordMalformed):
        keys.open(MESSAGE, value)


@given(modes, st.text(max_size=100))
def test_no_text_passes_for_a_record(keys: RecordKeys, text: str) -> None:
    with pytest.raises(RecordMalformed):
        keys.open(MESSAGE, text.encode())


def test_a_writer_id_has_8_bytes_and_a_counter_4() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        ENABLED.seal(MESSAGE, b"short", 1, b"")
    with pytest.raises(OverflowError):
        ENABLED.seal(MESSAGE, WRITER, 2**32, b"")


def test_keys_do_not_show_themselves() -> None:
    assert repr(ENABLED) == "RecordKeys(…, Enabled)"


# -- the header ------------------------------------------------------------------------------------

headers = st.builds(
    Header,
    st.integers(0, 2**40 - 1),
    st.integers(0, 2**48 - 1),
    st.integers(0, 2**24 - 1),
    st.none() | st.binary(min_size=8, max_size=8),
    st.booleans(),
)


@given(headers, st.binary(max_size=30))
def test_a_header_is_read_without_a_key(header: Header, record: bytes) -> None:
    entry = header.to_bytes() + record
    assert peek_header(entry) == header
    assert entry[header.length :] == record
    assert header.length == (15 if header.subject_tag is None else 23)


def test_the_age_of_an_entry_is_in_its_header() -> None:
    header = Header(1, int(vectors.NOW.timestamp() * 1000), 5)
    assert peek_header(header.to_bytes()).written == vectors.NOW
    assert Header(1, 2**48 - 1, 0).written.year == 9999


@pytest.mark.parametrize(
    "entry", [b"", b"\x10" * 14, b"\x11" + bytes(21), b"\x20" + bytes(30), b"\x14" + bytes(30)]
)
def test_what_does_not_begin_with_a_header_is_refused(entry: bytes) -> None:
    with pytest.raises(RecordMalformed):
        peek_header(entry)


@pytest.mark.parametrize(
    "header", [Header(2**40, 0, 0), Header(0, 2**48, 0), Header(0, 0, 2**24), Header(-1, 0, 0)]
)
def test_a_number_that_does_not_fit_is_refused(header: Header) -> None:
    with pytest.raises(OverflowError):
        header.to_bytes()


def test_a_subject_tag_has_8_bytes() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        Header(1, 1, 1, b"short").to_bytes()


# -- data keys -------------------------------------------------------------------------------------

OPENED = new_keyring(TENANT, SecretKey(bytes(range(1, 33))), now=vectors.NOW)
KEYRING = agent_keyring(OPENED, "triage", new_key())


def test_a_stored_data_key_opens_for_its_subject_only() -> None:
    stored = wrap_data_key(OPENED.active, TENANT, "ada", DATA_KEY)
    assert len(stored) == 44
    assert kek_version(stored) == 1
    assert unwrap_data_key(KEYRING, "ada", stored) == DATA_KEY
    with pytest.raises(RecordTampered):
        unwrap_data_key(KEYRING, "bob", stored)
    with pytest.raises(RecordTampered):
        unwrap_data_key(replace(KEYRING, tenant=TenantId("sales", "acme")), "ada", stored)


def test_every_flipped_bit_of_a_stored_data_key_is_noticed() -> None:
    stored = wrap_data_key(OPENED.active, TENANT, "ada", DATA_KEY)
    for bit in range(8 * len(stored)):
        changed = bytearray(stored)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((RecordTampered, KeyUnavailable)):
            unwrap_data_key(KEYRING, "ada", bytes(changed))


@given(st.binary(max_size=60).filter(lambda data: len(data) != 44))
def test_what_is_no_stored_data_key_is_refused(data: bytes) -> None:
    with pytest.raises(RecordMalformed):
        unwrap_data_key(KEYRING, "ada", data)


def test_a_retired_version_still_unwraps_and_a_missing_one_is_named() -> None:
    stored = wrap_data_key(OPENED.active, TENANT, "ada", DATA_KEY)
    root = SecretKey(bytes(range(1, 33)))
    rotated = activate(add_version(OPENED, root, now=vectors.NOW), root)
    assert unwrap_data_key(agent_keyring(rotated, "triage", new_key()), "ada", stored) == DATA_KEY
    newer = wrap_data_key(rotated.active, TENANT, "ada", DATA_KEY)
    with pytest.raises(KeyUnavailable, match="no version 2"):
        unwrap_data_key(KEYRING, "ada", newer)


def test_a_data_key_is_wrapped_anew_under_the_active_version() -> None:
    root = SecretKey(bytes(range(1, 33)))
    rotated = activate(add_version(OPENED, root, now=vectors.NOW), root)
    stored = wrap_data_key(OPENED.active, TENANT, "ada", DATA_KEY)
    again = rewrap_data_key(rotated.keks, rotated.active, TENANT, "ada", stored)
    assert kek_version(again) == 2
    assert unwrap_data_key(agent_keyring(rotated, "triage", new_key()), "ada", again) == DATA_KEY


def test_a_data_key_that_names_another_version_is_still_found() -> None:
    stored = bytes([0, 0, 0, 9]) + wrap_data_key(OPENED.active, TENANT, "ada", DATA_KEY)[4:]
    again = rewrap_data_key(OPENED.keks, OPENED.active, TENANT, "ada", stored)
    assert again == wrap_data_key(OPENED.active, TENANT, "ada", DATA_KEY)


@pytest.mark.parametrize("alias", ["ada", "bob"])
def test_a_data_key_that_no_version_opens_is_not_wrapped_anew(alias: str) -> None:
    """It was edited, or copied from another subject."""
    stored = wrap_data_key(OPENED.active, TENANT, "ada", DATA_KEY)
    if alias == "ada":
        stored = stored[:-1] + bytes([stored[-1] ^ 1])
    with pytest.raises(RecordTampered):
        rewrap_data_key(OPENED.keks, OPENED.active, TENANT, alias, stored)


# -- docs/record-format.md -------------------------------------------------------------------------


def test_the_documented_vectors_are_what_this_version_writes() -> None:
    assert vectors.documented() == vectors.build()


def test_a_second_implementation_reads_the_documented_vectors() -> None:
    found = {name: value for name, value in vectors.documented().items() if isinstance(value, str)}
    binary = {
        name: bytes.fromhex(found[name])
        for name in ("nameKey", "kek", "storedDataKey", "dataKey", "record", "recordSuite0")
    }
    subject = independent.alias(binary["nameKey"], "user", found["user"])
    session = independent.alias(binary["nameKey"], "session", found["session"], found["user"])
    assert (subject, session) == (found["userAlias"], found["sessionAlias"])
    version, data_key = independent.data_key(
        binary["kek"], found["tenant"], subject, binary["storedDataKey"]
    )
    assert (version, data_key) == (1, binary["dataKey"])
    rotated = json.loads(found["keyring.json with version 2 pending"])
    newest = next(kek for kek in rotated["keks"] if kek["version"] == 2)
    assert newest["state"] == "Retiring"  # above the active one: pending
    root, wrapped = bytes.fromhex(found["root"]), base64.b64decode(newest["wrapped"])
    second = independent.kek(root, found["tenant"], 2, wrapped)
    assert second.hex() == found["kek 2"]
    under_second = bytes.fromhex(found["storedDataKey under 2"])
    assert independent.data_key(second, found["tenant"], subject, under_second) == (2, data_key)
    place = (found["tenant"], found["scope"], session, found["kind"])
    for name in ("record", "recordSuite0"):
        content = independent.record(data_key, *place, binary[name])
        assert content.decode() == found["content"]
