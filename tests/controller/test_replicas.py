"""Two replicas as real processes on a real API server."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.controller.faults import FaultyApi
from tests.controller.objects import tenant
from tests.support import processes
from tests.support.controlplane.cluster import Cluster

ROOT = Path(__file__).parents[2]


@dataclass
class Replica:
    child: "subprocess.Popen[bytes]"
    record: Path
    log: Path
    port: int

    def lines(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []

    def probe(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def leads(self) -> bool:
        return "memtenant_lease_leader 1.0" in self.probe("/metrics")[1]

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        processes.wait_until(holds, what=what, child=self.child, log=self.log, timeout=120)


StartReplica = Callable[..., Replica]

QUICK = {"MEMTENANT_LEASE_DURATION": "3", "MEMTENANT_LEASE_RENEW_DEADLINE": "2"}
"""Of a leader that dies or stands still: others wait so long. On a busy machine it may lose its
Lease before."""


@pytest.fixture
def start(api: Cluster, namespace: str, tmp_path: Path) -> Iterator[StartReplica]:
    with ExitStack() as stack:

        def start_replica(name: str, **extra: str) -> Replica:
            port = processes.free_port()
            env = {
                **os.environ,
                "KUBECONFIG": str(api.kubeconfig),
                "MEMTENANT_HOME_NAMESPACE": namespace,
                "MEMTENANT_IDENTITY": name,
                # Long enough for a machine that is busy.
                "MEMTENANT_LEASE_DURATION": "60",
                "MEMTENANT_LEASE_RENEW_DEADLINE": "50",
                "MEMTENANT_LEASE_RETRY_PERIOD": "0.5",
                "MEMTENANT_HEALTH_HOST": "127.0.0.1",
                "MEMTENANT_HEALTH_PORT": str(port),
                "MEMTENANT_LOG_FORMAT": "json",
                **extra,
            }
            record, log = tmp_path / f"{name}.record", tmp_path / f"{name}.log"
            argv = [sys.executable, "-m", "tests.controller.replica", str(record)]
            child = processes.spawn(argv, log=log, env=env, cwd=ROOT)
            stack.callback(processes.stop, child)
            return Replica(child, record, log, port)

        yield start_replica


def _about(replica: Replica, namespace: str, what: str = "end") -> list[str]:
    return [
        line for line in replica.lines() if line.startswith(f"{what} MemoryTenant/{namespace}/")
    ]


def test_a_standby_waits_and_is_ready_and_follows_a_leader_that_stops(
    api: Cluster, namespace: str, start: StartReplica
) -> None:
    first = start("first")
    first.wait_until(first.leads, "the first replica leads")
    second = start("second")
    second.wait_until(lambda: second.probe("/readyz")[0] == 200, "the standby is ready")
    api.apply(tenant(namespace, "early"))
    first.wait_until(lambda: bool(_about(first, namespace)), "the leader works")
    assert first.probe("/healthz") == (200, "ok")
    assert second.probe("/healthz") == (200, "ok")
    assert second.lines() == []
    metrics = first.probe("/metrics")[1]
    assert 'memtenant_watch_heartbeat_age_seconds{watch="memorytenants"}' in metrics
    assert 'memtenant_tenants{ready="Unknown"}' in metrics

    first.child.send_signal(signal.SIGTERM)
    assert first.child.wait(120) == 0
    second.wait_until(second.leads, "the standby leads")
    second.wait_until(lambda: bool(_about(second, namespace)), "the new leader works")
    assert _term(second) > _term(first)
    for line in second.log.read_text().splitlines():
        json.loads(line)


def _term(replica: Replica) -> int:
    return max(int(line.rsplit(" ", 1)[1]) for line in replica.lines())


def test_a_leader_that_dies_is_followed(api: Cluster, namespace: str, start: StartReplica) -> None:
    api.apply(tenant(namespace, "acme"))
    first = start("first", **QUICK)
    first.wait_until(lambda: bool(_about(first, namespace)), "the leader works")
    second = start("second")
    second.wait_until(lambda: second.probe("/readyz")[0] == 200, "the standby is ready")
    processes.kill(first.child)
    second.wait_until(lambda: bool(_about(second, namespace)), "the other one works")
    assert _term(second) > _term(first)


def test_a_frozen_leader_ends_when_it_is_thawed(
    api: Cluster, namespace: str, start: StartReplica
) -> None:
    api.apply(tenant(namespace, "acme"))
    first = start("first", AGAIN="yes", **QUICK)
    first.wait_until(lambda: len(_about(first, namespace)) > 2, "the leader works")
    second = start("second", AGAIN="yes")
    second.wait_until(lambda: second.probe("/readyz")[0] == 200, "the standby is ready")
    first.child.send_signal(signal.SIGSTOP)
    second.wait_until(lambda: bool(_about(second, namespace)), "the other one works")
    first.child.send_signal(signal.SIGCONT)
    assert first.child.wait(120) == 1
    assert "lost Lease" in first.log.read_text()
    assert second.child.poll() is None


def test_a_leader_that_is_asked_to_stop_finishes_what_it_does(
    api: Cluster, namespace: str, start: StartReplica
) -> None:
    api.apply(*(tenant(namespace, f"t{number}") for number in range(6)))
    only = start("only", RECONCILE_SECONDS="1.5", MEMTENANT_WORKERS="2")
    only.wait_until(lambda: bool(_about(only, namespace, "start")), "the leader works")
    only.child.send_signal(signal.SIGTERM)
    assert only.child.wait(120) == 0
    started = {line.removeprefix("start ") for line in only.lines() if line.startswith("start ")}
    ended = {line.removeprefix("end ") for line in only.lines() if line.startswith("end ")}
    assert started == ended
    assert len(_about(only, namespace, "start")) < 6
    lease = api.get("lease", "memtenant-operator", "-n", namespace)
    assert not lease["spec"].get("holderIdentity")


def test_a_standby_that_is_asked_to_stop_ends_well(
    api: Cluster, namespace: str, start: StartReplica
) -> None:
    first = start("first")
    first.wait_until(first.leads, "the first replica leads")
    second = start("second")
    second.wait_until(lambda: second.probe("/readyz")[0] == 200, "the standby is ready")
    second.child.send_signal(signal.SIGTERM)
    assert second.child.wait(120) == 0
    assert first.leads()


def test_a_replica_that_cannot_list_what_is_declared_leaves_the_lease_to_others(
    api: Cluster, faults: FaultyApi, namespace: str, start: StartReplica
) -> None:
    faults.refuse(500, 1_000_000, ending="/memorytenants")
    first = start("first", KUBECONFIG=str(faults.kubeconfig))
    first.wait_until(lambda: "first list failed" in first.log.read_text(), "a list failed")
    assert first.probe("/readyz") == (503, "this replica has not listed everything yet")
    second = start("second")
    second.wait_until(second.leads, "the other replica leads")
    faults.heal()
    first.wait_until(lambda: first.probe("/readyz")[0] == 200, "it stands by")
    assert second.leads()
