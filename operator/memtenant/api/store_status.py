"""The status of a MemoryStore: what the operator found on the servers."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from memtenant.api.fields import MeasuredBytes, Model, Timestamp, map_list
from memtenant.api.resource import Status

__all__ = [
    "AclState",
    "Durable",
    "IsolationProof",
    "LastSeal",
    "MemoryStoreStatus",
    "NodeRole",
    "NodeStatus",
    "Orphan",
    "StoreFlavour",
    "UserPersistence",
]


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
    retention_policy: str = Field(
        default="",
        description="The RetentionPolicy that was in force: its reports tell of the data.",
        max_length=253,
    )


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
