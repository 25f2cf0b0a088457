from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.errors import FrameworkInvalid, InvalidResource
from memtenant.rules.frameworks import (
    Feature,
    Framework,
    RecordClass,
    built_in_frameworks,
    load_frameworks,
    required_features,
    select_frameworks,
)
from memtenant.rules.retention import resolve

MADE_UP = """
schema = 1
id = "ISO_27001"
title = "Information security management"
source = "ISO/IEC 27001:2022, Annex A"
date = 2026-01-31

[retention.content]
default = "90d"
default_clause = "A.8.10"
maximum = "2y"
maximum_clause = "A.8.10, information deletion"

[retention.audit]
minimum = "3y"
minimum_clause = "A.8.15, logging"
at_hand = "1mo"
at_hand_clause = "A.8.15"

[features]
encryption = "A.8.24"
"""


def load(folder: Path, text: str) -> Framework:
    (folder / "made_up.toml").write_text(text)
    (framework,) = load_frameworks(folder).values()
    return framework


def test_the_built_in_frameworks() -> None:
    assert list(built_in_frameworks()) == ["GDPR", "HIPAA", "PCI_DSS", "SOX"]


@pytest.mark.parametrize(
    ("name", "record_class", "bound", "period", "clause"),
    [
        ("GDPR", "content", "default", "365d", "Art. 5(1)(e)"),
        ("HIPAA", "content", "default", "2555d", "documentation"),
        ("SOX", "content", "default", "2555d", "17 CFR 210.2-06"),
        ("PCI_DSS", "content", "default", "365d", "3.2.1"),
        ("HIPAA", "audit", "minimum", "6y", "164.316(b)(2)(i)"),
        ("HIPAA", "evidence", "minimum", "6y", "164.316(b)(2)(i)"),
        ("SOX", "audit", "minimum", "7y", "17 CFR 210.2-06"),
        ("SOX", "evidence", "minimum", "7y", "17 CFR 210.2-06"),
        ("PCI_DSS", "audit", "minimum", "12mo", "10.5.1"),
        ("PCI_DSS", "audit", "at_hand", "3mo", "10.5.1"),
        ("PCI_DSS", "evidence", "minimum", "12mo", "10.5.1"),
    ],
)
def test_each_number_has_its_clause(
    name: str, record_class: str, bound: str, period: str, clause: str
) -> None:
    rule = built_in_frameworks()[name].rule(RecordClass(record_class))
    found = getattr(rule, bound)
    assert str(found.period) == period
    assert clause in found.clause


def test_gdpr_and_pci_ask_for_a_justified_maximum_and_the_others_do_not() -> None:
    asking = {
        name
        for name, framework in built_in_frameworks().items()
        if framework.rule(RecordClass.CONTENT).justify_clause
    }
    assert asking == {"GDPR", "PCI_DSS"}


def test_no_built_in_framework_states_a_number_that_its_law_lacks() -> None:
    for framework in built_in_frameworks().values():
        content = framework.rule(RecordClass.CONTENT)
        assert content.minimum is None
        assert content.maximum is None
        assert content.default is not None
        assert "memtenant's default" in content.default.clause


def test_frameworks_switch_features_on() -> None:
    known = built_in_frameworks()
    assert {name: set(framework.features) for name, framework in known.items()} == {
        "GDPR": {Feature.ERASURE, Feature.PORTABILITY, Feature.CONSENT},
        "HIPAA": {
            Feature.ENCRYPTION,
            Feature.ACCESS_LOGGING,
            Feature.INTEGRITY,
            Feature.ISOLATION,
        },
        "SOX": {Feature.IMMUTABLE_AUDIT, Feature.ACCESS_CONTROLS, Feature.CHANGE_TRACKING},
        "PCI_DSS": {
            Feature.ENCRYPTION,
            Feature.ACCESS_MONITORING,
            Feature.MASKING,
            Feature.ISOLATION,
        },
    }
    asked = required_features(select_frameworks(known, ["PCI_DSS", "HIPAA"]))
    assert asked[Feature.ENCRYPTION] == (
        "HIPAA 45 CFR 164.312(a)(2)(iv), addressable: encrypt, or document an equivalent; "
        "PCI_DSS 3.5.1, stored account numbers unreadable"
    )
    assert Feature.ERASURE not in asked


def test_a_framework_is_added_by_adding_a_file(tmp_path: Path) -> None:
    framework = load(tmp_path, MADE_UP)
    assert framework.id == "ISO_27001"
    assert framework.date == date(2026, 1, 31)
    resolution = resolve({}, [framework])
    assert str(resolution.content.effective.period) == "90d"
    assert resolution.content.ceiling is not None
    assert resolution.content.ceiling.reason == "ISO_27001 A.8.10, information deletion"
    assert str(resolution.audit.effective.period) == "3y"
    assert required_features([framework]) == {Feature.ENCRYPTION: "ISO_27001 A.8.24"}


def test_other_files_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello")
    assert load(tmp_path, MADE_UP).title == "Information security management"


def test_an_unknown_framework_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidResource) as caught:
        select_frameworks(built_in_frameworks(), ["GDPR", "GDRP"])
    assert caught.value.field == "spec.frameworks"
    assert caught.value.reason == "UnknownFramework"
    assert str(caught.value) == (
        "spec.frameworks names 'GDRP', which this memtenant does not know: use GDPR, HIPAA, "
        "PCI_DSS, SOX"
    )


@given(st.lists(st.sampled_from(["GDPR", "HIPAA", "SOX", "PCI_DSS"])))
def test_a_framework_counts_once_wherever_it_stands(names: list[str]) -> None:
    selected = select_frameworks(built_in_frameworks(), names)
    assert [framework.id for framework in selected] == sorted(set(names))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("schema = 1", "schema = 2", "schema must be 1"),
        ("schema = 1", "", "schema must be 1"),
        ('id = "ISO_27001"', 'id = "iso 27001"', "id must be of capital letters"),
        ('id = "ISO_27001"', "id = 27001", "id must be a text"),
        ('title = "Information security management"', "", "title must be a text"),
        ("date = 2026-01-31", 'date = "2026-01-31"', "date must be a date"),
        ("date = 2026-01-31", "date = 2026-01-31T00:00:00Z", "date must be a date"),
        ("date = 2026-01-31", "dated = 2026-01-31", "date must be a date"),
        ('default = "90d"', 'default = "3 months"', "retention.content.default is no period"),
        ('default = "90d"', "default = 90", "retention.content.default must be a text"),
        ('default_clause = "A.8.10"', "", "retention.content.default_clause must be a text"),
        ('default_clause = "A.8.10"', 'default_clause = " "', "default_clause must be a text"),
        ('default = "90d"', 'default = "9y"', "retention.content.default is longer than maximum"),
        ('at_hand = "1mo"', 'at_hand = "9y"', "retention.audit.at_hand is longer than minimum"),
        ("[retention.audit]", "[retention.logs]", "retention.logs is no class of record"),
        ('encryption = "A.8.24"', 'encrypt = "A.8.24"', "features.encrypt is no feature"),
        ('encryption = "A.8.24"', "encryption = true", "features.encryption must be a text"),
        ("[features]", "[feature]", "feature is not known"),
        ('minimum = "3y"', 'minimun = "3y"', "retention.audit.minim"),
        ("[retention.audit]", 'retention.audit = "3y"\n[x]', "retention"),
        ("[features]", "[features", "not TOML"),
        ("A.8.24", "A" * 300, "1 to 200 characters"),
        ("[features]", '[masking]\nrefused = ["Card"]\n[features]', "refused_clause must be"),
        ("[features]", '[masking]\nrefused = ["Pin"]\n[features]', "masking.refused must be"),
        ("[features]", '[masking]\ndetectors = ["Card"]\ndetectors_clause = "x"\n[features]',
         "masking needs the feature masking"),
        ("[retention.audit]", '[retention.evidence]\njustify_clause = "x"\n[retention.audit]',
         "retention.evidence.justify_clause needs a default"),
    ],
)  # fmt: skip
def test_a_data_file_that_cannot_be_used_names_file_and_field(
    tmp_path: Path, old: str, new: str, named: str
) -> None:
    assert old in MADE_UP
    with pytest.raises(FrameworkInvalid) as caught:
        load(tmp_path, MADE_UP.replace(old, new, 1))
    assert str(caught.value).startswith("made_up.toml: ")
    assert named in str(caught.value)


def test_two_files_cannot_have_the_same_id(tmp_path: Path) -> None:
    (tmp_path / "another.toml").write_text(MADE_UP)
    with pytest.raises(FrameworkInvalid, match="'ISO_27001' already"):
        load(tmp_path, MADE_UP)


def test_a_data_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(FrameworkInvalid, match=r"binary\.toml: it is not TOML"):
        load_frameworks(tmp_path)


def test_the_documented_example_is_a_framework(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "retention.md"
    example = page.read_text().split("```toml\n")[1].split("```")[0]
    framework = load(tmp_path, example)
    assert framework.rule(RecordClass.CONTENT).justify_clause == "A.8.10"
    assert all(feature in page.read_text() for feature in Feature)
