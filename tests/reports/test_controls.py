"""Controls are data: each has a check that is tested, and adding a framework is a file."""

from pathlib import Path

import pytest

from memtenant import Message
from memtenant.errors import FrameworkInvalid
from memtenant.reports.checks import CHECKS, Status
from memtenant.reports.run import judge
from memtenant.rules import policy as rules_policy
from memtenant.rules.controls import MANUAL, Control, Parameters, Severity
from memtenant.rules.frameworks import Framework, built_in_frameworks, load_frameworks
from tests.reports.breaking import BREAKS, UNSEEN
from tests.reports.conftest import Scene, statuses

MADE_UP = """
schema = 1
id = "SHIPSHAPE"
title = "Rules of the harbour"
source = "The harbour master"
date = 2026-01-31

[[controls]]
id = "1"
clause = "Rule 1"
title = "What is aboard is under lock"
severity = "High"
check = "Encrypted"
remedy = "Lock it"

[[controls]]
id = "2"
clause = "Rule 2"
title = "Keys are changed every other year"
severity = "Low"
check = "KeysRotated"
parameters = { period = "2y" }
remedy = "Change them"

[[controls]]
id = "3"
clause = "Rule 3"
title = "The crew is content"
severity = "Low"
check = "Manual"
why = "Ask them"
"""


def test_every_control_has_a_check_and_every_check_is_broken_and_unseen_in_a_test() -> None:
    named = {
        one.check for framework in built_in_frameworks().values() for one in framework.controls
    }
    assert named - {MANUAL} == CHECKS.keys()
    assert {one.check for one in BREAKS} == CHECKS.keys()
    assert UNSEEN.keys() == CHECKS.keys()


@pytest.mark.parametrize("framework", built_in_frameworks().values(), ids=lambda one: one.id)
def test_a_control_says_what_to_do_or_why_only_a_person_can_judge(framework: Framework) -> None:
    assert framework.controls
    for control in framework.controls:
        assert bool(control.why) is (control.check == MANUAL)
        assert bool(control.remedy) is not (control.check == MANUAL)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('check = "Encrypted"\nremedy = "Lock it"', 'check = "Encrypted"', "remedy"),
        ('why = "Ask them"', "", "why"),
        ('severity = "High"', 'severity = "Dire"', "severity"),
        ('id = "2"', 'id = "1"', "twice"),
        ('clause = "Rule 2"', 'clause = "Rule 2"\nmaster = "no"', "master is not known"),
    ],
)
def test_a_control_that_is_not_whole_is_refused_by_name(
    tmp_path: Path, before: str, after: str, says: str
) -> None:
    (tmp_path / "made_up.toml").write_text(MADE_UP.replace(before, after))
    with pytest.raises(FrameworkInvalid, match=says):
        load_frameworks(tmp_path)


async def test_a_framework_of_ones_own_is_data_only(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_up.toml").write_text(MADE_UP)
    monkeypatch.setattr(rules_policy, "built_in_frameworks", lambda: load_frameworks(tmp_path))
    scene.frameworks = ("SHIPSHAPE",)
    await scene.declare()
    await scene.agent().conversation("s", user="ada").append(Message.human("ahoy"))
    report = await scene.report()
    assert statuses(report.results()) == {"1": "Pass", "2": "Pass", "3": "Manual"}
    assert [one.title for one in report.frameworks] == ["Rules of the harbour"]


async def test_a_check_or_parameter_that_is_not_known_is_refused_by_name(scene: Scene) -> None:
    await scene.declare()
    evidence = await scene.evidence()
    for check, parameters, says in (
        ("Sworn", {}, "'Sworn'"),
        ("KeysRotated", {"period": "soon"}, "period"),
        ("NoForbiddenData", {"detectors": ["Gold"]}, "detectors"),
        ("NoForbiddenData", {}, "detectors is needed"),
        ("KeysRotated", {}, "period is needed"),
        ("CredentialsRotated", {}, "period is needed"),
        ("ErasuresCompleted", {}, "within is needed"),
        ("Audited", {"read": True}, "read is none that Audited knows"),
    ):
        control = Control("1", "Rule 1", "", Severity.LOW, check, Parameters(parameters))
        with pytest.raises(FrameworkInvalid, match=says):
            judge(control, evidence)


async def test_a_policy_without_tenants_passes_nothing(scene: Scene) -> None:
    scene.frameworks = ("GDPR",)
    scene.ground.policy(frameworks=["GDPR"])
    await scene.ground.settle()
    report = await scene.report()
    assert Status.PASS not in {one.judgement.status for one in report.results()}
