"""MemoryStore: a Redis or Valkey server that tenants share, or the template of those that Strict
tenants get for themselves, and what tenants may ask of it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints

from memtenant.api.dedicated import Dedicated
from memtenant.api.fields import (
    DeletionPolicy,
    Isolation,
    Model,
    Name,
    QuantityField,
    Residency,
    SecretKey,
    SecretKeyRef,
    SecretName,
    set_list,
)
from memtenant.api.quantity import Quantity
from memtenant.api.resource import NAMED_AS_A_LABEL, Column, Names, Resource
from memtenant.api.rule import Rule, ruled
from memtenant.api.selector import AllowedNamespaces
from memtenant.api.store_status import MemoryStoreStatus

__all__ = [
    "Capacity",
    "ClientCertificateRef",
    "Cluster",
    "MemoryStore",
    "MemoryStoreSpec",
    "Sentinel",
    "Standalone",
    "StoreTls",
    "TenantPolicy",
]

_ENDPOINT_PATTERN = (
    r"^([a-zA-Z0-9]([-a-zA-Z0-9.]{0,251}[a-zA-Z0-9])?|\[[0-9a-fA-F:.]{2,45}\]):[1-9][0-9]{0,4}$"
)
_MASTER_NAME_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_USERNAME_PATTERN = r"^[A-Za-z0-9][-A-Za-z0-9_.]*$"
_SERVER_NAME_PATTERN = r"^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$"


Endpoint = Annotated[
    str, StringConstraints(pattern=_ENDPOINT_PATTERN, min_length=3, max_length=260)
]
"""Where a server listens: ``valkey.redis.svc:6379`` or ``[fd00::1]:6379``."""


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
