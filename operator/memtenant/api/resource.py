"""What every declared object has beside its spec and status."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from memtenant.api.conditions import Condition
from memtenant.api.fields import NAME_PATTERN, Model, Timestamp, map_list
from memtenant.api.rule import Rule
from memtenant.tenancy.identity import MAX_NAME

__all__ = [
    "API_VERSION",
    "CATEGORY",
    "GROUP",
    "NAMED_AS_A_LABEL",
    "VERSION",
    "Column",
    "Names",
    "ObjectMeta",
    "Resource",
    "Status",
]

GROUP = "memtenant.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "memtenant"

NAMED_AS_A_LABEL = Rule(
    cel=f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('{NAME_PATTERN}')",
    message=f"metadata.name must be a DNS label of at most {MAX_NAME} characters: use lower-case "
    "letters, digits and inner hyphens, no dots",
    check=lambda it, _: is_name(it["metadata"].get("name", "")),
)
"""At the root of every kind: names become parts of other names, keys and users."""


def is_name(text: str) -> bool:
    """Whether this is a DNS label of at most 40 characters."""
    return len(text) <= MAX_NAME and re.fullmatch(NAME_PATTERN[1:-1], text) is not None


class ObjectMeta(Model):
    """The part of ``metadata`` that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


class Status(Model):
    """What every status has: which spec it speaks of, and its conditions."""

    observed_generation: int | None = Field(
        default=None,
        description="The metadata.generation that this status speaks of. Smaller than "
        "metadata.generation: the operator has not looked at the latest spec yet.",
        ge=0,
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="What is so and why. Ready is always there; Reconciling and Stalled only "
        "while they are True (kstatus).",
        **map_list("type", 32),
    )


class Names(Model):
    """How the API server names a kind."""

    plural: str
    singular: str
    short: tuple[str, ...]
    namespaced: bool


class Column(Model):
    """One column of ``kubectl get``; ``wide`` ones show with ``-o wide`` only."""

    name: str
    path: str
    type: str = "string"
    description: str
    wide: bool = False


class Resource(Model):
    """Base of the declared kinds. ``metadata`` is Kubernetes' own; see `ObjectMeta`."""

    NAMES: ClassVar[Names]
    COLUMNS: ClassVar[tuple[Column, ...]]

    api_version: str = Field(default=API_VERSION)
    kind: str
    metadata: ObjectMeta

    @classmethod
    def kind_name(cls) -> str:
        """The ``kind`` that this model is of."""
        return cls.__name__

    def labels(self) -> Mapping[str, str]:
        """The object's labels."""
        return self.metadata.labels
