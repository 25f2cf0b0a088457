"""Proofs that stand alone: of every leaf, of every pair of checkpoints, and of nothing else."""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from functools import partial
from pathlib import Path

import pytest

from memtenant.archive import InclusionProof, parse_proof, prove, prove_consistency
from memtenant.crypto.signing import VerifyingKey
from memtenant.errors import (
    ArchiveUnavailable,
    CheckpointInvalid,
    ProofInvalid,
    UsageError,
)
from tests.archive.making import (
    LOG,
    NEIGHBOUR,
    START,
    Agent,
    Sealer,
    let_go,
    meanwhile,
    three_months,
)
from tests.audit import independent


@pytest.fixture(scope="module")
def sealer(tmp_path_factory: pytest.TempPathFactory) -> Sealer:
    made = Sealer(tmp_path_factory.mktemp("made"))
    agent, other = Agent(), Agent(log_id=NEIGHBOUR)
    for many in (3, 1, 4, 0, 5):
        made.take(agent.some(many))
        made.take(other.some(1), NEIGHBOUR)
        made.seal()
        made.tick(days=17)
    made.take(agent.some(1))
    return made


@pytest.fixture
def key(sealer: Sealer) -> VerifyingKey:
    return sealer.signer.key("").public


def test_every_leaf_that_is_sealed_is_proven(sealer: Sealer, key: VerifyingKey) -> None:
    events = list(sealer.reader.events(LOG))
    for event in events[:-1]:
        proof = parse_proof(prove(sealer.reader, LOG, event.place.index).to_json())
        assert isinstance(proof, InclusionProof)
        assert proof.problem(key) == ""
        assert proof.leaf.endswith(event.raw)
        assert independent.inclusion(proof.to_json().decode(), str(key)) == proof.leaf
    for missing in (len(events) - 1, len(events), 10**12):
        with pytest.raises(UsageError, match="is not sealed"):
            prove(sealer.reader, LOG, missing)


def test_every_checkpoint_is_proven_to_go_on(sealer: Sealer, key: VerifyingKey) -> None:
    notes = list(sealer.reader.checkpoints())
    for place, old in enumerate(notes):
        for new in notes[place:]:
            proof = parse_proof(prove_consistency(sealer.reader, old, new).to_json())
            assert proof.problem(key) == ""
    with pytest.raises(UsageError, match="older one first"):
        prove_consistency(sealer.reader, notes[1], notes[0])


def test_a_proof_in_which_anything_was_changed_does_not_hold(
    sealer: Sealer, key: VerifyingKey
) -> None:
    whole = json.loads(prove(sealer.reader, LOG, 4).to_json())
    consistency = json.loads(
        prove_consistency(sealer.reader, next(iter(sealer.reader.checkpoints()))).to_json()
    )
    for given in (whole, consistency):
        for name, value in given.items():
            for other in _changed(value):
                text = json.dumps(given | {name: other}).encode()
                try:
                    problem = parse_proof(text).problem(key)
                except ProofInvalid:
                    continue
                except CheckpointInvalid:
                    pytest.fail("a proof's error is told as one of a proof")
                assert problem, (name, other)
    with pytest.raises(ProofInvalid):
        parse_proof(json.dumps(whole | {"more": 1}).encode())


def _changed(value: object) -> list[object]:
    if isinstance(value, int):
        return [value + 1, value - 1, -1, 2**70, str(value)]
    if isinstance(value, list):
        return [value[:-1], [*value, b64encode(bytes(32)).decode()], value[::-1] + value[:1], "x"]
    assert isinstance(value, str)
    found: list[object] = ["", value[:-4], value + "x", value.upper(), 7]
    try:
        data = bytearray(b64decode(value, validate=True))
    except ValueError:
        return [*found, value.replace("\n1", "\n2", 1) + "\n"]
    data[len(data) // 2] ^= 1
    return [*found, b64encode(data).decode()]


def test_what_was_let_go_is_not_proven_and_the_rest_is(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path)
    agent = Agent()
    for _ in range(3):
        sealer.take(agent.some(5))
        sealer.seal()
        sealer.tick(days=20)
    sealer.writer.prune(LOG, START.replace(month=3, day=1))
    sealer.seal()
    first = next(sealer.reader.events(LOG)).place.index
    assert first == 10
    for index in range(first, 15):
        assert prove(sealer.reader, LOG, index).problem(sealer.signer.key("").public) == ""
    with pytest.raises(UsageError, match="its period has passed"):
        prove(sealer.reader, LOG, first - 1)


def test_a_checkpoint_of_what_was_let_go_is_no_sign_of_tampering(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path)
    for _ in range(5):
        sealer.seal()
        sealer.tick(days=20)
    notes = list(sealer.reader.checkpoints())
    sealer.writer.prune("tree", sealer.now.replace(month=3, day=1))
    sealer.seal()
    first = sealer.writer._require_tree().pruned["tree"]
    old = [one for one in notes if one.checkpoint.size < first]
    assert 0 < len(old) < len(notes)
    for note in old:
        with pytest.raises(ArchiveUnavailable, match="was let go"):
            prove_consistency(sealer.reader, note)
    for note in notes[len(old) :]:
        proof = prove_consistency(sealer.reader, note)
        assert proof.problem(sealer.signer.key("").public) == ""


def test_what_is_let_go_while_a_proof_is_made_keeps_none_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    at = 0
    while True:
        sealer = three_months(tmp_path / str(at))
        key, old = sealer.signer.key("").public, sealer.reader.latest()
        assert old is not None
        with meanwhile(sealer, at, partial(let_go, sealer)) as looks:
            proofs = prove(sealer.reader, LOG, 5), prove_consistency(sealer.reader, old)
        assert [proof.problem(key) for proof in proofs] == ["", ""], at
        if next(looks) <= at:
            break
        at += 1
    assert at > 10
