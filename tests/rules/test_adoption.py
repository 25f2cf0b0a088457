from __future__ import annotations

from typing import Any

import pytest

from memtenant.rules.adoption import adoption_refusal
from memtenant.rules.placement import Refusal
from memtenant.rules.record import RELEASE_ANNOTATION, Phase
from tests.rules.builders import record

RETAINED = {"phase": Phase.RETAINED, "principals": {}}


def refusal(
    found: dict[str, Any] | None = None,
    *,
    uid: str = "uid-2",
    namespace_uid: str = "namespace-1",
    isolation: str = "Moderate",
    encryption: str = "Enabled",
    release: str | None = None,
) -> Refusal | None:
    """Of another MemoryTenant in the same namespace than the one that left a retained record."""
    return adoption_refusal(
        record(**(RETAINED | (found or {}))),
        uid=uid,
        namespace_uid=namespace_uid,
        isolation=isolation,
        encryption=encryption,
        release={} if release is None else {RELEASE_ANNOTATION: release},
        home="memtenant-system",
    )


@pytest.mark.parametrize("phase", Phase)
def test_a_tenant_always_goes_on_with_its_own_record(phase: Phase) -> None:
    assert refusal({"phase": phase, "deletion_policy": "Delete"}, uid="uid-1") is None


def test_a_retained_tenant_is_adopted_in_the_same_namespace() -> None:
    assert refusal() is None


def test_a_recreated_namespace_does_not_get_what_its_namesake_left() -> None:
    found = refusal(namespace_uid="namespace-2")
    assert found is not None
    assert found.reason == "RetainedForAnotherNamespace"
    assert not found.retryable
    assert (
        "kubectl annotate secret -n memtenant-system support.acme-keyring "
        "memtenant.dev/release-to=namespace-2" in found.message
    )


def test_a_uid_that_says_the_same_in_another_namespace_is_not_the_same_tenant() -> None:
    """An object restored from a backup of the API server keeps its uid."""
    found = refusal(uid="uid-1", namespace_uid="namespace-2")
    assert found is not None
    assert found.reason == "RetainedForAnotherNamespace"


@pytest.mark.parametrize("release", ["namespace-2", "*"])
def test_a_platform_admin_releases_to_one_namespace_or_to_any(release: str) -> None:
    assert refusal(namespace_uid="namespace-2", release=release) is None


@pytest.mark.parametrize("release", ["namespace-3", "", "namespace-1", "**"])
def test_a_release_to_another_namespace_is_none(release: str) -> None:
    found = refusal(namespace_uid="namespace-2", release=release)
    assert found is not None
    assert found.reason == "RetainedForAnotherNamespace"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"phase": Phase.DELETING, "deletion_policy": "Delete"}, "DeletionUnfinished"),
        ({"phase": Phase.DELETING, "deletion_policy": "Shred"}, "DeletionUnfinished"),
        ({"phase": Phase.ORPHANED, "deletion_policy": "Shred"}, "DeletionUnfinished"),
        ({"phase": Phase.ORPHANED, "deletion_policy": "Retain"}, None),
    ],
)
def test_what_is_on_its_way_out_is_not_adopted(found: dict[str, Any], reason: str | None) -> None:
    refused = refusal(found, release="*")
    assert (refused.reason if refused else None) == reason
    assert refused is None or refused.retryable


def test_a_deletion_that_began_is_not_adopted_whatever_policy_was_written_before() -> None:
    """The policy may have changed from Retain in the very edit before the deletion."""
    found = refusal({"phase": Phase.DELETING, "deletion_policy": "Retain"})
    assert found is not None
    assert found.reason == "DeletionUnfinished"


@pytest.mark.parametrize(
    ("changed", "field", "was"),
    [
        ({"isolation": "Minimal"}, "spec.isolation", "Moderate"),
        ({"encryption": "Disabled"}, "spec.encryption.mode", "Enabled"),
    ],
)
def test_what_is_adopted_is_laid_out_the_same_way(
    changed: dict[str, Any], field: str, was: str
) -> None:
    found = refusal(**changed)
    assert found is not None
    assert (found.reason, found.field) == ("AdoptionMismatch", field)
    assert f"declare {was}" in found.message


def test_a_release_does_not_bend_the_layout() -> None:
    found = refusal(namespace_uid="namespace-2", release="*", isolation="Minimal")
    assert found is not None
    assert found.reason == "AdoptionMismatch"
