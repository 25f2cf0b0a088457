"""`memtenant report` by hand: run, shown, compared, verified, and what is changed is seen."""

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from memtenant import Message
from memtenant.memory.source import BindingSource
from memtenant.reports.artefacts import MANIFEST, PAGE, REPORT, write_report
from memtenant.reports.canonical import canonical
from memtenant.sync import Tenant
from memtenant.tenancy.keys import limits, records, usage
from tests.cli.program import TENANT, Program, policy, tenant
from tests.cli.test_given_server import url
from tests.cli.test_strict import instance, opened, strict, template
from tests.reports.test_report import report
from tests.support.servers import Server


def at_work(program: Program) -> None:
    """An audited tenant whose agent remembered something that is sealed."""
    files = program.write(
        "all.yaml",
        policy(frameworks=["GDPR"], audit={"mode": "Required"}),
        tenant(agents=[{"name": "default"}]),
    )
    program.do("apply", "-f", files)
    program.do("seal")
    with Tenant(BindingSource(program.binding_folder())) as memory:
        memory.conversation("s", user="ada").append(Message.human("hello"))
    program.do("seal")


def run(program: Program, *arguments: str) -> tuple[int, dict[str, Any], Path]:
    """The exit code, the document and the folder of a run, which is named by its second."""
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.02)
    before = set((program.state / "reports" / "standard").glob("*"))
    ended = program("report", "run", "-o", "json", *arguments)
    (folder,) = set((program.state / "reports" / "standard").glob("*")) - before
    return ended.code, ended.data(), folder


def control(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (
        one
        for framework in document["frameworks"]
        for one in framework["controls"]
        if one["id"] == name
    )
    assert isinstance(found, dict)
    return found


def test_a_report_fails_for_a_real_reason_is_mended_and_proves_itself(program: Program) -> None:
    at_work(program)
    agent = program.connect()
    agent.set(f"{records(TENANT)}note", "the customer is ada@example.org")
    code, document, first = run(program, "--fail-on", "error", "--decrypt")
    assert code == 1
    assert control(document, "32-encryption")["status"] == "Fail"
    assert (first / PAGE).read_text().startswith("<!doctype html>")

    agent.delete(f"{records(TENANT)}note")
    code, document, second = run(program, "--fail-on", "error", "--decrypt")
    assert code == 0, document["recommendations"]
    assert [one["control"] for one in document["difference"]["turned"]] == [
        "32-encryption",
        "5-1-e",
    ]

    assert program("report", "verify", second).code == 2  # not sealed yet
    program.do("seal")
    checkpoint = program.state / "archive" / "checkpoints" / "latest"
    kept = program.state.parent / "kept"
    kept.write_bytes(checkpoint.read_bytes())
    assert program("report", "verify", second).code == 2  # not anchored
    good = program("report", "verify", second, "--trusted-checkpoint", kept)
    assert (good.code, good.out.split("\n")[0]) == (0, "good"), good.said
    assert program("report", "diff", first, second).code == 2
    assert program("report", "diff", second, second / REPORT).code == 0
    assert "Every record is encrypted" in program.do("report", "show", second).out

    # Somebody makes the first report a good one, manifest and all.
    document = json.loads((first / REPORT).read_bytes())
    control(document, "32-encryption")["status"] = "Pass"
    (first / REPORT).write_bytes(canonical(document))
    changed = program("report", "verify", first, "--trusted-checkpoint", kept)
    assert changed.code == 1
    assert "is not the file that the manifest names" in changed.out
    manifest = json.loads((first / MANIFEST).read_bytes())
    manifest["files"][REPORT] = hashlib.sha256((first / REPORT).read_bytes()).hexdigest()
    (first / MANIFEST).write_bytes(canonical(manifest))
    changed = program("report", "verify", first, "--trusted-checkpoint", kept)
    assert (changed.code, "does not have this manifest" in changed.out) == (1, True)


def test_a_dropped_event_fails_the_report_of_its_period_and_no_other(
    program: Program, valkey: Server, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text(valkey.admin_password)
    given = ("--redis", url(valkey), "--redis-password-file", password)
    audit = {"mode": "Required", "onFailure": "Open"}
    files = program.write("all.yaml", policy(frameworks=["HIPAA"], audit=audit), tenant())
    program.do("apply", "-f", files, *given)
    program.do("seal")
    control_of = "312-b-on"

    def dropped_while_away() -> None:
        with valkey.admin() as admin:
            long_ago = int(time.time() * 1000) - 61_000
            admin.hset(limits(TENANT), "audit_heartbeat", str(long_ago))
        with Tenant(BindingSource(program.binding_folder())) as memory:
            memory.conversation("s", user="ada").append(Message.human("nobody hears this"))

    def found() -> tuple[str, str]:
        one = control(run(program)[1], control_of)
        return one["status"], " ".join(two["words"] for two in one["findings"])

    assert found() == ("Pass", "")
    dropped_while_away()
    assert found() == ("Fail", "events dropped while the sealer was away: 1")  # nobody told it yet
    program.do("seal")
    assert found() == ("Fail", "events dropped while the sealer was away: 1")
    assert found() == ("Pass", "")
    dropped_while_away()
    # The agent's user may put back what it caused to be counted.
    program.connect().hset(usage(TENANT), "dropped", "1")
    program.do("seal")
    status, words = found()
    assert (status, "nobody drained its queue" in words) == ("Warn", True), words
    program.connect().hset(usage(TENANT), "dropped", "0")
    program.do("seal")
    assert (found()[0], found()) == ("Fail", ("Pass", ""))


def test_what_cannot_be_run_or_read_is_told(program: Program) -> None:
    for arguments, says in (
        (("run",), "nothing is declared"),
        (("show", program.state), "is no folder of a report"),
    ):
        ended = program("report", *arguments)
        assert (ended.code, says in ended.err) == (1, True), ended.said
    for words in ((), ("--no-such-option", program.state)):
        assert program("report", "verify", *words).code == 3
    for named, says in (
        (program.state.parent / "nowhere", "nowhere is no folder of a report: it does not exist"),
        (program.state.parent / "nowhere" / REPORT, "nowhere is no folder of a report"),
        (program.state.parent, f"it has no {REPORT}"),
    ):
        ended = program("report", "verify", named)
        assert (ended.code, says in ended.err) == (3, True), ended.said
    _without_an_archive(program)
    at_work(program)
    empty = program.state.parent / "empty"
    empty.mkdir()
    good = program.state.parent / "another"
    write_report(report(), good)
    other = program.state.parent / "other"
    write_report(replace(report(), policy="other"), other)
    ended = program("report", "diff", good, other)
    assert (ended.code, "two policies, standard and other" in ended.err) == (1, True), ended.said
    ended = program("report", "verify", good, "--archive", empty)
    assert (ended.code, "empty holds no archive" in ended.err) == (3, True), ended.said
    for options, says in (
        (("--archive", program.state.parent / "nowhere"), "nowhere is no folder"),
        (("--archive", program.write("file", {})), "file is no folder"),
        (("--archive", empty), "empty holds no archive"),
        (("--policy", "other"), "there is no RetentionPolicy 'other'"),
        (("--since", "yesterday"), "is no time"),
        (("--since", ""), "is no time"),  # a variable that is not set: not another period
        (("--until", ""), "is no time"),
        (("--since", "0001-01-01T00:00:00+14:00"), "is no time"),
        (("--since", "1d", "--until", "2d"), "--since is not before --until"),
    ):
        ended = program("report", "run", *options)
        assert (ended.code, says in ended.err) == (1, True), ended.said


def _without_an_archive(program: Program) -> None:
    """What the files show by themselves is said without an archive."""
    good = program.state.parent / "good"
    write_report(report(), good)
    ended = program("report", "verify", good)
    assert (ended.code, "archive is no folder" in ended.err) == (3, True), ended.said
    for option in ("--public-key", "--trusted-checkpoint"):
        ended = program("report", "verify", good, option, "nowhere")
        assert (ended.code, "nowhere cannot be read: No such" in ended.err) == (3, True), ended.said
    (good / MANIFEST).write_bytes(b"{")
    ended = program("report", "verify", good)
    assert (ended.code, f"good: {MANIFEST} is no manifest" in ended.out) == (1, True), ended.said
    (good / MANIFEST).unlink()
    ended = program("report", "verify", good)
    assert (ended.code, f"{MANIFEST} cannot be read" in ended.out) == (1, True), ended.said


def test_the_instance_of_a_strict_tenant_is_read_too(program: Program) -> None:
    rules = policy(frameworks=["GDPR", "HIPAA"], legalBasis="treatment")
    program.do("apply", "-f", program.write("all.yaml", template(), rules, strict()))
    for agent in ("intake", "billing"):
        with opened(program, agent) as memory:
            memory.conversation("s", user="ada").append(Message.human("hello"))
            memory.shared_context("case").update({agent: 1})
    program.do("seal")
    code, document, _ = run(program, "--decrypt", "--fail-on", "error")
    assert code == 0, document["recommendations"]
    (row,) = document["tenants"]
    assert (row["records"], row["encrypted"], row["tellable"]) == (row["records"], 6, 4)
    with instance(program) as admin:
        admin.execute_command("ACL", "SETUSER", "mt.support.acme.billing.a", "+keys")
    _, document, _ = run(program)
    assert document["stores"][0]["usersThatDiffer"] == 1


def test_a_report_that_lacks_evidence_ends_otherwise_than_one_that_has_all(
    program: Program,
) -> None:
    at_work(program)
    assert run(program)[0] == 0
    (head,) = (program.state / "archive" / "logs" / str(TENANT)).glob("*.head")
    head.write_bytes(b"damaged")
    for asked, code in (((), 2), (("--fail-on", "error"), 1), (("--fail-on", "never"), 0)):
        ended, document, _ = run(program, *asked)
        assert (ended, document["summary"]["byStatus"]["Error"] > 0) == (code, True)
