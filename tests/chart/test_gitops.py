"""examples/gitops and examples/argocd: what a GitOps tool would do with them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lupa
import pytest
import yaml

from tests.chart.conftest import Release
from tests.chart.rendered import ROOT, Object
from tests.support.controlplane import build

GITOPS = ROOT / "examples" / "gitops"
ARGOCD = ROOT / "examples" / "argocd"
OVERLAYS = sorted(GITOPS.glob("*/overlays/*"))
KINDS = ("MemoryTenant", "MemoryStore", "RetentionPolicy")

each_overlay = pytest.mark.parametrize(
    "overlay", OVERLAYS, ids=lambda path: f"{path.parts[-3]}-{path.name}"
)


def _kustomize(folder: Path) -> str:
    answer = subprocess.run(
        [build.kubectl(), "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def health() -> Callable[[Object], tuple[str, str]]:
    """Argo CD's way with a health script: a global `obj`, a table with status and message."""
    runtime = lupa.LuaRuntime()
    script = (ARGOCD / "health.lua").read_text()

    def judge(declared: Object) -> tuple[str, str]:
        runtime.globals().obj = runtime.table_from(declared, recursive=True)
        verdict = runtime.execute(script)
        return verdict["status"], verdict["message"]

    return judge


def _declared(status: Object | None = None, **metadata: Any) -> Object:
    found: Object = {"metadata": {"name": "acme", "generation": 2, **metadata}, "spec": {}}
    return found if status is None else found | {"status": status}


def _condition(kind: str, status: str, reason: str = "Because", message: str = "of this") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _seen(*conditions: Object, generation: int = 2) -> Object:
    return {"observedGeneration": generation, "conditions": list(conditions)}


STALLED = _condition("Stalled", "True", "QuotaTooLarge", "quota.memory is more than 2Gi")
READY = _condition("Ready", "True", "Ready", "")
NOT_READY = _condition("Ready", "False", "StoreUnavailable", "the store does not answer")


@pytest.mark.parametrize(
    ("declared", "status", "says"),
    [
        (_declared(), "Progressing", "waiting for the operator"),
        (_declared({}), "Progressing", "waiting for the operator"),
        (_declared(_seen(READY, generation=1)), "Progressing", "see the change"),
        (_declared(_seen()), "Progressing", "waiting for Ready"),
        (_declared(_seen(_condition("Ready", "Unknown"))), "Progressing", "Because: of this"),
        (_declared(_seen(READY)), "Healthy", "Ready"),
        (_declared(_seen(NOT_READY)), "Degraded", "the store does not answer"),
        (_declared(_seen(NOT_READY, STALLED)), "Degraded", "quota.memory is more than 2Gi"),
        (_declared(_seen(_condition("Reconciling", "True"), NOT_READY)), "Progressing", "of this"),
        (_declared(_seen(_condition("Stalled", "False"), READY)), "Healthy", "Ready"),
        (_declared(_seen(_condition("Reconciling", "False"), READY)), "Healthy", "Ready"),
        (_declared(_seen(READY), deletionTimestamp="now"), "Progressing", "being deleted"),
        (
            _declared(
                _seen(READY, _condition("DeletionBlocked", "True", "LegalHold", "SEC-1 stands")),
                deletionTimestamp="now",
            ),
            "Degraded",
            "LegalHold: SEC-1 stands",
        ),
    ],
)
def test_argo_cds_health_follows_kstatus(
    health: Callable[[Object], tuple[str, str]], declared: Object, status: str, says: str
) -> None:
    found, message = health(declared)
    assert found == status
    assert says in message


def test_argo_cd_gets_the_script_for_each_kind() -> None:
    config = yaml.safe_load(_kustomize(ARGOCD))
    assert config["metadata"]["name"] == "argocd-cm"
    assert config["metadata"]["labels"]["app.kubernetes.io/part-of"] == "argocd"
    script = (ARGOCD / "health.lua").read_text()
    assert config["data"] == {
        f"resource.customizations.health.memtenant.dev_{kind}": script for kind in KINDS
    }


@each_overlay
def test_teams_declare_tenants_and_the_platform_the_rest(overlay: Path) -> None:
    kinds = {each["kind"] for each in yaml.safe_load_all(_kustomize(overlay))}
    teams = overlay.parts[-3] == "teams"
    assert kinds == ({"MemoryTenant"} if teams else {"MemoryStore", "RetentionPolicy"})


@pytest.mark.cluster
@each_overlay
def test_the_same_manifests_applied_twice_make_no_difference(
    release: Release, overlay: Path
) -> None:
    """Two managers, each twice: no conflict and no new resourceVersion.

    The status that the operator writes at first sight is there, as it is in a cluster: until then
    the API server keeps the default one only in what it shows, and an apply writes it down.
    """
    manifests = _kustomize(overlay)
    cluster = release.cluster

    def versions(*command: str) -> list[tuple[str, str]]:
        text = cluster.kubectl(*command, "-o", "json", "-f", "-", stdin=manifests)
        found = [each["metadata"] for each in json.loads(text)["items"]]
        return [(each["name"], each["resourceVersion"]) for each in found]

    def apply(manager: str) -> list[tuple[str, str]]:
        return versions("apply", "--server-side", f"--field-manager={manager}", "--validate=strict")

    try:
        apply("argocd")
        cluster.kubectl(
            *("patch", "--subresource=status", "--type=merge", "-f", "-"),
            *("-p", '{"status": {"observedGeneration": 1}}'),
            stdin=manifests,
        )
        settled = versions("get")
        assert apply("argocd") == settled
        second = apply("flux")  # a new manager is written down once
        assert apply("flux") == second
        assert apply("argocd") == second
    finally:
        cluster.kubectl("delete", "-f", "-", stdin=manifests)
