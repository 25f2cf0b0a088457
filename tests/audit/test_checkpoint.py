"""Checkpoints: signed notes as others write them, and what anybody may send instead of one."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.archive import SignedHead, parse_proof
from memtenant.audit.checkpoint import Checkpoint, SignedCheckpoint, split_notes
from memtenant.audit.leaf import (
    EntryLeaf,
    GapLeaf,
    Keeping,
    LogRoot,
    Pruning,
    Seal,
    Verdict,
    parse_log_leaf,
    parse_tree_leaf,
)
from memtenant.audit.segment import Cut, Damage, frames, split
from memtenant.crypto.signing import SigningKey, VerifyingKey
from memtenant.errors import ArchiveMalformed, CheckpointInvalid, KeyInvalid, ProofInvalid

KEY = SigningKey("memtenant.dev/test", bytes(range(32)))
SIGNED = Checkpoint(KEY.public.name, 42, bytes(range(32))).sign(KEY)

# The example of https://c2sp.org/signed-note, with its key.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_SIGNATURE = (
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
)


def test_a_note_that_another_program_signed_is_good() -> None:
    from base64 import b64decode

    key = VerifyingKey.parse(GO_KEY)
    signature = b64decode(GO_SIGNATURE)
    assert str(key) == GO_KEY
    assert signature[:4] == key.id
    assert key.verifies(signature[4:], GO_NOTE.encode())
    assert not key.verifies(signature[4:], GO_NOTE.upper().encode())


def test_a_checkpoint_reads_back_and_only_its_key_signed_it() -> None:
    read = SignedCheckpoint.parse(SIGNED.note)
    assert read == SIGNED
    assert read.is_signed_by(VerifyingKey.parse(str(KEY.public)))
    other = SigningKey(KEY.public.name, bytes(32))
    assert not read.is_signed_by(other.public)
    assert SIGNED.note == Checkpoint(KEY.public.name, 42, bytes(range(32))).sign(KEY).note
    # A witness may have signed it too.
    also = SIGNED.note + SIGNED.checkpoint.sign(other).note.split(b"\n\n")[1]
    assert SignedCheckpoint.parse(also).is_signed_by(KEY.public)
    assert SignedCheckpoint.parse(also).is_signed_by(other.public)


def test_every_byte_of_a_note_counts() -> None:
    for place in range(len(SIGNED.note)):
        changed = bytearray(SIGNED.note)
        changed[place] ^= 1
        try:
            read = SignedCheckpoint.parse(bytes(changed))
        except CheckpointInvalid:
            continue
        assert not read.is_signed_by(KEY.public), place


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\n\n\n",
        SIGNED.note.replace(b"\n42\n", b"\n042\n"),
        SIGNED.note.replace(b"\n42\n", b"\n-1\n"),
        SIGNED.note.replace(b"\n42\n", b"\n9999999999999999999\n"),
        SIGNED.note.replace(b"\n42\n", b"\n42\nextension\n"),
        SIGNED.note.replace("\u2014".encode(), b"-"),
        SIGNED.note[:-1],
        SIGNED.note + b"x",
        b" " + SIGNED.note,
        b"x" * 100_000,
    ],
)
def test_what_is_no_checkpoint_is_refused(note: bytes) -> None:
    with pytest.raises(CheckpointInvalid):
        SignedCheckpoint.parse(note)


@given(st.binary(max_size=400) | st.binary(max_size=40).map(lambda end: SIGNED.note[:-40] + end))
def test_whatever_is_read_is_what_it_says_or_is_told(data: bytes) -> None:
    for read in (
        SignedCheckpoint.parse,
        parse_log_leaf,
        parse_tree_leaf,
        parse_proof,
        SignedHead.parse,
        lambda text: VerifyingKey.parse(text.decode("latin-1")),
    ):
        with suppress(CheckpointInvalid, ArchiveMalformed, ProofInvalid, KeyInvalid):
            read(data)
    notes, rest = split_notes(data)
    assert b"".join(notes) + rest == data
    leaves, fault, end = split(data)
    assert frames(leaves) == data[:end]
    assert (fault is None) == (end == len(data))


@given(st.lists(st.binary(min_size=2, max_size=50), max_size=20), st.data())
def test_frames_read_back_and_where_they_are_cut_or_changed_is_known(
    leaves: list[bytes], data: st.DataObject
) -> None:
    whole = frames(leaves)
    assert split(whole) == (leaves, None, len(whole))
    if not leaves:
        return
    place = data.draw(st.integers(0, len(whole) - 1))
    found, fault, end = split(whole[:place])
    assert found == leaves[: len(found)]
    assert fault is None if end == place else fault == Cut(end)
    changed = bytearray(whole)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    found, fault, end = split(bytes(changed))
    assert isinstance(fault, Cut | Damage)
    assert fault.offset == end <= place < end + 8 + len(leaves[len(found)])


def test_leaves_read_back() -> None:
    for leaf in (EntryLeaf(7, Verdict.GOOD, b"entry"), GapLeaf(7, b"writer-1", 2, 3, "triage")):
        assert parse_log_leaf(leaf.to_bytes()) == leaf
    for other in (
        LogRoot("support.acme", 7, bytes(32)),
        Pruning("tree", 7, bytes(32)),
        Keeping("installation", 84),
        Seal(1, 7, bytes(32), 5, 4, 3, 2, 1),
    ):
        assert parse_tree_leaf(other.to_bytes()) == other


def test_no_text_shows_the_key() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert str(list(KEY.secret[:4]))[1:-1] not in repr(KEY)
    with pytest.raises(KeyInvalid):
        SigningKey("a+b", bytes(32))
