"""What the models write as a status, the API server takes and gives back unchanged."""

import json
from typing import Any

import pytest

from memtenant.api import KINDS, parse
from memtenant.api.schema import structural_schema
from tests.api import generated
from tests.api.server import Judge, Refused
from tests.support.controlplane.cluster import Cluster

kinds = pytest.mark.parametrize("kind", sorted(KINDS))

OTHER_STORES = ("cluster", "dedicated", "sentinel")
"""What a store may be instead of standalone: it is one of them."""


def _whole(kind: str) -> dict[str, Any]:
    whole = generated.full(structural_schema(kind)["properties"]["spec"])
    spec = {name: value for name, value in whole.items() if name not in OTHER_STORES}
    name = f"reported-{kind.lower()}"
    return {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def _status(kind: str) -> dict[str, Any]:
    status: dict[str, Any] = generated.full(structural_schema(kind)["properties"]["status"])
    return status


@kinds
def test_a_status_with_every_field_is_taken_and_read_back(kind: str, judge: Judge) -> None:
    raw = _whole(kind)
    model = parse({**raw, "status": _status(kind)})
    written = model.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert judge.create(raw, dry_run=False).accepted
    try:
        stored = judge.set_status(kind, raw["metadata"]["name"], written)

        assert stored["status"] == written
        assert parse(stored).status == model.status
    finally:
        judge.delete(kind, raw["metadata"]["name"])


@kinds
def test_an_empty_status_is_taken(kind: str, judge: Judge) -> None:
    raw = _whole(kind)
    written = parse(raw).status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert judge.create(raw, dry_run=False).accepted
    try:
        assert judge.set_status(kind, raw["metadata"]["name"], written)["status"] == written
    finally:
        judge.delete(kind, raw["metadata"]["name"])


def test_a_misspelt_status_field_is_refused(judge: Judge) -> None:
    raw = _whole("MemoryTenant")
    judge.create(raw, dry_run=False)
    try:
        with pytest.raises(Refused, match="unknown field"):
            judge.set_status("MemoryTenant", raw["metadata"]["name"], {"tenantID": "x"})
    finally:
        judge.delete("MemoryTenant", raw["metadata"]["name"])


def test_applying_the_same_manifest_twice_writes_nothing(
    installed: Cluster, namespace: str
) -> None:
    raw = _whole("MemoryTenant")
    raw["metadata"]["namespace"] = namespace
    where = ("memorytenant", raw["metadata"]["name"], "-n", namespace)
    apply = ("apply", "--server-side", "--field-manager=gitops", "-f", "-")
    installed.kubectl(*apply, stdin=json.dumps(raw))
    # The API server shows Ready=Unknown before anybody wrote a status, and stores it with the next
    # write of any kind: as a rule with the operator's first.
    installed.kubectl(
        "patch", *where, "--subresource=status", "--type=merge", '-p={"status":{"store":"eu"}}'
    )
    first = installed.get(*where)

    installed.kubectl(*apply, stdin=json.dumps(raw))

    assert installed.get(*where) == first
