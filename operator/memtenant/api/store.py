"""MemoryStore: a Redis or Valkey server that tenants share, or the template of those that Strict
tenants get for themselves, and what tenants may ask of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints

from memtenant.api.fields import (
    DeletionPolicy,
    Isolation,
    MeasuredBytes,
    Model,
    Name,
    QuantityField,
    Residency,
    SecretKey,
    SecretKeyRef,
    SecretName,
    Timestamp,
    map_list,
    set_list,
)
from memtenant.api.quantity import Quantity
from memtenant.api.resource import NAMED_AS_A_LABEL, Column, Names, Resource, Status
from memtenant.api.rule import Rule, ruled
from memtenant.api.selector import LABEL_KEYS, AllowedNamespaces

__all__ = [
    "AclState",
    "Capacity",
    "ClientCertificateRef",
    "Cluster",
    "Dedicated",
    "DedicatedPersistence",
    "DedicatedResources",
    "DedicatedScheduling",
    "DedicatedTls",
    "Durable",
    "Fsync",
    "IsolationProof",
    "LastSeal",
    "MemoryStore",
    "MemoryStoreSpec",
    "MemoryStoreStatus",
    "NodeRole",
    "NodeStatus",
    "Orphan",
    "Sentinel",
    "Standalone",
    "StoreFlavour",
    "StoreTls",
    "TenantPolicy",
    "TlsMode",
    "Toleration",
    "UserPersistence",
]

_ENDPOINT_PATTERN = (
    r"^([a-zA-Z0-9]([-a-zA-Z0-9.]{0,251}[a-zA-Z0-9])?|\[[0-9a-fA-F:.]{2,45}\]):[1-9][0-9]{0,4}$"
)
_MASTER_NAME_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_USERNAME_PATTERN = r"^[A-Za-z0-9][-A-Za-z0-9_.]*$"
_CPU_PATTERN = r"^([1-9][0-9]{0,5}m|[1-9][0-9]{0,3})$"
_IMAGE_PATTERN = r"^[a-zA-Z0-9]([-a-zA-Z0-9._/:@]*[a-zA-Z0-9])?$"
_SERVER_NAME_PATTERN = r"^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$"


Endpoint = Annotated[
    str, StringConstraints(pattern=_ENDPOINT_PATTERN, min_length=3, max_length=260)
]
"""Where a server listens: ``valkey.redis.svc:6379`` or ``[fd00::1]:6379``."""


class StoreFlavour(StrEnum):
    """What shape of installation the store is."""

    STANDALONE = "Standalone"
    SENTINEL = "Sentinel"
    DEDICATED = "Dedicated"
    CLUSTER = "Cluster"


class NodeRole(StrEnum):
    """What a server is to the others."""

    PRIMARY = "Primary"
    REPLICA = "Replica"


class AclState(StrEnum):
    """Whether a server's users are those that the tenants call for."""

    IN_SYNC = "InSync"
    REPAIRING = "Repairing"
    UNREACHABLE = "Unreachable"


class UserPersistence(StrEnum):
    """How a server's users survive its restart."""

    ACL_FILE = "ACLFile"
    REPROVISIONED = "Reprovisioned"


class Standalone(Model):
    """One primary, with or without replicas, which the operator finds by itself."""

    endpoint: Endpoint = Field(
        description="host:port of the primary, as valkey.redis.svc:6379 or [fd00::1]:6379. Agents "
        "connect to the same address: use one that their pods resolve."
    )


class Sentinel(Model):
    """A primary and its replicas, of which Sentinels make another the primary when it fails."""

    endpoints: tuple[Endpoint, ...] = Field(
        min_length=1,
        description="host:port of the Sentinels, all of them if possible. Agents ask the same "
        "addresses: use ones that their pods resolve.",
        **set_list(16),
    )
    master_name: Annotated[
        str, StringConstraints(pattern=_MASTER_NAME_PATTERN, min_length=1, max_length=128)
    ] = Field(description="The name under which the Sentinels watch the primary.")
    auth_secret_ref: SecretKeyRef = Field(
        description="The Sentinels' requirepass: a Secret in the operator's namespace. Never given "
        "to agents, for whom the operator makes a user on each Sentinel that may ask for the "
        "primary's address and nothing else. A Sentinel without a password is refused: whoever may "
        "command it can send every agent to a server of his own."
    )


class Fsync(StrEnum):
    """When an instance's append-only file is on disk."""

    EVERY_SECOND = "EverySecond"
    ALWAYS = "Always"


class TlsMode(StrEnum):
    """Whether connections are protected by TLS."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class DedicatedTls(Model):
    """How connections to an instance are protected."""

    mode: TlsMode = Field(
        default=TlsMode.ENABLED,
        description="Enabled: TLS under an authority that the operator makes, whose certificate is "
        "in the bindings as ca.crt. Disabled: in clear. A change restarts one instance after the "
        "other.",
    )


class DedicatedPersistence(Model):
    """How an instance keeps its data. The append-only file is always on."""

    fsync: Fsync = Field(
        default=Fsync.EVERY_SECOND,
        description="EverySecond: a crash of the node may lose the last second of writes. Always: "
        "a write is on disk before it is answered; slower.",
    )


class DedicatedResources(Model):
    """What an instance asks of its node beside memory, which follows from the tenant's quota."""

    cpu: Annotated[str, StringConstraints(pattern=_CPU_PATTERN, max_length=7)] = Field(
        default="100m",
        description="CPU that its node keeps for the instance, as 500m or 2. There is no limit.",
    )


class Toleration(Model):
    """A taint that an instance's pod bears, as in a pod's spec."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=317)] = Field(
        description="Key of the taint."
    )
    value: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        default=None, description="Its value. Left out: any."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Its effect. Left out: any."
    )


class DedicatedScheduling(Model):
    """On which nodes instances may run."""

    node_selector: dict[str, Annotated[str, StringConstraints(max_length=63)]] = Field(
        default_factory=dict,
        description="Labels that a node must have with these values.",
        max_length=16,
        json_schema_extra=ruled(LABEL_KEYS),
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), description="Taints that an instance's pod bears.", **map_list("key", 16)
    )
    priority_class_name: Name | None = Field(
        default=None, description="PriorityClass of an instance's pod. Left out: the cluster's."
    )


class Dedicated(Model):
    """What each Strict tenant's instance is like: a StatefulSet of one Valkey or Redis, in the
    operator's namespace, that nobody else uses."""

    image: Annotated[
        str, StringConstraints(pattern=_IMAGE_PATTERN, min_length=1, max_length=512)
    ] = Field(
        description="Image with valkey-server or redis-server (7.0 or later) and a shell, as "
        "valkey/valkey:8.1. A changed image restarts one instance after the other, each only "
        "while all others work."
    )
    storage_class_name: (
        Annotated[
            str, StringConstraints(pattern=_SERVER_NAME_PATTERN, min_length=1, max_length=253)
        ]
        | None
    ) = Field(
        default=None,
        description="StorageClass of the instances' volumes, which must let them grow "
        "(allowVolumeExpansion) for a quota to be raised. Left out: the cluster's default. For "
        "new instances.",
    )
    tls: DedicatedTls = Field(
        default_factory=DedicatedTls, description="How connections to an instance are protected."
    )
    persistence: DedicatedPersistence = Field(
        default_factory=DedicatedPersistence, description="How an instance keeps its data."
    )
    resources: DedicatedResources = Field(
        default_factory=DedicatedResources, description="What an instance asks of its node."
    )
    scheduling: DedicatedScheduling = Field(
        default_factory=DedicatedScheduling, description="On which nodes instances may run."
    )


class Cluster(Model):
    """A Redis or Valkey Cluster, with all of its shards and their replicas."""

    endpoints: tuple[Endpoint, ...] = Field(
        min_length=1,
        description="host:port of some nodes, from which operator and agents find all others: one "
        "of each shard at least. Use addresses that agents' pods resolve.",
        **set_list(64),
    )


class ClientCertificateRef(Model):
    """A client certificate and its private key: a Secret as of type kubernetes.io/tls."""

    name: SecretName = Field(description="Name of the Secret.")
    key: SecretKey = Field(
        default="tls.crt", description="Key that holds the certificate chain (PEM)."
    )
    private_key: SecretKey = Field(
        default="tls.key", description="Key that holds the private key (PEM)."
    )


class StoreTls(Model):
    """How the store's connections are protected. An empty object: TLS under the system's CAs."""

    ca_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="The CA certificates (PEM) that sign the servers' certificates: a Secret in "
        "the operator's namespace. Copied into bindings as ca.crt. Left out: the system's CAs.",
    )
    client_secret_ref: ClientCertificateRef | None = Field(
        default=None,
        description="The operator's client certificate, for servers that ask for one: a Secret in "
        "the operator's namespace. Never given to agents.",
    )
    server_name: (
        Annotated[
            str, StringConstraints(pattern=_SERVER_NAME_PATTERN, min_length=1, max_length=253)
        ]
        | None
    ) = Field(
        default=None,
        description="The name to expect in the servers' certificates. Left out: the endpoint's "
        "host, or the first one's.",
    )


class TenantPolicy(Model):
    """What tenants may ask of this store. What is left out is not restricted."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                cel="!has(self.maxMemoryPerTenant) || !has(self.maxMemoryPerNamespace) || "
                "quantity(string(self.maxMemoryPerTenant))"
                ".compareTo(quantity(string(self.maxMemoryPerNamespace))) <= 0",
                message="maxMemoryPerTenant is more than maxMemoryPerNamespace, so no tenant could "
                "reach it: lower it, or raise maxMemoryPerNamespace",
                check=lambda it, _: (
                    not {"maxMemoryPerTenant", "maxMemoryPerNamespace"} <= it.keys()
                    or Quantity.parse(it["maxMemoryPerTenant"])
                    <= Quantity.parse(it["maxMemoryPerNamespace"])
                ),
                field=".maxMemoryPerTenant",
            )
        )
    )

    allowed_retention_policies: tuple[Name, ...] | None = Field(
        default=None,
        description="Names of the RetentionPolicies that tenants here may be under. Left out: any.",
        min_length=1,
        **set_list(64),
    )
    min_isolation: Isolation | None = Field(
        default=None,
        description="The least isolation that tenants here must have: Moderate refuses Minimal, "
        "Strict refuses both (only a dedicated store has it). Left out: Minimal.",
    )
    max_memory_per_tenant: QuantityField | None = Field(
        default=None, description="The largest quota.memory of one tenant. Left out: no bound."
    )
    max_memory_per_namespace: QuantityField | None = Field(
        default=None,
        description="The largest sum of quota.memory over a namespace's tenants on this store. "
        "Left out: no bound.",
    )
    allowed_deletion_policies: tuple[DeletionPolicy, ...] | None = Field(
        default=None,
        description="The deletionPolicy values that tenants here may have. Left out: any.",
        min_length=1,
        **set_list(3),
    )


class Capacity(Model):
    """How much the store has to give."""

    memory: QuantityField | None = Field(
        default=None,
        description="The largest sum of quota.memory over all tenants on this store: a tenant "
        "that does not fit is not placed. Left out: no bound.",
    )


class MemoryStoreSpec(Model):
    """Where the memory lies, how the operator gets in, and who may use it."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                cel="[has(self.standalone), has(self.sentinel), has(self.cluster), "
                "has(self.dedicated)].filter(given, given).size() == 1",
                message="say what the store is: set exactly one of standalone, sentinel, cluster, "
                "dedicated",
                check=lambda it, _: (
                    len({"standalone", "sentinel", "cluster", "dedicated"} & it.keys()) == 1
                ),
            ),
            Rule(
                cel="has(self.dedicated) != has(self.adminSecretRef)",
                message="adminSecretRef is how the operator logs in to a server that is there "
                "already: set it, unless the store is dedicated, whose instances get credentials "
                "of their own",
                check=lambda it, _: ("dedicated" in it) != ("adminSecretRef" in it),
                field=".adminSecretRef",
            ),
            Rule(
                cel="!has(self.dedicated) || !has(self.tls)",
                message="tls is about a server that is there already: remove it from a dedicated "
                "store",
                check=lambda it, _: not {"dedicated", "tls"} <= it.keys(),
                field=".tls",
            ),
        )
    )

    standalone: Standalone | None = Field(
        default=None,
        description="A Redis or Valkey server with or without replicas. Exactly one flavour of "
        "store must be given.",
    )
    sentinel: Sentinel | None = Field(
        default=None, description="A primary and its replicas under Sentinels."
    )
    cluster: Cluster | None = Field(
        default=None, description="A Cluster. All keys of a tenant are in one of its shards."
    )
    dedicated: Dedicated | None = Field(
        default=None,
        description="No server: the template of an instance that each tenant with isolation "
        "Strict gets for itself. Other tenants are not placed here.",
    )
    admin_username: Annotated[
        str, StringConstraints(pattern=_USERNAME_PATTERN, min_length=1, max_length=128)
    ] = Field(
        default="memtenant",
        description="The ACL user that the operator logs in as on every server. `memtenant store "
        "acl` prints the least that it needs.",
    )
    admin_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="The password of adminUsername: a Secret in the operator's namespace. Needed "
        "unless the store is dedicated.",
    )
    tls: StoreTls | None = Field(
        default=None,
        description="Connect by TLS, the operator and the agents. Left out: in clear.",
    )
    residencies: tuple[Residency, ...] = Field(
        default=(),
        description="Where the store's data lies, as eu-west. A tenant with a residency is only "
        "placed on a store that lists it.",
        **set_list(32),
    )
    default: bool = Field(
        default=False,
        description="Prefer this store for tenants that name none. With several defaults the "
        "first by name that fits is taken.",
    )
    allowed_namespaces: AllowedNamespaces = Field(
        default_factory=AllowedNamespaces,
        description="Which namespaces' tenants may use this store.",
    )
    tenant_policy: TenantPolicy = Field(
        default_factory=TenantPolicy, description="What tenants may ask of this store."
    )
    capacity: Capacity = Field(
        default_factory=Capacity, description="How much the store has to give."
    )


class NodeStatus(Model):
    """One server of the store."""

    address: str = Field(description="host:port of the server.", max_length=260)
    role: NodeRole = Field(description="Primary or Replica.")
    acl: AclState = Field(
        description="InSync: its users are those that the tenants call for. Repairing: they are "
        "being put back. Unreachable: the server does not answer."
    )
    users: int = Field(default=0, description="memtenant's users on this server.", ge=0)
    acl_file: bool = Field(
        default=False, description="Whether the server keeps its users in an aclfile."
    )


class Durable(Model):
    """What the primary's configuration promises about data."""

    aof: bool = Field(description="Whether the append-only file is on: writes survive a restart.")
    noeviction: bool = Field(
        description="Whether maxmemory-policy is noeviction: a full server refuses, it does not "
        "drop memories."
    )
    aclfile: bool = Field(description="Whether users survive a restart by themselves.")


class IsolationProof(Model):
    """The last proof that a tenant's user reaches its own keys and nobody else's."""

    server_version: str = Field(description="The server that was asked.", max_length=64)
    rule_template: str = Field(
        description="Digest of the ACL rule template that was proven.", max_length=64
    )
    commands: int = Field(description="How many commands the server lists.", ge=0)
    verified_at: Timestamp = Field(description="When the proof was made.")


class Orphan(Model):
    """A tenant's data whose MemoryTenant is gone: retained, or left behind by a lost store."""

    tenant_id: str = Field(description="<namespace>.<name> of the tenant.", max_length=104)
    namespace_uid: str = Field(
        default="",
        description="UID of the namespace that it belonged to: only a tenant there adopts it.",
        max_length=64,
    )
    since: Timestamp = Field(description="When its MemoryTenant was deleted.")


class LastSeal(Model):
    """A seal of the installation's audit log."""

    time: Timestamp = Field(description="When it was made.")
    size: int = Field(description="Leaves of the tree that it covers.", ge=0)
    root: str = Field(description="The root hash of the tree, in hexadecimal.", max_length=64)


class MemoryStoreStatus(Status):
    """What the operator found on the servers."""

    flavour: StoreFlavour | None = Field(
        default=None,
        description="The shape of the installation: Standalone, Sentinel, Cluster or Dedicated.",
    )
    server: str = Field(
        default="", description="What the servers run, as Valkey or Redis.", max_length=64
    )
    version: str = Field(default="", description="The primary's version.", max_length=64)
    owner: str = Field(
        default="",
        description="The installation of memtenant in the store's owner record.",
        max_length=253,
    )
    nodes: tuple[NodeStatus, ...] = Field(
        default=(),
        description="The servers, the first 64 of them by address.",
        **map_list("address", 64),
    )
    durable: Durable | None = Field(
        default=None, description="What the primary's configuration promises about data."
    )
    user_persistence: UserPersistence | None = Field(
        default=None,
        description="ACLFile: every server keeps its users in a file. Reprovisioned: the operator "
        "puts them back after a restart.",
    )
    tenants: int = Field(default=0, description="Tenants placed on this store.", ge=0)
    committed_memory: MeasuredBytes | None = Field(
        default=None, description="The sum of their quota.memory."
    )
    orphan_count: int = Field(
        default=0, description="Tenants whose data is here but whose MemoryTenant is gone.", ge=0
    )
    orphans: tuple[Orphan, ...] = Field(
        default=(),
        description="The first 100 of them by tenantId.",
        **map_list("tenantId", 100),
    )
    isolation: IsolationProof | None = Field(
        default=None, description="The last proof of isolation on this store."
    )
    last_seal: LastSeal | None = Field(
        default=None,
        description="One of the last seals of the audit log, renewed at most every 10 minutes.",
    )


class MemoryStore(Resource):
    """A Redis or Valkey server in which tenants' memory lies, and what tenants may ask of it."""

    model_config = ConfigDict(json_schema_extra=ruled(NAMED_AS_A_LABEL))

    NAMES: ClassVar[Names] = Names(
        plural="memorystores", singular="memorystore", short=("mstore", "mstores"), namespaced=False
    )
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column(name="Flavour", path=".status.flavour", description="Shape of the installation"),
        Column(name="Version", path=".status.version", description="The primary's version"),
        Column(
            name="Tenants",
            path=".status.tenants",
            type="integer",
            description="Tenants placed here",
        ),
        Column(
            name="Committed",
            path=".status.committedMemory",
            description="The sum of their memory quotas",
        ),
        Column(
            name="Default",
            path=".spec.default",
            type="boolean",
            description="Preferred for tenants that name no store",
        ),
        Column(
            name="Ready",
            path='.status.conditions[?(@.type=="Ready")].status',
            description="Whether tenants can be placed and repaired",
        ),
        Column(
            name="Reason",
            path='.status.conditions[?(@.type=="Ready")].reason',
            description="Why Ready is what it is",
        ),
        Column(
            name="Endpoint",
            path=".spec.standalone.endpoint",
            description="Address of the primary",
            wide=True,
        ),
        Column(
            name="Users",
            path=".status.userPersistence",
            description="How users survive a restart",
            wide=True,
        ),
        Column(
            name="Orphans",
            path=".status.orphanCount",
            type="integer",
            description="Tenants' data without a MemoryTenant",
            wide=True,
        ),
        Column(name="Age", path=".metadata.creationTimestamp", type="date", description="Age"),
    )

    kind: Literal["MemoryStore"] = "MemoryStore"
    spec: MemoryStoreSpec = Field(
        description="Where the memory lies, how the operator gets in, and who may use it."
    )
    status: MemoryStoreStatus = Field(
        default_factory=MemoryStoreStatus, description="What the operator found on the servers."
    )
