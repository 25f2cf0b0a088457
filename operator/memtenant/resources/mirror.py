"""Every declared object in memory, kept true by watch events and periodic lists.

A watch can miss deletions across a relist and repeat what was known, and a list can be older than
the events that arrived while it was read. So nothing goes back in time here: an object changes only
to a newer resourceVersion (comparable as numbers, as Kubernetes specifies since 1.35 and etcd has
always had it), a deletion is remembered until a list is newer than it, and what such a list lacked
comes back only as something newer than the list.

Each change returns the keys to reconcile: the object's own, unless only its status changed or a
finalizer was added, and of those that depend on it. Objects are kept packed
(`memtenant.resources.packing`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from memtenant.resources.packing import Entry, Sight, packed, unpacked
from memtenant.resources.port import Declared, Kind, Listing, NamespaceInfo, ObjectKey
from memtenant.resources.reading import declared_from, namespace_from

__all__ = ["Mirror", "Relisting"]

Place = TypeVar("Place", bound=Hashable)

Keys = frozenset[ObjectKey]
_NOTHING: Keys = frozenset()


class Mirror:
    """The operator's picture of what is declared. Synchronous; one event loop, no locks.

    ``doubted``: it was kept by watches alone while another replica led, and may be behind what that
    one did last, until everything is listed anew.
    """

    def __init__(self) -> None:
        self.doubted = False
        self._objects: dict[Kind, dict[ObjectKey, Entry]] = {kind: {} for kind in Kind}
        self._buried: dict[Kind, dict[ObjectKey, int]] = {kind: {} for kind in Kind}
        self._kept: dict[ObjectKey, Declared] = {}
        self._listed_at: dict[Kind, int] = dict.fromkeys(Kind, -1)
        self._namespaces: dict[str, NamespaceInfo] = {}
        self._buried_namespaces: dict[str, int] = {}
        self._namespaces_listed_at = -1
        self._of_policy: defaultdict[str, set[ObjectKey]] = defaultdict(set)
        self._reports_of_policy: defaultdict[str, set[ObjectKey]] = defaultdict(set)
        self._of_store: defaultdict[str, set[ObjectKey]] = defaultdict(set)
        self._asking: defaultdict[str, set[ObjectKey]] = defaultdict(set)
        self._in_namespace: defaultdict[str, set[ObjectKey]] = defaultdict(set)
        self._of_secret: defaultdict[tuple[str, str], set[ObjectKey]] = defaultdict(set)
        self._unplaced: set[ObjectKey] = set()

    @property
    def synced(self) -> bool:
        """Whether each kind and the namespaces were listed once, and there is no doubt: before
        that, absence says nothing.
        """
        listed = min(self._namespaces_listed_at, *self._listed_at.values()) >= 0
        return listed and not self.doubted

    def listed_at(self, kind: Kind) -> int:
        """The resourceVersion of the last list of a kind; -1 before the first."""
        return self._listed_at[kind]

    @property
    def namespaces_at(self) -> int:
        """The resourceVersion of the last list of namespaces; -1 before the first."""
        return self._namespaces_listed_at

    def observe(self, kind: Kind, event_type: str | None, raw: Mapping[str, Any]) -> Keys:
        """A watch event in Kubernetes' JSON: ADDED, MODIFIED, DELETED, or None for "it exists"."""
        declared = declared_from(kind, raw)
        if event_type == "DELETED":
            return self._bury(declared.key, int(declared.resource_version))
        return self.put(declared)

    def put(self, declared: Declared) -> Keys:
        """An object as it was read or written by ourselves."""
        key = declared.key
        version = int(declared.resource_version)
        known = self._objects[key.kind].get(key)
        if known is not None and known.version >= version:
            return _NOTHING
        if known is None and self._gone_since(key, version):
            return _NOTHING
        self._buried[key.kind].pop(key, None)
        entry = packed(declared)
        self._objects[key.kind][key] = entry
        self._reindex(key, known, entry)
        return self._touched(key, known, entry) if entry.is_news_after(known) else _NOTHING

    def replace(self, kind: Kind, listing: Listing[Declared]) -> Keys:
        """A whole list: what is not in it and not newer than it is gone. Returns what changed."""
        relisting = Relisting(self, kind)
        relisting.add(listing)
        return relisting.finish()

    def end_list(self, kind: Kind, listed: set[ObjectKey], at: int) -> Keys:
        """All that a list as of ``at`` has was put: what it lacks and is not newer is gone."""
        changed: set[ObjectKey] = set()
        for key in self._objects[kind].keys() - listed:
            changed |= self._bury(key, at)
        self._listed_at[kind] = max(at, self._listed_at[kind])
        buried = self._buried[kind]
        self._buried[kind] = {key: version for key, version in buried.items() if version > at}
        return frozenset(changed)

    def observe_namespace(self, event_type: str | None, raw: Mapping[str, Any]) -> Keys:
        """A watch event of a namespace; its tenants are to be reconciled if it matters to them."""
        namespace = namespace_from(raw)
        if event_type == "DELETED":
            return self._bury_namespace(namespace.name, int(namespace.resource_version))
        return self.put_namespace(namespace)

    def put_namespace(self, namespace: NamespaceInfo) -> Keys:
        """A namespace as it was read."""
        version = int(namespace.resource_version)
        known = self._namespaces.get(namespace.name)
        if known is not None and int(known.resource_version) >= version:
            return _NOTHING
        buried_at = self._buried_namespaces.get(namespace.name, -1)
        gone_at = max(buried_at, self._namespaces_listed_at)
        if known is None and gone_at >= version:
            return _NOTHING
        self._buried_namespaces.pop(namespace.name, None)
        self._namespaces[namespace.name] = namespace
        if known is not None and _matters(known) == _matters(namespace):
            return _NOTHING
        return self.tenants_in(namespace.name)

    def replace_namespaces(self, listing: Listing[NamespaceInfo]) -> Keys:
        """The whole list of namespaces; returns the tenants of those that changed."""
        changed: set[ObjectKey] = set()
        at = int(listing.resource_version)
        listed = {namespace.name for namespace in listing}
        for name in self._namespaces.keys() - listed:
            changed |= self._bury_namespace(name, at)
        for namespace in listing:
            changed |= self.put_namespace(namespace)
        self._namespaces_listed_at = max(at, self._namespaces_listed_at)
        self._buried_namespaces = {
            name: version for name, version in self._buried_namespaces.items() if version > at
        }
        return frozenset(changed)

    def get(self, key: ObjectKey) -> Declared | None:
        """The object as last seen, unpacked anew at each call; but for the few that each tenant's
        reconcile asks for."""
        entry = self._objects[key.kind].get(key)
        if entry is None:
            return None
        if key.kind.namespaced:
            return unpacked(key, entry)
        known = self._kept.get(key)
        if known is None or known.resource_version != str(entry.version):
            known = self._kept[key] = unpacked(key, entry)
        return known

    def sight(self, key: ObjectKey) -> Sight | None:
        """The object as far as it is seen without unpacking it."""
        entry = self._objects[key.kind].get(key)
        return None if entry is None else entry.sight

    def keys(self, kind: Kind) -> Keys:
        """The keys of all objects of a kind."""
        return frozenset(self._objects[kind])

    def count(self, kind: Kind) -> int:
        """How many objects of a kind there are."""
        return len(self._objects[kind])

    def namespace(self, name: str) -> NamespaceInfo | None:
        """The namespace as last seen."""
        return self._namespaces.get(name)

    def tenants_of_policy(self, name: str) -> Keys:
        """The tenants whose spec names this RetentionPolicy."""
        return frozenset(self._of_policy.get(name, ()))

    def count_of_policy(self, name: str) -> int:
        """How many tenants' specs name this RetentionPolicy."""
        return len(self._of_policy.get(name, ()))

    def reports_of_policy(self, name: str) -> Keys:
        """The ComplianceReports about this RetentionPolicy."""
        return frozenset(self._reports_of_policy.get(name, ()))

    def tenants_of_store(self, name: str) -> Keys:
        """The tenants whose spec asks for this MemoryStore or whose status says they are on it."""
        return frozenset(self._of_store.get(name, ()))

    def tenants_in(self, namespace: str) -> Keys:
        """The tenants of a namespace."""
        return frozenset(self._in_namespace.get(namespace, ()))

    def tenants_asking_for(self, store: str) -> Keys:
        """The tenants that ask for this MemoryStore by name and have none yet."""
        return frozenset(self._asking.get(store, ()))

    def referring(self, namespace: str, secret: str) -> Keys:
        """The tenants of a namespace whose spec refers to a Secret of that name; the stores, where
        ``namespace`` is empty."""
        return frozenset(self._of_secret.get((namespace, secret), ()))

    def unplaced_tenants(self) -> Keys:
        """The tenants that ask for no store by name and have none yet: any store may take them."""
        return frozenset(self._unplaced)

    def _gone_since(self, key: ObjectKey, version: int) -> bool:
        """Whether an object that is not here was deleted after ``version``: it was seen to be, or a
        list newer than that lacked it.
        """
        return max(self._buried[key.kind].get(key, -1), self._listed_at[key.kind]) >= version

    def _bury(self, key: ObjectKey, version: int) -> Keys:
        known = self._objects[key.kind].get(key)
        if known is not None and known.version > version:
            return _NOTHING
        self._buried[key.kind][key] = max(version, self._buried[key.kind].get(key, -1))
        if known is None:
            return _NOTHING
        del self._objects[key.kind][key]
        self._kept.pop(key, None)
        self._reindex(key, known, None)
        return self._touched(key, known, None)

    def _bury_namespace(self, name: str, version: int) -> Keys:
        known = self._namespaces.get(name)
        if known is not None and int(known.resource_version) > version:
            return _NOTHING
        self._buried_namespaces[name] = max(version, self._buried_namespaces.get(name, -1))
        if self._namespaces.pop(name, None) is None:
            return _NOTHING
        return self.tenants_in(name)

    def _touched(self, key: ObjectKey, known: Entry | None, entry: Entry | None) -> Keys:
        """The object itself and what has to look at it again."""
        match key.kind:
            case Kind.POLICY:
                return self.tenants_of_policy(key.name) | {key}
            case Kind.STORE:
                return self.tenants_of_store(key.name) | self._unplaced | {key}
            case Kind.TENANT:
                return self._waiting_for(known, entry) | {key}
            case Kind.REPORT:
                policies = {one.policy for one in (known, entry) if one and one.policy}
                return frozenset(map(ObjectKey.policy, policies))

    def _waiting_for(self, known: Entry | None, entry: Entry | None) -> Keys:
        """The policy and stores in deletion that a tenant just left: they may go now."""
        if known is None:
            return _NOTHING
        left = {ObjectKey.store(name) for name in known.stores}
        if known.policy is not None:
            left.add(ObjectKey.policy(known.policy))
        if entry is not None:
            left -= {ObjectKey.store(name) for name in entry.stores}
            left -= {ObjectKey.policy(entry.policy)} if entry.policy is not None else set()
        return frozenset(
            key
            for key in left
            if (there := self._objects[key.kind].get(key)) is not None and there.sight.deleting
        )

    def _reindex(self, key: ObjectKey, known: Entry | None, entry: Entry | None) -> None:
        for secret in known.secrets if known is not None else ():
            _discard(self._of_secret, (key.namespace, secret), key)
        for secret in entry.secrets if entry is not None else ():
            self._of_secret[key.namespace, secret].add(key)
        if key.kind is Kind.REPORT:
            if known is not None:
                _discard(self._reports_of_policy, known.policy, key)
            if entry is not None and entry.policy is not None:
                self._reports_of_policy[entry.policy].add(key)
        elif key.kind is Kind.TENANT:
            self._reindex_tenant(key, known, entry)

    def _reindex_tenant(self, key: ObjectKey, known: Entry | None, entry: Entry | None) -> None:
        if known is not None:
            _discard(self._of_policy, known.policy, key)
            for store in known.stores:
                _discard(self._of_store, store, key)
                _discard(self._asking, store, key)
            _discard(self._in_namespace, key.namespace, key)
            self._unplaced.discard(key)
        if entry is None:
            return
        if entry.policy is not None:
            self._of_policy[entry.policy].add(key)
        for store in entry.stores:
            self._of_store[store].add(key)
            if not entry.placed:
                self._asking[store].add(key)
        if not entry.stores:
            self._unplaced.add(key)
        self._in_namespace[key.namespace].add(key)


class Relisting:
    """A list of one kind that comes in pages, all of one snapshot."""

    def __init__(self, mirror: Mirror, kind: Kind) -> None:
        self._mirror = mirror
        self._kind = kind
        self._listed: set[ObjectKey] = set()
        self._changed: set[ObjectKey] = set()
        self._at = -1

    def add(self, page: Listing[Declared]) -> None:
        """Take a page in."""
        self._at = int(page.resource_version)
        for declared in page:
            self._listed.add(declared.key)
            self._changed |= self._mirror.put(declared)

    def finish(self) -> Keys:
        """That was all of it: what changed, and is gone."""
        return frozenset(self._changed) | self._mirror.end_list(self._kind, self._listed, self._at)


def _discard(index: defaultdict[Place, set[ObjectKey]], name: Place | None, key: ObjectKey) -> None:
    if name is None:
        return
    index[name].discard(key)
    if not index[name]:
        del index[name]


def _matters(namespace: NamespaceInfo) -> tuple[str, bool, Mapping[str, str]]:
    return namespace.uid, namespace.terminating, namespace.labels
