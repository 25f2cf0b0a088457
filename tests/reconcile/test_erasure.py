"""A person is erased: what an agent asks for, and what the operator makes of it, phase by phase.

The agent is the SDK with the binding that the operator wrote; each `settle` is an operator that
knows nothing yet, so every phase goes on from what the store says.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from memtenant import Message, Tenant
from memtenant.audit import OPERATOR, Event, Operation, is_authentic
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.audit_keys import audit_mac_key, audit_root
from memtenant.crypto.datakey import kek_version
from memtenant.crypto.erasure import ErasureRequest, Tombstone
from memtenant.errors import KeyRetired, KeyUnavailable, SubjectErased
from memtenant.memory._async.erasure import erase
from memtenant.memory.source import BindingSource
from memtenant.memory.subjects import SubjectPlaces
from memtenant.reconcile.once import fill as fill_mirror
from memtenant.reconcile.once import local_world, settle
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.prepare import ROTATE_KEYS_ANNOTATION
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.world import World
from memtenant.resources.port import ObjectKey
from memtenant.rules.record import TenantRecord
from memtenant.stores import Pace
from memtenant.stores.connection import Address
from memtenant.stores.erasure import StoreErasure
from memtenant.stores.fence import Term
from memtenant.tenancy import keys
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.erasure import ErasurePhase, ErasureReceipt
from memtenant.tenancy.identity import TenantId
from tests.memory.bindings import PATIENT, mount
from tests.reconcile.conftest import Ground
from tests.stores.operators import OPERATOR as OPERATOR_USER
from tests.stores.operators import OPERATOR_PASSWORD, make_operator
from tests.support.servers import Server

pytestmark = pytest.mark.redis

ACME = TenantId("support", "acme")
SHARED = ObjectKey.store("shared")
TENANT = ObjectKey.tenant("support", "acme")
EACH_SERVER = pytest.mark.usefixtures("flavour")
STEWARD = [{"name": "default", "access": "Steward"}, {"name": "other"}]
HOLD: dict[str, Any] = {
    "legalHolds": [{"matter": "case-1", "tenantSelector": {}, "since": "2024-01-01T00:00:00Z"}]
}


@pytest.fixture
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """As the conftest's, with a tenant; on each flavour of server for tests that ask for one."""
    each = "flavour" in request.fixturenames
    server: Server = request.getfixturevalue("redis_server" if each else "valkey")
    made = Ground(server, tmp_path / "state")
    made.open()
    made.policy()
    make_operator(server)  # what erases is no superuser
    made.store(adminUsername=OPERATOR_USER)
    password = {"password": OPERATOR_PASSWORD.encode()}
    made.resources.declare_secret(made.resources.home, "admin", password)
    made.tenant("acme", agents=STEWARD)
    await made.settle()
    yield made
    made.close()


class Agents:
    """The SDK with bindings as they are now."""

    def __init__(self, ground: Ground, root: Path) -> None:
        self._ground, self._root = ground, root
        self._open: list[Tenant] = []

    async def binding(self, agent: str = "default") -> Binding:
        stored = await self._ground.resources.get_secret("support", f"acme-{agent}")
        assert stored is not None
        return Binding.from_mapping(stored.data)

    async def open(self, agent: str = "default") -> Tenant:
        folder = mount(self._root / agent, await self.binding(agent))
        self._open.append(Tenant(BindingSource(folder), options=PATIENT))
        return self._open[-1]

    async def close(self) -> None:
        for one in self._open:
            await one.aclose()


@pytest.fixture
async def agents(ground: Ground, tmp_path: Path) -> AsyncIterator[Agents]:
    made = Agents(ground, tmp_path / "bindings")
    yield made
    await made.close()


async def fill(tenant: Tenant, *users: str) -> None:
    for user in users:
        for session in ("one", "two"):
            chat = tenant.conversation(session, user=user, title=f"{user}'s {session}")
            await chat.append(Message.human(f"{user} in {session}"))
        await tenant.shared_context("case").update({f"about-{user}": user}, about=[user])


async def receipt_of(tenant: Tenant, asked: ErasureReceipt) -> ErasureReceipt:
    found = await tenant.erasure(asked.id)
    assert found is not None
    return found


async def record(ground: Ground) -> TenantRecord:
    name = f"{ACME}-keyring"
    stored = await ground.resources.get_secret(ground.resources.home, name)
    assert stored is not None
    return TenantRecord.from_data(stored.data, name)


@EACH_SERVER
async def test_a_person_is_erased_and_the_neighbours_stay(ground: Ground, agents: Agents) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada", "bob")
    asked = await tenant.forget("ada")
    await ground.settle()
    receipt = await receipt_of(tenant, asked)
    assert (receipt.phase, receipt.remaining) == (ErasurePhase.PURGED, 0)
    assert (receipt.conversations, receipt.values, receipt.unindexed) == (2, 1, 0)
    assert receipt.deleted_at is not None
    assert receipt.purged_at is not None
    assert any("backup of the tenant's keys" in one for one in receipt.residuals)
    with ground.server.admin() as admin:
        assert admin.hkeys(keys.dek(ACME, asked.subject)) == [b"erased"]
        assert 172_000 < admin.ttl(keys.dek(ACME, asked.subject)) <= 172_800
        assert not admin.exists(
            keys.subject_index(ACME, asked.subject), keys.erasure_requests(ACME)
        )
    assert len((await tenant.conversations("bob")).items) == 2
    assert (await tenant.shared_context("case").read()).values == {"about-bob": "bob"}
    shred = await record(ground)
    assert (shred.shred_through, receipt.key_version) == (1, 1)
    assert shred.shred_due is not None
    with pytest.raises(SubjectErased):
        await tenant.conversation("new", user="ada").append(Message.human("again"))
    assert (await tenant.forget("ada")).id == asked.id


async def test_a_person_may_come_back_when_the_mark_is_gone(ground: Ground, agents: Agents) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada")
    asked = await tenant.forget("ada")
    await ground.settle()
    with ground.server.admin() as admin:
        admin.delete(keys.dek(ACME, asked.subject))  # as its expiry does
    await fill(tenant, "ada")
    assert await tenant.conversation("one", user="ada").count() == 1
    again = await tenant.forget("ada")
    assert again.id != asked.id


@EACH_SERVER
async def test_what_no_index_names_is_found_by_its_key(ground: Ground, agents: Agents) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada", "bob")
    with ground.server.admin() as admin:
        admin.delete(*admin.scan_iter(f"{keys.prefix(ACME)}i:*"))
    asked = await tenant.forget("ada")
    await ground.settle()
    receipt = await receipt_of(tenant, asked)
    assert (receipt.conversations, receipt.unindexed, receipt.remaining) == (0, 2, 0)
    with ground.server.admin() as admin:
        assert len(list(admin.scan_iter("*:l"))) == 2
    assert await tenant.conversation("one", user="bob").count() == 1


@EACH_SERVER
async def test_a_place_whose_name_is_no_text_is_found_by_its_key(
    ground: Ground, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent may name a conversation by any bytes: an index that says so is not believed."""
    tenant = await agents.open()
    await fill(tenant, "ada", "bob")
    strange = [b"\xff\x00\xc3(", b"\xfe\n\xe2\x82"]
    with monkeypatch.context() as named:
        for name in strange:
            text = name.decode("utf-8", "surrogateescape")
            named.setattr("memtenant.memory.places.session_alias", lambda *_, alias=text: alias)
            await tenant.conversation("strange", user="ada").append(Message.human("ada"))
    lists = {f"{keys.records(ACME)}_:".encode() + name + b":l" for name in strange}
    with ground.server.admin() as admin:
        assert lists < set(admin.scan_iter("*:l", count=1000))
    asked = await tenant.forget("ada")
    await ground.settle()
    receipt = await receipt_of(tenant, asked)
    assert (receipt.conversations, receipt.unindexed, receipt.remaining) == (2, 2, 0)
    with ground.server.admin() as admin:
        assert len(set(admin.scan_iter("*:l", count=1000))) == 2
        assert not lists & set(admin.scan_iter("*", count=1000))
    assert await tenant.conversation("one", user="bob").count() == 1


async def test_a_summary_or_title_that_was_left_behind_is_found_too(
    ground: Ground, agents: Agents
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada")
    with ground.server.admin() as admin:
        admin.delete(*admin.scan_iter("*:l"), *admin.scan_iter(f"{keys.prefix(ACME)}i:*"))
    asked = await tenant.forget("ada")
    await ground.settle()
    assert (await receipt_of(tenant, asked)).unindexed == 2
    with ground.server.admin() as admin:
        assert all(admin.hget(head, "meta") is None for head in admin.scan_iter("*:h"))


@EACH_SERVER
async def test_under_minimal_the_tag_tells(ground: Ground, agents: Agents) -> None:
    ground.tenant("mini", isolation="Minimal", agents=[{"name": "default", "access": "Steward"}])
    await ground.settle()
    stored = await ground.resources.get_secret("support", "mini-default")
    assert stored is not None
    folder = mount(agents._root / "mini", Binding.from_mapping(stored.data))
    async with Tenant(BindingSource(folder), options=PATIENT) as tenant:
        for number in range(3):
            for user in ("ada", "bob"):
                chat = tenant.conversation("shared", user=user)
                await chat.append(Message.human(f"{user} {number}"))
        with ground.server.admin() as admin:
            admin.delete(*admin.scan_iter("mt:{support.mini}:i:*"))
        asked = await tenant.forget("ada")
        await ground.settle()
        receipt = await receipt_of(tenant, asked)
        assert (receipt.phase, receipt.settled) == (ErasurePhase.PURGED, True)
        assert (receipt.unindexed, receipt.remaining) == (1, 0)
        assert any("Minimal" in one for one in receipt.residuals)
        left = [one.text for one in await tenant.conversation("shared", user="bob").messages()]
        assert left == ["bob 0", "bob 1", "bob 2"]


async def test_a_hold_in_the_middle_stops_an_erasure_until_it_ends(
    ground: Ground, agents: Agents
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada")
    asked = await tenant.forget("ada")
    async with local_world(ground.resources) as world:
        await settle(world)
        with ground.server.admin() as admin:  # back to where it was before the pass
            done = await receipt_of(tenant, asked)
            before = replace(done, phase=ErasurePhase.INDEXED, purged_at=None, residuals=())
            admin.hset(keys.erasure_receipts(ACME), asked.id, before.to_json())
            admin.hset(keys.access(ACME), "matters", '{"case-1":"digest"}')
        assert (await a_round(world)).unfinished == 1
        assert (await receipt_of(tenant, asked)).phase is ErasurePhase.INDEXED
        with ground.server.admin() as admin:
            admin.hset(keys.access(ACME), "matters", "{}")
        await a_round(world)
    assert (await receipt_of(tenant, asked)).phase is ErasurePhase.PURGED


async def test_a_person_who_cannot_be_erased_now_holds_up_no_other(
    ground: Ground, agents: Agents
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada", "bob")
    stuck, other = await tenant.forget("ada"), await tenant.forget("bob")

    async def erases(store: Any, where: SubjectPlaces, agent: str) -> Any:
        if where.subject.alias == stuck.subject:
            raise KeyRetired(
                "the data key of a context is under a version that was refused", least=2
            )
        return await erase(store, where, agent)

    with patch("memtenant.reconcile.erasure_steps.erase", erases):
        await ground.settle()
    phases = (await receipt_of(tenant, stuck)).phase, (await receipt_of(tenant, other)).phase
    assert phases == (ErasurePhase.REQUESTED, ErasurePhase.PURGED)


@EACH_SERVER
async def test_a_key_that_is_refused_planted_beside_named_values_keeps_nobody_from_being_erased(
    ground: Ground, agents: Agents
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada")
    for hours in (0, 1, 2):  # the key turns: version 1 is refused
        ground.tenant("acme", {ROTATE_KEYS_ANNOTATION: "one"}, agents=STEWARD)
        await ground.settle(timedelta(hours=hours))
    planted = keys.records(ACME) + "c:planted"
    with await ground.login("acme", "other") as agent:
        agent.hset(planted, mapping={"one": b"x", "two": b"y", "three": b"z"})
        agent.hset(f"{planted}:v", mapping={"one": b"x"})
        agent.hsetnx(keys.dek(ACME, "planted"), "dek", (1).to_bytes(4, "big") + b"\x07" * 40)
    asked = await tenant.forget("ada")
    with ground.server.admin() as admin:
        assert admin.hget(keys.limits(ACME), "least_kek") == b"2"
        index = keys.subject_index(ACME, asked.subject)
        admin.rpush(index, b"c:planted:one", b"c:planted:two")
    await ground.settle(timedelta(hours=3))
    receipt = await receipt_of(tenant, asked)
    assert (receipt.phase, receipt.remaining) == (ErasurePhase.PURGED, 0)
    with ground.server.admin() as admin:
        assert (admin.hkeys(planted), admin.exists(f"{planted}:v")) == ([b"three"], 0)


@pytest.mark.parametrize("meanwhile", ["a hold", "deletion"])
async def test_what_came_during_a_pass_stops_what_follows_it(
    ground: Ground, agents: Agents, meanwhile: str
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada")
    asked = await tenant.forget("ada")
    whole = StoreErasure.rescan
    async with local_world(ground.resources) as world:

        async def rescan(self: StoreErasure, sought: Any) -> Any:
            found = await whole(self, sought)
            if meanwhile == "deletion":
                world.links["shared"].tenants.clear()
            else:
                with ground.server.admin() as admin:
                    admin.hset(keys.access(ACME), "matters", '{"case-1":"digest"}')
            return found

        with patch.object(StoreErasure, "rescan", rescan):
            await settle(world)
    assert (await receipt_of(tenant, asked)).phase is ErasurePhase.INDEXED
    with ground.server.admin() as admin:
        assert admin.hget(keys.dek(ACME, asked.subject), "dek")


async def test_a_version_that_never_was_asks_for_no_key_to_be_destroyed(
    ground: Ground, agents: Agents
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada")
    asked = await tenant.forget("ada")
    name = keys.dek(ACME, asked.subject)
    with ground.server.admin() as admin:
        data_key = admin.hget(name, "dek") or b""
        admin.hset(name, "dek", b"\x7f" * 4 + data_key[4:])
        assert kek_version(admin.hget(name, "dek") or b"") > 1
    await ground.settle()
    assert (
        (await record(ground)).shred_through,
        (await receipt_of(tenant, asked)).key_version,
    ) == (
        1,
        1,
    )


@pytest.mark.parametrize("damage", [b"short", None], ids=["no key", "another's"])
async def test_a_data_key_that_does_not_open_holds_up_no_erasure(
    ground: Ground, agents: Agents, damage: bytes | None
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada", "bob")
    asked = await tenant.forget("ada")
    name = keys.dek(ACME, asked.subject)
    with ground.server.admin() as admin:
        others = [one for one in admin.scan_iter(f"{keys.prefix(ACME)}k:*") if one.decode() != name]
        admin.hset(name, "dek", damage or admin.hget(others[0], "dek") or b"")
    await ground.settle()
    receipt = await receipt_of(tenant, asked)
    assert receipt.phase is ErasurePhase.PURGED
    assert any("did not open" in one for one in receipt.residuals)
    with ground.server.admin() as admin:
        assert admin.hkeys(name) == [b"erased"]


async def test_a_data_key_that_an_agent_puts_back_is_deleted_again(
    ground: Ground, agents: Agents
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada", "bob")
    with ground.server.admin() as admin:
        data_keys = {
            name: admin.hget(name, "dek") for name in admin.scan_iter(f"{keys.prefix(ACME)}k:*")
        }
    asked = await tenant.forget("ada")
    await ground.settle()
    name = keys.dek(ACME, asked.subject)
    with await ground.login("acme", "other") as agent:
        assert agent.hsetnx(name, "dek", data_keys[name.encode()] or b"") == 1
    await ground.settle()
    with ground.server.admin() as admin:
        assert admin.hkeys(name) == [b"erased"]
        left = {one: admin.hget(one, "dek") for one in data_keys if one != name.encode()}
    assert all(left.values())


@pytest.mark.parametrize("heartbeat", ["0", "now"])
async def test_where_the_tenant_is_audited_the_operator_leaves_its_own_events(
    ground: Ground, agents: Agents, heartbeat: str
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada")
    ground.tenant("acme", agents=STEWARD, audit={"mode": "Enabled"})
    async with local_world(ground.resources) as world:
        await settle(world)
        with ground.server.admin() as admin:
            admin.hset(keys.limits(ACME), "audit_heartbeat", str(2**44))
        asked = await tenant.forget("ada")
        with ground.server.admin() as admin:
            name = f"{keys.records(ACME)}_:left:l"
            admin.rpush(name, b"left behind")
            admin.rpush(keys.subject_index(ACME, asked.subject), "_:left")
            now = int(datetime.now(UTC).timestamp() * 1000) if heartbeat == "now" else 0
            admin.hset(keys.limits(ACME), "audit_heartbeat", str(now))
        await a_round(world)
        root = await world.installation_root()
    receipt = await receipt_of(tenant, asked)
    with ground.server.admin() as admin:
        queue = [bytes(one[:-12]) for one in admin.lrange(keys.audit_queue(ACME), 0, -1)]
    told = {one: Event.parse(one) for one in queue}
    forgot = [
        raw
        for raw, one in told.items()
        if (one.operation, one.agent) == (Operation.FORGET, OPERATOR)
    ]
    if heartbeat == "0":  # nobody drains the queue: what cannot be audited waits
        assert (receipt.phase, forgot) == (ErasurePhase.REQUESTED, [])
        return
    assert receipt.phase is ErasurePhase.PURGED
    assert forgot
    key = audit_mac_key(audit_root(root), str(ACME), OPERATOR, 0)
    assert all(is_authentic(key, raw) for raw in forgot)


async def test_an_operator_that_is_killed_at_any_step_ends_in_the_same_state(
    ground: Ground, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write of the operator in turn is the last one, before or after it was made."""
    tenant = await agents.open()
    steps = ("enter", "forget_index", "save", "drop_keys", "let_go")
    async with local_world(ground.resources) as world:
        await settle(world)
        for number, (step, after) in enumerate((s, a) for s in steps for a in (False, True)):
            user = f"user-{number}"
            await fill(tenant, "bob")
            with ground.server.admin() as admin:  # a pass has something to find: `save` is called
                others = set(admin.scan_iter(f"{keys.prefix(ACME)}i:*"))
                await fill(tenant, user)
                (own,) = set(admin.scan_iter(f"{keys.prefix(ACME)}i:*")) - others
                admin.ltrim(own, 1, -1)
            asked = await tenant.forget(user)
            whole = getattr(StoreErasure, step)

            async def killed(
                self: StoreErasure, *arguments: Any, whole: Any = whole, after: bool = after
            ) -> None:
                if after:
                    await whole(self, *arguments)
                raise KeyboardInterrupt

            with monkeypatch.context() as patched:
                patched.setattr(StoreErasure, step, killed)
                with pytest.raises(KeyboardInterrupt):
                    await a_round(world)
            await a_round(world)
            receipt = await receipt_of(tenant, asked)
            assert receipt.phase is ErasurePhase.PURGED, step
            assert (receipt.remaining, receipt.key_version) == (0, 1), step
    assert await tenant.conversation("one", user="bob").count() == len(steps) * 2


async def a_round(world: World) -> Outcome:
    """One round of an operator that has just been started."""
    link = world.links["shared"]
    link.looked_for_receipts, link.erasing, link.files_written_at = set(), set(), None
    return await WorldReconciler(world).erase(SHARED)


async def test_a_forged_request_erases_nothing(ground: Ground, agents: Agents) -> None:
    tenant, other = await agents.open(), await agents.open("other")
    await fill(tenant, "ada")
    asked = await tenant.forget("nobody")
    with ground.server.admin() as admin:
        genuine = admin.lrange(keys.erasure_requests(ACME), 0, -1)[0]
        subject = next(admin.scan_iter(f"{keys.prefix(ACME)}i:*")).decode()[-22:]
        request = replace(ErasureRequest.parse(genuine), id=b"f" * 16, subject=subject)
        binding = await agents.binding("other")
        own_key = AgentKeyring.from_json(binding.keyring).audit_key
        as_other = replace(request, agent="other", binding_version=binding.version)
        admin.rpush(
            keys.erasure_requests(ACME),
            b"anything",
            request.to_bytes(),
            request.sealed(own_key, ACME).to_bytes(),
            as_other.sealed(own_key, ACME).to_bytes(),
        )
    happened = await ground.settle()
    did = "\n".join(happened[SHARED].did)
    assert did.count("dropped from the queue") == 4
    assert "is no Steward" in did
    assert "that it did not make" in did
    assert [one.id for one in await tenant.erasures()] == [asked.id]
    assert await other.conversation("one", user="ada").count() == 1


async def test_a_false_mark_is_taken_away(ground: Ground, agents: Agents) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada")
    asked = await tenant.forget("bob")
    await ground.settle()
    chat = tenant.conversation("one", user="ada")
    with ground.server.admin() as admin:
        for name in list(admin.scan_iter(f"{keys.prefix(ACME)}k:*")):
            admin.hsetnx(name, "erased", Tombstone(b"x" * 16, "other", 1, b"y" * 16).to_bytes())
    with pytest.raises(SubjectErased):
        await chat.append(Message.human("shut out"))
    await ground.settle()
    await chat.append(Message.human("in again"))
    with pytest.raises(SubjectErased):
        await tenant.conversation("one", user="bob").append(Message.human("still erased"))
    assert (await receipt_of(tenant, asked)).phase is ErasurePhase.PURGED


@pytest.mark.parametrize("own", [True, False], ids=["the operator's of then", "a false one"])
async def test_a_mark_set_again_costs_a_person_who_came_back_nothing(
    ground: Ground, agents: Agents, own: bool
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada")
    asked = await tenant.forget("ada")
    await ground.settle()
    name = keys.dek(ACME, asked.subject)
    with ground.server.admin() as admin:
        kept = admin.hget(name, "erased") or b""
        admin.delete(name)  # as its expiry does
    await fill(tenant, "ada")
    with await ground.login("acme", "other") as agent:
        assert agent.hsetnx(name, "erased", kept if own else b"false") == 1
    await ground.settle(timedelta(days=3))
    with ground.server.admin() as admin:
        assert admin.hkeys(name) == [b"dek"]


async def test_a_hold_that_came_in_between_refuses_the_request(
    ground: Ground, agents: Agents
) -> None:
    tenant = await agents.open()
    await tenant.conversation("s", user="ada").append(Message.human("evidence"))
    with ground.server.admin() as admin:
        kept = list(admin.scan_iter("*:l"))
        dump = admin.dump(kept[0])
    asked = await tenant.forget("ada")
    with ground.server.admin() as admin:
        admin.restore(kept[0], 0, dump, replace=True)  # as if it had been held just before
    ground.policy(**HOLD)
    await ground.settle()
    receipt = await receipt_of(tenant, asked)
    assert (receipt.phase, receipt.refusal) == (ErasurePhase.REFUSED, "LegalHold")
    with ground.server.admin() as admin:
        assert admin.exists(kept[0])
    await (await agents.open("other")).conversation("s", user="ada").append(Message.human("more"))


async def test_nobody_is_erased_while_a_hold_may_stand_that_was_not_seen(
    ground: Ground, agents: Agents
) -> None:
    """Who takes over may not know the labels yet that a hold selects by."""
    tenant = await agents.open()
    await fill(tenant, "ada")
    async with local_world(ground.resources) as world:
        await settle(world)
        await tenant.forget("ada")
        for in_doubt, waiting in ((True, 1), (False, 0)):
            world.mirror.doubted = in_doubt
            await a_round(world)
            with ground.server.admin() as admin:
                assert admin.llen(keys.erasure_requests(ACME)) == waiting


async def test_an_older_dump_is_noise_when_the_keys_are_destroyed(
    ground: Ground, agents: Agents
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada", "bob")
    with ground.server.admin() as admin:
        backup = {name: admin.dump(name) for name in admin.scan_iter(f"{keys.prefix(ACME)}*")}
    asked = await tenant.forget("ada")
    await ground.settle()
    assert (await receipt_of(tenant, asked)).crypto_erased_at is None
    for hours in range(25, 28):  # the epoch closes after a day, and the keys turn
        await ground.settle(timedelta(hours=hours))
    receipt = await receipt_of(tenant, asked)
    assert (receipt.phase, receipt.settled) == (ErasurePhase.CRYPTO_ERASED, True)
    with ground.server.admin() as admin:
        for name, dump in backup.items():
            if b":k:" not in name or name.decode().endswith(asked.subject):
                assert dump is not None
                admin.restore(name, 0, dump, replace=True)
    late = await agents.open()
    with pytest.raises(KeyUnavailable, match="was destroyed"):
        await late.conversation("one", user="ada").messages()
    assert (await late.conversation("one", user="bob").messages())[0].text == "bob in one"


async def test_a_record_that_has_forgotten_what_is_to_be_shredded_is_told_again(
    ground: Ground, agents: Agents
) -> None:
    """One of a backup, or written by an operator that knew nothing of erasures."""
    tenant = await agents.open()
    await fill(tenant, "ada")
    name = f"{ACME}-keyring"
    before = await ground.resources.get_secret(ground.resources.home, name)
    assert before is not None
    asked = await tenant.forget("ada")
    await ground.settle()
    assert (await receipt_of(tenant, asked)).phase is ErasurePhase.PURGED
    now = await ground.resources.get_secret(ground.resources.home, name)
    assert now is not None
    await ground.resources.replace_secret(now, before.data)
    assert (await record(ground)).shred_through == 0
    for hours in (1, *range(26, 29)):
        await ground.settle(timedelta(hours=hours))
    assert (await receipt_of(tenant, asked)).phase is ErasurePhase.CRYPTO_ERASED


async def test_a_mark_that_is_gone_is_not_remembered(ground: Ground, agents: Agents) -> None:
    tenant = await agents.open()
    for user in ("ada", "bob"):
        await tenant.forget(user)
    await ground.settle()
    async with local_world(ground.resources) as world:
        await settle(world)
        link = world.links["shared"]
        assert len(link.true_marks) == 2
        with ground.server.admin() as admin:
            admin.delete(keys.dek(ACME, next(iter(link.true_marks))[1]))  # as its expiry does
        reconciler = WorldReconciler(world)
        await reconciler.measure(SHARED)
        await reconciler.erase(SHARED)
        assert len(link.true_marks) == 1


async def test_a_round_without_anything_to_do_writes_nothing(
    ground: Ground, agents: Agents
) -> None:
    await (await agents.open()).forget("ada")
    async with local_world(ground.resources) as world:
        await settle(world)
        outcome = await a_round(world)
    assert (outcome.changed, outcome.unfinished) == (False, 0)


async def test_an_erasure_goes_on_when_its_tenant_was_kept_and_is_back(
    ground: Ground, agents: Agents
) -> None:
    tenant = await agents.open()
    await fill(tenant, "ada")
    await tenant.forget("ada")
    async with local_world(ground.resources) as world:
        await settle(world)
        reconciler = WorldReconciler(world)
        assert (await reconciler.erase(SHARED)).unfinished == 1
        ground.resources.delete(TENANT)
        await fill_mirror(world.mirror, ground.resources)
        await reconciler.reconcile(TENANT, "kept")
        assert (await reconciler.erase(SHARED)).unfinished == 0
        ground.tenant("acme", agents=STEWARD)
        await fill_mirror(world.mirror, ground.resources)
        await reconciler.reconcile(TENANT, "back")
        assert (await reconciler.erase(SHARED)).unfinished == 1


async def test_an_erasure_goes_on_that_is_further_back_on_a_new_primary(
    ground: Ground, agents: Agents
) -> None:
    """A replica that lacked the last step is promoted."""
    tenant = await agents.open()
    await fill(tenant, "ada")
    await tenant.forget("ada")
    await ground.settle()
    with ground.server.admin() as admin:
        further_back = admin.dump(keys.erasure_receipts(ACME))
        assert further_back is not None
        admin.delete(keys.erasure_receipts(ACME))
        async with local_world(ground.resources) as world:
            await settle(world)
            reconciler, link = WorldReconciler(world), world.links["shared"]
            admin.restore(keys.erasure_receipts(ACME), 0, further_back)
            assert (await reconciler.erase(SHARED)).unfinished == 0
            assert link.facts is not None
            link.facts = replace(link.facts, primary=replace(link.facts.primary, run_id="another"))
            assert (await reconciler.erase(SHARED)).unfinished == 1


async def test_an_erasure_is_not_done_where_the_primary_was_replaced_while_files_were_written(
    ground: Ground, agents: Agents
) -> None:
    """The new one may have less: its own receipts say what is to be done there."""
    tenant = await agents.open()
    asked = await tenant.forget("ada")
    async with local_world(ground.resources) as world:
        reconciler = WorldReconciler(world)
        for key in (SHARED, TENANT):
            await reconciler.reconcile(key, "seen")
        link = world.links["shared"]

        async def write_files_in_a_failover() -> tuple[str, ...]:
            assert link.facts is not None
            link.facts = replace(link.facts, primary=replace(link.facts.primary, run_id="another"))
            return ()

        with patch.object(link.admin, "rewrite_files", write_files_in_a_failover):
            await reconciler.erase(SHARED)
        assert (await receipt_of(tenant, asked)).phase is ErasurePhase.RESCANNED
        await reconciler.erase(SHARED)
        assert (await receipt_of(tenant, asked)).phase is ErasurePhase.PURGED


async def test_nothing_is_left_of_a_tenant_that_is_deleted_while_a_person_is_erased(
    ground: Ground, agents: Agents
) -> None:
    ground.tenant("acme", agents=STEWARD, deletionPolicy="Delete")
    tenant = await agents.open()
    await fill(tenant, "ada")
    await tenant.forget("ada")
    async with local_world(ground.resources) as world:
        reconciler = WorldReconciler(world)
        for key in (SHARED, TENANT):
            await reconciler.reconcile(key, "seen")

        async def erase_and_delete(calls: Any, where: SubjectPlaces, agent: str) -> None:
            await erase(calls, where, agent)
            ground.resources.delete(TENANT)
            await fill_mirror(world.mirror, ground.resources)
            await reconciler.reconcile(TENANT, "deleted")

        with patch("memtenant.reconcile.erasure_steps.erase", erase_and_delete):
            await reconciler.erase(SHARED)
    with ground.server.admin() as admin:
        assert not list(admin.scan_iter(f"{keys.prefix(ACME)}*"))


async def test_a_tenant_that_comes_while_the_queues_are_asked_ends_no_round() -> None:
    roster = dict.fromkeys(TenantId("support", f"t{number}") for number in range(5000))

    class Growing:
        address = Address("127.0.0.1", 1)

        async def run(self, commands: list[Any]) -> list[int]:
            roster[TenantId("late", f"t{len(roster)}")] = None
            return [0] * len(commands)

    primary: Any = Growing()
    asked = StoreErasure(primary, lambda: Term(1, "i"), Pace())
    assert await asked.waiting(roster.keys()) == []
