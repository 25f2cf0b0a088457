"""What the documentation lists is whole: fields, conditions, reasons, Events, metrics."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from memtenant.api import KINDS
from memtenant.api.conditions import ConditionType
from memtenant.api.fields import DeletionPolicy
from memtenant.api.tenant import AccessMode
from memtenant.controller import series
from memtenant.functions.library import libraries
from memtenant.reports.checks import CHECKS
from memtenant.rules.controls import MANUAL
from memtenant.rules.frameworks import built_in_frameworks
from memtenant.rules.record import Phase
from tests.docs import reasons as source
from tests.docs.pages import DOCS, ROOT, first_column, section
from tests.docs.reasons import reasons
from tests.docs.tables import marked, tables

_OPERATIONS = DOCS / "operations.md"


@pytest.mark.parametrize(
    ("page", "name"), tables(), ids=lambda part: part.name if isinstance(part, Path) else part
)
def test_a_table_is_what_the_code_says(page: Path, name: str) -> None:
    assert marked(page, name) == tables()[page, name], "run: python -m tests.docs.tables"


def test_every_reason_has_its_line_and_no_other() -> None:
    listed = first_column(section(_OPERATIONS, "Reasons"))

    assert sorted(listed) == sorted(set(listed)), "a reason is listed twice"
    assert reasons().conditions - set(listed) == set(), "missing on the page"
    assert set(listed) - reasons().conditions == set(), "nothing writes them"


def test_every_event_has_its_line_and_no_other() -> None:
    assert set(first_column(section(_OPERATIONS, "Events"))) == reasons().events


def test_every_condition_has_its_line_and_no_other() -> None:
    listed = first_column(section(_OPERATIONS, "Conditions"))

    assert set(listed) == {str(one) for one in ConditionType}


def test_access_modes_phases_and_deletion_policies_are_explained() -> None:
    assert first_column(section(_OPERATIONS, "Access modes")) == [str(one) for one in AccessMode]
    assert set(first_column(section(_OPERATIONS, "Retained tenants"))) == {
        str(one) for one in Phase
    }
    assert set(DeletionPolicy) <= set(first_column(section(_OPERATIONS, "Deletion")))


def test_every_series_of_tenants_policies_and_stores_has_its_line() -> None:
    """The table is made of what a sample shows, and a sample may lack one."""
    listed = first_column(section(_OPERATIONS, "Metrics"))

    assert {f"memtenant_{name}" for name in series._HELP} - set(listed) == set()


def test_the_chart_names_every_kind_that_it_installs() -> None:
    chart = ROOT / "charts" / "memtenant"
    about = yaml.safe_load((chart / "Chart.yaml").read_text())["annotations"]
    listed = yaml.safe_load(about["artifacthub.io/crds"])

    assert {one["kind"] for one in listed} == set(KINDS)
    assert [kind for kind in KINDS if kind not in (chart / "README.md").read_text()] == []


def test_every_function_of_the_library_has_its_line() -> None:
    offered = re.findall(r"^offer(?:_reading)?\('(\w+)'", libraries()[0].code, re.MULTILINE)
    rows = re.findall(r"^\| (`.*?`) [(|]", (DOCS / "functions.md").read_text(), re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}

    assert len(offered) > 20
    assert set(offered) <= listed


def test_the_readme_counts_the_controls_and_checks() -> None:
    checks = [
        one.check for framework in built_in_frameworks().values() for one in framework.controls
    ]
    people = checks.count(MANUAL)

    said = " ".join((ROOT / "README.md").read_text().split())
    assert f"each Monday: {len(checks)} controls of" in said
    assert f"{len(checks) - people} of them judged by {len(CHECKS)} checks" in said
    assert f"and {people} left to people" in said


def test_every_layer_has_its_line_in_their_order() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    listed = first_column(section(DOCS / "architecture.md", "Layers"))

    assert set(listed) == {name for layer in layers for name in layer.split(" | ")}
    assert listed[0] == layers[0]
    assert listed[-1] in layers[-1]


def test_a_reason_that_cannot_be_read_is_not_overlooked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/new.py").write_text(
        "def refuse(reason: str) -> None: ...\n\nrefuse(computed())\n"
    )
    monkeypatch.setattr(source, "_PACKAGE", tmp_path)
    monkeypatch.setattr(source, "_of_errors", lambda _: set())
    reasons.cache_clear()
    try:
        with pytest.raises(source.UnknownReason, match=r"new\.py:3: computed\(\)"):
            reasons()
    finally:
        reasons.cache_clear()
