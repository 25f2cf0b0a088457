"""The mirror shows what is declared, whatever a watch misses, repeats or delivers late."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from memtenant.resources.mirror import Mirror, Relisting
from memtenant.resources.packing import Sight
from memtenant.resources.port import Declared, Kind, Listing, NamespaceInfo, ObjectKey
from memtenant.resources.reading import declared_from, namespace_from
from tests.resources.objects import raw_namespace, raw_object

ACME = ObjectKey.tenant("support", "acme")
BETA = ObjectKey.tenant("support", "beta")
OTHER = ObjectKey.tenant("sales", "other")
POLICY = ObjectKey.policy("gdpr")
STORE = ObjectKey.store("eu")
ON_EU = {"retentionPolicyRef": {"name": "gdpr"}, "storeRef": {"name": "eu"}}


def listing(version: int, *raws: dict[str, object], kind: Kind = Kind.TENANT) -> Listing[Declared]:
    return Listing(tuple(declared_from(kind, raw) for raw in raws), str(version))


def test_a_new_object_is_to_be_reconciled_and_reads_as_declared() -> None:
    mirror = Mirror()
    raw = raw_object(ACME, 5, spec=ON_EU, status={"store": "eu"}, finalizers=["a/b"])
    assert mirror.observe(Kind.TENANT, "ADDED", raw) == {ACME}
    assert mirror.get(ACME) == declared_from(Kind.TENANT, raw)


def test_a_change_of_status_alone_is_seen_but_not_reconciled() -> None:
    mirror = Mirror()
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 5))
    changed = mirror.observe(Kind.TENANT, "MODIFIED", raw_object(ACME, 6, status={"store": "eu"}))
    assert changed == frozenset()
    seen = mirror.get(ACME)
    assert seen is not None
    assert seen.status == {"store": "eu"}
    assert mirror.tenants_of_store("eu") == {ACME}


def test_a_finalizer_that_was_added_is_no_news_and_one_that_is_gone_is() -> None:
    mirror = Mirror()
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 5))
    ours = raw_object(ACME, 6, finalizers=["memtenant.dev/cleanup"])
    assert mirror.observe(Kind.TENANT, "MODIFIED", ours) == frozenset()
    seen = mirror.get(ACME)
    assert seen is not None
    assert seen.finalizers == ("memtenant.dev/cleanup",)
    theirs = raw_object(ACME, 7, finalizers=["a/b"])
    assert mirror.observe(Kind.TENANT, "MODIFIED", theirs) == {ACME}


def test_generation_labels_annotations_deletion_and_uid_are_each_a_change() -> None:
    mirror = Mirror()
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 1))
    different = [
        raw_object(ACME, 2, generation=2),
        raw_object(ACME, 3, generation=2, labels={"a": "b"}),
        raw_object(ACME, 4, generation=2, annotations={"memtenant.dev/rotate": "now"}),
        raw_object(ACME, 6, generation=2, deletionTimestamp="2026-02-01T00:00:00Z"),
        raw_object(ACME, 7, generation=2, uid="u2"),
    ]
    for raw in different:
        assert mirror.observe(Kind.TENANT, "MODIFIED", raw) == {ACME}, raw["metadata"]


def test_what_kubectl_and_the_server_keep_for_themselves_is_dropped() -> None:
    mirror = Mirror()
    last_applied = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 4096, "kept": "yes"}
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 1, annotations=last_applied))
    seen = mirror.get(ACME)
    assert seen is not None
    assert seen.annotations == {"kept": "yes"}


def test_a_changed_policy_store_or_namespace_brings_its_tenants() -> None:
    mirror = Mirror()
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 1, spec=ON_EU))
    mirror.observe(
        Kind.TENANT, "ADDED", raw_object(OTHER, 2, spec={"storeRef": {"name": "elsewhere"}})
    )
    assert mirror.observe(Kind.POLICY, "ADDED", raw_object(POLICY, 3)) == {POLICY, ACME}
    assert mirror.observe(Kind.STORE, "ADDED", raw_object(STORE, 4)) == {STORE, ACME}
    assert mirror.observe_namespace("ADDED", raw_namespace("sales", 5)) == {OTHER}
    relabelled = raw_namespace("sales", 6, labels={"team": "sales"})
    assert mirror.observe_namespace("MODIFIED", relabelled) == {OTHER}
    assert mirror.observe_namespace("MODIFIED", raw_namespace("sales", 7)) == {OTHER}
    assert mirror.observe_namespace("MODIFIED", raw_namespace("sales", 8)) == frozenset()
    assert mirror.observe_namespace("DELETED", raw_namespace("sales", 9)) == {OTHER}


def test_a_new_store_brings_the_tenants_that_have_none() -> None:
    mirror = Mirror()
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 1))
    assert mirror.unplaced_tenants() == {ACME}
    assert mirror.observe(Kind.STORE, "ADDED", raw_object(STORE, 2)) == {STORE, ACME}
    mirror.observe(Kind.TENANT, "MODIFIED", raw_object(ACME, 3, status={"store": "eu"}))
    assert mirror.unplaced_tenants() == frozenset()


def test_who_asks_for_a_store_by_name_waits_for_it_until_placed_or_gone() -> None:
    mirror = Mirror()
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 1, spec=ON_EU))
    mirror.observe(Kind.TENANT, "ADDED", raw_object(OTHER, 2, spec=ON_EU))
    assert mirror.tenants_asking_for("eu") == {ACME, OTHER}
    mirror.observe(Kind.TENANT, "MODIFIED", raw_object(ACME, 3, spec=ON_EU, status={"store": "eu"}))
    assert mirror.tenants_asking_for("eu") == {OTHER}
    mirror.observe(Kind.TENANT, "DELETED", raw_object(OTHER, 4, spec=ON_EU))
    assert mirror.tenants_asking_for("eu") == frozenset()
    assert mirror.tenants_of_store("eu") == {ACME}


def test_it_tells_at_sight_who_is_ready_and_as_of_which_generation() -> None:
    mirror = Mirror()
    assert mirror.sight(ACME) is None
    for version, status in enumerate(({}, {"conditions": 3}, {"conditions": [3, {"type": "?"}]})):
        mirror.observe(Kind.TENANT, "MODIFIED", raw_object(ACME, version + 1, status=status))
        assert mirror.sight(ACME) == Sight(False, False, False, "Unknown")
    ready = {"conditions": [{"type": "Stalled"}, {"type": "Ready", "status": "True"}]}
    for version, observed in ((9, 1), (10, 2)):
        status = {**ready, "observedGeneration": observed}
        raw = raw_object(ACME, version, status=status, generation=2)
        mirror.observe(Kind.TENANT, "MODIFIED", raw)
        assert mirror.sight(ACME) == Sight(False, True, observed == 2, "True")
    gone = raw_object(ACME, 11, deletionTimestamp="2026-02-01T00:00:00Z")
    mirror.observe(Kind.TENANT, "MODIFIED", gone)
    assert mirror.sight(ACME) == Sight(True, False, False, "Unknown")


def test_the_last_tenant_to_leave_brings_a_policy_and_store_that_wait_for_it() -> None:
    mirror = Mirror()
    gone = "2026-02-01T00:00:00Z"
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 1, spec=ON_EU))
    mirror.observe(Kind.POLICY, "ADDED", raw_object(POLICY, 2, deletionTimestamp=gone))
    mirror.observe(Kind.STORE, "ADDED", raw_object(STORE, 3, deletionTimestamp=gone))
    left = mirror.observe(Kind.TENANT, "DELETED", raw_object(ACME, 4, spec=ON_EU))
    assert left == {ACME, POLICY, STORE}


def test_a_list_ends_what_it_lacks_and_yields_only_what_changed() -> None:
    mirror = Mirror()
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 1))
    mirror.observe(Kind.TENANT, "ADDED", raw_object(OTHER, 2))
    assert mirror.replace(Kind.TENANT, listing(9, raw_object(OTHER, 2))) == {ACME}
    assert mirror.get(ACME) is None
    assert mirror.replace(Kind.TENANT, listing(10, raw_object(OTHER, 2))) == frozenset()


def test_a_list_in_pages_is_one_list_and_what_came_meanwhile_stays() -> None:
    mirror = Mirror()
    late = ObjectKey.tenant("support", "late")
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 1))
    relisting = Relisting(mirror, Kind.TENANT)
    relisting.add(listing(9, raw_object(OTHER, 2)))
    mirror.observe(Kind.TENANT, "ADDED", raw_object(late, 10))
    relisting.add(listing(9, raw_object(BETA, 3)))
    assert mirror.get(ACME) is not None  # it may be on a page to come
    assert relisting.finish() == {ACME, OTHER, BETA}
    assert mirror.keys(Kind.TENANT) == {OTHER, BETA, late}


def test_a_list_older_than_the_watch_takes_nothing_back() -> None:
    mirror = Mirror()
    mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 5))
    mirror.observe(Kind.TENANT, "DELETED", raw_object(ACME, 7))
    mirror.observe(Kind.TENANT, "ADDED", raw_object(OTHER, 8))
    assert mirror.replace(Kind.TENANT, listing(6, raw_object(ACME, 5))) == frozenset()
    assert mirror.keys(Kind.TENANT) == {OTHER}


def test_an_event_from_before_a_list_brings_nothing_back() -> None:
    mirror = Mirror()
    mirror.replace(Kind.TENANT, listing(6))
    assert mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 5)) == frozenset()
    assert mirror.observe(Kind.TENANT, "ADDED", raw_object(ACME, 7)) == {ACME}


def test_a_report_is_looked_at_by_its_policy_also_when_its_status_comes() -> None:
    mirror = Mirror()
    report = ObjectKey.report("home", "gdpr-1")
    spec = {"policyRef": {"name": "gdpr"}}
    policy = {ObjectKey.policy("gdpr")}
    assert mirror.observe(Kind.REPORT, "ADDED", raw_object(report, 1, spec=spec)) == policy
    told = {"madeAt": "2026-01-31T09:30:00Z"}
    shown = raw_object(report, 2, spec=spec, status=told)
    assert mirror.observe(Kind.REPORT, "MODIFIED", shown) == policy
    assert mirror.reports_of_policy("gdpr") == {report}
    assert mirror.observe(Kind.REPORT, "DELETED", raw_object(report, 3, spec=spec)) == policy
    assert mirror.reports_of_policy("gdpr") == frozenset()


def test_it_is_synced_only_when_all_was_listed() -> None:
    mirror = Mirror()
    for kind in Kind:
        mirror.replace(kind, Listing((), "1"))
    assert not mirror.synced
    mirror.replace_namespaces(Listing((), "1"))
    assert mirror.synced


@dataclass
class Server:
    """What is true, and all that was ever told about it."""

    version: int = 0
    tenants: dict[ObjectKey, dict[str, object]] = field(default_factory=dict)
    namespaces: dict[str, dict[str, object]] = field(default_factory=dict)
    history: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def next(self) -> int:
        self.version += 1
        return self.version


KEYS = st.builds(ObjectKey.tenant, st.sampled_from("mn"), st.sampled_from("abc"))
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "storeRef": st.builds(lambda name: {"name": name}, st.sampled_from("xy")),
        "retentionPolicyRef": st.builds(lambda name: {"name": name}, st.sampled_from("pq")),
    },
)


class MirrorFollowsTheServer(RuleBasedStateMachine):
    """Changes, a watch that loses and repeats, and lists that arrive late, in any order.

    ``owed`` are the keys whose last reconcile may be out of date; the mirror must have returned
    each of them once it shows the truth.
    """

    lists = Bundle("lists")

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.mirror = Mirror()
        self.delivered = 0
        self.listed_at = -1
        self.floors: dict[ObjectKey, int] = {}
        self.reconciled: dict[ObjectKey, object] = {}

    @rule(key=KEYS, spec=SPECS, status=st.sampled_from(["", "x", "y"]))
    def declare(self, key: ObjectKey, spec: dict[str, object], status: str) -> None:
        version = self.server.next()
        known = self.server.tenants.get(key)
        raw = raw_object(
            key,
            version,
            uid=known["metadata"]["uid"] if known else f"u{version}",  # type: ignore[index]
            generation=version,
            spec=spec,
            status={"store": status} if status else {},
        )
        self.server.tenants[key] = raw
        self.server.history.append(("tenant", "MODIFIED" if known else "ADDED", raw))

    @rule(key=KEYS)
    def delete(self, key: ObjectKey) -> None:
        known = self.server.tenants.pop(key, None)
        if known is not None:
            metadata = {**known["metadata"], "resourceVersion": str(self.server.next())}  # type: ignore[dict-item]
            self.server.history.append(("tenant", "DELETED", {**known, "metadata": metadata}))

    @rule(name=st.sampled_from("mn"), label=st.sampled_from("12"))
    def label_namespace(self, name: str, label: str) -> None:
        raw = raw_namespace(name, self.server.next(), labels={"l": label})
        self.server.namespaces[name] = raw
        self.server.history.append(("namespace", "MODIFIED", raw))

    @rule(name=st.sampled_from("mn"))
    def delete_namespace(self, name: str) -> None:
        if self.server.namespaces.pop(name, None) is not None:
            gone = raw_namespace(name, self.server.next())
            self.server.history.append(("namespace", "DELETED", gone))

    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        for _ in range(count):
            if self.delivered < len(self.server.history):
                self._observe(*self.server.history[self.delivered])
                self.delivered += 1

    @rule()
    def lose_everything_up_to_now(self) -> None:
        self.delivered = len(self.server.history)

    @rule(back=st.integers(1, 5))
    def repeat(self, back: int) -> None:
        self.delivered = max(0, self.delivered - back)

    @rule(target=lists)
    def begin_list(self) -> tuple[Listing[Declared], Listing[NamespaceInfo]]:
        version = str(self.server.version)
        tenants = (declared_from(Kind.TENANT, raw) for raw in self.server.tenants.values())
        namespaces = (namespace_from(raw) for raw in self.server.namespaces.values())
        return Listing(tuple(tenants), version), Listing(tuple(namespaces), version)

    @rule(lists=lists)
    def end_list(self, lists: tuple[Listing[Declared], Listing[NamespaceInfo]]) -> None:
        tenants, namespaces = lists
        self.listed_at = max(self.listed_at, int(tenants.resource_version))
        self._reconcile(self.mirror.replace(Kind.TENANT, tenants))
        self._reconcile(self.mirror.replace_namespaces(namespaces))

    @rule()
    def list_at_once(self) -> None:
        self.end_list(self.begin_list())
        assert self._shown() == {
            key: declared_from(Kind.TENANT, raw) for key, raw in self.server.tenants.items()
        }
        for name in "mn":
            raw = self.server.namespaces.get(name)
            assert self.mirror.namespace(name) == (raw and namespace_from(raw))

    @invariant()
    def indexes_agree_with_the_objects(self) -> None:
        shown = self._shown()
        for name in "pq":
            assert self.mirror.tenants_of_policy(name) == {
                key
                for key, tenant in shown.items()
                if tenant.spec.get("retentionPolicyRef") == {"name": name}
            }
        stores = {
            key: {tenant.spec.get("storeRef", {}).get("name"), tenant.status.get("store")} - {None}
            for key, tenant in shown.items()
        }
        for name in "xy":
            assert self.mirror.tenants_of_store(name) == {
                key for key, names in stores.items() if name in names
            }
        assert self.mirror.unplaced_tenants() == {k for k, names in stores.items() if not names}
        for name in "mn":
            assert self.mirror.tenants_in(name) == {k for k in shown if k.namespace == name}

    @invariant()
    def nothing_goes_back_in_time(self) -> None:
        """What is shown (or not) of each key was true since the newest list, and since what was
        shown before.
        """
        shown = self._shown()
        for key in {ObjectKey.tenant(namespace, name) for namespace in "mn" for name in "abc"}:
            here = int(shown[key].resource_version) if key in shown else None
            floor = self.floors.get(key, -1)
            begins = [
                begin
                for begin, end, version in self._states_of(key)
                if version == here and end > max(floor, self.listed_at)
            ]
            assert begins
            self.floors[key] = max(floor, begins[0])

    def _states_of(self, key: ObjectKey) -> list[tuple[int, float, int | None]]:
        """From when to before when each version (None: absent) was the truth."""
        life = self._life_of(key)
        ends: list[float] = [version for version, _ in life]
        begins = [-1, *(version for version, _ in life)]
        states = [None, *(version if alive else None for version, alive in life)]
        return list(zip(begins, [*ends, float("inf")], states, strict=True))

    def _life_of(self, key: ObjectKey) -> list[tuple[int, bool]]:
        life = []
        for what, event_type, raw in self.server.history:
            metadata = raw["metadata"]
            assert isinstance(metadata, dict)
            if what == "tenant" and (metadata["namespace"], metadata["name"]) == (
                key.namespace,
                key.name,
            ):
                life.append((int(metadata["resourceVersion"]), event_type != "DELETED"))
        return life

    @invariant()
    def no_change_was_kept_from_the_reconcile(self) -> None:
        for key in self.mirror.keys(Kind.TENANT) | self.reconciled.keys():
            assert self.reconciled.get(key) == self._input_of(key)

    def _observe(self, what: str, event_type: str, raw: dict[str, object]) -> None:
        if what == "tenant":
            self._reconcile(self.mirror.observe(Kind.TENANT, event_type, raw))
        else:
            self._reconcile(self.mirror.observe_namespace(event_type, raw))

    def _reconcile(self, keys: frozenset[ObjectKey]) -> None:
        for key in keys:
            self.reconciled[key] = self._input_of(key)

    def _input_of(self, key: ObjectKey) -> object:
        """What a reconcile would read: the object without its status, and its namespace."""
        seen = self.mirror.get(key)
        if seen is None:
            return None
        namespace = self.mirror.namespace(key.namespace)
        labels = None if namespace is None else dict(namespace.labels)
        return seen.uid, seen.generation, seen.spec, labels

    def _shown(self) -> dict[ObjectKey, Declared]:
        shown = {key: self.mirror.get(key) for key in self.mirror.keys(Kind.TENANT)}
        return {key: tenant for key, tenant in shown.items() if tenant is not None}


TestMirrorFollowsTheServer = MirrorFollowsTheServer.TestCase
TestMirrorFollowsTheServer.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None
)
