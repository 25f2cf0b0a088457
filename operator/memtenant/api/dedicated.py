"""The template of the instances that Strict tenants get for themselves."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from memtenant.api.fields import Model, Name, map_list
from memtenant.api.rule import ruled
from memtenant.api.selector import LABEL_KEYS

__all__ = [
    "Dedicated",
    "DedicatedPersistence",
    "DedicatedResources",
    "DedicatedScheduling",
    "DedicatedTls",
    "Fsync",
    "TlsMode",
    "Toleration",
]

_CPU_PATTERN = r"^([1-9][0-9]{0,5}m|[1-9][0-9]{0,3})$"
_IMAGE_PATTERN = r"^[a-zA-Z0-9]([-a-zA-Z0-9._/:@]*[a-zA-Z0-9])?$"
_STORAGE_CLASS_PATTERN = r"^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$"


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
            str, StringConstraints(pattern=_STORAGE_CLASS_PATTERN, min_length=1, max_length=253)
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
