"""The document and the page: canonical, self-contained, and hostile to nothing that reads them."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from memtenant.errors import ReportInvalid, UsageError
from memtenant.reports.artefacts import MANIFEST, PAGE, REPORT, Manifest, read_report, write_report
from memtenant.reports.canonical import canonical
from memtenant.reports.checks import Finding, Judgement, Status
from memtenant.reports.difference import difference
from memtenant.reports.evidence import Period
from memtenant.reports.page import page
from memtenant.reports.report import ControlResult, FrameworkResult, Report
from memtenant.rules.controls import Control, Severity

NOW = datetime(2026, 11, 28, 22, 0, tzinfo=UTC)
CONTROL = Control(
    "1", "Rule 1", "Under lock", Severity.HIGH, "Encrypted", remedy="Lock it: `memtenant get`"
)


def report(
    status: Status = Status.PASS, *, words: str = "fine", tenant: str = "support.acme"
) -> Report:
    findings = () if status is Status.PASS else (Finding(status, tenant, words),)
    judgement = Judgement(status, "all records: 1/1 tenants", NOW, findings, len(findings))
    return Report(
        installation="i",
        policy="standard",
        generation=1,
        made=NOW,
        period=Period(NOW - timedelta(days=30), NOW),
        frameworks=(
            FrameworkResult(
                "SHIPSHAPE",
                "Rules of the harbour",
                "The harbour master",
                "2026-01-31",
                (ControlResult(CONTROL, judgement),),
            ),
        ),
        tenants=({"tenant": tenant, "records": 3, "encrypted": 3},),
        events={"byOperation": {"APPEND": 3}, "byAgent": {"a": 3}, "missing": []},
        log={"checkpoint": "", "verified": True, "size": 3, "problems": []},
        recommendations=(
            {"do": "Lock it", "status": "Fail", "severity": "High", "controls": [], "because": []},
        ),
    )


_names = st.text(st.characters(codec="ascii"), max_size=10)
_documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(_names, _documents, max_size=6))
def test_documents_are_written_as_rfc_8785_says(document: Mapping[str, Any]) -> None:
    assert canonical(document) == rfc8785.dumps(dict(document))


@pytest.mark.parametrize("value", [1.5, 2**53, {"é": 1}, float("nan")])
def test_what_readers_might_read_otherwise_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="a report has only"):
        canonical({"value": value})


def test_a_report_is_read_as_it_was_written() -> None:
    written = report(Status.FAIL, words="naïve → 50 %")
    again = Report.parse(written.to_json())
    assert again.to_json() == written.to_json()
    assert again.worst is Status.FAIL


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format":2}', b"[1]", b'{"format":1,"made":"x"}'])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(ReportInvalid):
        Report.parse(data)


@pytest.mark.parametrize(
    "part",
    [
        {"stores": [{}]},
        {"recommendations": [{"do": 1}]},
        {"difference": {}},
        {"difference": {"since": "", "turned": [{"framework": "GDPR"}]}},
    ],
)
def test_a_report_that_could_not_be_shown_is_refused(part: Mapping[str, Any]) -> None:
    """The next run reads it too: whoever writes into the folder stops none by that."""
    document = json.loads(report().to_json()) | part
    with pytest.raises(ReportInvalid):
        Report.parse(canonical(document))


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    text = page(report(Status.FAIL, words='<script>alert(1)</script>" onload="x', tenant="<b>x"))
    assert "<script" not in text
    assert "<b>x" not in text
    assert not re.search(r"(src|href)=|url\(|@import|https?://", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_each_byte_of_a_report_that_changes_is_seen(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    for name in (REPORT, PAGE, MANIFEST):
        file = tmp_path / name
        data = file.read_bytes()
        for place in range(0, len(data), 1 if name == MANIFEST else 97):
            changed = bytearray(data)
            changed[place] ^= 1
            file.write_bytes(changed)
            if name == MANIFEST:
                # Another manifest may be well-formed: its hash is not the log's.
                try:
                    _, manifest = read_report(tmp_path)
                except ReportInvalid:
                    continue
                assert manifest.digest != Manifest.parse(data).digest
            else:
                with pytest.raises(ReportInvalid):
                    read_report(tmp_path)
        file.write_bytes(data)
    read_report(tmp_path)


def test_a_report_is_not_overwritten(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    with pytest.raises(UsageError, match="holds something already"):
        write_report(report(), tmp_path)


def test_a_report_appears_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_page: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(UsageError, match="No space left"):
            write_report(report(), tmp_path / "standard" / "run")
    assert list((tmp_path / "standard").iterdir()) == []


def test_a_file_of_a_report_is_a_plain_one_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_report(report(), folder)
    page_file = folder / PAGE
    data = page_file.read_bytes()

    def link() -> None:
        (tmp_path / "elsewhere").write_bytes(data)
        page_file.symlink_to(tmp_path / "elsewhere")

    for make, says in (
        (link, "it is a link"),
        (lambda: os.mkfifo(page_file), "no plain file"),
        (page_file.mkdir, "no plain file"),
        (lambda: os.truncate(os.open(page_file, os.O_CREAT | os.O_RDWR), 2**40), "too large"),
        (lambda: page_file.write_bytes(data[:-1]), "is not the file"),
        (lambda: None, "cannot be read"),
    ):
        (page_file.rmdir if page_file.is_dir() else page_file.unlink)()
        make()
        with pytest.raises(ReportInvalid, match=says):
            read_report(folder)


def test_a_manifest_names_no_file_elsewhere(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_bytes())
    for name in ("../passwd", "a\0b"):
        there = manifest["files"] | {name: "0" * 64}
        (tmp_path / MANIFEST).write_bytes(canonical(manifest | {"files": there}))
        with pytest.raises(ReportInvalid, match="outside"):
            read_report(tmp_path)


def test_a_file_that_the_manifest_does_not_name_is_not_of_the_report(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_bytes())
    for name in (REPORT, PAGE):
        rest = {one: digest for one, digest in manifest["files"].items() if one != name}
        (tmp_path / MANIFEST).write_bytes(canonical(manifest | {"files": rest}))
        with pytest.raises(ReportInvalid, match=name):
            read_report(tmp_path)


def test_a_difference_tells_what_turned_and_who_came() -> None:
    before, after = report(), report(Status.FAIL, tenant="support.globex")
    row = difference(before, after)
    (turned,) = row["turned"]  # type: ignore[misc]
    assert (turned["before"], turned["after"], turned["better"]) == ("Pass", "Fail", False)
    assert (row["tenantsAdded"], row["tenantsGone"]) == (["support.globex"], ["support.acme"])
    assert "Since" in page(replace(after, difference=row))
