"""Which agents a tenant lists: only for these does the SDK ask the server anything."""

from __future__ import annotations

from collections.abc import Iterable

from memtenant.errors import AgentNotListed, UsageError
from memtenant.memory.source import OpenBinding

__all__ = ["require_listed", "require_shared"]


def require_listed(opened: OpenBinding, agents: Iterable[str]) -> None:
    """Raise `AgentNotListed` for a name that the tenant does not list.

    A binding of an older operator does not say who is listed: then the server decides alone.
    """
    listed = opened.binding.policy.agents
    if listed is None:
        return
    for agent in agents:
        if agent not in listed:
            raise AgentNotListed(
                f"Tenant {opened.binding.tenant} lists no agent {agent!r}, only "
                f"{', '.join(listed)}: name one of them, or have it added to spec.agents of the "
                "MemoryTenant"
            )


def require_shared(opened: OpenBinding, agent: str | None) -> None:
    """Raise `UsageError` for another agent's conversation where each agent has its own."""
    if opened.owner and agent not in (None, opened.owner):
        raise UsageError(
            f"Tenant {opened.binding.tenant} has isolation Strict: agent {opened.owner} cannot "
            f"open a conversation of agent {agent!r}. Share what both need by shared_context()"
        )
