"""A server becomes one that tenants can be on: looked at, claimed, led, and proven."""

from __future__ import annotations

from memtenant.errors import StoreRefused
from memtenant.jobs.link import StoreLink
from memtenant.stores import StoreFacts

__all__ = ["inspect", "judge", "lead"]


async def lead(link: StoreLink) -> None:
    """Claim the server, lead it, and prove the rule template on it."""
    await link.admin.lead()
    await link.admin.load_functions()
    await link.admin.admit_agents()
    proof = await link.admin.prove_matrix()
    if not proof.holds:
        worst = (*proof.leaks, *proof.not_proven)[0]
        raise StoreRefused(
            f"{link.endpoint} ({proof.server}) does not keep tenants apart: {worst}",
            reason="IsolationNotProven",
        )
    link.proof = proof


async def inspect(link: StoreLink) -> StoreFacts:
    """Look at every node; `StoreRefused` for what tenants could not be safe on."""
    facts = await link.admin.discover()
    judge(facts)
    return facts


def judge(facts: StoreFacts) -> None:
    """`StoreRefused` for what tenants could not be safe on."""
    for node in facts.primaries:
        if node.evicts:
            raise StoreRefused(
                f"{node.address} evicts keys when it is full (maxmemory-policy "
                f"{node.maxmemory_policy}): set noeviction, so that no memory is lost silently",
                reason="EvictionEnabled",
            )
    for node in facts.nodes:
        if node.default_user_open:
            raise StoreRefused(
                f"{node.address} lets anybody in without a password as the default user, which no "
                "ACL can keep a tenant from becoming (RESET): ACL SETUSER default off, and save it",
                reason="DefaultUserOpen",
            )
