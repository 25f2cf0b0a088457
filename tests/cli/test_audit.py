"""`memtenant audit` over an archive: what it says, its exit codes, and that it needs no server."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memtenant.archive import note_read
from memtenant.audit import OPERATOR, Deed, Event, Operation, Turn, Voice
from memtenant.cli.exits import AuditCode
from tests.archive.making import LOG, NEIGHBOUR, Agent, Sealer, key
from tests.cli.program import Program
from tests.jobs.sealers import engine_over


@pytest.fixture
def sealer(program: Program) -> Sealer:
    """An archive in the state folder, with two windows."""
    made = Sealer(program.state)
    agent = Agent()
    made.take([agent.entry(1), agent.entry(2, "R"), agent.entry(4), b"nonsense"])
    made.take(Agent(log_id=NEIGHBOUR).some(2), NEIGHBOUR)
    made.seal()
    return made


@pytest.fixture
def kept(program: Program, sealer: Sealer, tmp_path: Path) -> Path:
    """A checkpoint that was put aside; another window followed it."""
    file = tmp_path / "kept.checkpoint"
    program.do("audit", "checkpoint", "--out", file)
    sealer.take(Agent(2).some(1))
    sealer.seal()
    return file


def change(sealer: Sealer) -> None:
    file = sealer.root / "logs" / LOG / "2026-01.log"
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)


def test_a_log_that_is_what_was_signed_is_good(program: Program, kept: Path) -> None:
    ended = program.do("audit", "verify", "--trusted-checkpoint", kept)
    assert "good: 2 windows" in ended.out
    data = program.do("audit", "verify", "--trusted-checkpoint", kept, "-o", "json").data()
    assert (data["result"], data["anchored"], data["findings"]) == ("Good", True, [])
    assert {one["log"]: one["sealed"] for one in data["logs"]} == {LOG: 6, NEIGHBOUR: 2}


def test_without_a_checkpoint_that_was_kept_it_is_not_anchored(
    program: Program, sealer: Sealer
) -> None:
    ended = program("audit", "verify")
    assert ended.code == 2
    assert "--trusted-checkpoint" in ended.out


def test_one_byte_that_was_changed_is_told_with_its_place(
    program: Program, sealer: Sealer, kept: Path
) -> None:
    change(sealer)
    ended = program("audit", "verify", "--trusted-checkpoint", kept)
    assert ended.code == 1
    assert f"logs/{LOG}/2026-01.log, byte 0, leaf 0: a leaf does not match its" in ended.out
    assert "append by triage" in ended.out
    assert program("audit", "verify", "--log", NEIGHBOUR, "--trusted-checkpoint", kept).code == 0


def test_events_of_a_period_are_shown_by_lines(program: Program, kept: Path) -> None:
    table = program.do("audit", "events", "support/acme").out
    assert "Refused" in table
    assert "2 to 3" in table
    lines = program.do("audit", "events", LOG, "-o", "json").out.splitlines()
    events = [json.loads(line) for line in lines]
    assert [one.get("verdict", "Gap") for one in events] == [
        *("Good", "Good", "Gap", "Good", "Malformed", "Good")
    ]
    assert events[0]["operation"] == "Append"
    assert events[2]["gap"]["first"] == 2
    assert events[4]["raw"] == b"nonsense".hex()
    assert program.do("audit", "events", "--since", "2026-02").out == ""
    assert (
        len(program.do("audit", "events", "--until", "2026-02", "-o", "json").out.split("\n")) == 9
    )


def test_what_the_operator_tells_is_shown_as_it_says_it(program: Program, sealer: Sealer) -> None:
    voice = Voice(key(LOG, "operator", 0))
    deed = Deed(Operation.HOLD_SET, {"matter": "case-7", "policy": "gdpr"})
    entries = voice.tell([deed], sealer.tick()).entries
    taken = sealer.writer.take(LOG, entries, lambda *of: key(LOG, *of), sealer.now)
    assert (taken.events, taken.bad) == (1, 0)
    line = program.do("audit", "events", LOG, "-o", "json").out.splitlines()[-1]
    shown = json.loads(line)
    assert (shown["operation"], shown["agent"]) == ("HoldSet", "operator")
    assert shown["told"] == {"matter": "case-7", "policy": "gdpr"}
    assert '"matter": "case-7"' in program.do("audit", "events", LOG).out
    exported = json.loads(program.do("audit", "export", LOG).out.splitlines()[-1])
    assert (exported["activity_id"], exported["activity_name"]) == (99, "HoldSet")


def test_what_an_agent_pushes_in_the_operators_name_tells_nothing(
    program: Program, sealer: Sealer
) -> None:
    turn = Turn(b"somebody", 1)
    for detail in (b'{"keys":7}', b"[" * 3900):
        event = Event(
            Operation.PURGED, OPERATOR, 0, *turn, 1, bytes(16), bytes(16), bytes(16), detail
        )
        sealer.take([event.to_bytes(key(LOG, "triage", 1)) + b"O" + bytes(11)])
    sealer.seal()
    lines = program.do("audit", "events", LOG, "-o", "json").out.splitlines()
    pushed = [one for one in map(json.loads, lines) if one.get("operation") == "Purged"]
    assert [(one["verdict"], "told" in one) for one in pushed] == [("UnknownBinding", False)] * 2


def test_the_export_is_of_ocsf(program: Program, kept: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    program.do("audit", "export", "--out", file)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    required = {
        *("activity_id", "actor", "category_uid", "class_uid", "databucket", "metadata"),
        *("severity_id", "src_endpoint", "time", "type_uid"),
    }
    assert len(events) == 8
    for event in events:
        assert required <= event.keys()
        assert (event["class_uid"], event["category_uid"]) == (6005, 6)
        assert event["type_uid"] == 600500 + event["activity_id"]
        assert event["metadata"]["product"]["name"] == "memtenant"
    assert program.do("audit", "export").out == file.read_text()


def test_an_event_is_proven_without_the_archive(
    program: Program, sealer: Sealer, kept: Path, tmp_path: Path
) -> None:
    key, proof = tmp_path / "log.key", tmp_path / "event.proof"
    program.do("audit", "checkpoint", "--key", "--out", key)
    program.do("audit", "prove", LOG, "3", "--out", proof)
    sealer.archive.close()
    sealer.root.rename(tmp_path / "away")
    ended = program.do("audit", "verify-proof", proof, "--public-key", key)
    assert "Leaf 3 of log support.acme: append by triage" in ended.out
    assert program("audit", "verify-proof", proof).code == 3
    other = program(
        "audit", "verify-proof", proof, "--public-key", key, "--trusted-checkpoint", kept
    )
    assert other.code == 2
    text = json.loads(proof.read_bytes())
    proof.write_text(json.dumps(text | {"index": 2}))
    assert program("audit", "verify-proof", proof, "--public-key", key.read_text()).code == 1
    proof.write_text("{}")
    assert program("audit", "verify-proof", proof, "--public-key", key).code == 1


def test_checkpoints_are_proven_to_go_on_from_one_another(
    program: Program, sealer: Sealer, kept: Path, tmp_path: Path
) -> None:
    key, proof = tmp_path / "log.key", tmp_path / "consistency.proof"
    program.do("audit", "checkpoint", "--key", "--out", key)
    ended = program.do("audit", "consistency", kept, "--out", proof)
    assert "good: the log of 5 leaves goes on from that of 3" in ended.out
    program.do(*("audit", "verify-proof", proof, "--public-key", key, "--trusted-checkpoint", kept))
    newest = tmp_path / "newest"
    program.do("audit", "checkpoint", "--out", newest)
    assert program("audit", "consistency", newest, kept).code == 3
    program.do("audit", "consistency", kept, newest)


def test_wrong_usage_is_not_taken_for_a_log_that_was_changed(
    program: Program, sealer: Sealer, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    for code, words in (
        (3, ("verify", "--no-such-option")),
        (3, ("verify", "--log", "no.body")),
        (3, ("verify", "--public-key", "x+y+z")),
        (3, ("verify", "--trusted-checkpoint", tmp_path / "missing")),
        (3, ("events", "--since", "yesterday")),
        (3, ("export", "--since", "2026-12", "--until", "2026-11")),
        (3, ("prove", LOG, "99")),
        (3, ("prove", LOG, "minus")),
        (3, ("no-such-command",)),
        (2, ("verify", "--archive", tmp_path / "missing")),
        (2, ("verify", "--archive", nothing)),
        (2, ("checkpoint", "--archive", nothing)),
    ):
        ended = program("audit", *words)
        assert (ended.code, bool(ended.said)) == (code, True), (words, ended.said)


@pytest.mark.parametrize(
    "words",
    [("audit", "verify", "--archive", "x" * 300), ("report", "verify", "x" * 300)],
    ids=lambda words: " ".join(words[:2]),
)
def test_what_cannot_be_looked_at_was_not_tampered_with(
    program: Program, words: tuple[str, ...]
) -> None:
    ended = program(*words)

    assert ended.code in (AuditCode.INCOMPLETE, AuditCode.USAGE), ended.said
    assert "defect" not in ended.err


def test_a_reader_that_has_enough_says_nothing_about_the_log(program: Program, kept: Path) -> None:
    words = ("audit", "events", "--output", "json", "--state", str(program.state))
    code = "import sys; from memtenant.cli import main; sys.exit(main(sys.argv[1:]))"
    running = subprocess.Popen(
        [sys.executable, "-u", "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None
    running.stdout.close()
    _, said = running.communicate()

    assert (running.returncode, said) == (AuditCode.INCOMPLETE, b"")


def test_an_export_is_whole_or_not_there(program: Program, sealer: Sealer, tmp_path: Path) -> None:
    out = tmp_path / "out" / "events.jsonl"
    out.parent.mkdir()
    out.write_text("of yesterday\n")
    change(sealer)

    ended = program("audit", "export", "--out", out)

    assert ended.code == AuditCode.TAMPERED, ended.said
    assert [(one.name, one.read_text()) for one in out.parent.iterdir()] == [
        (out.name, "of yesterday\n")
    ]


def test_that_the_log_was_read_stands_in_it_once(
    program: Program, sealer: Sealer, tmp_path: Path
) -> None:
    program("audit", "verify")
    program.do("audit", "events", LOG, "--since", "2026-01")
    assert program("audit", "events", LOG, "--since", "yesterday").code == 3
    many = ["a" * 63 + "." + "b" * 34 + f"{number:06}" for number in range(200)]
    assert note_read(sealer.archive, {"command": "export"}, many, datetime.now(UTC))
    copy = shutil.copytree(sealer.root, tmp_path / "copy")
    shutil.rmtree(copy / "reads")
    assert "told nowhere" in program.do("audit", "export", "--archive", copy).err
    assert not (copy / "reads").exists()
    (sealer.root / "reads" / ("00" * 8 + ".json")).write_bytes(b"{" * 5000)
    for number in range(300):
        (sealer.root / "reads" / f"-nonsense{number}").write_bytes(b"")
    (sealer.root / "reads" / ("f" * 16 + ".json")).mkdir()  # as one that nobody lets it read
    kept = shutil.copytree(sealer.root / "reads", tmp_path / "reads")

    async def sealed() -> None:
        engine = engine_over(sealer.archive, signer=sealer.signer)
        assert await engine.take_reads() == 5
        shutil.copytree(kept, sealer.root / "reads", dirs_exist_ok=True)  # as after a crash
        assert await engine.take_reads() == 0
        await engine.seal()
        await engine.close()

    asyncio.run(sealed())
    lines = program.do("audit", "events", "installation", "-o", "json").out.splitlines()
    events = [json.loads(line) for line in lines]
    assert {one["operation"] for one in events} == {"LogRead"}
    told = sorted((one["told"] for one in events), key=str)
    export = next(one for one in told if one.get("command") == "export")
    assert (bool(export["by"]), export["logs"]) == (True, [*many[:12], "and 188 more"])
    told.remove(export)
    assert [one.get("command") for one in told] == ["events", "verify", None, None]
    assert told[0]["logs"] == [LOG]
    assert told[0]["by"]
    assert told[2:] == [{"unreadable": 0}, {"unreadable": 2049}]


def test_a_volume_that_is_sealed_just_now_is_the_log(program: Program, sealer: Sealer) -> None:
    alive = str(datetime.now(UTC)).encode()
    sealer.archive.replace("state/alive", alive)
    ended = program.do("audit", "events", LOG, "--archive", sealer.root)
    assert "told nowhere" not in ended.err
    assert len(list((sealer.root / "reads").iterdir())) == 1
