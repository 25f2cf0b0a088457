"""Whose turn it is to restart: of the instances of one store never two are away at once."""

from __future__ import annotations

from typing import NoReturn

from memtenant.api.conditions import ConditionStatus, ConditionType
from memtenant.errors import MemtenantError, StoreUnavailable
from memtenant.jobs.link import StoreLink
from memtenant.reconcile.world import World
from memtenant.resources.port import EventType, ObjectKey
from memtenant.rules.instance import Instance, Sighting
from memtenant.tenancy.identity import TenantId

__all__ = [
    "NotRunning",
    "end_turn",
    "has_turn",
    "not_running",
    "restart_in_turn",
    "restart_with_login",
]


class NotRunning(MemtenantError):
    """The instance does not run, or does not answer: looked at again soon. ``waits``: others of its
    store restart before it does."""

    retryable = True

    def __init__(self, message: str, *, reason: str, waits: bool = False) -> None:
        super().__init__(message, reason=reason)
        self.waits = waits


def not_running(world: World, wanted: Instance, why: str, *, waits: bool = False) -> NoReturn:
    """Say of the instance why it does not run. Raises `NotRunning`, always."""
    link = world.links.get(str(wanted.tenant))
    if link is not None and link.failure is None:
        link.failure = StoreUnavailable(why)
    message = f"The tenant's instance {wanted.name}: {why}"
    raise NotRunning(message, reason="InstanceNotReady", waits=waits)


async def restart_with_login(
    world: World, wanted: Instance, link: StoreLink, seen: Sighting
) -> None:
    """End the process that started before its Secret was made anew, or before a release that needs
    more, and reads it when it starts. Once: where that mends nothing, the refusal stands."""
    if link.restarted_for_login:
        end_turn(world, wanted.tenant)
        return
    why = "it restarts with the operator's login as it is now"
    turn = has_turn(world, wanted)
    if turn:
        link.restarted_for_login = True
        await _restart(world, wanted, link, seen, why)
    not_running(world, wanted, why, waits=not turn)


async def restart_in_turn(world: World, wanted: Instance, link: StoreLink, seen: Sighting) -> None:
    """End the process that runs with an earlier image, unless another instance of the store is
    away: an image that does not start stops the first instance, and no other."""
    if link.cut_off is not None:
        return  # at its start it would refuse its file
    others = world.ledger.committed(wanted.store).keys() - {wanted.tenant}
    if any(_is_away(world, other) for other in others):
        return
    if not has_turn(world, wanted):
        return
    why = f"it restarts with {wanted.template.image}"
    await _restart(world, wanted, link, seen, why)
    not_running(world, wanted, why)


def _is_away(world: World, tenant: TenantId) -> bool:
    """Whether the instance of another tenant does not answer, or nobody looked at it yet. Who was
    refused before it was ever served has none."""
    link = world.links.get(str(tenant))
    if link is not None:
        return not link.ready
    declared = world.mirror.get(ObjectKey.tenant(tenant.namespace, tenant.name))
    status = {} if declared is None else declared.status
    stalled = any(
        one.get("type") == ConditionType.STALLED and one.get("status") == ConditionStatus.TRUE
        for one in status.get("conditions", ())
    )
    return not stalled or bool(status.get("keyVersion"))


async def _restart(
    world: World, wanted: Instance, link: StoreLink, seen: Sighting, why: str
) -> None:
    link.failure = StoreUnavailable(why)
    await world.host.restart(wanted, seen)
    declared = world.mirror.get(ObjectKey.tenant(wanted.tenant.namespace, wanted.tenant.name))
    if declared is not None:
        await world.resources.emit_event(
            declared, EventType.NORMAL, "InstanceRestarted", f"{wanted.name}: {why}"
        )


def has_turn(world: World, wanted: Instance) -> bool:
    """Whether no other instance of the store restarts now; this one does from here on."""
    return world.restarting.setdefault(wanted.store, wanted.tenant) == wanted.tenant


def end_turn(world: World, tenant: TenantId) -> None:
    """It runs, or is nobody's any more: another may restart."""
    world.restarting = {store: one for store, one in world.restarting.items() if one != tenant}
