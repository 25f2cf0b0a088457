"""Whether a tenant is audited: as policy, frameworks and its own choice together say."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.api.fields import AuditFailure
from memtenant.rules.audit import (
    AuditTerms,
    audit_entry,
    audit_terms,
    closing_entry,
    keep_months,
)
from memtenant.rules.frameworks import built_in_frameworks, select_frameworks
from memtenant.rules.placement import policy_refusals
from memtenant.rules.retention import resolve
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.period import Period
from tests.rules.builders import applicant, policy_view, tenant_spec

FRAMEWORKS = ("GDPR", "HIPAA", "PCI_DSS", "SOX")
CHOICES: tuple[dict[str, Any], ...] = (
    {},
    {"audit": {"mode": "Enabled"}},
    {"audit": {"mode": "Disabled"}},
)

SEVEN_YEARS = resolve({}, select_frameworks(built_in_frameworks(), ["SOX"]))


def terms(policy: dict[str, Any], **spec: Any) -> AuditTerms:
    return audit_terms(policy_view(**policy), tenant_spec(**spec))


@given(
    st.sampled_from(("Required", "Optional")),
    st.sampled_from(("Required", "Optional")),
    st.sets(st.sampled_from(FRAMEWORKS)),
    st.sampled_from(CHOICES),
)
def test_a_tenant_only_ever_adds_to_what_is_required(
    mode: str, reads: str, frameworks: set[str], choice: dict[str, Any]
) -> None:
    asked = {"mode": mode, "reads": reads}
    policy: dict[str, Any] = {"audit": asked, "frameworks": sorted(frameworks)}
    required = mode == "Required" or bool(frameworks & {"HIPAA", "PCI_DSS", "SOX"})
    refused = [one.reason for one in policy_refusals(applicant(**choice), policy_view(**policy))]
    assert ("AuditRequired" in refused) is (required and choice is CHOICES[2])
    found = terms(policy, **choice)
    assert found.enabled is (required or choice is CHOICES[1])
    assert found.enabled is bool(found.clause)
    reading = reads == "Required" or bool(frameworks & {"HIPAA", "PCI_DSS"})
    assert found.reads is (found.enabled and reading)


def test_the_order_of_frameworks_does_not_matter() -> None:
    both = [{"frameworks": list(order)} for order in (FRAMEWORKS, FRAMEWORKS[::-1])]
    assert terms(both[0]) == terms(both[1])


@pytest.mark.parametrize(
    ("policy", "choice", "clause"),
    [
        ({"audit": {"mode": "Required"}}, {}, "RetentionPolicy 'standard'"),
        ({"frameworks": ["HIPAA"]}, {}, "HIPAA 45 CFR 164.312(b)"),
        ({}, CHOICES[1], "spec.audit.mode"),
        ({}, {}, ""),
    ],
)
def test_the_status_says_what_asks_for_the_audit(
    policy: dict[str, Any], choice: dict[str, Any], clause: str
) -> None:
    status = terms(policy, **choice).status
    assert clause in status.clause
    assert (status.mode == "Enabled") is bool(clause)


def test_the_functions_are_told_in_the_fields_that_they_read() -> None:
    policy = {"audit": {"mode": "Required", "reads": "Required", "onFailure": "Open"}}
    assert terms(policy).to_fields() == {"audit": "1", "audit_reads": "1", "on_failure": "Open"}
    assert terms({}).to_fields() == {"audit": "0", "audit_reads": "0", "on_failure": "Closed"}


def test_the_sealer_is_told_how_late_it_may_seal_and_how_long_the_log_is_kept() -> None:
    found = terms({"audit": {"mode": "Required", "sealEvery": "5m"}})
    entry = audit_entry(found, SEVEN_YEARS, "", held=False)
    expected = Audited(300, keep_months=84, evidence_months=84)
    assert Audited.from_json(entry.encode()) == expected


def test_under_a_hold_the_log_is_kept_whatever_its_age() -> None:
    on, off = terms({"audit": {"mode": "Required"}}), terms({})
    entry = audit_entry(on, SEVEN_YEARS, "", held=True)
    assert Audited.from_json(entry.encode()).keep_months is None
    closing = audit_entry(off, SEVEN_YEARS, entry, held=False)
    assert Audited.from_json(closing.encode()).keep_months is None


def test_an_audit_that_was_switched_off_closes_and_stays_closed() -> None:
    on, off = terms({"audit": {"mode": "Required"}}), terms({})
    entry = audit_entry(on, SEVEN_YEARS, "", held=False)
    closing = audit_entry(off, SEVEN_YEARS, entry, held=False)
    expected = Audited(60, closing=True, keep_months=84, evidence_months=84)
    assert Audited.from_json(closing.encode()) == expected
    assert audit_entry(off, SEVEN_YEARS, closing, held=False) == closing
    assert audit_entry(on, SEVEN_YEARS, closing, held=False) == entry
    assert audit_entry(off, SEVEN_YEARS, "", held=False) == ""
    assert Audited.from_json(closing_entry("damaged").encode()).closing


@given(st.integers(1, 4000))
def test_a_log_kept_by_months_is_never_kept_for_less(days: int) -> None:
    months = keep_months(Period(days, "d"))
    for year, month in product((2025, 2028), range(1, 13)):
        for day in (1, monthrange(year, month)[1]):
            start = datetime(year, month, day, tzinfo=UTC)
            assert (Period(months, "mo").after(start) - start).days >= days
    assert months <= days / 28 + 2


@pytest.mark.parametrize(("period", "months"), [("12mo", 12), ("7y", 84), ("30d", 2), ("1h", 1)])
def test_calendar_periods_are_kept_as_they_are(period: str, months: int) -> None:
    assert keep_months(Period.parse(period)) == months


def test_closed_is_what_is_done_where_nothing_is_said() -> None:
    assert terms({}).on_failure is AuditFailure.CLOSED
