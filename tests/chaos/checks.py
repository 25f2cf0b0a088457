"""What must hold when everything was healed. Each check waits for it, within patience."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

from memtenant.audit.deed import OPERATOR
from tests.chaos.world import World
from tests.e2e import invariants, sealed
from tests.e2e.instances import Instance
from tests.e2e.scene import eventually
from tests.support.servers import Server

__all__ = ["CHECKS", "failures"]


def failures(world: World) -> Iterator[tuple[str, str]]:
    """(what was checked, what is wrong), of all that is."""
    for name, check in CHECKS.items():
        try:
            check(world)
        except Exception as wrong:  # noqa: BLE001 - the others are looked at all the same
            kind = "" if isinstance(wrong, AssertionError) else f"{type(wrong).__name__}: "
            yield name, f"{kind}{wrong}"


def _tenants_are_as_declared(world: World) -> None:
    assert not world.people.failures, world.people.failures
    world.people.as_declared()
    world.scene.wait_store()


def _conditions_are_true(world: World) -> None:
    """Of what was healed nothing is told any more; what an Async tenant lost of its events is, and
    what the operator told a primary that was cut off."""
    for team, name in sorted(world.people.steady):
        agents = [one for one in world.agents.all if one.tenant == (team, name)]
        wanted = {"Stalled": "True", "Reconciling": "True", "KeyAvailable": "False"}
        if all(one.durable for one in agents) and not world.store.splits:
            wanted["AuditSealed"] = "False"
        for kind, wrong in wanted.items():
            eventually(
                lambda kind=kind, wrong=wrong, name=name, team=team: (  # type: ignore[misc]
                    world.scene.condition(team, name, kind)[0] != wrong
                ),
                lambda kind=kind, name=name, team=team: (  # type: ignore[misc]
                    f"{name}: {kind} {world.scene.condition(team, name, kind)}"
                ),
            )


def _every_agent_works(world: World) -> None:
    healed = time.monotonic()
    try:
        eventually(
            lambda: not world.agents.unserved_since(healed),
            lambda: [(str(one), one.refusals[-3:]) for one in world.agents.unserved_since(healed)],
        )
    finally:
        world.agents.stop()
    assert not world.agents.surprises, world.agents.surprises[:5]
    for one in world.agents.all:
        assert not one.violations, one.violations


def _what_was_acknowledged_is_there(world: World) -> None:
    for one in world.agents.all:
        stored = Counter(world.agents.stored(one))
        twice = [text for text, count in stored.items() if count > 1]
        assert not twice, f"{one}: stored twice: {twice[:5]}"
        lost = [text for text in one.acknowledged if text not in stored]
        assert not (lost and one.durable), f"{one}: lost {len(lost)}: {lost[:5]}"
        untold = [] if one.rewound else [text for text in lost if text not in one.forgotten]
        assert not untold, f"{one}: lost {len(untold)} and was never told: {untold[:5]}"


def _who_was_forgotten_is(world: World) -> None:
    for one in world.agents.all:
        eventually(
            lambda one=one: not world.agents.remembered(one),  # type: ignore[misc]
            lambda one=one: f"{one}: {world.agents.remembered(one)[:5]}",  # type: ignore[misc]
        )


def _the_store_is_whole(world: World) -> None:
    eventually(lambda: not _lacking(world), lambda: f"it lacks {_lacking(world)}")


def _lacking(world: World) -> list[str]:
    away = [] if world.strict is None else world.strict.tenants
    return [
        *world.store.lacking(),
        *(f"the instance of {tenant}" for tenant in away if tenant not in world.instances),
    ]


def _nobody_else_can(world: World) -> None:
    world.scene.settled()
    instances = world.instances
    invariants.check(world.scene, *world.nodes, instances=instances)
    everywhere: list[Server | Instance] = [*world.nodes, *instances.values()]
    invariants.former_credentials_are_refused(world.scene, *everywhere)


def _the_log_is_what_was_signed(world: World) -> None:
    """What async tenants lost in a failover, they may have lost of their events too; and the
    operator, which waits for no replica with its own, what it told a primary that was cut off."""
    promised = {
        (".".join(one.tenant), one.name): len(one.acknowledged)
        for one in world.agents.all
        if one.audited and one.durable
    }

    may_lack = [OPERATOR] if world.store.splits else []

    def wrong() -> list[str]:
        world.keep_checkpoint()
        return sealed.wrong_with(world.archive, world.kept, promised, may_lack)

    eventually(lambda: not wrong(), wrong)


def _no_server_crashed(world: World) -> None:
    for node in world.nodes:
        _, *crashes = node.log.read_text(errors="replace").split("BUG REPORT START")
        for crash in crashes:
            # How a replica ends that has no room on its disk.
            assert "Replica was unable to write command to disk" in crash[:1000], crash[:2000]


CHECKS: dict[str, Callable[[World], None]] = {
    "tenants are as declared": _tenants_are_as_declared,
    "conditions tell of nothing that was healed": _conditions_are_true,
    "every agent works": _every_agent_works,
    "the store is whole": _the_store_is_whole,
    "what was acknowledged is there": _what_was_acknowledged_is_there,
    "who was forgotten is": _who_was_forgotten_is,
    "nobody else can, and nothing is without an owner": _nobody_else_can,
    "the log is what was signed": _the_log_is_what_was_signed,
    "no server crashed": _no_server_crashed,
}
