"""Published vectors: RFC 5869, RFC 3394, and NIST's GCM test vectors (CAVP)."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from hypothesis import given
from hypothesis import strategies as st

from memtenant.crypto.primitives import (
    SecretKey,
    WrongKey,
    commitment,
    derive,
    length_prefixed,
    mac,
    new_key,
    unwrap,
    wrap,
)
from tests.crypto import independent

secret_bytes = st.binary(min_size=32, max_size=32)
secret_keys = secret_bytes.map(SecretKey)

RFC5869 = [
    # test cases 1 and 3 of appendix A
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("key", "salt", "info", "length", "expected"), RFC5869)
def test_hkdf_of_rfc_5869(key: str, salt: str, info: str, length: int, expected: str) -> None:
    hkdf = HKDF(SHA256(), length, bytes.fromhex(salt), bytes.fromhex(info))
    assert hkdf.derive(bytes.fromhex(key)).hex() == expected


def test_the_second_implementation_of_hkdf_agrees_with_rfc_5869() -> None:
    assert independent.hkdf(b"\x0b" * 22, b"", 32).hex() == RFC5869[1][4][:64]


@given(secret_bytes, st.binary(max_size=20))
def test_derivation_is_hkdf_without_salt_over_length_prefixed_info(
    secret: bytes, context: bytes
) -> None:
    info = independent.lp(b"label", context)
    assert derive(SecretKey(secret), "label", context).secret == independent.hkdf(secret, info)
    assert commitment(SecretKey(secret)) == independent.hkdf(secret, b"commit", 16)


def test_key_wrap_of_rfc_3394() -> None:
    # section 4.6: 256 bits of key data with a 256-bit key
    kek = SecretKey(bytes(range(32)))
    key = SecretKey(
        bytes.fromhex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f")
    )
    wrapped = "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"
    assert wrap(kek, key).hex() == wrapped
    assert unwrap(kek, bytes.fromhex(wrapped)) == key


def test_gcm_of_nist() -> None:
    # gcmEncryptExtIV256.rsp: Keylen 256, IVlen 96, PTlen 128, AADlen 128, Taglen 128, Count 0
    key = "92e11dcdaa866f5ce790fd24501f92509aacf4cb8b1339d50c9c1240935dd08b"
    nonce, plain = "ac93a1a6145299bde902f21a", "2d71bcfa914e4ac045b2aa60955fad24"
    aad = "1e0889016f67601c8ebea4943bc23ad6"
    sealed = "8995ae2e6df3dbf96fac7b7137bae67f" + "eca5aa77d51d4a0a14d9c51e1da474ab"
    gcm = AESGCM(bytes.fromhex(key))
    arguments = bytes.fromhex(nonce), bytes.fromhex(plain), bytes.fromhex(aad)
    assert gcm.encrypt(*arguments).hex() == sealed
    with pytest.raises(InvalidTag):
        gcm.decrypt(arguments[0], bytes.fromhex(sealed), b"")


def test_hmac_of_rfc_4231() -> None:
    # test case 2 has a key of 4 bytes; HMAC pads keys with zeros up to the block
    key = SecretKey(b"Jefe".ljust(32, b"\0"))
    assert mac(key, b"what do ya want for nothing?").hex() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


@given(secret_keys, secret_keys)
def test_a_wrapped_key_opens_with_its_wrapping_key_only(one: SecretKey, other: SecretKey) -> None:
    wrapped = wrap(one, other)
    assert unwrap(one, wrapped) == other
    if one != other:
        with pytest.raises(WrongKey):
            unwrap(other, wrapped)


@given(secret_keys, secret_keys, st.integers(0, 319))
def test_every_flipped_bit_of_a_wrapped_key_is_noticed(
    one: SecretKey, other: SecretKey, bit: int
) -> None:
    wrapped = bytearray(wrap(one, other))
    wrapped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WrongKey):
        unwrap(one, bytes(wrapped))


@pytest.mark.parametrize("size", [0, 8, 16, 39, 41, 48])
def test_a_wrapped_key_of_another_size_is_refused(size: int) -> None:
    key = SecretKey(bytes(range(32)))
    with pytest.raises(WrongKey):
        unwrap(key, bytes(size))
    with pytest.raises(WrongKey):
        unwrap(key, aes_key_wrap(key.secret, bytes(64))[:size])


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_length_prefixing_is_injective(one: list[bytes], other: list[bytes]) -> None:
    assert (length_prefixed(*one) == length_prefixed(*other)) is (one == other)


def test_a_key_never_shows_itself() -> None:
    key = SecretKey(b"thirty-two very secret bytes !!!")
    shown = [repr(key), str(key), f"{key}", f"{key!r}", repr([key]), repr({"k": key})]
    shown += traceback.format_exception(RuntimeError(key))
    assert not any("secret bytes" in text for text in shown)
    assert not hasattr(key, "__dict__")


def test_a_key_has_32_bytes() -> None:
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            SecretKey(bytes(size))


def test_keys_compare_by_value_and_are_not_hashed() -> None:
    assert SecretKey(bytes(32)) == SecretKey(bytes(32)) == copy.deepcopy(SecretKey(bytes(32)))
    assert SecretKey(bytes(32)) != SecretKey(b"\1" * 32)
    assert SecretKey(bytes(32)) != bytes(32)
    with pytest.raises(TypeError):
        hash(SecretKey(bytes(32)))


def test_a_key_goes_into_no_pickle() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(SecretKey(bytes(32)))


def test_new_keys_differ() -> None:
    assert new_key() != new_key()
