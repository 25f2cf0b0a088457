"""A Steward forgets a person: what the agent's own rights do at once, and what is asked of the
operator (tests/reconcile/test_erasure.py)."""

import asyncio
from pathlib import Path

import pytest

from memtenant import Message, Tenant
from memtenant.crypto.erasure import ErasureRequest, Tombstone, consent_proof
from memtenant.crypto.names import subject_tag, user_alias
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import (
    ConsentRequired,
    ErasureNotPermitted,
    SubjectErased,
    TenantHeld,
)
from memtenant.memory.checkpoints import Checkpoint
from memtenant.memory.subjects import Subject, places_of
from memtenant.rules.acl import AccessState
from memtenant.tenancy import keys
from memtenant.tenancy.erasure import ErasurePhase
from memtenant.tenancy.policy import AgentAccess, Isolation, SubjectRights, TenantPolicy
from tests.memory.bindings import Provisioned
from tests.memory.conftest import Open
from tests.stores.operators import ACME
from tests.support.servers import Server

AUDIT_KEY = SecretKey(b"a" * 32)
STEWARD = TenantPolicy(
    access=AgentAccess.STEWARD, rights=SubjectRights(erasure=True, portability=True)
)


@pytest.fixture
def policy() -> TenantPolicy:
    return STEWARD


def human(text: str = "Hello") -> Message:
    return Message.human(text)


def alias(of: Provisioned, user: str) -> str:
    return user_alias(of.keyring.name_key, user)


def requests(of: Provisioned) -> list[ErasureRequest]:
    with of.server.admin() as admin:
        queued = admin.lrange(keys.erasure_requests(of.tenant), 0, -1)
    return [ErasureRequest.parse(one) for one in queued]


async def fill(tenant: Tenant, *users: str) -> None:
    for user in users:
        for session in ("one", "two"):
            await tenant.conversation(session, user=user).append(human(f"{user} in {session}"))
    case = tenant.shared_context("case")
    await case.create({f"of-{user}": user for user in users} | {"of-nobody": 1})
    for user in users:
        await case.update({f"about-{user}": user}, about=[user])
    await case.update({"about-all": "all of them"}, about=users)


async def test_a_person_is_forgotten_and_the_neighbours_are_untouched(
    acme: Provisioned, tenant: Tenant
) -> None:
    await fill(tenant, "ada", "bob")
    receipt = await tenant.forget("ada")
    assert (receipt.phase, receipt.subject) == (ErasurePhase.REQUESTED, alias(acme, "ada"))
    with acme.server.admin() as admin:
        assert len(list(admin.scan_iter("*:l"))) == 2
    assert len((await tenant.conversations("bob")).items) == 2
    assert await tenant.conversation("one", user="bob").count() == 1
    left = (await tenant.shared_context("case").read()).values
    assert set(left) == {"of-ada", "of-bob", "of-nobody", "about-bob"}
    assert "ada" not in str([request.to_bytes() for request in requests(acme)])


async def test_nothing_is_stored_or_read_of_a_person_who_was_forgotten(
    acme: Provisioned, tenant: Tenant, opened: Open
) -> None:
    chat, other = tenant.conversation("s", user="ada"), opened(acme, "other")
    await chat.append(human())
    same = other.conversation("s", user="ada")
    await same.append(human())
    await tenant.forget("ada")
    for handle in (chat, same, tenant.conversation("new", user="ada")):
        with pytest.raises(SubjectErased, match="begins anew"):
            await handle.append(human())
    with pytest.raises(SubjectErased):
        await opened(acme, "other").conversation("s", user="ada").messages()


async def test_what_an_agent_writes_all_the_while_does_not_stay(
    acme: Provisioned, tenant: Tenant, opened: Open
) -> None:
    other = opened(acme, "other")

    async def begin(session: str) -> None:
        await other.conversation(session, user="ada").append(human())

    stored = [0] * 4

    async def write(number: int) -> None:
        chat = other.conversation(str(number), user="ada")
        while True:
            try:
                await chat.append(human())
            except SubjectErased:
                return
            stored[number] += 1

    begun = [begin(str(number)) for number in range(4)]
    await asyncio.gather(*begun)
    writers = [asyncio.create_task(write(number)) for number in range(4)]
    while not all(stored):  # noqa: ASYNC110 - four other tasks
        await asyncio.sleep(0)
    await tenant.forget("ada")
    await asyncio.gather(*writers)
    with acme.server.admin() as admin:
        assert list(admin.scan_iter("*:l")) == []


async def test_forgetting_again_goes_on_with_the_same_request(
    acme: Provisioned, tenant: Tenant
) -> None:
    await fill(tenant, "ada")
    first = await tenant.forget("ada")
    with acme.server.admin() as admin:  # as after a crash between the request and the deletions
        name = f"{keys.records(acme.tenant)}_:left:l"
        admin.rpush(name, b"left")
        admin.rpush(keys.subject_index(acme.tenant, first.subject), "_:left")
    again = await tenant.forget("ada")
    assert again.id == first.id
    assert {request.id.hex() for request in requests(acme)} == {first.id}


async def test_the_request_and_the_mark_are_authentic(acme: Provisioned, tenant: Tenant) -> None:
    receipt = await tenant.forget("ada")
    (request,) = requests(acme)
    assert request.is_sealed_by(AUDIT_KEY, acme.tenant)
    assert (request.agent, request.binding_version, request.consent) == ("default", 1, b"")
    assert request.tag == subject_tag(acme.keyring.name_key, "ada")
    with acme.server.admin() as admin:
        mark = Tombstone.parse(admin.hget(keys.dek(acme.tenant, receipt.subject), "erased") or b"")
    assert mark.is_sealed_by(AUDIT_KEY, acme.tenant, receipt.subject)
    assert not mark.is_sealed_by(AUDIT_KEY, acme.tenant, alias(acme, "bob"))
    assert not mark.is_sealed_by(SecretKey(b"b" * 32), acme.tenant, receipt.subject)


async def test_a_false_mark_does_not_stand_for_a_request(acme: Provisioned, tenant: Tenant) -> None:
    await tenant.conversation("s", user="ada").append(human())
    false = Tombstone(b"x" * 16, "other", 1, b"y" * 16).to_bytes()
    with acme.server.admin() as admin:
        admin.hset(keys.dek(acme.tenant, alias(acme, "ada")), "erased", false)
    receipt = await tenant.forget("ada")
    assert [request.id.hex() for request in requests(acme)] == [receipt.id]
    assert receipt.id != (b"x" * 16).hex()


async def test_over_quota_a_person_is_forgotten_too(acme: Provisioned, tenant: Tenant) -> None:
    await fill(tenant, "ada")
    acme.provision("default", access=AgentAccess.STEWARD, state=AccessState(over_quota=True))
    receipt = await tenant.forget("ada")
    assert [request.id.hex() for request in requests(acme)] == [receipt.id]
    with acme.server.admin() as admin:
        assert list(admin.scan_iter("*:l")) == []


async def test_under_a_hold_nobody_is_forgotten(acme: Provisioned, tenant: Tenant) -> None:
    await fill(tenant, "ada")
    acme.provision("default", access=AgentAccess.STEWARD, state=AccessState(held=True))
    with pytest.raises(TenantHeld, match="until it ends"):
        await tenant.forget("ada")
    assert requests(acme) == []
    await tenant.conversation("one", user="ada").append(human())


@pytest.mark.parametrize("access", [AgentAccess.READ_ONLY, AgentAccess.READ_WRITE, None])
async def test_only_a_steward_forgets_and_it_is_told_before_any_io(
    access: AgentAccess | None, tmp_path: Path, opened: Open, unreachable: Provisioned
) -> None:
    unreachable.policy = TenantPolicy(access=access, rights=STEWARD.rights)
    with pytest.raises(ErasureNotPermitted, match=r"needs Steward: set spec\.agents"):
        await opened(unreachable, port=1).forget("ada")


async def test_a_policy_may_forbid_to_forget(unreachable: Provisioned, opened: Open) -> None:
    unreachable.policy = TenantPolicy(access=AgentAccess.STEWARD)
    with pytest.raises(ErasureNotPermitted, match="Forbidden"):
        await opened(unreachable, port=1).forget("ada")


async def test_where_consent_is_required_a_proof_of_the_reference_is_sent(
    on_valkey: Provisioned, opened: Open
) -> None:
    rights = SubjectRights(erasure=True, consent_required=True)
    on_valkey.policy = TenantPolicy(access=AgentAccess.STEWARD, rights=rights)
    tenant = opened(on_valkey)
    with pytest.raises(ConsentRequired, match="consent_reference="):
        await tenant.forget("ada")
    assert requests(on_valkey) == []
    await tenant.forget("ada", consent_reference="mail of ada, 2026-03-01")
    (request,) = requests(on_valkey)
    proof = consent_proof(AUDIT_KEY, request.id, "mail of ada, 2026-03-01")
    assert request.consent == proof
    assert request.consent != consent_proof(AUDIT_KEY, request.id, "another")


async def test_under_minimal_a_persons_messages_leave_the_shared_conversation(
    acme: Provisioned, opened: Open
) -> None:
    acme.policy = TenantPolicy(
        isolation=Isolation.MINIMAL, access=AgentAccess.STEWARD, rights=STEWARD.rights
    )
    tenant = opened(acme)
    chats = {user: tenant.conversation("shared", user=user) for user in ("ada", "bob")}
    for number in range(3):
        for user, chat in chats.items():
            await chat.append(human(f"{user} {number}"))
    await tenant.forget("ada")
    left = [one.text for one in await chats["bob"].messages()]
    assert left == ["bob 0", "bob 1", "bob 2"]
    state = Checkpoint(namespace="", name="1", content=b"", channels={})
    with pytest.raises(SubjectErased):
        await chats["ada"].append(human())
    with pytest.raises(SubjectErased):
        await tenant.checkpoints("shared", user="ada").put(state)
    await chats["bob"].append(human("goes on"))
    await tenant.checkpoints("shared", user="bob").put(state)


async def test_a_value_without_a_key_goes_with_its_context(
    on_valkey: Provisioned, opened: Open
) -> None:
    tenant = opened(on_valkey)
    case = tenant.shared_context("case")
    await case.create({"a": 1}, about=["ada"])
    with on_valkey.server.admin() as admin:
        admin.delete(*admin.scan_iter("*:k:*"))
    await tenant.forget("ada")
    assert (await opened(on_valkey).shared_context("case").read()).revision == 0


async def test_a_lost_reply_asks_once(on_valkey: Provisioned, opened: Open) -> None:
    """Requests are told apart by their id; the same one may stand in the queue twice."""
    tenant = opened(on_valkey)
    with on_valkey.server.admin() as admin:
        first = asyncio.create_task(tenant.forget("ada"))
        admin.client_kill_filter(_type="normal", skipme=True)
        receipt = await first
    assert {request.id.hex() for request in requests(on_valkey)} == {receipt.id}


async def test_receipts_are_read_as_the_operator_wrote_them(
    acme: Provisioned, tenant: Tenant
) -> None:
    receipt = await tenant.forget("ada")
    assert await tenant.erasures() == []
    assert await tenant.erasure(receipt.id) is None
    with acme.server.admin() as admin:
        admin.hset(keys.erasure_receipts(acme.tenant), receipt.id, receipt.to_json())
    assert await tenant.erasures() == [receipt]
    assert await tenant.erasure(receipt.id) == receipt


@pytest.fixture
def unreachable(valkey: Server, tmp_path: Path) -> Provisioned:
    """A tenant whose bindings lead nowhere: whatever is refused, is before any I/O."""
    return Provisioned(valkey, tmp_path)


def test_what_names_no_place_in_an_index_is_passed_over() -> None:
    subject = Subject(ACME, Isolation.MODERATE, "alias", b"")
    index = [
        b"c:x",
        b"c::y",
        b"c:x:y:z",
        b"_:",
        b"_:a:b",
        b"other:a",
        b"\xff",
        b"_:a",
        b"_:a",
        b"c:x:y",
    ]
    found = places_of(subject, index)
    assert [place.place.conversation for place in found.conversations] == ["a"]
    assert [names for _, names in found.values.items()] == [("y",)]
