"""The keys that authenticate audit events: one for each agent and version of its binding.

All come from the audit root, and so does nothing else: the sealer, which checks the events' MACs,
holds that root and can derive no tenant's key from it.
"""

from __future__ import annotations

from typing import Final

from memtenant.crypto.primitives import SecretKey, derive
from memtenant.tenancy.identity import AgentName

__all__ = ["INSTALLATION_LOG", "audit_mac_key", "audit_root"]

INSTALLATION_LOG: Final = "installation"
"""The log of what is about no tenant. A tenantId has a dot, so none is named so."""


def audit_root(installation_root: SecretKey) -> SecretKey:
    """What all audit keys of an installation derive from."""
    return derive(installation_root, "memtenant/1/audit-root")


def audit_mac_key(root: SecretKey, log: str, agent: AgentName, binding_version: int) -> SecretKey:
    """The key that authenticates an agent's audit events, of one version of its binding.

    ``log`` is the tenantId, or `INSTALLATION_LOG`. ``root`` is the audit root, not the tenant's:
    who holds a tenant's root key must not be able to write another agent's events.
    """
    return derive(
        root,
        "memtenant/1/audit",
        log.encode(),
        agent.encode(),
        binding_version.to_bytes(8, "big"),
    )
