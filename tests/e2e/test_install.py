"""The chart as a platform team has it: installed, used, upgraded, uninstalled, installed again.

Real Helm, real API server, the operator in pods of the kubelet under its own ServiceAccount and
RBAC, a real Valkey. The tests are one life of an installation, in order.
"""

import base64
import json
import secrets
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from memtenant import Message
from memtenant.archive import ArchiveReader, verify
from memtenant.audit import Operation
from memtenant.audit.leaf import Verdict
from memtenant.crypto.signing import VerifyingKey
from memtenant.rules.record import record_name
from memtenant.stores import admin_rules
from memtenant.sync import Tenant as SyncTenant
from memtenant.tenancy.identity import TenantId
from tests.chart.rendered import CHART, HOME, RELEASE, ROOT
from tests.support import processes, servers, tiers
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster, KubectlFailed
from tests.support.kubelet import Image, Kubelet
from tests.support.kubelet import running as running_kubelet
from tests.support.processes import Unavailable
from tests.support.servers import Flavour, Options, Server

pytestmark = pytest.mark.e2e

API = "memtenant.dev/v1alpha1"
TEAM, OTHER, LATER = "support", "elsewhere", "later"
AUDIT = f"{HOME}-audit"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
NOTE = "mt:{support.acme}:r:note"
PATIENCE = 240.0  # seconds, on a busy machine

Object = dict[str, Any]


@dataclass(slots=True)
class Platform:
    """A cluster with a node and a store; `install` puts the operator into it."""

    cluster: Cluster
    kubelet: Kubelet
    store: Server
    printed: str = ""
    values: dict[str, str] = field(default_factory=dict)

    def helm(self, verb: str, **values: str) -> None:
        """`helm install` or `helm upgrade`, with these values beside the earlier ones."""
        self.values |= values
        options = [f"--set={name.replace('_', '.')}={value}" for name, value in self.values.items()]
        self.cluster.helm(verb, RELEASE, str(CHART), "-n", HOME, *options)
        self.cluster.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", HOME)

    def wait(self, what: str, condition: str, namespace: str = TEAM) -> None:
        """`kubectl wait`, as anybody does it."""
        self.cluster.kubectl(
            *("wait", what, "-n", namespace, f"--for={condition}", f"--timeout={PATIENCE:.0f}s")
        )

    def pods(self) -> list[Object]:
        """The operator's pods."""
        component = "app.kubernetes.io/component=controller"
        return list(self.cluster.get("pods", "-n", HOME, "-l", component)["items"])

    def leader(self) -> str:
        """The name of the pod that holds the Lease; empty where nobody does."""
        found = self.cluster.get("leases", "-n", HOME)["items"]
        holder = str(found[0]["spec"].get("holderIdentity") or "") if found else ""
        return holder.rpartition("_")[0]

    def condition(self, tenant: str, kind: str, namespace: str = TEAM) -> Object:
        """One condition of a tenant; empty where it is not told."""
        status = self.cluster.get("mtenant", tenant, "-n", namespace).get("status", {})
        found = [each for each in status.get("conditions", ()) if each["type"] == kind]
        return found[0] if found else {}

    def connect(self, binding: str, namespace: str = TEAM) -> "redis.Redis":
        """A client with the credentials of a binding Secret. Close it."""
        data = self.secret(binding, namespace)["data"]
        text = self.cluster.kubectl(
            *("get", "secret", binding, "-n", namespace),
            "-o=go-template={{base64decode .data.uri}}",
        )
        assert set(data) >= {"uri", "keyring.json", "policy.json"}
        return redis.Redis.from_url(text, decode_responses=True)

    def secret(self, name: str, namespace: str) -> Object:
        """A Secret."""
        return self.cluster.get("secret", name, "-n", namespace)

    def users(self, tenant: str) -> list[str]:
        """The store's users of a tenant."""
        with self.store.admin() as admin:
            names = [n.decode() if isinstance(n, bytes) else n for n in admin.acl_users()]
        return [name for name in names if name.startswith(f"mt.{tenant}.")]

    def keys(self, tenant: str) -> list[bytes]:
        """The store's keys of a tenant."""
        with self.store.admin() as admin:
            return list(admin.scan_iter(match=f"mt:{{{tenant}}}:*"))


def tenant(name: str, namespace: str = TEAM, **spec: object) -> Object:
    return {
        "apiVersion": API,
        "kind": "MemoryTenant",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"retentionPolicyRef": {"name": "standard"}, **spec},
    }


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """A cluster of these tests' own: the chart owns what is cluster-wide in it."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    # All pods share this machine's network: each serves its probes on an address of its own.
    env = {"PATH": path, "MEMTENANT_HEALTH_HOST": "{address}"}
    image = Image(env=env, folders=(ROOT, Path(sys.prefix), Path(sys.base_prefix)))
    try:
        with (
            servers.running(Flavour.VALKEY_9, Options(aclfile=True, appendonly=True)) as store,
            control_plane.running() as cluster,
            running_kubelet(cluster.kubeconfig, {"memtenant": image}) as kubelet,
        ):
            for name in (HOME, TEAM, OTHER, LATER):
                cluster.create_namespace(name, RESTRICTED)
            yield Platform(cluster, kubelet, store)
    except Unavailable as missing:
        tiers.cannot_run(str(missing))


@pytest.fixture(scope="module")
def installed(platform: Platform) -> Platform:
    """The operator, with Secrets granted in `TEAM` and `LATER`; a store, a policy, a tenant."""
    platform.helm("install", tenantNamespaces=f"{{{TEAM},{LATER}}}", settings_repairInterval="2s")
    password = secrets.token_urlsafe(24)
    with platform.store.admin() as admin:
        rules = (*admin_rules(), "+client|setinfo")
        admin.execute_command("ACL", "SETUSER", RELEASE, "reset", "on", f">{password}", *rules)
    platform.cluster.kubectl(
        *("create", "secret", "generic", "admin", "-n", HOME, f"--from-literal=password={password}")
    )
    store = {
        "standalone": {"endpoint": platform.store.endpoint},
        "adminUsername": RELEASE,
        "adminSecretRef": {"name": "admin", "key": "password"},
        "default": True,
    }
    platform.cluster.apply(
        {"apiVersion": API, "kind": "MemoryStore", "metadata": {"name": "shared"}, "spec": store},
        {"apiVersion": API, "kind": "RetentionPolicy", "metadata": {"name": "standard"}},
        tenant("acme"),
    )
    platform.wait("mtenant/acme", "condition=Ready")
    return platform


def test_one_of_two_replicas_leads_and_both_are_ready(installed: Platform) -> None:
    names = {pod["metadata"]["name"] for pod in installed.pods()}
    assert len(names) == 2
    assert installed.leader() in names
    for pod in installed.pods():
        assert pod["spec"]["serviceAccountName"] == RELEASE
        ready = [c["status"] for c in pod["status"]["conditions"] if c["type"] == "Ready"]
        assert ready == ["True"]


def test_an_agent_works_with_its_binding(installed: Platform) -> None:
    with installed.connect("acme-default") as agent:
        agent.set(NOTE, "hello")
        assert agent.get(NOTE) == "hello"
        with pytest.raises(redis.exceptions.NoPermissionError):
            agent.get("mt:{support.globex}:r:note")


def test_the_sealer_seals_beside_the_operator(
    installed: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.cluster.apply(tenant("acme", audit={"mode": "Enabled"}))
    installed.cluster.kubectl("rollout", "status", f"deployment/{RELEASE}-sealer", "-n", HOME)
    installed.wait("mtenant/acme", "condition=AuditSealed")
    data = installed.secret("acme-default", TEAM)["data"]
    binding = tmp_path / "acme"
    binding.mkdir()
    for name, encoded in data.items():
        (binding / name).write_bytes(base64.b64decode(encoded))
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path))
    with SyncTenant.from_binding("acme") as agent:
        agent.conversation("s", user="ada").append(Message.human("hello"))

    archive = installed.kubelet.logs.parent / "claims" / HOME / f"{RELEASE}-archive"

    def sealed() -> list[Operation]:
        events = ArchiveReader.open(archive).events("support.acme")
        return [one.event().operation for one in events if one.verdict is Verdict.GOOD]

    processes.wait_until(
        lambda: Operation.APPEND in sealed(), what="the agent's event in the log", timeout=PATIENCE
    )

    def verified() -> bool:
        text = installed.cluster.get("configmap", "memtenant-log", "-n", AUDIT)["data"]["key"]
        found = verify(ArchiveReader.open(archive), public_key=VerifyingKey.parse(text))
        logs = {one.log_id: one.sealed for one in found.logs}
        assert not [one for one in found.findings if one.tampered]
        return logs.get("support.acme", 0) > 0

    processes.wait_until(verified, what="the log under a checkpoint", timeout=PATIENCE)
    installed.wait("mstore/shared", "condition=AuditSealed")

    def shown() -> bool:
        status = installed.cluster.get("mstore", "shared")["status"]
        return bool(status.get("lastSeal", {}).get("size"))

    processes.wait_until(shown, what="the last seal on the store", timeout=PATIENCE)


def test_the_operator_cannot_sign_and_the_sealer_can_do_nothing_else(installed: Platform) -> None:
    def may(account: str, *what: str) -> bool:
        user = f"system:serviceaccount:{HOME}:{account}"
        answer = installed.cluster.try_kubectl("auth", "can-i", *what, f"--as={user}")
        return answer.stdout.strip() == "yes"

    sealer, log_key = f"{RELEASE}-sealer", "secret/memtenant-log"
    assert may(sealer, "get", log_key, "-n", AUDIT)
    assert may(sealer, "patch", log_key, "-n", AUDIT)
    for verb in ("get", "list", "watch", "patch", "update", "delete"):
        assert not may(RELEASE, verb, log_key, "-n", AUDIT), verb
        assert not may(sealer, verb, "secret/other", "-n", AUDIT), verb
        assert not may(sealer, verb, "secret/memtenant-root", "-n", HOME), verb
    assert not may(sealer, "delete", log_key, "-n", AUDIT)
    assert not may(sealer, "get", "memorytenants", "-A")


def test_no_log_holds_a_credential(installed: Platform) -> None:
    password = installed.cluster.kubectl(
        *("get", "secret", "acme-default", "-n", TEAM),
        "-o=go-template={{base64decode .data.password}}",
    )
    logs = list(installed.kubelet.logs.glob(f"{HOME}_*.log"))
    assert logs
    for log in logs:
        assert password not in log.read_text()


def test_a_tenant_where_secrets_are_not_granted_is_told_how_to_grant_them(
    installed: Platform,
) -> None:
    installed.cluster.apply(tenant("lost", OTHER))
    installed.wait("mtenant/lost", "condition=Stalled", OTHER)
    found = installed.condition("lost", "Stalled", OTHER)
    assert found["reason"] == "SecretAccessMissing"
    assert not installed.users(f"{OTHER}.lost")
    command = found["message"].split("kubectl ", 1)[1].split(". Or ")[0]
    installed.cluster.kubectl(*command.split())
    installed.wait("mtenant/lost", "condition=Ready", OTHER)
    with installed.connect("lost-default", OTHER) as agent:
        assert agent.ping()


def test_a_namespace_goes_with_its_grant_and_its_tenants(installed: Platform) -> None:
    """The RoleBinding is deleted with everything else, in no known order: here it is the first."""
    for number in range(5):
        installed.cluster.apply(tenant(f"t{number}", OTHER))
    for number in range(5):
        installed.wait(f"mtenant/t{number}", "condition=Ready", OTHER)
    installed.cluster.kubectl("delete", "rolebinding", "memtenant-secrets", "-n", OTHER)
    installed.cluster.kubectl("delete", "namespace", OTHER, f"--timeout={PATIENCE:.0f}s")
    processes.wait_until(
        lambda: not any(installed.users(f"{OTHER}.t{number}") for number in range(5)),
        what="no users of the namespace that is gone",
        timeout=PATIENCE,
    )


def test_what_tenants_use_is_not_deleted(installed: Platform) -> None:
    for kind, name in (("mstore", "shared"), ("rp", "standard")):
        with pytest.raises(KubectlFailed, match="is in use by"):
            installed.cluster.kubectl("delete", kind, name)
        assert "deletionTimestamp" not in installed.cluster.get(kind, name)["metadata"]


SOX = "sarbanes"


def run_report(platform: Platform, name: str) -> tuple[Object, dict[str, Object]]:
    """The ComplianceReport of a job from the policy's CronJob, and its controls by their id."""
    before = {
        one["metadata"]["name"] for one in platform.cluster.get("mreports", "-n", HOME)["items"]
    }
    cronjob = f"--from=cronjob/memtenant-report-{SOX}"
    platform.cluster.kubectl("create", "job", name, "-n", HOME, cronjob)
    try:
        platform.wait(f"job/{name}", "condition=Complete", HOME)
    except KubectlFailed:
        for log in platform.kubelet.logs.glob(f"{HOME}_{name}-*.log"):
            raise AssertionError(log.read_text()) from None
        raise
    (made,) = (
        one
        for one in platform.cluster.get("mreports", "-n", HOME)["items"]
        if one["metadata"]["name"] not in before
    )
    files = platform.kubelet.claim(HOME, f"{RELEASE}-reports")
    folder = files / made["status"]["artefacts"]["location"]
    document = json.loads((folder / "report.json").read_text())
    (framework,) = document["frameworks"]
    return made, {one["check"]: one for one in framework["controls"]}


@pytest.fixture(scope="module")
def reporting(installed: Platform) -> Platform:
    """A policy under SOX with a schedule, and a tenant under it whose log is sealed."""
    installed.cluster.apply(
        {
            "apiVersion": API,
            "kind": "RetentionPolicy",
            "metadata": {"name": SOX},
            "spec": {"frameworks": ["SOX"], "report": {"schedule": "0 3 1 1 *"}},
        },
        tenant("books", retentionPolicyRef={"name": SOX}),
    )
    installed.wait("mtenant/books", "condition=Ready")
    installed.wait("mtenant/books", "condition=AuditSealed")
    return installed


def test_a_report_is_made_by_a_pod_with_an_account_of_its_own(reporting: Platform) -> None:
    report, controls = run_report(reporting, "now")

    (pod,) = reporting.cluster.get("pods", "-n", HOME, "-l", "job-name=now")["items"]
    assert pod["spec"]["serviceAccountName"] == f"{RELEASE}-reporter"
    assert report["spec"]["policyRef"] == {"name": SOX}
    assert report["status"]["tenants"] == 1
    shown = reporting.cluster.kubectl("get", "mreports", "-n", HOME).splitlines()
    assert shown[0].split()[:3] == ["NAME", "POLICY", "PASS"]
    for check in ("LogKeySeparate", "LogVerifies", "SealerLive"):
        assert controls[check]["status"] == "Pass", controls[check]
    processes.wait_until(
        lambda: (
            reporting.cluster.get("mtenant", "books", "-n", TEAM)["status"]
            .get("lastReport", {})
            .get("name")
            == report["metadata"]["name"]
        ),
        what="the report in the tenant's status",
        timeout=PATIENCE,
    )


def test_a_second_reader_of_the_logs_key_fails_the_next_report(reporting: Platform) -> None:
    where = ("-n", f"{HOME}-audit")
    reporting.cluster.kubectl(
        *("create", "role", "curious", *where, "--verb=get", "--resource=secrets")
    )
    reporting.cluster.kubectl(
        *("create", "rolebinding", "curious", *where, "--role=curious", "--user=eve")
    )

    report, controls = run_report(reporting, "again")

    assert controls["LogKeySeparate"]["status"] == "Fail"
    (failing,) = (one for one in report["status"]["failing"] if "eve" in one["finding"])
    assert failing["id"] == f"SOX/{controls['LogKeySeparate']['id']}"


class Worker:
    """An agent that writes without a pause on one connection, and one that connects anew."""

    def __init__(self, platform: Platform) -> None:
        self._open = platform.connect("acme-default")
        self._fresh = platform.connect("acme-default")
        self._stop = threading.Event()
        self.written = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._open.close()
        self._fresh.close()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            for client in (self._open, self._fresh):
                try:
                    client.set(NOTE, f"hello {self.written}")
                    self.written += 1
                except redis.RedisError as error:
                    self.failures.append(str(error))
            self._fresh.connection_pool.disconnect()


def test_an_upgrade_changes_the_pods_and_nothing_for_agents(installed: Platform) -> None:
    before = {pod["metadata"]["uid"] for pod in installed.pods()}
    ready_since = installed.condition("acme", "Ready")["lastTransitionTime"]
    binding = installed.secret("acme-default", TEAM)["metadata"]["resourceVersion"]
    with Worker(installed) as agent:
        installed.helm("upgrade", settings_logLevel="DEBUG")
        processes.wait_until(
            lambda: (
                not before & {pod["metadata"]["uid"] for pod in installed.pods()}
                and installed.leader() in {pod["metadata"]["name"] for pod in installed.pods()}
            ),
            what="new pods, one of which leads",
            timeout=PATIENCE,
        )
        installed.cluster.apply(tenant("newer"))
        installed.wait("mtenant/newer", "condition=Ready")
    assert agent.written
    assert agent.failures == []
    ready = installed.condition("acme", "Ready")
    assert (ready["status"], ready["lastTransitionTime"]) == ("True", ready_since)
    assert installed.secret("acme-default", TEAM)["metadata"]["resourceVersion"] == binding


@pytest.fixture(scope="module")
def uninstalled(installed: Platform) -> tuple[Platform, dict[str, str]]:
    """The release is gone; the resourceVersions of the Secrets of `acme` as they were."""
    with installed.connect("acme-default") as agent:
        agent.set(NOTE, "before")
    installed.cluster.apply(tenant("doomed"), tenant("late", LATER))
    installed.wait("mtenant/doomed", "condition=Ready")
    installed.wait("mtenant/late", "condition=Ready", LATER)
    installed.cluster.helm("uninstall", RELEASE, "-n", HOME, "--wait", "--timeout=10m")
    return installed, _versions(installed)


def _versions(platform: Platform) -> dict[str, str]:
    record = record_name(TenantId(TEAM, "acme"))
    return {
        name: platform.secret(name, namespace)["metadata"]["resourceVersion"]
        for name, namespace in (("acme-default", TEAM), (record, HOME), ("memtenant-root", HOME))
    }


def test_uninstalling_leaves_tenants_users_and_data(
    uninstalled: tuple[Platform, dict[str, str]],
) -> None:
    platform, _ = uninstalled
    assert platform.pods() == []
    assert platform.cluster.get("crd", "memorytenants.memtenant.dev")
    assert platform.cluster.get("mtenant", "acme", "-n", TEAM)
    assert platform.users("support.acme")
    assert platform.cluster.get("cronjobs", "-n", HOME)["items"] == []
    assert platform.cluster.get("mreports", "-n", HOME)["items"]
    with platform.connect("acme-default") as agent:
        assert agent.get(NOTE) == "before"


def test_without_an_operator_no_deletion_hangs(
    uninstalled: tuple[Platform, dict[str, str]],
) -> None:
    platform, _ = uninstalled
    platform.cluster.kubectl("delete", "mtenant", "doomed", "-n", TEAM, "--timeout=120s")
    platform.cluster.kubectl("delete", "namespace", LATER, f"--timeout={PATIENCE:.0f}s")


def test_installed_again_it_takes_up_where_it_was(
    uninstalled: tuple[Platform, dict[str, str]],
) -> None:
    platform, before = uninstalled
    platform.helm("install", tenantNamespaces=f"{{{TEAM}}}")
    finalizers = ("get", "mtenant", "acme", "-n", TEAM, "-o=jsonpath={.metadata.finalizers}")
    processes.wait_until(
        lambda: "memtenant.dev/cleanup" in platform.cluster.kubectl(*finalizers),
        what="the tenant under the operator again",
        timeout=PATIENCE,
    )
    processes.wait_until(
        lambda: not platform.users("support.doomed") and not platform.users("later.late"),
        what="the users of what was deleted meanwhile gone",
        timeout=PATIENCE,
    )
    platform.wait("mtenant/acme", "condition=Ready")
    processes.wait_until(
        lambda: platform.cluster.get("cronjobs", "-n", HOME)["items"],
        what="the CronJob of the policy's reports again",
        timeout=PATIENCE,
    )
    assert _versions(platform) == before
    with platform.connect("acme-default") as agent:
        assert agent.get(NOTE) == "before"
