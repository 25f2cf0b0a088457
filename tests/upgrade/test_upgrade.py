"""`helm upgrade` from the release before, and `helm rollback`, while agents of both are at work.

Real Helm, real API server, both versions of the operator and of the SDK as they are shipped: the
former by its wheel and its chart, this one by the checkout. The test is one life of an
installation.
"""

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from memtenant.archive import ArchiveReader, verify
from memtenant.audit import Operation
from memtenant.audit.leaf import Verdict
from memtenant.crypto.signing import VerifyingKey
from memtenant.functions.library import libraries
from memtenant.memory.source import BindingSource
from memtenant.rules.instance import instance_name
from memtenant.stores import admin_rules
from memtenant.sync import Tenant
from memtenant.tenancy.identity import TenantId
from tests.chart.rendered import CHART, HOME, RELEASE, ROOT
from tests.e2e.witness import Witness
from tests.support import processes, servers, tiers
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster
from tests.support.kubelet import Image, Kubelet
from tests.support.kubelet import running as running_kubelet
from tests.support.processes import Unavailable
from tests.support.servers import Flavour, Options, Server
from tests.upgrade import agent as agent_program
from tests.upgrade.released import releases
from tests.upgrade.watching import Watch

pytestmark = pytest.mark.e2e

BEFORE = releases()[-1]
NOW = "checkout"
API = "memtenant.dev/v1alpha1"
TEAM = "support"
TENANTS = ("acme", "clinic")  # shared and audited; an instance of its own
CHANGING = "busy"
PATIENCE = 240.0  # seconds, on a busy machine
CURRENT, PREVIOUS = (one.name for one in libraries())

Object = dict[str, Any]


@dataclass(slots=True)
class AgentProcess:
    """An agent with the SDK of one version."""

    tenant: str
    words: str
    log: Path
    process: "subprocess.Popen[bytes]"

    def told(self, what: str) -> list[Any]:
        """What it printed so far under that name."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line[-1:] == "}"]
        return [line[what] for line in lines if what in line]

    def wait_for(self, more: int) -> None:
        """Until so many more messages are acknowledged."""
        enough = len(self.told("acked")) + more
        processes.wait_until(
            lambda: len(self.told("acked")) >= enough or bool(self.told("failed")),
            what=f"{self.words} of {self.tenant} at work",
            child=self.process,
            log=self.log,
            timeout=PATIENCE,
        )
        assert self.told("failed") == []


@dataclass
class Installation:
    """A cluster with a node, a store, and a release of the operator."""

    cluster: Cluster
    kubelet: Kubelet
    store: Server
    witness: Witness
    folder: Path
    packages: dict[str, str]
    agents: list[AgentProcess] = field(default_factory=list)

    def helm(self, verb: str, *words: str) -> None:
        """Run it, and wait until the pods are those that it asks for."""
        self.cluster.helm(verb, RELEASE, *words, "-n", HOME)
        sealer = () if verb == "install" else (f"{RELEASE}-sealer",)  # it waits for a store
        for name in (RELEASE, *sealer):
            self.cluster.kubectl(
                *("rollout", "status", f"deployment/{name}", "-n", HOME),
                f"--timeout={PATIENCE:.0f}s",
            )

    def wait(self, what: str, condition: str, namespace: str = TEAM) -> None:
        """`kubectl wait`."""
        self.cluster.kubectl(
            *("wait", what, "-n", namespace, f"--for={condition}", f"--timeout={PATIENCE:.0f}s")
        )

    def settle(self, version: str) -> None:
        """Until a pod of that version leads, and every agent did something since."""

        def leads() -> bool:
            found = self.cluster.get("leases", "-n", HOME)["items"]
            holder = str(found[0]["spec"].get("holderIdentity") or "").rpartition("_")[0]
            pods = self.cluster.get("pods", "-n", HOME)["items"]
            images = {
                pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in pods
            }
            return str(images.get(holder)).endswith(f":{version}")

        processes.wait_until(leads, what=f"a leader of version {version}", timeout=PATIENCE)
        generation = self.cluster.get("mtenant", CHANGING, "-n", TEAM)["metadata"]["generation"]

        def follows() -> bool:
            status = self.cluster.get("mtenant", CHANGING, "-n", TEAM).get("status", {})
            return bool(status.get("observedGeneration", 0) > generation)

        processes.wait_until(follows, what="what it makes of changes", timeout=PATIENCE)
        for one in self.agents:
            one.wait_for(10)

    def start_agent(self, tenant: str, version: str) -> None:
        """An agent process with the SDK of a version, and the tenant's binding."""
        words = f"{tenant}-{version}".replace(".", "-")
        root = self.folder / "bindings"
        if not (root / tenant).exists():
            (root / tenant).mkdir(parents=True)
            data = self.cluster.get("secret", f"{tenant}-default", "-n", TEAM)["data"]
            files = {name: base64.b64decode(encoded) for name, encoded in data.items()}
            if tenant == "clinic":  # the names of Services resolve in pods alone
                where = self.kubelet.address(HOME, f"{instance_name(TenantId(TEAM, tenant))}-0")
                for name in ("uri", "host"):
                    files[name] = files[name].replace(files["host"], where.encode())
            for name, content in files.items():
                (root / tenant / name).write_bytes(content)
        log = self.folder / f"{tenant}-{version}.log"
        process = processes.spawn(
            [sys.executable, agent_program.__file__, tenant, words],
            log=log,
            env={
                **os.environ,
                "PYTHONPATH": self.packages[version],
                "SERVICE_BINDING_ROOT": str(root),
            },
        )
        self.agents.append(AgentProcess(tenant, words, log, process))

    def end_agents(self, tenant: str) -> list[str]:
        """Let those of a tenant end in order, without a call that failed; what was acknowledged."""
        own = [one for one in self.agents if one.tenant == tenant]
        for one in own:
            one.process.send_signal(signal.SIGTERM)
            assert one.process.wait(PATIENCE) == 0, one.log.read_text()
            assert one.told("failed") == []
        return [text for one in own for text in one.told("acked")]

    def remembered(self, tenant: str) -> list[str]:
        """All messages of the conversation that the agents share, sorted."""
        source = BindingSource(self.folder / "bindings" / tenant)
        with Tenant(source) as opened:
            chat = opened.conversation(agent_program.SESSION, user=agent_program.USER)
            return sorted(one.text for one in chat.messages())

    def users(self) -> list[str]:
        """The agents' users of the shared store, with their rules and password hashes."""
        with self.store.admin() as admin:
            return sorted(line for line in admin.acl_list() if line.startswith("user mt."))

    def crds(self) -> dict[str, Object]:
        """The versions of memtenant's kinds, by the names of the CRDs."""
        found = self.cluster.get("crds")["items"]
        return {one["metadata"]["name"]: one["spec"]["versions"] for one in found}

    def instance_pod(self) -> str:
        """Which pod the instance is."""
        name = f"{instance_name(TenantId(TEAM, 'clinic'))}-0"
        return str(self.cluster.get("pod", name, "-n", HOME)["metadata"]["uid"])

    def archive(self) -> ArchiveReader:
        """The sealed log."""
        return ArchiveReader.open(self.kubelet.claim(HOME, f"{RELEASE}-archive"))


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """The former release, with one store, a template of instances, and a tenant on each."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    former = BEFORE.unpack(tmp_path / "former")
    folders = (ROOT, Path(sys.prefix), Path(sys.base_prefix), former)
    packages = {BEFORE.version: str(former), NOW: str(ROOT / "operator")}
    env = {"PATH": path, "MEMTENANT_HEALTH_HOST": "{address}"}
    server = tmp_path / "valkey" / "valkey-server"
    server.parent.mkdir()
    server.write_text(f'#!/bin/sh\nexec {Flavour.VALKEY_9.binary()} "$@" --bind "$POD_ADDRESS"\n')
    server.chmod(0o755)
    images = {
        f"memtenant:{BEFORE.version}": Image(
            env={**env, "PYTHONPATH": str(former)}, folders=folders
        ),
        "memtenant": Image(env=env, folders=folders),
        "valkey/": Image(env={"PATH": f"{server.parent}:/bin"}, folders=(*folders, server.parent)),
    }
    with ExitStack() as stack:
        try:
            store = stack.enter_context(
                servers.running(Flavour.VALKEY_9, Options(aclfile=True, appendonly=True))
            )
            cluster = stack.enter_context(control_plane.running())
            kubelet = stack.enter_context(running_kubelet(cluster.kubeconfig, images))
        except Unavailable as missing:
            tiers.cannot_run(str(missing))
        for name in (HOME, TEAM):
            cluster.create_namespace(name, {"pod-security.kubernetes.io/enforce": "restricted"})
        witness = Witness(cluster)
        made = Installation(cluster, kubelet, store, witness, tmp_path, packages)
        values = ("--set=replicas=1", f"--set=tenantNamespaces={{{TEAM}}}")
        made.helm("install", str(BEFORE.chart), *values)
        witness.start()
        stack.callback(witness.close)
        declare(made)
        yield made
        for one in made.agents:
            processes.stop(one.process)


def declare(installation: Installation) -> None:
    """Stores, a policy and tenants, which are Ready when it returns."""
    password = secrets.token_urlsafe(24)
    with installation.store.admin() as admin:
        rules = (*admin_rules(), "+client|setinfo")
        admin.execute_command("ACL", "SETUSER", RELEASE, "reset", "on", f">{password}", *rules)
    installation.cluster.kubectl(
        *("create", "secret", "generic", "admin", "-n", HOME, f"--from-literal=password={password}")
    )
    shared = {
        "standalone": {"endpoint": installation.store.endpoint},
        "adminUsername": RELEASE,
        "adminSecretRef": {"name": "admin", "key": "password"},
    }
    own = {"dedicated": {"image": "valkey/valkey:9.1", "tls": {"mode": "Disabled"}}}
    installation.cluster.apply(
        {"apiVersion": API, "kind": "MemoryStore", "metadata": {"name": "shared"}, "spec": shared},
        {"apiVersion": API, "kind": "MemoryStore", "metadata": {"name": "own"}, "spec": own},
        {"apiVersion": API, "kind": "RetentionPolicy", "metadata": {"name": "standard"}},
        tenant("acme", store="shared", audit={"mode": "Enabled"}),
        tenant("clinic", store="own", isolation="Strict"),
        tenant(CHANGING, store="shared"),
    )
    for name in TENANTS:
        installation.wait(f"mtenant/{name}", "condition=Ready")
    installation.wait("mtenant/acme", "condition=AuditSealed")


def tenant(name: str, store: str, **spec: object) -> Object:
    return {
        "apiVersion": API,
        "kind": "MemoryTenant",
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {
            "retentionPolicyRef": {"name": "standard"},
            "storeRef": {"name": store},
            "quota": {"memory": "64Mi"},
            **spec,
        },
    }


@contextmanager
def changing(installation: Installation) -> Iterator[None]:
    """A tenant whose owner changes it all the while, so that every leader has to write."""
    stop = threading.Event()

    def change() -> None:
        rate = 100
        while not stop.wait(0.5):
            rate += 1
            quota = {"memory": "16Mi", "writesPerSecond": rate}
            installation.cluster.declare(tenant(CHANGING, store="shared", quota=quota))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_an_upgrade_and_its_way_back_are_not_noticed_by_agents(installation: Installation) -> None:
    for name in TENANTS:
        for version in (BEFORE.version, NOW):
            installation.start_agent(name, version)
    for one in installation.agents:
        one.wait_for(5)
    before, users = len(installation.witness.changes), installation.users()
    crds = installation.crds()
    pod = installation.instance_pod()
    watch = Watch(installation.store)
    watch.start()
    try:
        with changing(installation):
            installation.helm("upgrade", str(CHART), "--reset-then-reuse-values")
            installation.settle(current_version())
            assert watch.libraries == [{PREVIOUS}, {PREVIOUS, CURRENT}]
            installation.helm("rollback", "1")
            installation.settle(BEFORE.version)
            assert installation.crds() == crds
    finally:
        watch.close()
    assert watch.libraries == [{PREVIOUS}, {PREVIOUS, CURRENT}]
    one_wrote_at_a_time(installation, watch, before)
    assert installation.users() == users
    assert rewritten(installation, watch, before) == []
    assert installation.instance_pod() == pod
    acknowledged = {name: installation.end_agents(name) for name in TENANTS}
    for name, texts in acknowledged.items():
        assert installation.remembered(name) == sorted(texts)
    the_log_is_whole(installation, len(acknowledged["acme"]))


def one_wrote_at_a_time(installation: Installation, watch: Watch, before: int) -> None:
    """The Lease went from one to the next, and no connection wrote in another's term."""
    leases = [one.object for one in installation.witness.since(before) if one.plural == "leases"]
    own = [one for one in leases if one["metadata"]["namespace"] == HOME]
    holders = [one["spec"]["holderIdentity"] for one in own if one["spec"].get("holderIdentity")]
    assert len(watch.terms()) == len(dict.fromkeys(holders)) - 1
    numbers = [int(term.partition(" ")[0]) for term in watch.terms()]
    assert numbers == sorted(set(numbers))
    in_terms: dict[str, set[str]] = {}
    for one in watch.written():
        in_terms.setdefault(one.connection, set()).add(one.term)
    mixed = [one for one in watch.written() if len(in_terms[one.connection]) > 1]
    assert mixed == []
    assert {term for terms in in_terms.values() for term in terms} >= set(watch.terms())


def rewritten(installation: Installation, watch: Watch, before: int) -> list[str]:
    """What was written of the tenants that nobody changed: objects, their Secrets, their keys; but
    for what a pass over the store leaves, that it was there."""
    written = [one.key for one in watch.written() if not one.key.endswith(":o:passes")]
    found = [key for key in written if CHANGING not in key]
    known: dict[tuple[str, str, str], Object] = {}
    for number, change in enumerate(installation.witness.since(0)):
        namespace, name = change.name
        keyring = change.plural == "secrets" and name.endswith("-keyring")
        theirs = namespace == TEAM and change.plural in ("memorytenants", "secrets")
        if (keyring or theirs) and CHANGING not in name:
            told = decided(change.object)
            if number >= before and known.get((change.plural, *change.name)) != told:
                found.append(f"{change.plural} {name}: {told}")
            known[change.plural, *change.name] = told
    return found


def decided(item: Object) -> Object:
    """What is in an object, but how much its agents stored by now."""
    status = {name: what for name, what in item.get("status", {}).items() if name != "usage"}
    return {name: item.get(name) for name in ("spec", "data")} | {"status": status}


def the_log_is_whole(installation: Installation, appends: int) -> None:
    """Every append is sealed once, without a gap, under the signature of the one key."""

    def operations() -> list[Operation]:
        found = list(installation.archive().events("support.acme"))
        assert {one.verdict for one in found} == {Verdict.GOOD}
        return [one.event().operation for one in found]

    def told() -> bool:
        return operations().count(Operation.APPEND) >= appends

    processes.wait_until(told, what="the last append in the log", timeout=PATIENCE)
    assert operations().count(Operation.APPEND) == appends
    assert list(installation.archive().gaps("support.acme")) == []

    def sealed() -> bool:
        log = installation.cluster.get("configmap", "memtenant-log", "-n", f"{HOME}-audit")
        key = VerifyingKey.parse(log["data"]["key"])
        result = verify(installation.archive(), public_key=key)
        assert not [one for one in result.findings if one.tampered]
        logs = {one.log_id: one for one in result.logs}
        return logs["support.acme"].sealed == logs["support.acme"].size

    processes.wait_until(sealed, what="all of it under a checkpoint", timeout=PATIENCE)


def current_version() -> str:
    """What the checkout's chart installs."""
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])
