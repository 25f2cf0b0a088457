"""A control plane that writes an audit log, with the chart installed by the real Helm."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.chart.rendered import CHART, HOME, RELEASE, Object
from tests.support import processes, tiers
from tests.support.certificates import Authority
from tests.support.controlplane import build
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster
from tests.support.processes import Unavailable

TENANTS = "support"
"""The namespace in `tenantNamespaces`."""

ELSEWHERE = "elsewhere"
"""A namespace that is not."""


class AuditedCluster(Cluster):
    """A control plane whose API server writes down who asked for what."""

    def audit(self) -> list[Object]:
        """Every request so far: user, verb, objectRef and the answer's code."""
        lines = (self.folder / "audit.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def _start(self, name: str, *flags: str) -> None:
        if name == "kube-apiserver":
            policy = self.folder / "audit-policy.yaml"
            policy.write_text(
                yaml.safe_dump(
                    {
                        "apiVersion": "audit.k8s.io/v1",
                        "kind": "Policy",
                        "omitStages": ["RequestReceived"],
                        "rules": [
                            {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{HOME}"]},
                            {"level": "None"},
                        ],
                    }
                )
            )
            log = self.folder / "audit.log"
            flags = (*flags, f"--audit-policy-file={policy}", f"--audit-log-path={log}")
        super()._start(name, *flags)


@dataclass(frozen=True, slots=True)
class Release:
    """The chart, installed into namespaces that enforce the Pod Security Standard `restricted`."""

    cluster: AuditedCluster
    printed: str

    @property
    def operator(self) -> str:
        """The user name of the operator's ServiceAccount."""
        return f"system:serviceaccount:{HOME}:{RELEASE}"


@pytest.fixture(scope="session")
def audited_cluster() -> Iterator[AuditedCluster]:
    """A control plane for the tests of the chart, which owns what is cluster-wide there."""
    try:
        for name in ("etcd", "kube-apiserver", "kube-controller-manager", "helm"):
            build.program(name)
    except Unavailable as missing:
        tiers.cannot_run(str(missing))
    cluster = AuditedCluster(
        folder=Path(tempfile.mkdtemp(prefix="memtenant-chart-")),
        port=processes.free_port(),
        authority=Authority("kubernetes"),
        _etcd_port=processes.free_port(),
    )
    cluster._write_credentials()
    try:
        cluster.start()
        yield cluster
    finally:
        control_plane.discard(cluster)


@pytest.fixture(scope="session")
def release(audited_cluster: AuditedCluster) -> Release:
    """The release `memtenant` in `HOME`, with Secrets granted in `TENANTS`."""
    for name in (HOME, TENANTS, ELSEWHERE):
        audited_cluster.create_namespace(name, {"pod-security.kubernetes.io/enforce": "restricted"})
    printed = audited_cluster.helm(
        *("install", RELEASE, str(CHART), "-n", HOME, "--set", f"tenantNamespaces={{{TENANTS}}}")
    )
    for plural in ("compliancereports", "memorystores", "memorytenants", "retentionpolicies"):
        audited_cluster.kubectl(
            *(
                "wait",
                f"crd/{plural}.memtenant.dev",
                "--for=condition=Established",
                "--timeout=120s",
            )
        )
    return Release(audited_cluster, printed)
