"""The operator's part of forgetting a person, for all tenants of a store in one round.

What is asked is verified and entered (Requested); what the index names is deleted (Indexed); a
pass over the store that all erasures share finds the rest, and the data key goes (Rescanned); the
files of the nodes are written anew, once for all (Purged); and when no key is left that ever
wrapped the data key, older copies of the store are noise (CryptoErased). A round goes on from what
the receipts say.
"""

from __future__ import annotations

from memtenant.jobs.link import StoreLink
from memtenant.reconcile.erasure_steps import TenantErasures
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.world import World
from memtenant.stores import Sought
from memtenant.tenancy.erasure import ErasurePhase

__all__ = ["erase_persons"]

_PASSES = 3
"""Over the store in one round: each deletes what it finds, and the last one has to find nothing."""


async def erase_persons(world: World, link: StoreLink) -> Outcome:
    """One round over the store. In doubt nobody knows what is held: it waits."""
    if world.mirror.doubted:
        return Outcome(unfinished=len(link.erasing))
    await _look_for_receipts(link)
    waiting = set(await link.admin.erasure.waiting(link.tenants.keys()))
    marked, link.marks = link.marks, {}
    if marked:
        # What the measurement did not see again is gone.
        link.true_marks &= {
            (tenant, *one) for tenant, marks in marked.items() for one in marks.items()
        }
    link.erasing |= waiting
    # Both at once: one that comes back is looked at anew.
    link.erasing &= link.tenants.keys()
    link.looked_for_receipts &= link.tenants.keys()
    steps = [TenantErasures(world, link, tenant) for tenant in sorted(link.erasing)]
    for tenant in sorted(marked.keys() & link.tenants.keys()):
        judge = TenantErasures(world, link, tenant)
        await judge.attempt(judge.judge_marks(marked[tenant]))
        steps.append(judge)
    open_ = [
        step
        for step in steps[: len(link.erasing)]
        if await step.attempt(step.begin(step.tenant in waiting))
    ]
    await _rescan(link, open_)
    await _write_files(world, link, open_)
    for step in open_:
        await step.attempt(step.look_at_keys())
        if not step.unfinished():
            link.erasing.discard(step.tenant)
    did = tuple(words for step in steps for words in step.did)
    unfinished = sum(len(step.unfinished()) for step in open_)
    return Outcome(changed=bool(did), did=did, unfinished=unfinished)


async def _look_for_receipts(link: StoreLink) -> None:
    """Of tenants that are new to this process: erasures that another one began. And of all where
    another process is primary, which may not have the last that was written."""
    if not link.processes <= link.looked_on:
        link.looked_for_receipts.clear()
    link.looked_on = link.processes
    new = link.tenants.keys() - link.looked_for_receipts
    if new:
        link.erasing |= set(await link.admin.erasure.with_receipts(new))
        link.looked_for_receipts |= new


async def _rescan(link: StoreLink, steps: list[TenantErasures]) -> None:
    """Until a pass finds nothing more of anybody, or in the next round."""
    for _ in range(_PASSES):
        sought: list[Sought] = []
        for step in steps:
            if await step.attempt(step.seek()):
                sought += step.sought
        if not sought:
            return
        found = await link.admin.erasure.rescan(sought)
        for step in steps:
            await step.attempt(step.rescanned(found))


async def _write_files(world: World, link: StoreLink, steps: list[TenantErasures]) -> None:
    """Once for all that are ready, and not too often: each node forks for it."""
    ready = [step for step in steps if step.in_phase(ErasurePhase.RESCANNED)]
    now, last = world.clock.monotonic(), link.files_written_at
    if not ready or (last is not None and now - last < world.timing.files_pause.total_seconds()):
        return
    due = {step.tenant: [one.id for one in step.in_phase(ErasurePhase.RESCANNED)] for step in ready}
    left = await link.admin.rewrite_files()
    link.files_written_at = world.clock.monotonic()
    for step in ready:
        await step.attempt(step.purged(due[step.tenant], left))
