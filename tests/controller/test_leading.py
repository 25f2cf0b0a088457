"""A leader on a real API server, with a reconciler that only remembers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memtenant.controller import events
from memtenant.controller.leading import Leader
from memtenant.controller.metrics import Metrics
from memtenant.controller.settings import Settings
from memtenant.reconcile.outcome import Outcome
from memtenant.resources.connection import Connection
from memtenant.resources.kubernetes import KubernetesResources
from memtenant.resources.port import MANAGED_BY_LABEL, MANAGED_BY_VALUE, ObjectKey
from tests.controller.faults import FaultyApi
from tests.controller.objects import policy, secret, tenant
from tests.controller.recording import Recorder
from tests.support.controlplane import cluster as control_plane
from tests.support.controlplane.cluster import Cluster


@dataclass
class Standby:
    leader: Leader
    recorder: Recorder
    stopping: asyncio.Event


@dataclass
class Running(Standby):
    task: asyncio.Task[None]

    def seen(self, key: ObjectKey) -> int:
        return self.recorder.finished.count(key)

    def heard(self, plural: str) -> float:
        """A moment that only grows when something comes on the watch."""
        return self.leader._watches._heard[plural]


@asynccontextmanager
async def standing_by(
    kubeconfig: Path, home: str, recorder: Recorder | None = None, **settings: Any
) -> AsyncIterator[Standby]:
    recorder = recorder or Recorder()
    chosen = Settings(home_namespace=home, kubeconfig=kubeconfig, **settings)
    stopping = asyncio.Event()
    async with Connection.open(kubeconfig=kubeconfig) as connection:
        resources = KubernetesResources(connection, home=home, instance="test")
        leader = Leader(chosen, resources, Metrics(), recorder.build, stopping=stopping)
        async with leader.following():
            yield Standby(leader, recorder, stopping)


@asynccontextmanager
async def leading(
    kubeconfig: Path, home: str, recorder: Recorder | None = None, **settings: Any
) -> AsyncIterator[Running]:
    async with standing_by(kubeconfig, home, recorder, **settings) as standby:
        task = asyncio.create_task(standby.leader.run(7))
        try:
            yield Running(standby.leader, standby.recorder, standby.stopping, task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for thread in threading.enumerate():
                if thread.name == "kopf-Secrets":
                    await asyncio.to_thread(thread.join, 20)


async def until(holds: Callable[[], object], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 -- what is waited for is another process' doing
            await asyncio.sleep(0.02)


async def off_loop(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """kubectl without holding up the event loop."""
    return await asyncio.to_thread(partial(call, *arguments, **named))


async def test_what_is_declared_changed_or_deleted_is_reconciled(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    early, late = ObjectKey.tenant(namespace, "early"), ObjectKey.tenant(namespace, "late")
    api.apply(tenant(namespace, "early"))
    async with leading(faults.kubeconfig, namespace) as running:
        await until(lambda: running.seen(early) == 1)
        await off_loop(api.apply, tenant(namespace, "late"))
        await until(lambda: running.seen(late) == 1)
        await off_loop(api.apply, tenant(namespace, "late", deletionPolicy="Delete"))
        await until(lambda: running.seen(late) == 2)
        await off_loop(api.kubectl, "delete", "mtenant", "late", "-n", namespace)
        await until(lambda: running.seen(late) == 3)
        assert running.leader.mirror.get(late) is None
        assert running.seen(early) == 1
        assert running.recorder.leadership is not None
        assert running.recorder.leadership.term == 7
        uid = api.get("namespace", namespace)["metadata"]["uid"]
        assert running.recorder.leadership.installation == uid
    # kopf itself wrote nothing: no finalizer, no annotation, no Event.
    assert {method for method, path, _ in faults.requests if "memtenant.dev" in path} == {"GET"}
    metadata = api.get("mtenant", "early", "-n", namespace)["metadata"]
    assert not metadata.keys() & {"finalizers", "annotations"}


async def test_who_takes_over_need_not_list_before_it_works(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    early, late = ObjectKey.tenant(namespace, "early"), ObjectKey.tenant(namespace, "late")
    api.apply(tenant(namespace, "early"))
    async with standing_by(faults.kubeconfig, namespace) as standby:
        await until(lambda: faults.watched("memorytenants"))
        await off_loop(api.apply, tenant(namespace, "late"))
        await until(lambda: standby.leader.mirror.get(late))
        assert standby.leader.mirror.synced
        assert standby.recorder.started == []
        faults.refuse(500, 1_000_000, ending="/memorytenants")
        task = asyncio.create_task(standby.leader.run(7))
        await until(lambda: {early, late} <= set(standby.recorder.finished))
        assert not standby.leader.mirror.synced
        faults.heal()
        await until(lambda: standby.leader.mirror.synced)
        standby.stopping.set()
        await task


async def test_what_the_watch_of_a_standby_missed_is_listed_when_it_leads(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    missed = ObjectKey.tenant(namespace, "missed")
    async with standing_by(faults.kubeconfig, namespace) as standby:
        await until(lambda: faults.watched("memorytenants"))
        faults.lose_watch("memorytenants")
        await until(lambda: not faults.watched("memorytenants"))
        await off_loop(api.apply, tenant(namespace, "missed"))
        task = asyncio.create_task(standby.leader.run(7))
        await until(lambda: missed in standby.recorder.finished)
        assert standby.leader.mirror.synced
        standby.stopping.set()
        await task
        faults.expire_watch()


async def test_who_takes_over_knows_each_policy_and_label_that_its_watches_are_behind_of(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    """A hold above all, and whom it selects."""
    missed = ObjectKey.policy(f"missed-{namespace}")
    knew: list[bool] = []

    async def act(key: ObjectKey) -> Outcome:
        where = recorder.mirror.namespace(namespace)
        held = where is not None and where.labels.get("held") == "yes"
        knew.append(held and recorder.mirror.get(missed) is not None)
        return Outcome()

    recorder = Recorder(act=act)
    api.apply(tenant(namespace, "acme"))
    async with standing_by(faults.kubeconfig, namespace, recorder) as standby:
        for plural in ("retentionpolicies", "namespaces"):
            await until(partial(faults.watched, plural))
            faults.lose_watch(plural)
            await until(lambda plural=plural: not faults.watched(plural))
        await off_loop(api.apply, policy(missed.name))
        await off_loop(api.kubectl, "label", "namespace", namespace, "held=yes")
        faults.refuse(500, 2, ending="/retentionpolicies")
        task = asyncio.create_task(standby.leader.run(7))
        await until(lambda: ObjectKey.tenant(namespace, "acme") in recorder.finished)
        assert all(knew)
        standby.stopping.set()
        await task
        faults.expire_watch()
    api.kubectl("delete", "retentionpolicy", missed.name)


async def test_a_status_alone_enqueues_nothing(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    key = ObjectKey.tenant(namespace, "acme")
    api.apply(tenant(namespace, "acme"))
    async with leading(faults.kubeconfig, namespace) as running:
        await until(lambda: running.seen(key) == 1)
        patch = '{"status": {"observedGeneration": 1}}'
        status = ("--subresource=status", "--type=merge", "-p", patch)
        await off_loop(api.kubectl, "patch", "mtenant", "acme", "-n", namespace, *status)

        def status_is_known() -> bool:
            declared = running.leader.mirror.get(key)
            return declared is not None and declared.status.get("observedGeneration") == 1

        await until(status_is_known)
        # A change that follows on the same watch is through, and it is the only further one.
        await off_loop(api.kubectl, "label", "mtenant", "acme", "-n", namespace, "a=b")
        await until(lambda: running.seen(key) == 2)
        assert running.seen(key) == 2


async def test_a_deletion_that_the_watch_lost_is_found_by_the_resync_of_a_standby_too(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    gone = ObjectKey.tenant(namespace, "gone")
    api.apply(tenant(namespace, "gone"))
    async with standing_by(faults.kubeconfig, namespace, resync_interval=1) as standby:
        await until(lambda: faults.watched("memorytenants"))
        faults.lose_watch("memorytenants")
        await until(lambda: not faults.watched("memorytenants"))
        await off_loop(api.kubectl, "delete", "mtenant", "gone", "-n", namespace)
        await until(lambda: standby.leader.mirror.get(gone) is None)
        faults.expire_watch()


async def test_a_deletion_that_the_watch_lost_is_found_by_the_resync(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    kept, gone = ObjectKey.tenant(namespace, "kept"), ObjectKey.tenant(namespace, "gone")
    reconciled_as_gone = asyncio.Event()

    async def act(key: ObjectKey) -> Outcome:
        if key == gone and recorder.mirror.get(gone) is None:
            reconciled_as_gone.set()
        return Outcome()

    recorder = Recorder(act=act)
    api.apply(tenant(namespace, "kept"), tenant(namespace, "gone"))
    async with leading(faults.kubeconfig, namespace, recorder, resync_interval=5) as running:
        await until(lambda: running.seen(kept) and running.seen(gone))
        await until(lambda: faults.watched("memorytenants"))
        faults.lose_watch("memorytenants")
        await until(lambda: not faults.watched("memorytenants"))
        await off_loop(api.kubectl, "delete", "mtenant", "gone", "-n", namespace)
        faults.expire_watch()
        # The list after the 410 tells kopf of what is there, and not of what is not.
        await until(reconciled_as_gone.is_set)
        assert running.leader.dead() == []


async def test_refused_requests_are_repeated_until_they_are_answered(
    api: Cluster, faults: FaultyApi, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_LONGEST_REQUEST_DELAY", 0.05)
    monkeypatch.setattr(events, "_REQUEST_DELAYS", ())
    key = ObjectKey.tenant(namespace, "acme")
    api.apply(tenant(namespace, "acme"))
    faults.refuse(429, 2, ending="/namespaces", retry_after=1)
    faults.refuse(500, 7, ending="/memorytenants")
    faults.refuse(503, 4, ending="/memorystores")
    async with leading(faults.kubeconfig, namespace) as running:
        await until(lambda: running.seen(key) == 1)
        await until(lambda: faults.watched("memorytenants"))
        await off_loop(api.apply, tenant(namespace, "late"))
        await until(lambda: running.seen(ObjectKey.tenant(namespace, "late")) == 1)


async def test_kopf_is_replaced_when_one_failing_watch_ends_it(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    async with leading(faults.kubeconfig, namespace) as running:
        await until(lambda: faults.watched("memorytenants"))
        faults.lose_watch("memorytenants")
        faults.expire_watch(500)
        await off_loop(api.apply, tenant(namespace, "late"))
        await until(lambda: running.seen(ObjectKey.tenant(namespace, "late")) == 1)
        assert running.leader.dead() == []


async def test_a_kind_that_discovery_shows_late_is_watched(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    faults.hide("memorytenants", 2)
    async with leading(faults.kubeconfig, namespace) as running:
        await until(lambda: faults.watched("memorytenants"))
        assert running.leader.dead() == []


async def test_a_watch_that_brings_nothing_any_more_fails_liveness(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    async with leading(faults.kubeconfig, namespace, watch_silence=3600) as running:
        await until(lambda: faults.watched("memorytenants"))
        await until(lambda: "memorytenants" in running.leader.watch_ages())
        before = running.heard("memorytenants")
        await off_loop(api.apply, tenant(namespace, "first"))
        await until(lambda: running.heard("memorytenants") > before)
        faults.silence("memorytenants")
        silent_since = running.heard("memorytenants")
        await off_loop(api.apply, tenant(namespace, "second"))
        others = running.heard("namespaces")
        await off_loop(api.kubectl, "label", "namespace", namespace, "touched=yes")
        await until(lambda: running.heard("namespaces") > others)
        assert running.heard("memorytenants") == silent_since
        # However long that may be: the silence alone makes the difference.
        ages = running.leader.watch_ages()
        longest = (ages["memorytenants"] + ages["namespaces"]) / 2
        running.leader._settings = running.leader._settings.model_copy(
            update={"watch_silence": longest}
        )
        await off_loop(api.kubectl, "label", "namespace", namespace, "touched=again", "--overwrite")
        await until(lambda: any("memorytenants" in words for words in running.leader.dead()))
        assert not any("namespaces" in words for words in running.leader.dead())


async def test_work_ends_before_a_stop_and_none_begins(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    go_on = asyncio.Event()

    async def act(key: ObjectKey) -> Outcome:
        await go_on.wait()
        return Outcome()

    api.apply(tenant(namespace, "first"), tenant(namespace, "second"))
    recorder = Recorder(act=act)
    async with leading(faults.kubeconfig, namespace, recorder, workers=1) as running:
        await until(lambda: recorder.started)
        running.stopping.set()
        await asyncio.sleep(0)
        go_on.set()
        await running.task
        assert recorder.finished == recorder.started
        assert len(recorder.started) == 1


async def test_lost_leadership_cancels_what_runs(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    async def act(key: ObjectKey) -> Outcome:
        await asyncio.Event().wait()
        return Outcome()

    api.apply(tenant(namespace, "acme"))
    recorder = Recorder(act=act)
    async with leading(faults.kubeconfig, namespace, recorder) as running:
        await until(lambda: recorder.started)
        running.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running.task
        assert recorder.finished == []


async def test_after_a_restart_deletions_and_new_tenants_come_before_all_others(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    settled = [tenant(namespace, f"settled-{number}") for number in range(40)]
    leaving = [tenant(namespace, f"leaving-{number}") for number in range(3)]
    for body in leaving:
        body["metadata"]["finalizers"] = ["memtenant.dev/test"]
    api.apply(*settled, *leaving)
    names = [body["metadata"]["name"] for body in (*settled, *leaving)]
    patch = '{"status": {"observedGeneration": 1}}'
    status = ("--subresource=status", "--type=merge", "-p", patch)
    api.kubectl("patch", "mtenant", *names, "-n", namespace, *status)
    api.apply(*(tenant(namespace, f"new-{number}") for number in range(3)))
    leaving_names = [body["metadata"]["name"] for body in leaving]
    api.kubectl("delete", "mtenant", *leaving_names, "-n", namespace, "--wait=false")
    async with leading(faults.kubeconfig, namespace, workers=1) as running:

        def mine() -> list[str]:
            return [key.name for key in running.recorder.started if key.namespace == namespace]

        await until(lambda: len(mine()) >= 46)
    assert {name.split("-")[0] for name in mine()[:3]} == {"leaving"}
    assert {name.split("-")[0] for name in mine()[3:6]} == {"new"}
    api.kubectl(
        "patch", "mtenant", *leaving_names, "-n", namespace, "--type=merge",
        "-p", '{"metadata": {"finalizers": null}}',
    )  # fmt: skip


async def test_a_changed_key_secret_and_a_lost_binding_are_noticed(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    keyed, other = ObjectKey.tenant(namespace, "keyed"), ObjectKey.tenant(namespace, "other")
    reference = {"name": "root-key", "key": "root"}
    encryption = {"mode": "Enabled", "keySecretRef": reference}
    ours = {MANAGED_BY_LABEL: MANAGED_BY_VALUE}
    api.apply(
        tenant(namespace, "keyed", encryption=encryption),
        tenant(namespace, "other"),
        secret(namespace, "root-key"),
        secret(namespace, "other-default", ours),
    )
    async with leading(faults.kubeconfig, namespace) as running:
        await until(lambda: running.seen(keyed) and running.seen(other))
        await until(lambda: faults.watched("secrets"))
        await off_loop(api.kubectl, "label", "secret", "root-key", "-n", namespace, "changed=yes")
        await until(lambda: running.seen(keyed) == 2)
        await off_loop(api.kubectl, "delete", "secret", "other-default", "-n", namespace)
        await until(lambda: running.seen(other) == 2)
        assert running.seen(keyed) == 2


async def test_the_value_of_a_watched_secret_never_enters_the_process(
    api: Cluster, faults: FaultyApi, namespace: str
) -> None:
    from memtenant.controller.watches import Watches

    seen: list[events.Seen] = []
    source = events.secret_source(Watches(), (namespace,))
    await off_loop(api.apply, secret(namespace, "early"))
    source.start(seen.append)
    try:
        await _until_watched(api, namespace, seen)
        await off_loop(api.apply, secret(namespace, "late"))
        await until(lambda: "late" in _names(seen))
        assert all(event.raw.keys() <= {"apiVersion", "kind", "metadata"} for event in seen)
        assert "early" not in _names(seen)  # only changes of Secrets are news
    finally:
        await source.stop()


async def _until_watched(api: Cluster, namespace: str, seen: list[events.Seen]) -> None:
    for number in range(100):
        await off_loop(api.apply, secret(namespace, f"try-{number}"))
        await asyncio.sleep(0.1)
        if seen:
            return
    raise TimeoutError("nothing was seen of any Secret")


def _names(seen: list[events.Seen]) -> set[str]:
    return {event.raw["metadata"]["name"] for event in seen}


@pytest.mark.cluster
async def test_an_api_server_that_was_away_is_watched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: Cluster
) -> None:
    private = await off_loop(control_plane.start)
    monkeypatch.setenv("KUBECONFIG", str(private.kubeconfig))
    monkeypatch.setattr(events, "_LONGEST_REQUEST_DELAY", 0.1)
    monkeypatch.setattr(events, "_REQUEST_DELAYS", ())
    crds = [path.read_text() for path in (Path(__file__).parents[2] / "crds").glob("*.yaml")]
    try:
        await off_loop(private.apply, *crds)
        await off_loop(private.create_namespace, "here")
        await off_loop(private.apply, tenant("here", "early"))
        async with leading(private.kubeconfig, "here") as running:
            await until(lambda: running.seen(ObjectKey.tenant("here", "early")) == 1)
            await off_loop(private.kill_api)
            await asyncio.sleep(2)
            await off_loop(private.start_api)
            await off_loop(private.apply, tenant("here", "late"))
            await until(lambda: running.seen(ObjectKey.tenant("here", "late")) == 1)
            assert running.leader.dead() == []
    finally:
        await off_loop(control_plane.discard, private)
