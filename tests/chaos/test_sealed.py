"""The check of the sealed log, which a run of chaos ends with, finds what is wrong."""

from pathlib import Path

import pytest

from memtenant.archive import ArchiveReader
from memtenant.audit.checkpoint import SignedCheckpoint
from tests.archive.making import LOG, Agent, Sealer
from tests.e2e.sealed import wrong_with

WHO = (LOG, "triage")


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    sealer = Sealer(tmp_path / "archive")
    agent = Agent()
    sealer.take([agent.next(), agent.next(count=2)])
    sealer.seal()
    return sealer


def kept(sealer: Sealer) -> SignedCheckpoint:
    last = ArchiveReader.open(sealer.root).latest()
    assert last is not None
    return last


def test_nothing_is_wrong_with_a_log_that_tells_what_was_acknowledged(sealer: Sealer) -> None:
    assert wrong_with(sealer.root, [kept(sealer)], {WHO: 3}) == []


def test_an_append_that_was_acknowledged_and_is_not_told_is_found(sealer: Sealer) -> None:
    (wrong,) = wrong_with(sealer.root, [kept(sealer)], {WHO: 4})
    assert "tells 3 appends of triage, acknowledged were 4" in wrong


def test_an_entry_that_no_agent_made_is_found(sealer: Sealer) -> None:
    sealer.take([b"nonsense"])
    sealer.seal()
    (wrong,) = wrong_with(sealer.root, [kept(sealer)], {})
    assert "MALFORMED" in wrong


def test_a_log_that_was_made_anew_does_not_go_on_from_what_was_kept(
    sealer: Sealer, tmp_path: Path
) -> None:
    other = Sealer(tmp_path / "other")
    other.take([Agent().next()])
    other.seal()
    found = wrong_with(other.root, [kept(sealer)], {})
    assert any("TAMPERED" in one for one in found)
    assert any("is gone" in one for one in found)
