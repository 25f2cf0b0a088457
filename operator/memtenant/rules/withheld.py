"""Bindings that are not written, because somebody else's Secret has their name.

That concerns these agents alone: everything else of the tenant goes on being made what it should
be, and the tenant is told until somebody removes the Secret.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from memtenant.rules.placement import Refusal
from memtenant.tenancy.identity import AgentName, TenantId, binding_name

__all__ = ["Withheld", "withheld"]

_REASON = "ForeignSecret"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Withheld:
    """The agents whose bindings are withheld, and what is told of it; none where it is the record
    that nothing can be written to."""

    agents: frozenset[AgentName]
    refusal: Refusal


def withheld(tenant: TenantId, agents: Collection[AgentName]) -> Withheld | None:
    """What follows for these agents of the tenant; None where there are none."""
    if not agents:
        return None
    names = [f"{tenant.namespace}/{binding_name(tenant, agent)}" for agent in sorted(agents)]
    shown = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
    refusal = Refusal(
        _REASON,
        "",
        f"Secret {shown} has the name of a binding and not memtenant's labels for it, so it is "
        "left alone: remove it, and the binding is written, or rename the agent or the tenant. "
        "All else of the tenant goes on",
        retryable=True,
    )
    return Withheld(frozenset(agents), refusal)
