"""Who a tenant and an agent are, and the names that follow from it.

Names are DNS labels (RFC 1123), so none of them can hold a glob character of Redis' ACL patterns
(``* ? [ ] \\ { }``), a dot, or a colon: the joined names below are injective by construction.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from memtenant.errors import InvalidResource

__all__ = [
    "DEFAULT_AGENT",
    "MAX_NAME",
    "USER_PREFIX",
    "AgentName",
    "Slot",
    "TenantId",
    "agent_name",
    "agent_user",
    "binding_name",
    "child_name",
    "other_slot",
]

MAX_NAME = 40
"""Longest name of a tenant, store, policy or agent, in characters."""

_MAX_NAMESPACE = 63
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

DEFAULT_AGENT = "default"
"""The agent of a tenant that lists none."""

USER_PREFIX = "mt."
"""Every ACL user that memtenant makes starts so; no other user is ever touched."""

AgentName = str
Slot = str
"""``a`` or ``b``: an agent's two alternating usernames (DATA.md, Keys)."""


@dataclass(frozen=True, slots=True, order=True)
class TenantId:
    """``<namespace>.<name>``: unique in a cluster, and the hash tag of all the tenant's keys."""

    namespace: str
    name: str

    def __post_init__(self) -> None:
        _check_label("namespace", self.namespace, _MAX_NAMESPACE)
        _check_label("name", self.name, MAX_NAME)

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> TenantId:
        """The tenant that ``str(tenant_id)`` named; `InvalidResource` on any other text."""
        namespace, dot, name = text.partition(".")
        if not dot:
            raise InvalidResource(f"{text!r} is not a tenant id: write <namespace>.<name>")
        return cls(namespace, name)


def _check_label(what: str, text: str, longest: int) -> None:
    if len(text) > longest or not _LABEL.fullmatch(text):
        raise InvalidResource(
            f"{what} {text!r} is not a DNS label of at most {longest} characters: use lower-case "
            "letters, digits and inner hyphens",
            field=what,
        )


def agent_name(text: str) -> AgentName:
    """The text, if it can name an agent; `InvalidResource` otherwise."""
    _check_label("agent", text, MAX_NAME)
    return text


def agent_user(tenant: TenantId, agent: AgentName, slot: Slot) -> str:
    """The ACL username of one slot of an agent: ``mt.<namespace>.<name>.<agent>.<slot>``."""
    return f"{USER_PREFIX}{tenant}.{agent}.{slot}"


def other_slot(slot: Slot) -> Slot:
    """``b`` for ``a``, ``a`` for ``b``."""
    return "b" if slot == "a" else "a"


def child_name(parent: str, suffix: str, longest: int = 63) -> str:
    """``<parent>-<suffix>``, cut with a hash where it would pass ``longest`` characters.

    StatefulSets and CronJobs stop at 52 characters, most other children at 63.
    """
    whole = f"{parent}-{suffix}"
    if len(whole) <= longest:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: longest - 9].rstrip('-')}-{digest}"


def binding_name(tenant: TenantId, agent: AgentName) -> str:
    """The name of an agent's binding Secret, in the tenant's namespace: ``<tenant>-<agent>``."""
    return child_name(tenant.name, agent)
