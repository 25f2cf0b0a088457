"""Selecting objects and namespaces by their labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from memtenant.api.fields import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN, Model
from memtenant.api.rule import Rule, ruled

__all__ = [
    "LABEL_KEYS",
    "AllowedNamespaces",
    "LabelSelector",
    "NamespacesFrom",
    "SelectorOperator",
    "SelectorRequirement",
]

_LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]


class NamespacesFrom(StrEnum):
    """Which namespaces may refer to a cluster-scoped object."""

    ALL = "All"
    SELECTOR = "Selector"


class SelectorOperator(StrEnum):
    """How a selector requirement relates a label to its values."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class SelectorRequirement(Model):
    """One requirement on one label."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                cel="(self.operator in ['In', 'NotIn'])"
                " == (has(self.values) && self.values.size() > 0)",
                message="operator In or NotIn needs at least one of values; "
                "Exists and DoesNotExist take none",
                check=lambda it, _: (it["operator"] in ("In", "NotIn")) == bool(it.get("values")),
                field=".values",
            )
        )
    )

    key: Annotated[
        str, StringConstraints(pattern=LABEL_KEY_PATTERN, min_length=1, max_length=317)
    ] = Field(description="Label key, as team or example.com/team.")
    operator: SelectorOperator = Field(
        description="In and NotIn compare with values; Exists and DoesNotExist look for the key."
    )
    values: tuple[_LabelValue, ...] = Field(
        default=(),
        description="Label values for In and NotIn.",
        max_length=32,
        json_schema_extra=ruled(**{"x-kubernetes-list-type": "atomic"}),
    )


LABEL_KEYS = Rule(
    cel=f"self.all(k, k.size() <= 317 && k.matches(r'{LABEL_KEY_PATTERN}'))",
    message="each key must be a label key, as team or example.com/team",
    check=lambda it, _: all(
        len(key) <= 317 and re.search(LABEL_KEY_PATTERN[:-1] + r"\Z", key) for key in it
    ),
)
"""Of a map whose keys are those of labels."""


class LabelSelector(Model):
    """Objects by their labels, as everywhere in Kubernetes; an empty selector matches all."""

    match_labels: dict[str, _LabelValue] = Field(
        default_factory=dict,
        description="Labels that must all be there with these values.",
        max_length=16,
        json_schema_extra=ruled(LABEL_KEYS),
    )
    match_expressions: tuple[SelectorRequirement, ...] = Field(
        default=(),
        description="Requirements that must all hold.",
        max_length=16,
        json_schema_extra=ruled(**{"x-kubernetes-list-type": "atomic"}),
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            _holds(requirement, labels) for requirement in self.match_expressions
        )


def _holds(requirement: SelectorRequirement, labels: Mapping[str, str]) -> bool:
    match requirement.operator:
        case SelectorOperator.IN:
            return labels.get(requirement.key) in requirement.values
        case SelectorOperator.NOT_IN:
            return labels.get(requirement.key) not in requirement.values
        case SelectorOperator.EXISTS:
            return requirement.key in labels
        case SelectorOperator.DOES_NOT_EXIST:
            return requirement.key not in labels


class AllowedNamespaces(Model):
    """Which namespaces' tenants may use this object."""

    model_config = ConfigDict(
        json_schema_extra=ruled(
            Rule(
                cel="(self.from == 'Selector') == has(self.selector)",
                message="from: Selector needs a selector; with from: All leave selector out",
                check=lambda it, _: (it["from"] == "Selector") == ("selector" in it),
                field=".selector",
            )
        )
    )

    from_: NamespacesFrom = Field(
        default=NamespacesFrom.ALL,
        alias="from",
        description="All: tenants of every namespace. Selector: tenants of the namespaces whose "
        "labels the selector matches.",
    )
    selector: LabelSelector | None = Field(
        default=None, description="The namespaces, by their labels. Only with from: Selector."
    )

    def admit(self, namespace_labels: Mapping[str, str]) -> bool:
        """Whether a tenant in a namespace with these labels may use the object."""
        return self.selector is None or self.selector.matches(namespace_labels)
