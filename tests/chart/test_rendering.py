"""What Helm makes of the chart: valid, repeatable, confined, and following its values."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from memtenant.controller.settings import ENV_PREFIX, SecretAccess, Settings, load
from tests.chart.rendered import (
    CHART,
    CI_VALUES,
    HOME,
    RELEASE,
    ROOT,
    objects,
    of_kind,
    one,
    pod_templates,
    report_jobs,
    template,
    try_helm,
)

pytestmark = pytest.mark.cluster  # Helm is built together with the control plane

KUBERNETES = ["1.34", "1.35", "1.36", "1.37"]
each_ci_values = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def schemas_once() -> Iterator[None]:
    """Each validation would read megabytes of schemas anew."""
    read = functools.cache(kubernetes_validate.utils.schema_contents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes_validate.utils, "schema_contents", read)
        yield


def _settings(found: list[dict[str, Any]]) -> Settings:
    """The operator's settings, as the Deployment's environment makes them."""
    (container,) = one(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    environ = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    given = {f"{ENV_PREFIX}HOME_NAMESPACE": HOME, f"{ENV_PREFIX}IDENTITY": "pod-1"}
    return load(environ=environ | given)


@each_ci_values
def test_helm_lint_is_content(values: Path) -> None:
    answer = try_helm("lint", "--strict", CHART, "-f", values)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@each_ci_values
def test_two_renderings_are_the_same_bytes(values: Path) -> None:
    assert template("-f", values) == template("-f", values)


def test_no_template_makes_things_up_or_asks_the_cluster() -> None:
    texts = {path.name: path.read_text() for path in (CHART / "templates").rglob("*.*")}
    words = re.compile(r"\b(rand[A-Z]\w+|gen[A-Z]\w+|lookup|now|uuidv4|getHostByName)\b")
    inside = re.compile(r"\{\{.*?\}\}", re.DOTALL)
    used = {
        (name, word)
        for name, text in texts.items()
        for action in inside.findall(text)
        for word in words.findall(action)
    }
    assert used == set()


@each_ci_values
def test_every_object_is_valid_in_every_kubernetes_that_is_supported(
    values: Path, schemas_once: None
) -> None:
    # The bundled schemas have neither CRDs' schemas in full nor the Prometheus operator's.
    known = [
        each
        for each in objects("-f", values)
        if each["kind"] != "CustomResourceDefinition"
        and not each["apiVersion"].startswith("monitoring.coreos.com/")
    ]
    assert known
    for version in KUBERNETES:
        for each in known:
            against = kubernetes_validate.validate(each, version, strict=True)
            assert against.startswith(version), (version, against)


@each_ci_values
def test_no_two_objects_are_the_same_one(values: Path) -> None:
    names = [
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
        for each in objects("-f", values)
    ]
    assert len(set(names)) == len(names)


@each_ci_values
def test_no_rule_has_a_wildcard(values: Path) -> None:
    found = objects("-f", values)
    roles = of_kind(found, "ClusterRole") + of_kind(found, "Role")
    rules = [rule for role in roles for rule in role["rules"]]
    assert rules
    for rule in rules:
        assert not any("*" in "".join(rule[part]) for part in ("apiGroups", "resources", "verbs"))


@each_ci_values
def test_every_pod_is_confined(values: Path) -> None:
    for pod in pod_templates(objects("-f", values)):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@each_ci_values
def test_the_labels_that_select_pods_are_on_them(values: Path) -> None:
    found = objects("-f", values)
    templates = [each["spec"]["template"] for each in of_kind(found, "Deployment")]
    templates += [job["spec"]["template"] for job in report_jobs(templates)]
    pods = [each["metadata"]["labels"] for each in templates]
    selectors = [each["spec"]["selector"]["matchLabels"] for each in of_kind(found, "Deployment")]
    selectors += [
        each["spec"]["selector"]["matchLabels"] for each in of_kind(found, "PodDisruptionBudget")
    ]
    selectors += [each["spec"]["selector"] for each in of_kind(found, "Service")]
    selectors += [
        each["spec"]["podSelector"]["matchLabels"] for each in of_kind(found, "NetworkPolicy")
    ]
    for selector in selectors:
        assert sum(selector.items() <= labels.items() for labels in pods) == 1
    jobs = [job["spec"]["template"]["metadata"]["labels"] for job in of_kind(found, "Job")]
    assert not any(selectors[0].items() <= job.items() for job in jobs)


def test_a_release_has_two_replicas_of_the_versioned_image() -> None:
    deployment = one(objects(), "Deployment")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert deployment["spec"]["replicas"] == 2
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"memtenant:{version}"
    assert container["command"] == ["memtenant", "controller"]


def test_the_chart_is_of_the_packages_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'\nversion = "{chart["appVersion"]}"\n' in (ROOT / "pyproject.toml").read_text()


@each_ci_values
def test_the_operator_understands_its_environment(values: Path) -> None:
    given = yaml.safe_load(values.read_text()) or {}
    found = objects("-f", values)
    if "fullnameOverride" not in given:
        settings = _settings(found)
        assert settings.tenant_namespaces == tuple(given.get("tenantNamespaces", ()))
        assert settings.secret_access is SecretAccess(given.get("secretAccess", "Namespaced"))


def test_a_large_number_reaches_the_operator_as_it_was_written() -> None:
    found = objects("--set", "settings.tenantSeriesLimit=10000000")
    assert _settings(found).tenant_series_limit == 10_000_000


@pytest.mark.parametrize(
    ("drain", "grace"), [("20s", 35), ("2m", 135), ("90", 105), ("0.5", 16), ("1h", 3615)]
)
def test_a_pod_is_given_longer_than_its_drain_takes(drain: str, grace: int) -> None:
    found = objects("--set-string", f"settings.drainDeadline={drain}")
    pod = one(found, "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == grace
    assert grace > _settings(found).drain_deadline


def test_a_digest_pins_the_image() -> None:
    digest = "sha256:" + "0" * 64
    found = objects("--set", f"image.digest={digest},image.tag=x")
    containers = [each for pod in pod_templates(found) for each in pod["spec"]["containers"]]
    assert {each["image"] for each in containers} == {f"memtenant:x@{digest}"}


def test_a_report_job_gets_the_keys_that_are_named_and_no_password() -> None:
    for given, expected in (([], []), (["--set", "reports.keyrings={acme-keys}"], ["acme-keys"])):
        templates = of_kind(objects(*given), "Deployment")
        (job,) = report_jobs([one["spec"]["template"] for one in templates])
        pod = job["spec"]["template"]["spec"]
        secrets = [one["secret"] for one in pod["volumes"] if "secret" in one]
        keyrings = [one for one in secrets if one["secretName"] != "memtenant-reporter"]
        assert [one["secretName"] for one in keyrings] == expected
        assert all([item["key"] for item in one["items"]] == ["keyring.json"] for one in keyrings)
        mounts = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
        assert {f"/var/run/memtenant/keyrings/{name}" for name in expected} <= mounts


def test_secrets_are_granted_in_the_listed_namespaces_alone() -> None:
    found = objects("--set", f"tenantNamespaces={{support,{HOME},sales}}")
    bound = [
        binding["metadata"]["namespace"]
        for binding in of_kind(found, "RoleBinding")
        if binding["roleRef"]["name"] == f"{RELEASE}-secrets"
    ]
    assert bound == ["support", "sales"]
    assert not [
        binding
        for binding in of_kind(found, "ClusterRoleBinding")
        if binding["roleRef"]["name"] == f"{RELEASE}-secrets"
    ]


def test_cluster_access_to_secrets_is_one_binding() -> None:
    found = objects("--set", "secretAccess=Cluster")
    one(found, "ClusterRoleBinding", f"{RELEASE}-secrets")


def test_crds_stay_when_the_release_goes() -> None:
    crds = of_kind(objects(), "CustomResourceDefinition")
    assert len(crds) >= 3
    for crd in crds:
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("settings.workers=0", "/settings/workers"),
        ("settings.worker=4", "worker"),
        ("secretAccess=All", "/secretAccess"),
        ("sealer.auditNamespace=default", "sealer.auditNamespace"),
        ("replica=1", "replica"),
    ],
)
def test_helm_names_the_value_that_is_wrong(wrong: str, says: str) -> None:
    answer = try_helm("template", RELEASE, CHART, "--set", wrong)
    assert answer.returncode != 0
    assert says in answer.stderr


def test_extra_objects_are_templates() -> None:
    extra = one(objects("-f", CHART / "ci/production-values.yaml"), "ConfigMap", "memtenant-owner")
    assert extra["data"] == {"owner": "platform"}


@pytest.mark.parametrize("release", ["m", "memtenant", "x" * 53])
def test_names_fit_whatever_the_release_is_called(release: str) -> None:
    found = objects(release=release)
    assert all(
        len(each["metadata"]["name"]) <= 63
        for each in found
        if each["kind"] != "CustomResourceDefinition"
    )
