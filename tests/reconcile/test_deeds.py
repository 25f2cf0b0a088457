"""What the operator does is told to the audit: all of it, once, whenever the operator is killed."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from memtenant import Message
from memtenant.audit import Operation
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.errors import StoreUnavailable
from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.prepare import ROTATE_ANNOTATION, ROTATE_KEYS_ANNOTATION
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.world import World
from memtenant.resources.port import ObjectKey
from memtenant.stores import StoreAdmin, fence
from memtenant.stores.connection import Command, Reply, Session
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from tests.reconcile.auditing import ACME, REQUIRED, Scene, made
from tests.reconcile.conftest import Ground, told
from tests.support.servers import Server

pytestmark = pytest.mark.redis

TENANT = ObjectKey.tenant("support", "acme")
HOLD: dict[str, Any] = {
    **REQUIRED,
    "legalHolds": [{"matter": "case-1", "tenantSelector": {}, "since": "2024-01-01T00:00:00Z"}],
}
Deeds = list[tuple[Operation, dict[str, Any]]]


@pytest.fixture
async def scene(valkey: Server, tmp_path: Path) -> AsyncIterator[Scene]:
    async for one in made(Ground(valkey, tmp_path / "state"), tmp_path):
        yield one


@pytest.fixture
async def each_scene(redis_server: Server, tmp_path: Path) -> AsyncIterator[Scene]:
    async for one in made(Ground(redis_server, tmp_path / "state"), tmp_path):
        yield one


def operations(deeds: Deeds) -> list[Operation]:
    return [operation for operation, _ in deeds]


async def told_by(scene: Scene) -> Deeds:
    await scene.ground.settle()
    return await scene.deeds()


async def test_a_tenants_life_is_told_step_by_step(each_scene: Scene) -> None:
    scene, ground = each_scene, each_scene.ground
    assert operations(await scene.deeds()) == [Operation.PROVISIONED, Operation.AUDIT_STARTED]
    assert await told_by(scene) == []
    ground.tenant("acme", quota={"memory": "8Mi"})
    ((operation, detail),) = await told_by(scene)
    assert operation is Operation.SPEC_SEEN
    assert (detail["kind"], detail["namespace"], detail["name"]) == (
        "MemoryTenant",
        "support",
        "acme",
    )
    assert (detail["generation"], detail["policy"]) == (2, "standard")
    ground.policy(**HOLD)
    held = await told_by(scene)
    assert held == [
        (Operation.ACCESS_CHANGED, {"access": "Held", "was": "ReadWrite"}),
        (Operation.HOLD_SET, {"matter": "case-1", "policy": "standard"}),
    ]
    ground.policy(**REQUIRED)
    assert operations(await told_by(scene)) == [Operation.ACCESS_CHANGED, Operation.HOLD_RELEASED]
    ground.tenant("acme", {ROTATE_ANNOTATION: "1"}, quota={"memory": "8Mi"})
    assert await told_by(scene) == [
        (Operation.CREDENTIALS_ROTATED, {"agent": "default", "version": 2})
    ]
    ground.tenant("acme", {ROTATE_KEYS_ANNOTATION: "1"}, quota={"memory": "8Mi"})
    assert (Operation.KEY_MADE, {"version": 2}) in await told_by(scene)
    ground.policy()
    assert operations(await told_by(scene))[-1] is Operation.AUDIT_STOPPED
    assert await told_by(scene) == []


async def test_what_is_refused_is_told_with_its_generation(scene: Scene) -> None:
    await scene.deeds()
    scene.ground.tenant("acme", audit={"mode": "Disabled"})
    ((operation, detail),) = await told_by(scene)
    assert (operation, detail["generation"], detail["refused"]) == (Operation.SPEC_SEEN, 2, True)
    assert await told_by(scene) == []
    scene.ground.tenant("acme")
    ((_, detail),) = await told_by(scene)
    assert (detail["generation"], "refused" in detail) == (3, False)


@pytest.mark.parametrize("after", [False, True])
async def test_an_operator_that_is_killed_tells_everything_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Every write to the store in turn is the last one, before or after it was made."""
    whole = StoreAdmin.write_states
    await scene.deeds()
    memory = 8
    for number in range(3):
        left = number

        async def killed(self: StoreAdmin, *arguments: Any) -> None:
            nonlocal left
            left -= 1
            if left >= 0 or after:
                await whole(self, *arguments)
            if left < 0:
                raise StoreUnavailable("the operator was killed here")

        memory += 1
        scene.ground.tenant("acme", quota={"memory": f"{memory}Mi"})
        with monkeypatch.context() as patched:
            patched.setattr(StoreAdmin, "write_states", killed)
            await scene.ground.settle()
        assert operations(await told_by(scene)) == [Operation.SPEC_SEEN]


async def test_a_retained_tenant_is_told_to_its_end_and_taken_over_again(scene: Scene) -> None:
    await scene.deeds()
    scene.ground.resources.delete(TENANT)
    deeds = await told_by(scene)
    assert operations(deeds) == [Operation.DEPROVISIONED]
    assert deeds[0][1]["deletionPolicy"] == "Retain"
    assert scene.entry() == Audited(60, closing=True, keep_months=12, evidence_months=12)
    scene.ground.tenant("acme")
    assert operations(await told_by(scene))[0] is Operation.PROVISIONED
    assert scene.entry() == Audited(60, keep_months=12, evidence_months=12)


async def test_a_purge_is_told_and_the_queue_closes(scene: Scene) -> None:
    scene.beat()
    await (await scene.agent()).conversation("s", user="ada").append(Message.human("one"))
    scene.ground.tenant("acme", deletionPolicy="Delete")
    await told_by(scene)
    scene.ground.resources.delete(TENANT)
    await scene.ground.settle()
    operation, detail = (await scene.deeds())[-1]
    assert (operation, detail["deletionPolicy"]) == (Operation.PURGED, "Delete")
    assert detail["keys"] >= 4
    assert scene.entry() == Audited(60, closing=True, keep_months=12, evidence_months=12)


async def test_expiry_is_told_with_counts_and_cut_offs(each_scene: Scene) -> None:
    scene = each_scene
    await talk(scene, "s")
    async with local_world(scene.ground.resources) as world:
        await settle(world)
        cut_off = pass_their_period(scene)
        await whole_round(world)
    ((operation, detail),) = await scene.deeds()
    assert (operation, detail["messages"]) == (Operation.EXPIRED, 2)
    assert detail["before"]["content"] == cut_off
    with scene.server.admin() as admin:
        assert admin.exists(keys.untold(ACME)) == 0


@pytest.mark.parametrize("after", [False, True])
async def test_an_operator_that_is_killed_tells_every_removal_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Every transaction of a round in turn is the last of its process; another goes on."""
    number, survived = 0, False
    while not survived:
        for session in ("s", "t"):
            await talk(scene, f"{session}{number}")
        told = 0
        for last in (number, None):
            async with local_world(scene.ground.resources) as world:
                await settle(world)
                pass_their_period(scene)
                with monkeypatch.context() as patched, suppress(StoreUnavailable):
                    if last is not None:
                        cut_off_at(patched, last, after=after)
                    await whole_round(world)
                    survived = last is not None
            told += sum(detail["messages"] for _, detail in await scene.deeds())
            if survived:
                break
        assert told == 4
        number += 1
    assert number > 2


@pytest.mark.parametrize("after", [False, True])
async def test_an_operator_that_is_killed_in_a_purge_tells_it_once_and_whole(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    resources, number, survived = scene.ground.resources, 0, False
    while not survived:
        scene.ground.tenant("acme", deletionPolicy="Delete")
        await told_by(scene)
        await talk(scene, "s")
        with scene.server.admin() as admin:
            # The queue stays for the sealer.
            there = sum(1 for _ in admin.scan_iter(f"{keys.prefix(ACME)}*"))
        resources.delete(TENANT)
        with monkeypatch.context() as patched:
            killed = cut_off_at(patched, number, after=after)
            await scene.ground.settle()
        survived = not killed
        purged = await scene.deeds()
        purged += await told_by(scene)
        ended, done = purged
        assert ended[0] is Operation.DEPROVISIONED
        assert done == (Operation.PURGED, {"deletionPolicy": "Delete", "keys": there})
        number += 1
    assert number > 2


async def talk(scene: Scene, session: str) -> None:
    """Two messages, of which no event is left to look at."""
    scene.beat()
    async with await scene.agent() as tenant:
        chat = tenant.conversation(session, user="ada")
        await chat.extend([Message.human("one"), Message.ai("two")])
    await scene.deeds()


def pass_their_period(scene: Scene) -> int:
    """All that is there has expired by now: the cut-off."""
    with scene.server.admin() as admin:
        seconds, microseconds = admin.time()
        now = int(seconds) * 1000 + int(microseconds) // 1000
        admin.hset(keys.limits(ACME), "cutoff_content", now)
    return now


async def whole_round(world: World) -> None:
    world.links["shared"].expiry.passed_at = None
    await WorldReconciler(world).expire(ObjectKey.store("shared"))


def cut_off_at(patched: pytest.MonkeyPatch, number: int, *, after: bool) -> list[int]:
    """From that transaction on none is done, or none answered; the numbers of those."""
    whole, seen, lost = fence._transaction, count(), list[int]()

    async def transaction(session: Session, commands: Sequence[Command]) -> list[Reply] | None:
        at = next(seen)
        if at > number or (at == number and not after):
            lost.append(at)
            raise StoreUnavailable("the operator was killed here")
        done = await whole(session, commands)
        if at == number:
            lost.append(at)
            raise StoreUnavailable("the operator was killed here")
        return done

    patched.setattr(fence, "_transaction", transaction)
    return lost


async def test_policies_and_stores_are_told_to_the_installation(scene: Scene) -> None:
    await scene.ground.settle()
    seen = await scene.deeds(INSTALLATION_LOG)
    assert {(d["kind"], d["name"], d["generation"]) for _, d in seen} == {
        ("RetentionPolicy", "standard", 1),
        ("MemoryStore", "shared", 1),
    }
    scene.ground.policy(**HOLD)
    await scene.ground.settle()
    await scene.ground.settle()
    ((operation, detail),) = await scene.deeds(INSTALLATION_LOG)
    assert (operation, detail["generation"]) == (Operation.SPEC_SEEN, 2)
    scene.ground.policy("other", **REQUIRED)
    await scene.ground.settle()
    scene.ground.resources.delete(ObjectKey.policy("other"))
    await scene.ground.settle()
    assert [(op, d.get("what")) for op, d in await scene.deeds(INSTALLATION_LOG)] == [
        (Operation.SPEC_SEEN, None),
        (Operation.OVERRIDE, "PolicyDeleted"),
    ]


async def test_what_a_new_primary_was_not_told_of_a_policy_it_is_told(scene: Scene) -> None:
    """A replica that lacked it is promoted."""
    policy = ObjectKey.policy("standard")
    async with local_world(scene.ground.resources) as world:
        await settle(world)
        reconciler, link = WorldReconciler(world), world.links["shared"]
        with scene.server.admin() as admin:
            assert admin.hdel(keys.STORE_TOLD, "RetentionPolicy/standard")
            await reconciler.reconcile(policy, "as before")
            assert not admin.hexists(keys.STORE_TOLD, "RetentionPolicy/standard")
            assert link.facts is not None
            another = replace(link.facts.primary, run_id="another")
            link.facts = replace(link.facts, primary=another)
            await reconciler.reconcile(policy, "after a failover")
            assert admin.hexists(keys.STORE_TOLD, "RetentionPolicy/standard")


async def test_nothing_is_told_where_nobody_is_audited(ground: Ground) -> None:
    ground.tenant("acme")
    await ground.settle()
    ground.resources.delete(TENANT)
    await ground.settle()
    assert told(await ground.store_status("shared"), "Ready")[0] == "True"
    with ground.server.admin() as admin:
        names = (keys.INSTALLATION_QUEUE, keys.STORE_TOLD, keys.STORE_AUDITED)
        assert admin.exists(*names, keys.audit_queue(ACME)) == 0


async def test_the_end_of_a_tenant_whose_record_is_gone_is_told_and_its_queue_closes(
    scene: Scene,
) -> None:
    resources = scene.ground.resources
    scene.ground.tenant("acme", deletionPolicy="Delete")
    await told_by(scene)
    async with local_world(resources) as world:
        await settle(world)
        record = await resources.get_secret(resources.home, "support.acme-keyring")
        assert record is not None
        await resources.delete_secret(record)
        resources.delete(TENANT)
        await fill(world.mirror, resources)
        await WorldReconciler(world).reconcile(TENANT, "1")
    entry = scene.entry()
    assert entry is not None
    assert entry.closing
    assert operations(await scene.deeds()) == [Operation.DEPROVISIONED, Operation.PURGED]
