"""The names of everything that memtenant keeps in Redis (DATA.md, Keys).

All keys of a tenant share the hash tag ``{<tenantId>}``: one slot of a Cluster. Ids of users,
sessions and contexts enter a name only as keyed hashes, made by `memtenant.crypto`.
"""

from __future__ import annotations

import re

from memtenant.tenancy.identity import AgentName, TenantId

__all__ = [
    "INSTALLATION_QUEUE",
    "STORE_AUDITED",
    "STORE_EPOCH",
    "STORE_OWNER",
    "STORE_SEALER",
    "STORE_TOLD",
    "access",
    "audit_queue",
    "conversations",
    "dek",
    "erasure_receipts",
    "erasure_requests",
    "limits",
    "own_alias",
    "own_scope",
    "owner_of",
    "passes",
    "prefix",
    "records",
    "sealer_report",
    "shared_alias",
    "subject_index",
    "tenant_of",
    "untold",
    "usage",
]

STORE_OWNER = "mt:store:owner"
"""HASH: which installation of memtenant provisions this store, and since when."""

STORE_EPOCH = "mt:store:epoch"
"""STRING: the term of the leading operator; writes of an earlier term are fenced off."""

INSTALLATION_QUEUE = "mt:store:q"
"""LIST: audit events about no tenant that await the sealer."""

STORE_AUDITED = "mt:store:audited"
"""HASH: tenantId → how it is audited (`memtenant.tenancy.audited`): whose queues are drained."""

STORE_TOLD = "mt:store:told"
"""HASH: policy or store → which generation of it the installation's log was told of."""

STORE_SEALER = "mt:store:sealer"
"""HASH: what the sealer says of its last seal, for the operator to show."""

_TENANT_KEY = re.compile(
    rb"mt:\{([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?)\}:"
)


def prefix(tenant: TenantId) -> str:
    """What every key of the tenant starts with."""
    return f"mt:{{{tenant}}}:"


def records(tenant: TenantId) -> str:
    """What every key of the tenant's content (conversations, contexts) starts with."""
    return f"{prefix(tenant)}r:"


def dek(tenant: TenantId, alias: str) -> str:
    """HASH: one subject's wrapped data key and audit alias."""
    return f"{prefix(tenant)}k:{alias}"


def subject_index(tenant: TenantId, alias: str) -> str:
    """LIST: where one subject's records are."""
    return f"{prefix(tenant)}i:{alias}"


def own_scope(agent: AgentName) -> str:
    """The scope of an agent's own conversations under Strict isolation. No name of an agent holds
    an underscore, so the scopes ``_`` and ``c`` are nobody's, and none begins another."""
    return f"{agent}_"


def own_alias(agent: AgentName, alias: str) -> str:
    """The alias of a subject among an agent's own keys under Strict isolation."""
    return f"{agent}_{alias}"


def shared_alias(alias: str) -> str:
    """The alias of what all agents share under Strict isolation."""
    return f"_{alias}"


def owner_of(alias: str) -> AgentName:
    """Whose an alias of a tenant under Strict isolation is; empty for what all agents share."""
    return alias.partition("_")[0]


def conversations(tenant: TenantId) -> str:
    """ZSET: conversation → time of its oldest record (advisory)."""
    return f"{prefix(tenant)}x"


def usage(tenant: TenantId) -> str:
    """HASH: usage counters (advisory; measurement corrects them)."""
    return f"{prefix(tenant)}u"


def audit_queue(tenant: TenantId) -> str:
    """LIST: audit events that await the sealer; agents may only RPUSH."""
    return f"{prefix(tenant)}q"


def erasure_requests(tenant: TenantId) -> str:
    """LIST: requests to erase a person that await the operator; agents may only RPUSH."""
    return f"{prefix(tenant)}e"


def erasure_receipts(tenant: TenantId) -> str:
    """HASH: request → how far its erasure is; agents may read it, only the operator writes."""
    return f"{prefix(tenant)}o:erasures"


def limits(tenant: TenantId) -> str:
    """HASH: what the operator allows; agents may read it, only the operator writes."""
    return f"{prefix(tenant)}o:limits"


def sealer_report(tenant: TenantId) -> str:
    """HASH: what the sealer says of the tenant's log, for the operator to show."""
    return f"{prefix(tenant)}o:audit"


def untold(tenant: TenantId) -> str:
    """HASH: what the operator removed and has yet to tell the audit; the operator's alone."""
    return f"{prefix(tenant)}o:untold"


def passes(tenant: TenantId) -> str:
    """STRING: when the operator looked at all that the tenant has; the operator's alone."""
    return f"{prefix(tenant)}o:passes"


def access(tenant: TenantId) -> str:
    """HASH: the access state that the tenant's ACL is rendered from; the operator's alone."""
    return f"{prefix(tenant)}o:access"


def tenant_of(key: bytes) -> TenantId | None:
    """The tenant that a key belongs to, or None for a key that memtenant did not name."""
    found = _TENANT_KEY.match(key)
    if found is None:
        return None
    namespace, _, name = found.group(1).decode().partition(".")
    return TenantId(namespace, name)
