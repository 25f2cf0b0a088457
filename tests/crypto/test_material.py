from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.crypto.material import read_root_key
from memtenant.errors import KeyInvalid

KEY = bytes.fromhex("fb" + "8f" * 15 + "fa3e" * 8)
raw_keys = st.binary(min_size=32, max_size=32).filter(lambda key: len(set(key)) > 1)


@given(raw_keys)
def test_every_accepted_form_is_the_same_key(key: bytes) -> None:
    forms = [
        key,
        key.hex().encode(),
        key.hex().upper().encode(),
        base64.b64encode(key),
        base64.urlsafe_b64encode(key),
    ]
    for form in forms:
        assert read_root_key(form, "Secret").secret == key
    for form in forms[1:]:
        assert read_root_key(form + b"\n", "Secret").secret == key
        assert read_root_key(form + b"\r\n", "Secret").secret == key


def test_32_bytes_are_raw_whatever_they_look_like() -> None:
    for raw in (b"0123456789abcdef0123456789abcdef", b"x" * 31 + b"\n", b"YWJj" * 8):
        assert read_root_key(raw, "Secret").secret == raw


@pytest.mark.parametrize(
    "data",
    [
        b"",
        KEY[:31],
        KEY + b"\n",
        KEY + KEY,
        KEY.hex().encode()[:-1],
        KEY.hex().encode() + b"\n\n",
        b" " + KEY.hex().encode(),
        b"0x" + KEY.hex().encode(),
        KEY.hex().encode()[:-1] + b"g",
        KEY[:16].hex().encode() + b"\n",
        base64.b64encode(KEY)[:-1],
        base64.b64encode(KEY[:31]),
        base64.b64encode(KEY + b"x"),
        base64.b64encode(KEY)[:-2] + b"B=",
        b"+" + base64.b64encode(KEY)[1:20] + b"-_" + base64.b64encode(KEY)[22:],
        base64.b64encode(base64.b64encode(KEY)),
        b"\xff\xfe" * 40,
        b"A" * 1_000_000,
    ],
)
def test_anything_else_is_refused_without_showing_it(data: bytes) -> None:
    with pytest.raises(KeyInvalid) as caught:
        read_root_key(data, "Secret support/acme-key, key root,")
    message = str(caught.value)
    assert message == (
        "Secret support/acme-key, key root, is not a root key: expected 32 bytes: raw, as 64 "
        "hexadecimal digits, or as 44 characters of base64 (make one with: openssl rand -base64 32)"
    )
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("byte", [b"\x00", b"\xff", b"a"])
def test_one_byte_repeated_is_no_key(byte: bytes) -> None:
    key = byte * 32
    for form in (key, key.hex().encode(), base64.b64encode(key)):
        with pytest.raises(KeyInvalid, match="one byte repeated"):
            read_root_key(form, "Secret")


@given(st.binary(max_size=100).filter(lambda data: len(data) not in (32, 44, 45, 46, 64, 65, 66)))
def test_no_other_length_is_a_key(data: bytes) -> None:
    with pytest.raises(KeyInvalid):
        read_root_key(data, "Secret")
