"""Every value is described, checked and shown, and says the same as the operator's settings."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from memtenant.controller.settings import Settings, load
from tests.chart import readme
from tests.chart.rendered import CHART, CI_VALUES

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())

THE_CHARTS_OWN = {
    "home_namespace": "the release's namespace, by the downward API",
    "identity": "the pod's name, by the downward API",
    "service_account": "the pod's, by the downward API",
    "secret_access": "the value secretAccess, because RBAC follows from it",
    "tenant_namespaces": "the value tenantNamespaces, because RBAC follows from it",
    "kubeconfig": "a pod has its ServiceAccount",
    "lease_name": "RBAC names it, and two releases in a namespace must not both lead",
    "health_host": "by extraEnv, on clusters without IPv4",
    "report_job": "the values reports, image and securityContext, rendered as one jobTemplate",
    "health_port": "the probes and the Service name it",
    "changed_by_stamped": "the value admission.changedBy, with the policy that stamps",
}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _schema_of(dotted: str) -> dict[str, Any]:
    found = SCHEMA
    for part in dotted.split("."):
        found = found["properties"][part]
    return found


def _mappings(schema: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if "properties" in schema:
        yield name, schema
        for key, below in schema["properties"].items():
            yield from _mappings(below, f"{name}.{key}")


@pytest.mark.parametrize("name", [row.name for row in readme.rows()])
def test_the_schema_describes_a_value(name: str) -> None:
    assert _schema_of(name)["description"]


def test_the_schema_has_no_value_that_values_yaml_lacks() -> None:
    read_by_helm = {"global"}
    known = {row.name for row in readme.rows()}
    described = {
        f"{name}.{key}".lstrip(".")
        for name, schema in _mappings(SCHEMA)
        for key, below in schema["properties"].items()
        if "properties" not in below
    }
    parts_of_one_row = {
        f"{whose}resources.{part}"
        for whose in ("", "sealer.", "reports.")
        for part in ("requests", "limits", "claims")
    }
    assert described - known - read_by_helm - parts_of_one_row == set()


@pytest.mark.parametrize(("name", "schema"), list(_mappings(SCHEMA)))
def test_a_misspelt_value_is_refused_everywhere(name: str, schema: Mapping[str, Any]) -> None:
    assert schema["additionalProperties"] is False, name


def test_values_yaml_passes_its_schema() -> None:
    jsonschema.validate(VALUES, SCHEMA)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("replicas", -1),
        ("replicas", "two"),
        ("image.digest", "sha256:short"),
        ("image.pullPolicy", "Sometimes"),
        ("secretAccess", "Everywhere"),
        ("tenantNamespaces", ["Not_A_Namespace"]),
        ("tenantNamespaces", ["twice", "twice"]),
        ("settings.workers", 0),
        ("settings.drainDeadline", "soon"),
        ("settings.drainDeadline", "1.5m"),
        ("settings.drainDeadline", "0.0"),
        ("settings.kubeletLag", 0),
        ("settings.logLevel", "debug"),
        ("reports.deadline", "long"),
        ("reports.storage.size", "much"),
        ("reports.storage.accessModes", []),
        ("fullnameOverride", "x" * 41),
        ("podDisruptionBudget.maxUnavailable", 0),
        ("networkPolicy.ingressFrom", [{}]),
        ("metrics.serviceMonitor.interval", "often"),
        ("extraObjects", [{"kind": "ConfigMap"}]),
        ("unknown", True),
    ],
)
def test_a_wrong_value_is_refused(path: str, wrong: object) -> None:
    values = json.loads(json.dumps(VALUES))
    *parents, last = path.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    place[last] = wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)


def test_a_list_of_namespaces_with_cluster_wide_access_is_refused() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            VALUES | {"secretAccess": "Cluster", "tenantNamespaces": ["support"]}, SCHEMA
        )


def test_every_setting_of_the_operator_is_a_value_or_the_charts_own() -> None:
    values = {_snake(name) for name in VALUES["settings"]}
    assert values.isdisjoint(THE_CHARTS_OWN)
    assert values | THE_CHARTS_OWN.keys() == set(Settings.model_fields)


def test_the_values_defaults_are_the_operators() -> None:
    environ = {
        f"MEMTENANT_{_snake(name).upper()}": str(value)
        for name, value in VALUES["settings"].items()
        if value != ""
    }
    assert load(environ=environ) == load(environ={})


def test_the_readme_shows_every_value() -> None:
    text = (CHART / "README.md").read_text()
    assert readme.table() in text, "run `python -m tests.chart.readme`"


def test_there_is_something_to_render() -> None:
    assert len(CI_VALUES) >= 4
