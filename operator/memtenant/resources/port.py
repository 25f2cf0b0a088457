"""The port between a reconcile and what is declared: an API server, or a folder.

A reconcile sees declared objects (`Declared`), Secrets (`StoredSecret`, `SecretDraft`) and
namespaces through `Resources` and cannot tell which adapter answers. Every write is guarded: it
changes what was read, or raises `ResourceConflict` and changes nothing. A write that would change
nothing is not made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

__all__ = [
    "API_VERSION",
    "FIELD_MANAGER",
    "FOREIGN_SECRET",
    "GROUP",
    "MANAGED_BY_LABEL",
    "MANAGED_BY_VALUE",
    "OPAQUE",
    "OWNER_LABEL",
    "RECONCILED",
    "SECRET_ACCESS_MISSING",
    "STATUS_MANAGER",
    "VERSION",
    "CronJobs",
    "Declared",
    "EventType",
    "Kind",
    "Listing",
    "NamespaceInfo",
    "ObjectKey",
    "Resources",
    "SecretDraft",
    "StoredSecret",
]

GROUP = "memtenant.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

FIELD_MANAGER = "memtenant"
"""The field manager of all writes but those of a status."""

STATUS_MANAGER = "memtenant-status"
"""The field manager of the reconcile's status: another writer of status takes its own name."""

OWNER_LABEL = "memtenant.dev/owner"
"""On each Secret that memtenant makes: for whom, unique within the Secret's namespace."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY_VALUE = "memtenant"

SECRET_ACCESS_MISSING = "SecretAccessMissing"  # noqa: S105 -- a condition's reason
"""``reason`` of the `ResourceForbidden` raised where the operator may not touch Secrets."""

OPAQUE = "Opaque"
"""The type of a Secret that names none."""

FOREIGN_SECRET = "ForeignSecret"  # noqa: S105 -- a condition's reason
"""``reason`` of the `ResourceConflict` raised for a Secret of that name that is not ours."""


class Kind(Enum):
    """memtenant's kinds, by their names in Kubernetes: three that a user declares, and the reports
    that a job leaves."""

    STORE = "MemoryStore"
    POLICY = "RetentionPolicy"
    TENANT = "MemoryTenant"
    REPORT = "ComplianceReport"

    @property
    def plural(self) -> str:
        """The name in URLs: ``memorystores``."""
        return _PLURALS[self]

    @property
    def namespaced(self) -> bool:
        """Whether objects of this kind live in a namespace (else in the whole cluster)."""
        return self in (Kind.TENANT, Kind.REPORT)


_PLURALS = {
    Kind.STORE: "memorystores",
    Kind.POLICY: "retentionpolicies",
    Kind.TENANT: "memorytenants",
    Kind.REPORT: "compliancereports",
}

RECONCILED = (Kind.POLICY, Kind.STORE, Kind.TENANT)
"""The kinds that have a reconcile, each after those that it rests on."""


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """Which declared object. ``namespace`` is ``""`` for the cluster-scoped kinds."""

    kind: Kind
    namespace: str
    name: str

    def __post_init__(self) -> None:
        if bool(self.namespace) is not self.kind.namespaced:
            scope = "needs a namespace" if self.kind.namespaced else "is cluster-scoped"
            raise ValueError(f"{self.kind.value} {self.name!r} {scope}")

    def __str__(self) -> str:
        """``MemoryTenant/support/acme``, ``MemoryStore/shared-eu``."""
        return "/".join(part for part in (self.kind.value, self.namespace, self.name) if part)

    def __lt__(self, other: ObjectKey) -> bool:
        return str(self) < str(other)

    @classmethod
    def store(cls, name: str) -> ObjectKey:
        """The key of a MemoryStore."""
        return cls(Kind.STORE, "", name)

    @classmethod
    def policy(cls, name: str) -> ObjectKey:
        """The key of a RetentionPolicy."""
        return cls(Kind.POLICY, "", name)

    @classmethod
    def tenant(cls, namespace: str, name: str) -> ObjectKey:
        """The key of a MemoryTenant."""
        return cls(Kind.TENANT, namespace, name)

    @classmethod
    def report(cls, namespace: str, name: str) -> ObjectKey:
        """The key of a ComplianceReport."""
        return cls(Kind.REPORT, namespace, name)


@dataclass(frozen=True, slots=True)
class Declared:
    """A declared object as it was read. ``spec`` and ``status`` are raw JSON, never to be changed.

    ``generation`` grows with every change of spec; ``resource_version`` is opaque and differs
    after every write.
    """

    key: ObjectKey
    uid: str
    resource_version: str
    generation: int
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def deleting(self) -> bool:
        """Whether the object waits only for its finalizers."""
        return self.deletion_timestamp is not None


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A Secret as it was read. Its ``repr`` shows the keys of ``data``, never the values."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    type: str
    data: Mapping[str, bytes] = field(repr=False)
    owner_uids: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"StoredSecret({self.namespace}/{self.name}, type={self.type!r}, "
            f"resource_version={self.resource_version!r}, keys={sorted(self.data)})"
        )

    @property
    def owner(self) -> str | None:
        """For whom memtenant made it (`OWNER_LABEL`), or None: it is not ours."""
        if self.labels.get(MANAGED_BY_LABEL) != MANAGED_BY_VALUE:
            return None
        return self.labels.get(OWNER_LABEL)


@dataclass(frozen=True, slots=True)
class SecretDraft:
    """A Secret to be made. ``owner`` becomes `OWNER_LABEL`; no value of ``data`` is ever shown.

    ``owner`` is a label's value (at most 63 characters) and must differ between two things that
    might ask for a Secret of the same name. ``owned_by`` also sets an ownerReference, so that the
    Secret goes with that object; only for Secrets in the object's own namespace.
    """

    namespace: str
    name: str
    owner: str
    data: Mapping[str, bytes] = field(repr=False)
    type: str = OPAQUE
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owned_by: Declared | None = None

    def __post_init__(self) -> None:
        if not self.owner:
            raise ValueError(f"Secret {self.namespace}/{self.name} names no owner")
        if self.owned_by is not None and self.owned_by.key.namespace != self.namespace:
            raise ValueError(
                f"{self.owned_by.key} cannot own Secret {self.name} of namespace {self.namespace}"
            )

    def __repr__(self) -> str:
        return (
            f"SecretDraft({self.namespace}/{self.name}, owner={self.owner!r}, type={self.type!r}, "
            f"keys={sorted(self.data)})"
        )

    @property
    def all_labels(self) -> dict[str, str]:
        """``labels`` and the two that say whose it is."""
        return {
            **self.labels,
            MANAGED_BY_LABEL: MANAGED_BY_VALUE,
            OWNER_LABEL: self.owner,
        }


@dataclass(frozen=True, slots=True)
class NamespaceInfo:
    """A namespace: its uid tells it from a later one of the same name."""

    name: str
    uid: str
    labels: Mapping[str, str]
    terminating: bool
    resource_version: str = "0"


Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True, slots=True)
class Listing(Generic[Item]):
    """All objects as they were at ``resource_version``: a consistent snapshot."""

    items: tuple[Item, ...]
    resource_version: str

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class EventType(Enum):
    """How urgent an Event is, in Kubernetes' two words."""

    NORMAL = "Normal"
    WARNING = "Warning"


class CronJobs(Protocol):
    """CronJobs of the operator's own namespace, as JSON. Errors are those of `Resources`."""

    async def get(self, name: str) -> Mapping[str, Any] | None:
        """The CronJob, or None."""

    async def apply(self, manifest: Mapping[str, Any]) -> None:
        """Make the fields of ``manifest`` so (server-side apply), others' fields stay."""

    async def delete(self, name: str, uid: str) -> None:
        """Delete that very CronJob with its jobs; gone already is fine."""


class Resources(Protocol):
    """Reads and writes of declared objects, Secrets, namespaces and Events.

    Every method raises `ResourceUnavailable` if there was no answer after retries and
    `ResourceForbidden` if the operator may not do this (reason `SECRET_ACCESS_MISSING` for
    Secrets). A write on what has changed or gone since it was read raises `ResourceConflict` or
    `ResourceNotFound`.
    """

    @property
    def home(self) -> str:
        """The operator's own namespace: keyrings, retained-tenant records and Leases are there."""

    @property
    def cron_jobs(self) -> CronJobs | None:
        """What runs by itself; None where nothing does."""

    async def list(self, kind: Kind) -> Listing[Declared]:
        """All objects of a kind, in all namespaces."""

    async def pages(self, kind: Kind) -> AsyncIterator[Listing[Declared]]:
        """As `list`, in parts of one and the same snapshot: never all of them unpacked at once."""
        yield await self.list(kind)

    async def get(self, key: ObjectKey) -> Declared | None:
        """The object, or None."""

    async def add_finalizer(self, declared: Declared, finalizer: str) -> Declared:
        """The object with ``finalizer``; others' finalizers stay. No write if it is there."""

    async def remove_finalizer(self, declared: Declared, finalizer: str) -> None:
        """Take ``finalizer`` away, others stay; an object in deletion may vanish by it."""

    async def write_status(self, declared: Declared, status: Mapping[str, Any]) -> str:
        """Make ``status`` the whole of what `STATUS_MANAGER` says; returns the resourceVersion.

        An edit of the object meanwhile is no conflict: a status says by ``observedGeneration``
        what it speaks of. `ResourceConflict` or `ResourceNotFound` if the object is another one
        now. Cheapest with the newest `Declared`, as `add_finalizer` returns it.
        """

    async def get_secret(self, namespace: str, name: str) -> StoredSecret | None:
        """The Secret, or None."""

    async def create_secret(self, draft: SecretDraft) -> StoredSecret:
        """Make a Secret; `ResourceConflict` if one of that name exists, whoever made it."""

    async def replace_secret(self, stored: StoredSecret, data: Mapping[str, bytes]) -> StoredSecret:
        """Change all of ``data`` of the Secret that was read, or raise `ResourceConflict`."""

    async def apply_secret(
        self, draft: SecretDraft, *, current: StoredSecret | None
    ) -> StoredSecret:
        """Make the Secret that was read as ``current`` (None: absent) what ``draft`` says.

        All of ``data`` is replaced; labels and annotations of others stay. `ResourceConflict` with
        reason `FOREIGN_SECRET` if ``current`` is not ours or was made for another owner, plain if
        it changed or appeared since it was read. No write if nothing differs.
        """

    async def delete_secret(self, stored: StoredSecret) -> None:
        """Delete the very Secret that was read; gone already is fine, changed is a conflict."""

    async def list_secrets(
        self, namespace: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """The Secrets of a namespace that carry all of ``labels``."""

    async def list_secrets_lacking(
        self, namespace: str, label: str, labels: Mapping[str, str]
    ) -> tuple[StoredSecret, ...]:
        """The Secrets of type Opaque that carry all of ``labels`` and not ``label``, whatever its
        value: what lost it. Those of Helm and of bindings, which may be many bytes, are not read.
        """

    async def can_read_secrets(self, namespace: str) -> bool:
        """Whether the operator may get Secrets there: asks the authorizer, reads no Secret."""

    async def list_namespaces(self) -> Listing[NamespaceInfo]:
        """All namespaces."""

    async def get_namespace(self, name: str) -> NamespaceInfo | None:
        """The namespace, or None."""

    async def emit_event(
        self, declared: Declared, event_type: EventType, reason: str, message: str
    ) -> None:
        """Tell a person who looks at the object. The same words are not repeated for 10 minutes.

        An Event is advice: one that cannot be written is logged, never raised.
        """
