from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.api.conditions import ConditionStatus, ConditionType
from memtenant.api.policy import RetentionPolicySpec
from memtenant.errors import InvalidResource
from memtenant.rules.frameworks import RecordClass, built_in_frameworks
from memtenant.rules.policy import (
    PolicyFacts,
    chosen_from,
    chosen_to,
    hold_labels,
    matters_from,
    matters_to,
    policy_facts,
    retention_findings,
    retention_status,
)
from memtenant.tenancy.masking import Detector, MaskingAction, MaskingPolicy
from memtenant.tenancy.period import Period
from memtenant.tenancy.policy import SubjectRights
from tests.rules.builders import NOW, TENANT, policy_spec, tenant_spec

SINCE = "2026-01-31T09:30:00Z"


def facts(**fields: Any) -> PolicyFacts:
    return policy_facts("standard", policy_spec(**fields))


def hold(matter: str = "SEC-1", **selector: Any) -> dict[str, Any]:
    return {"matter": matter, "since": SINCE, "tenantSelector": selector}


def labelled(**labels: str) -> dict[str, Any]:
    return {"matchLabels": labels}


# -- holds -----------------------------------------------------------------------------------------


def test_a_hold_takes_the_tenants_that_its_selector_matches() -> None:
    policy = facts(legalHolds=[hold("A", **labelled(case="x")), hold("B", **labelled(case="y"))])
    assert set(policy.matters_of({"case": "x"}, {}, NOW)) == {"A"}
    assert policy.matters_of({}, {}, NOW) == {}


def test_a_hold_without_conditions_takes_every_tenant_under_the_policy() -> None:
    assert set(facts(legalHolds=[hold()]).matters_of({}, {}, NOW)) == {"SEC-1"}


def test_a_tenant_does_not_slip_out_of_a_hold_by_changing_its_labels() -> None:
    policy = facts(legalHolds=[hold(**labelled(case="x"))])
    held = policy.matters_of({"case": "x"}, {}, NOW)
    assert policy.matters_of({}, held, NOW) == held
    assert policy.matters_of({"case": "y"}, held, NOW) == held


def test_a_hold_that_is_removed_from_the_policy_is_released() -> None:
    held = facts(legalHolds=[hold()]).matters_of({}, {}, NOW)
    assert facts().matters_of({}, held, NOW) == {}
    assert facts(legalHolds=[hold("OTHER", **labelled(case="x"))]).matters_of({}, held, NOW) == {}


def test_a_hold_whose_selector_the_policys_author_narrows_releases_those_outside() -> None:
    held = facts(legalHolds=[hold()]).matters_of({"team": "support"}, {}, NOW)
    narrowed = facts(legalHolds=[hold(**labelled(team="sales"))])
    assert narrowed.matters_of({"team": "support"}, held, NOW) == {}
    assert set(narrowed.matters_of({"team": "sales"}, held, NOW)) == {"SEC-1"}


def test_a_hold_whose_date_alone_is_corrected_goes_on() -> None:
    held = facts(legalHolds=[hold(**labelled(case="x"))]).matters_of({"case": "x"}, {}, NOW)
    corrected = facts(legalHolds=[hold(**labelled(case="x")) | {"since": "2025-01-01T00:00:00Z"}])
    assert corrected.matters_of({}, held, NOW) == held


@given(
    st.lists(
        st.tuples(st.sampled_from("ABC"), st.sampled_from("xyz")), unique_by=lambda one: one[0]
    ),
    st.sampled_from("xyz"),
    st.lists(st.sampled_from("xyz"), max_size=4),
)
def test_holds_only_grow_while_the_policy_stays(
    holds: list[tuple[str, str]], first: str, then: list[str]
) -> None:
    policy = facts(legalHolds=[hold(matter, **labelled(case=case)) for matter, case in holds])
    held = policy.matters_of({"case": first}, {}, NOW)
    for label in then:
        after = policy.matters_of({"case": label}, held, NOW)
        assert held.items() <= after.items()
        held = after
    assert set(policy.still_holds(held)) == set(held)


def test_another_policys_matter_of_the_same_name_is_not_still_held() -> None:
    held = facts(legalHolds=[hold(**labelled(case="x"))]).matters_of({"case": "x"}, {}, NOW)
    assert facts(legalHolds=[hold(**labelled(case="x"))]).still_holds(held) == ("SEC-1",)
    assert facts(legalHolds=[hold(**labelled(case="y"))]).still_holds(held) == ()
    assert facts().still_holds(held) == ()


@given(st.dictionaries(st.text(max_size=64), st.text(max_size=16)))
def test_matters_survive_the_access_hash_in_any_order(matters: dict[str, str]) -> None:
    assert matters_from(matters_to(matters)) == matters
    assert matters_to(dict(reversed(matters.items()))) == matters_to(matters)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", "\x00"])
def test_a_field_without_matters_reads_as_none(text: str) -> None:
    assert matters_from(text) == {}


# -- whose labels a hold sees ----------------------------------------------------------------------


def test_the_namespaces_labels_win_over_the_tenants() -> None:
    seen = hold_labels(TENANT, {"case": "none", "tier": "gold"}, {"case": "x"})
    assert (seen["case"], seen["tier"]) == ("x", "gold")


def test_nobody_writes_the_two_names() -> None:
    forged = {"memtenant.dev/namespace": "sales", "memtenant.dev/tenant": "crm"}
    seen = hold_labels(TENANT, forged, forged)
    assert seen == {"memtenant.dev/namespace": "support", "memtenant.dev/tenant": "acme"}


def test_a_hold_may_name_one_tenant() -> None:
    names = {"memtenant.dev/namespace": "support", "memtenant.dev/tenant": "acme"}
    policy = facts(legalHolds=[hold(matchLabels=names)])
    assert set(policy.matters_of(hold_labels(TENANT, {}, {}), {}, NOW)) == {"SEC-1"}


# -- what cannot be resolved -----------------------------------------------------------------------


def test_an_unknown_framework_is_named_with_those_that_are_known() -> None:
    with pytest.raises(InvalidResource, match=r"'HIPPA'.*use GDPR, HIPAA, PCI_DSS, SOX") as error:
        facts(frameworks=["HIPPA"])
    assert (error.value.reason, error.value.field) == ("UnknownFramework", "spec.frameworks")


def test_a_conflict_of_floor_and_ceiling_names_both_clauses() -> None:
    conflict: dict[str, Any] = {"frameworks": ["SOX"], "retention": {"audit": {"max": "1y"}}}
    with pytest.raises(InvalidResource, match=r"audit must .*7y.*SOX.*1y.*audit\.max") as error:
        facts(**conflict)
    assert error.value.reason == "RetentionConflict"
    assert facts(**conflict, legalBasis="17 CFR 210.2-06 prevails").resolution.audit.overridden


def test_a_tenants_choice_out_of_bounds_names_the_field_and_the_bound() -> None:
    policy = facts(retention={"content": {"max": "90d"}})
    with pytest.raises(InvalidResource, match=r"at most 90d .*content\.max") as error:
        policy.resolve_for(tenant_spec(retention={"content": "91d"}))
    assert error.value.field == "spec.retention.content"


def test_a_tenants_choice_within_bounds_is_in_force_for_it_alone() -> None:
    policy = facts(retention={"content": {"max": "90d"}})
    resolution = policy.resolve_for(tenant_spec(retention={"content": "60d"}))
    assert resolution.content.effective.period == Period(60, "d")
    assert policy.resolution.content.effective.period == Period(30, "d")


# -- what others ask of a policy -------------------------------------------------------------------


def test_its_frameworks_features_come_with_their_clauses() -> None:
    view = facts(frameworks=["PCI_DSS", "GDPR"]).view
    assert view.name == "standard"
    assert view.features["erasure"].startswith("GDPR Art. 17")
    assert view.features["encryption"].startswith("PCI_DSS 3.5.1")
    assert facts().view.features == {}


def test_masking_is_optional_until_policy_or_framework_requires_it() -> None:
    assert facts().masking == MaskingPolicy()
    assert facts(frameworks=["GDPR", "HIPAA", "SOX"]).masking == MaskingPolicy()
    spec = {
        "mode": "Required",
        "action": "Drop",
        "detectors": ["Email"],
        "tools": {"mode": "Required"},
    }
    assert facts(masking=spec).masking == MaskingPolicy(
        required=True, action=MaskingAction.DROP, detectors=(Detector.EMAIL,), tools=True
    )


def test_pci_dss_requires_masking_and_refuses_cards_and_what_belongs_to_them() -> None:
    policy = facts(frameworks=["PCI_DSS"], masking={"detectors": ["Email"]}).masking
    never = (Detector.CARD_VERIFICATION, Detector.CARD_TRACK, Detector.CARD)
    assert policy.required
    assert policy.refused == never
    assert policy.detectors == (*never, Detector.EMAIL)
    assert set(facts(frameworks=["PCI_DSS"]).masking.detectors) == set(Detector)


def test_a_content_minimum_is_the_floor_and_otherwise_none() -> None:
    assert facts().content_minimum is None
    assert facts(frameworks=["GDPR"]).content_minimum is None
    floor = {"content": {"min": "1y", "default": "2y"}}
    assert facts(retention=floor).content_minimum == Period(1, "y")


def test_the_editions_of_the_frameworks_are_dated() -> None:
    (one,) = facts(frameworks=["GDPR"]).framework_versions()
    assert one.name == "GDPR"
    assert one.version == built_in_frameworks()["GDPR"].date.isoformat()


def test_every_period_in_a_status_comes_with_what_set_it() -> None:
    policy = facts(frameworks=["HIPAA"], retention={"content": {"max": "3y"}}, legalBasis="so")
    status = policy.resolved_status()
    assert status.content is not None
    assert status.content.ceiling == Period(3, "y")
    assert status.content.ceiling_clause == "RetentionPolicy spec.retention.content.max"
    assert (status.content.floor, status.content.floor_clause) == (None, "")
    assert status.audit is not None
    assert status.audit.floor == Period(6, "y")
    assert "164.316" in status.audit.floor_clause


def test_a_tenants_status_shows_what_is_in_force_and_why() -> None:
    policy = facts(frameworks=["SOX"])
    shown = retention_status(policy.resolve_for(tenant_spec(retention={"content": "30d"})))
    assert shown.content is not None
    assert (shown.content.period, shown.content.clause) == (
        Period(30, "d"),
        "MemoryTenant spec.retention.content",
    )
    assert shown.audit is not None
    assert "17 CFR 210.2-06" in shown.audit.floor_clause


def test_the_longest_policy_still_fits_into_a_status() -> None:
    policy = facts(frameworks=sorted(built_in_frameworks()), legalBasis="x" * 1024)
    resolved = policy.resolved_status().model_dump(mode="json")
    assert type(policy.resolved_status()).model_validate(resolved) == policy.resolved_status()
    assert retention_status(policy.resolution).derived is not None


def test_keeping_longer_than_a_default_without_a_basis_is_a_condition() -> None:
    keeps: dict[str, Any] = {"frameworks": ["GDPR"], "retention": {"content": {"default": "2y"}}}
    resolved, unjustified = retention_findings(facts(**keeps).resolution)
    assert (resolved.type, resolved.status) == (
        ConditionType.RETENTION_RESOLVED,
        ConditionStatus.TRUE,
    )
    assert "Content is kept for 2y" in resolved.message
    assert unjustified.status is ConditionStatus.TRUE
    assert "state spec.legalBasis" in unjustified.message
    _, justified = retention_findings(facts(**keeps, legalBasis="a contract").resolution)
    assert justified.status is ConditionStatus.FALSE


def test_facts_are_those_of_the_spec_that_was_given() -> None:
    spec = RetentionPolicySpec()
    assert policy_facts("standard", spec).spec is spec


def test_a_hold_stands_from_its_date_on_and_says_when_that_is() -> None:
    coming = facts(legalHolds=[{**hold(), "since": "2030-01-01T00:00:00Z"}])
    begins = datetime(2030, 1, 1, tzinfo=UTC)
    assert coming.matters_of({}, {}, NOW) == {}
    assert coming.next_hold(NOW) == begins
    assert set(coming.matters_of({}, {}, begins)) == {"SEC-1"}
    assert coming.next_hold(begins) is None


# -- what a person may ask for ---------------------------------------------------------------------


def test_erasure_and_export_are_open_unless_the_policy_forbids_them() -> None:
    assert facts().rights == SubjectRights(erasure=True, portability=True)
    closed = facts(erasure={"mode": "Forbidden"}, portability={"mode": "Forbidden"})
    assert closed.rights == SubjectRights()


def test_consent_is_required_by_the_policy_or_a_framework() -> None:
    assert facts(erasure={"consentRequired": True}).rights.consent_required
    assert facts(frameworks=["GDPR"]).rights.consent_required
    assert not facts(frameworks=["HIPAA"]).rights.consent_required


@pytest.mark.parametrize("right", ["erasure", "portability"])
def test_a_policy_cannot_forbid_what_its_framework_gives(right: str) -> None:
    with pytest.raises(InvalidResource, match="GDPR Art") as refused:
        facts(frameworks=["GDPR"], **{right: {"mode": "Forbidden"}})
    assert (refused.value.field, refused.value.reason) == (
        f"spec.{right}.mode",
        "FrameworkContradicted",
    )
    facts(frameworks=["SOX"], **{right: {"mode": "Forbidden"}})


def test_chosen_periods_read_back_as_they_were_kept() -> None:
    chosen = {RecordClass.CONTENT: Period(12, "mo"), RecordClass.DERIVED: Period(90, "s")}
    assert chosen_from(chosen_to(chosen)) == chosen
    assert chosen_from(chosen_to({})) == {}


@pytest.mark.parametrize("text", ["", "x", "3", "[]", '{"content":"soon"}', '{"other":"3d"}'])
def test_chosen_periods_that_cannot_be_read_are_none_at_all(text: str) -> None:
    assert chosen_from(text) is None
