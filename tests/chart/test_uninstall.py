"""Uninstalling: the operator is stopped first, then detached; what tenants have stays."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.chart import objects
from tests.chart.conftest import ELSEWHERE, TENANTS, Release
from tests.chart.rendered import CHART, HOME, RELEASE, Object, of_kind, one
from tests.chart.rendered import objects as rendered
from tests.support.controlplane.cluster import KubectlFailed

pytestmark = pytest.mark.cluster

FINALIZER = "memtenant.dev/cleanup"


def _hooks(found: list[Object]) -> list[Object]:
    return [each for each in found if "helm.sh/hook" in each["metadata"].get("annotations", {})]


@pytest.fixture(scope="module")
def hook_account(release: Release) -> Path:
    """A kubeconfig of the hook's ServiceAccount, with the objects that Helm makes before it."""
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    hooks = [each for each in _hooks(rendered()) if each["kind"] in kinds]
    release.cluster.apply(*hooks)
    return release.cluster.kubeconfig_for_service_account(HOME, f"{RELEASE}-detach")


@pytest.fixture
def script(
    release: Release, hook_account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The script as the hook's pod has it: its environment, its token, the cluster's CA."""
    job = one(rendered(), "Job", f"{RELEASE}-stop")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for each in container["env"]:
        monkeypatch.setenv(each["name"], each.get("value", HOME))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", release.cluster.host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(release.cluster.port))
    token = yaml.safe_load(hook_account.read_text())["users"][0]["user"]["token"]
    (tmp_path / "token").write_text(token)
    (tmp_path / "ca.crt").write_bytes(release.cluster.ca_file.read_bytes())
    path = CHART / "files/stop_operator.py"
    spec = importlib.util.spec_from_file_location("stop_operator", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ACCOUNT = tmp_path  # type: ignore[attr-defined]
    yield module
    scale = ("scale", "deployment", RELEASE, "-n", HOME)
    release.cluster.try_kubectl(*scale, "--replicas=2")


def test_the_hook_mounts_the_script_that_is_tested() -> None:
    shown = one(_hooks(rendered()), "ConfigMap", f"{RELEASE}-detach")["data"]
    script = (CHART / "files/stop_operator.py").read_text()
    assert shown["stop_operator.py"].strip() == script.strip()


def test_the_operator_is_stopped_before_it_is_detached() -> None:
    weights = {
        each["metadata"]["name"]: int(each["metadata"]["annotations"]["helm.sh/hook-weight"])
        for each in of_kind(_hooks(rendered()), "Job")
    }
    assert weights[f"{RELEASE}-stop"] < weights[f"{RELEASE}-detach"]
    accounts = of_kind(_hooks(rendered()), "ServiceAccount")
    assert int(accounts[0]["metadata"]["annotations"]["helm.sh/hook-weight"]) < min(
        weights.values()
    )


def test_the_hook_runs_the_command_that_the_documentation_names() -> None:
    job = one(rendered(), "Job", f"{RELEASE}-detach")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["memtenant", "detach", "--all"]


def test_the_script_stops_the_operator_and_waits_for_its_pods(
    release: Release, script: ModuleType
) -> None:
    operators = ("pods", "-n", HOME, "-l", "app.kubernetes.io/component=controller")
    assert release.cluster.get(*operators)["items"]
    assert script.main() == 0
    assert not release.cluster.get(*operators)["items"]
    assert release.cluster.get("deployment", RELEASE, "-n", HOME)["spec"]["replicas"] == 0


def test_the_script_names_the_pods_that_do_not_end(
    release: Release,
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (template,) = [
        each["spec"]["template"]
        for each in of_kind(rendered(), "Deployment")
        if each["metadata"]["name"] == RELEASE
    ]
    pod: Object = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["spec"]["serviceAccountName"] = RELEASE
    pod["metadata"] |= {"name": "stuck", "namespace": HOME, "finalizers": ["memtenant.dev/test"]}
    release.cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    release.cluster.kubectl("delete", "pod", "stuck", "-n", HOME, "--wait=false")
    monkeypatch.setattr(script, "LONGEST", 0.0)
    try:
        assert script.main() == 1
    finally:
        release.cluster.kubectl(
            *("patch", "pod", "stuck", "-n", HOME, "--type=json"),
            *("-p", '[{"op": "remove", "path": "/metadata/finalizers"}]'),
        )
    assert "stuck" in capsys.readouterr().err


def test_the_hook_may_take_finalizers_off_and_little_else(
    release: Release, hook_account: Path
) -> None:
    cluster = release.cluster
    declared = (objects.store("hook"), objects.policy("hook"), objects.tenant(ELSEWHERE, "hook"))
    for each in declared:
        each["metadata"]["finalizers"] = [FINALIZER]
    cluster.apply(*declared)
    for kind in ("memorystore", "retentionpolicy", "memorytenant"):
        cluster.kubectl(
            *("patch", kind, "hook", "-n", ELSEWHERE, "--type=merge"),
            *("-p", '{"metadata": {"finalizers": null}}'),
            kubeconfig=hook_account,
        )
        cluster.kubectl("delete", kind, "hook", "-n", ELSEWHERE, "--timeout=120s")
    for verb, what, *name in (
        ("get", "secrets"),
        ("delete", "memorytenants"),
        ("patch", "memorytenants", "--subresource=status"),
        ("delete", "pods"),
        ("patch", "deployments"),
        ("patch", "deployments/other", "--subresource=scale"),
    ):
        asked = ("auth", "can-i", verb, what, *name, "-n", HOME)
        assert cluster.try_kubectl(*asked, kubeconfig=hook_account).stdout.strip() == "no", what
    asked = ("auth", "can-i", "patch", f"deployments/{RELEASE}", "--subresource=scale", "-n", HOME)
    assert cluster.try_kubectl(*asked, kubeconfig=hook_account).stdout.strip() == "yes"


def test_declared_objects_and_crds_outlive_the_release(release: Release) -> None:
    cluster = release.cluster
    cluster.apply(objects.store("kept"), objects.policy("kept"), objects.tenant(TENANTS, "kept"))
    uid = cluster.get("memorytenant", "kept", "-n", TENANTS)["metadata"]["uid"]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept", "namespace": HOME}}
    cluster.apply(secret)
    # Its pods do not run here, so the hook's Jobs would not end.
    cluster.helm("uninstall", RELEASE, "-n", HOME, "--no-hooks", "--wait")
    assert cluster.get("memorytenant", "kept", "-n", TENANTS)["metadata"]["uid"] == uid
    cluster.get("memorystore", "kept")
    cluster.get("retentionpolicy", "kept")
    cluster.get("secret", "kept", "-n", HOME)
    with pytest.raises(KubectlFailed, match="not found"):
        cluster.get("validatingadmissionpolicy", f"{RELEASE}-in-use")
    install = ("install", RELEASE, str(CHART), "-n", HOME)
    cluster.helm(*install, "--set", f"tenantNamespaces={{{TENANTS}}}")
    assert cluster.get("memorytenant", "kept", "-n", TENANTS)["metadata"]["uid"] == uid
