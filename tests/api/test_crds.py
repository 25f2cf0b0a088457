"""The generated CRDs: up to date, bounded, explained, and shown well by kubectl."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from memtenant.api import GROUP, KINDS
from memtenant.api.generate import files, main
from memtenant.api.schema import crd, crds
from tests.support.controlplane.cluster import Cluster

_ROOT = Path(__file__).parents[2]

_SHORT = {
    "ComplianceReport": ["mreport", "mreports"],
    "MemoryStore": ["mstore", "mstores"],
    "RetentionPolicy": ["rp"],
    "MemoryTenant": ["mtenant", "mtenants"],
}

kinds = pytest.mark.parametrize("kind", sorted(KINDS))


def test_the_committed_files_are_what_the_models_say(capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(_ROOT), "--check"])

    assert capsys.readouterr().err == ""
    assert code == 0


def test_a_changed_file_is_reported_and_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 0
    edited = tmp_path / "crds" / f"memorytenants.{GROUP}.yaml"
    edited.write_text(edited.read_text().replace("mtenant", "mt"))

    assert main([str(tmp_path), "--check"]) == 1
    assert f"crds/memorytenants.{GROUP}.yaml differs" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--check"]) == 0


def test_generating_twice_gives_the_same_bytes() -> None:
    assert files() == files()


def test_the_charts_copy_is_kept_on_uninstall_and_can_be_left_out() -> None:
    for definition in crds():
        name = f"{definition['metadata']['name']}.yaml"
        text = files()[f"charts/memtenant/templates/crds/{name}"]
        lines = [line for line in text.splitlines() if "{{" not in line]

        copy = yaml.safe_load("\n".join(lines))

        assert "{{- if .Values.crds.install }}" in text
        assert copy["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert copy["spec"] == definition["spec"]


@kinds
def test_every_field_says_what_it_is_for(kind: str) -> None:
    silent = [
        path
        for path, schema in _schemas(_root(kind))
        if not schema.get("description") and path[-1] not in ("metadata", "[]", "{}")
    ]

    assert silent == []


@kinds
def test_everything_that_a_person_writes_is_bounded(kind: str) -> None:
    unbounded = [
        ".".join(path)
        for path, schema in _schemas(_root(kind)["properties"]["spec"])
        if (schema.get("type") == "string" and not {"maxLength", "enum"} & schema.keys())
        or (schema.get("type") == "array" and "maxItems" not in schema)
        or (schema.get("type") == "integer" and "maximum" not in schema)
        or ("additionalProperties" in schema and "maxProperties" not in schema)
        or ("x-kubernetes-int-or-string" in schema and "maxLength" not in schema)
    ]

    assert unbounded == []


@kinds
def test_lists_say_how_they_merge(kind: str) -> None:
    silent = [
        ".".join(path)
        for path, schema in _schemas(_root(kind))
        if schema.get("type") == "array" and "x-kubernetes-list-type" not in schema
    ]

    assert silent == []


@kinds
def test_short_name_and_category_and_status(kind: str) -> None:
    definition = crd(kind)["spec"]

    assert definition["names"]["categories"] == ["memtenant"]
    assert definition["versions"][0]["subresources"] == {"status": {}}
    assert definition["names"]["shortNames"] == _SHORT[kind]


def test_get_shows_what_a_platform_engineer_looks_for(installed: Cluster, namespace: str) -> None:
    tenant = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "MemoryTenant",
        "metadata": {"name": "acme", "namespace": namespace},
        "spec": {"retentionPolicyRef": {"name": "gdpr"}},
    }
    usage = {
        "memory": "64Mi",
        "memoryLimit": "256Mi",
        "memoryPercent": 25,
        "conversations": 12,
        "conversationsLimit": 10000,
        "conversationsPercent": 0,
        "since": "2026-01-31T09:30:00Z",
    }
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Provisioned",
        "message": "",
        "lastTransitionTime": "2026-01-31T09:30:00Z",
    }
    status = {
        "store": "shared",
        "access": {"mode": "ReadWrite", "since": "2026-01-31T09:30:00Z"},
        "usage": usage,
        "conditions": [ready],
    }
    installed.apply(tenant)
    patch = yaml.safe_dump({"status": status})
    where = ("mtenant/acme", "-n", namespace)
    installed.kubectl("patch", *where, "--subresource=status", "--type=merge", "-p", patch)

    header, row = installed.kubectl("get", "mtenants", "-n", namespace).splitlines()

    assert header.split() == [
        *("NAME", "STORE", "ISOLATION", "ACCESS", "MEMORY%", "READY", "REASON", "AGE")
    ]
    assert row.split()[:-1] == [
        *("acme", "shared", "Moderate", "ReadWrite", "25", "True", "Provisioned")
    ]
    assert "memorytenant.memtenant.dev/acme" in installed.kubectl(
        "get", "memtenant", "-n", namespace, "-o", "name"
    )


def test_explain_teaches(installed: Cluster) -> None:
    text = " ".join(installed.kubectl("explain", "mtenant.spec.encryption.keySecretRef").split())

    assert "32 bytes, raw, hex or base64" in text


def _root(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _schemas(
    schema: Mapping[str, Any], path: tuple[str, ...] = ("",)
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _schemas(child, (*path, name))
    for step, key in (("[]", "items"), ("{}", "additionalProperties")):
        if key in schema:
            yield from _schemas(schema[key], (*path, step))
