"""From events to keys, without a server."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from memtenant.controller.events import HandOver, Seen
from memtenant.controller.handlers import Handlers
from memtenant.controller.metrics import Metrics
from memtenant.controller.queue import WorkQueue
from memtenant.controller.schedule import Schedule
from memtenant.reconcile.outcome import Lane
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import MANAGED_BY_LABEL, MANAGED_BY_VALUE, ObjectKey
from memtenant.rules.instance import instance_labels, instance_name
from memtenant.rules.record import LABEL_PHASE, RECORD_LABEL
from memtenant.tenancy.identity import TenantId
from tests.controller.recording import Recorder


async def test_events_come_in_order_from_kopfs_thread_and_wake_the_loop_seldom() -> None:
    seen: list[Seen] = []
    loop = asyncio.get_running_loop()
    woken = 0

    class Counting:
        def call_soon(self, call: Callable[[], None]) -> None:
            loop.call_soon(call)

        def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
            nonlocal woken
            woken += 1
            loop.call_soon_threadsafe(call)

    events = HandOver(seen.append, cast(asyncio.AbstractEventLoop, Counting()))
    sent = [Seen("memorytenants", None, {"n": number}) for number in range(1000)]

    def put_all() -> None:
        for event in sent:
            events.put(event)

    thread = threading.Thread(target=put_all)
    thread.start()
    thread.join()  # all of it while the loop is busy: here
    async with asyncio.timeout(60):
        while len(seen) < len(sent):  # noqa: ASYNC110 -- the loop is what is watched
            await asyncio.sleep(0)
    assert seen == sent
    assert woken == 1


OURS = {MANAGED_BY_LABEL: MANAGED_BY_VALUE}


class Intake:
    """Handlers with everything behind them."""

    def __init__(self) -> None:
        self.mirror, self.metrics = Mirror(), Metrics()
        self.queue: WorkQueue[ObjectKey, ObjectKey] = WorkQueue(lanes=len(Lane), group_limit=9)
        schedule = Schedule(self.queue, Recorder(mirror=self.mirror))
        self.handlers = Handlers(self.mirror, self.metrics, home="home")
        self.handlers.lead(schedule)
        self._version = 0

    def see(
        self,
        plural: str,
        name: str,
        *,
        event: str | None = "MODIFIED",
        namespace: str = "",
        labels: dict[str, str] | None = None,
        manager: str | None = None,
        **parts: Any,
    ) -> set[str]:
        """Take one event in; the keys that it enqueued."""
        self._version += 1
        metadata = {
            "name": name,
            "uid": name,
            "resourceVersion": str(self._version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "generation": self._version,
            "labels": labels or {},
        }
        if manager is not None:
            metadata["managedFields"] = [{"manager": manager}]
        if namespace:
            metadata["namespace"] = namespace
        self.handlers.seen(Seen(plural, event, {"metadata": metadata, **parts}))
        taken = set()
        while (key := self.queue.agenda.take(0.0)) is not None:
            taken.add(str(key))
            self.queue.done(key)
        return taken


@pytest.fixture
def intake() -> Intake:
    intake = Intake()
    keyed = {"encryption": {"keySecretRef": {"name": "acme-key", "key": "root"}}}
    intake.see("memorytenants", "acme", namespace="support", spec=keyed)
    intake.see("memorytenants", "beta", namespace="support", spec={})
    standalone = {"tls": {"caSecretRef": {"name": "eu-ca", "key": "ca.crt"}}}
    admin = {"name": "eu-admin", "key": "password"}
    intake.see("memorystores", "eu", spec={"adminSecretRef": admin, **standalone})
    return intake


def test_a_changed_key_secret_concerns_the_tenants_that_name_it(intake: Intake) -> None:
    assert intake.see("secrets", "acme-key", namespace="support") == {"MemoryTenant/support/acme"}
    assert intake.see("secrets", "acme-key", namespace="other") == set()
    assert intake.see("secrets", "unrelated", namespace="support") == set()


def test_what_the_first_list_of_secrets_finds_is_no_change(intake: Intake) -> None:
    assert intake.see("secrets", "acme-key", namespace="support", event=None) == set()


@pytest.mark.parametrize("name", ["eu-admin", "eu-ca"])
def test_a_changed_secret_of_a_store_concerns_the_store(intake: Intake, name: str) -> None:
    assert intake.see("secrets", name, namespace="home") == {"MemoryStore/eu"}
    assert intake.see("secrets", name, namespace="support") == set()


def test_what_others_do_to_a_binding_concerns_its_tenant(intake: Intake) -> None:
    name, where = "acme-triage", "support"
    written = intake.see("secrets", name, namespace=where, labels=OURS, manager="memtenant")
    assert written == set()
    edited = intake.see("secrets", name, namespace=where, labels=OURS, manager="kubectl-edit")
    assert edited == {"MemoryTenant/support/acme"}
    lost = intake.see("secrets", name, namespace=where, labels=OURS, event="DELETED")
    assert lost == {"MemoryTenant/support/acme"}


@pytest.mark.parametrize("event", ["ADDED", "MODIFIED", "DELETED"])
def test_a_secret_without_our_labels_and_with_a_bindings_name_concerns_the_tenant(
    intake: Intake, event: str
) -> None:
    """A binding that lost its labels is one, and so is what has to go before one is written."""
    seen = intake.see("secrets", "acme-triage", namespace="support", event=event)
    assert seen == {"MemoryTenant/support/acme"}
    assert intake.see("secrets", "acme-triage", namespace="other", event=event) == set()


def test_a_deleted_secret_of_an_instance_concerns_its_tenant(intake: Intake) -> None:
    acme = TenantId("support", "acme")

    def concerned(home: str, event: str, tenant: TenantId = acme) -> set[str]:
        labels = {**OURS, **instance_labels(tenant)}
        name = instance_name(tenant)
        return intake.see(
            "secrets", name, namespace=home, labels=labels, event=event, manager="memtenant"
        )

    assert concerned("home", "MODIFIED") == set()
    assert concerned("home", "DELETED") == {"MemoryTenant/support/acme"}
    assert concerned("support", "DELETED") == set()
    assert concerned("home", "DELETED", TenantId("support", "gone")) == set()


def test_a_record_that_lost_a_label_or_is_gone_concerns_its_tenant(intake: Intake) -> None:
    """Whoever takes a label away is no manager of the Secret afterwards."""
    name, whole = "support.acme-keyring", {**OURS, RECORD_LABEL: "any", LABEL_PHASE: "any"}

    def concerned(labels: dict[str, str], event: str = "MODIFIED", home: str = "home") -> set[str]:
        return intake.see(
            "secrets", name, namespace=home, labels=labels, event=event, manager="memtenant"
        )

    acme = {"MemoryTenant/support/acme"}
    assert concerned(whole) == set()
    for lost in (RECORD_LABEL, LABEL_PHASE):
        assert concerned({label: "any" for label in whole if label != lost} | OURS) == acme
    assert concerned({}) == acme
    assert concerned(whole, "DELETED") == acme
    assert concerned({}, home="other") == set()


def test_a_record_of_a_tenant_that_is_gone_concerns_the_stores_when_it_loses_a_label(
    intake: Intake,
) -> None:
    name, whole = "support.former-keyring", {**OURS, RECORD_LABEL: "any", LABEL_PHASE: "any"}

    def concerned(labels: dict[str, str], event: str = "MODIFIED") -> set[str]:
        return intake.see(
            "secrets", name, namespace="home", labels=labels, event=event, manager="memtenant"
        )

    assert concerned(whole) == set()
    assert concerned({**OURS, RECORD_LABEL: "any"}) == {"MemoryStore/eu"}
    assert concerned({}) == {"MemoryStore/eu"}
    assert concerned(whole, "DELETED") == set()  # its store removed it


def test_a_namespace_concerns_its_tenants_when_its_labels_change(intake: Intake) -> None:
    both = {"MemoryTenant/support/acme", "MemoryTenant/support/beta"}
    assert intake.see("namespaces", "support", labels={"team": "a"}) == both
    assert intake.see("namespaces", "support", labels={"team": "a"}) == set()
    assert intake.see("namespaces", "support", labels={"team": "b"}) == both


@pytest.mark.parametrize("plural", ["memorytenants", "memorystores", "namespaces", "secrets"])
@pytest.mark.parametrize("raw", [{}, {"metadata": None}, {"metadata": {"name": "x"}}])
def test_an_object_that_cannot_be_read_stops_nothing(
    intake: Intake, plural: str, raw: dict[str, Any]
) -> None:
    intake.handlers.seen(Seen(plural, "ADDED", raw))
    count = intake.metrics.registry.get_sample_value(
        "memtenant_unreadable_events_total", {"resource": plural}
    )
    assert count == 1
    assert intake.see("memorytenants", "new", namespace="support", spec={})
