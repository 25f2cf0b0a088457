"""What is read of a store: on every server, by a user that may only read, whatever is there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from memtenant import Message
from memtenant.crypto.header import Header
from memtenant.memory.checkpoints import Checkpoint, PendingWrite
from memtenant.reports.checks import Status
from memtenant.reports.evidence import Missing, RecordEvidence, StoreEvidence
from memtenant.stores.witness import StoreWitness
from memtenant.tenancy import keys
from tests.reports.breaking import content
from tests.reports.conftest import ACME, Scene, scene_on, words
from tests.reports.test_checks import at_work
from tests.support.servers import Flavour, Server

ONLY_MANY = 70_000
"""Bytes beyond which a key is read page by page."""


async def found(scene: Scene) -> RecordEvidence:
    evidence = await scene.evidence()
    (tenant,) = evidence.tenants
    assert isinstance(tenant.records, RecordEvidence)
    return tenant.records


async def test_every_server_is_read_by_the_reporters_own_user_whatever_is_in_it(
    each_scene: Scene,
) -> None:
    await at_work(each_scene)
    evidence = await each_scene.evidence()
    store = evidence.stores["shared"]
    assert isinstance(store, StoreEvidence)
    assert (store.checked, store.drift, store.strangers, store.open_nodes) == (3, (), (), ())
    before = await found(each_scene)
    assert (before.records, before.encrypted, before.plain) == (5, 5, 0)
    assert (await each_scene.judged("AuditCovers")).judgement.status is Status.PASS
    prefix = keys.records(ACME)
    with each_scene.server.admin() as admin:
        record = bytes(admin.lindex(content(admin), 0))
        admin.execute_command("ACL", "SETUSER", "mt.support.acme.default.a", "+keys")
        admin.execute_command("ACL", "SETUSER", "somebody", "on", ">x", "~*", "+get")
        admin.execute_command("ACL", "SETUSER", "mt.sealer", "+acl|setuser")
        # What somebody writes by hand has any type.
        admin.set(f"{prefix}ada@example.org", b"\xff\x00\xfe")
        admin.sadd(f"{prefix}set", "a", "b")
        admin.zadd(f"{prefix}zset", {"c": 1.5})
        admin.hset(f"{prefix}_:{'h' * 22}:h", "note", "x" * 10)
        admin.rpush(f"{prefix}_:{'l' * 22}:l", *("y" * 100 for _ in range(ONLY_MANY // 100)))
        admin.hset(f"{prefix}c:{'c' * 22}", mapping={f"f{n}": "z" * 100 for n in range(900)})
        admin.xadd(f"{prefix}stream", {"k": "v"})
        # Names and entries that look like memtenant's.
        admin.hset(f"{prefix}_:{'g' * 22}:g", "note", "y" * 10)
        tombstone = Header(1, 1, 0, tombstone=True).to_bytes()
        admin.rpush(f"{prefix}_:{'t' * 22}:l", tombstone, tombstone + b"and more")
        admin.rpush(f"{prefix}_:ada@example.org:l", record)
        admin.rpush(f"{prefix}c:{'c' * 22}:log", "who did what")
        admin.hset(f"{prefix}c:{'c' * 22}:v", "card", "4111111111111111")
        admin.hset(keys.usage(ACME), "dropped", "9" * 5000)
        admin.hset(keys.limits(ACME), "least_kek", "none")
    result = await each_scene.judged("LeastPrivilege")
    assert "has +keys" in words(result)
    assert "has +acl|setuser" in words(result)
    assert "user somebody was not made by memtenant" in words(result)
    after = await found(each_scene)
    assert after.encrypted == before.encrypted
    # The counter of dropped events is a number of 18 digits at most.
    assert after.plain == 1 + 2 + 1 + 1 + ONLY_MANY // 100 + 900 + 1 + 5 + 1
    assert (await each_scene.judged("KeysRotated")).judgement.status is Status.ERROR
    assert not any("ada" in one for shown in after.examples.values() for one in shown)


async def test_a_conversation_of_many_pages_is_covered_by_its_events(scene: Scene) -> None:
    await scene.declare(quota={"writesPerSecond": 100_000})
    chat = scene.agent().conversation("s", user="ada")
    for _ in range(6):
        await chat.extend([Message.human("x" * 50) for _ in range(100)])
    await chat.remove(3, 4, 300)
    await chat.pop()
    await scene.seal()
    evidence = await scene.evidence()
    (tenant,) = evidence.tenants
    coverage = tenant.events.coverage  # type: ignore[union-attr]
    assert (coverage.records, coverage.covered, coverage.uncovered) == (596, 596, 0)  # type: ignore[union-attr]
    assert (coverage.explained, coverage.vanished) == (4, 0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("[" * 70 + '"card 4111 1111 1111 1111, CVV: 123"' + "]" * 70, Status.FAIL),
        ('{"a": "card 4111 1111 1111 1111, CVV: 123", "a": "nothing"}', Status.FAIL),
        ("nothing " * 10_000, Status.SKIP),
    ],
    ids=["deep", "twice", "long"],
)
async def test_a_text_passes_only_where_it_was_looked_through_to_its_end(
    scene: Scene, text: str, status: Status
) -> None:
    await at_work(scene)
    scene.decrypt = True
    with scene.server.admin() as admin:
        admin.set(f"{keys.records(ACME)}note", text)
    assert (await scene.judged("NoForbiddenData")).judgement.status is status


async def test_what_memtenant_keeps_beside_records_is_nothing_in_clear(
    scene: Scene,
) -> None:
    await scene.declare()
    thread = scene.agent().checkpoints("t", user="ada")
    await thread.put(Checkpoint("", "1", b"one", {"list": [b"a", b"b"], "value": b"c"}))
    await thread.put(Checkpoint("", "2", b"two", {"list": [b"a", b"b", b"d"]}, "1"))
    await thread.write("", "2", [PendingWrite("task", 0, b"e")])
    case = scene.agent().shared_context("case")
    await case.create({"a": 1, "b-2": 2})
    await case.update({"a": 3, "b-2": None})
    chat = scene.agent().conversation("s", user="ada")
    for number in range(20):
        await chat.append(Message.human("hello"), idempotency_key=f"once {number}")
    there = await found(scene)
    assert (there.plain, there.undated) == (0, 0)
    assert there.encrypted == 7 + 1 + 21


async def test_what_agents_write_beside_records_is_looked_through_too(scene: Scene) -> None:
    await at_work(scene)
    case = scene.agent().shared_context("case")
    await case.update({"4111111111111111": 1}, about=["ada"])
    before = await found(scene)
    # The value's name: in the context, its versions, its changes, and the person's index.
    assert (before.plain, before.hits) == (0, {"Card": 4})
    assert {one.split(":", 2)[2][:2] for one in before.examples["Card"]} == {"r:", "i:"}
    prefix = keys.prefix(ACME)
    with scene.server.admin() as admin:
        (index,) = admin.scan_iter(f"{prefix}i:*")
        subject = f"{prefix}k:{bytes(index).decode().rpartition(':')[2]}"
        # Each is what the tenant's own agents may write there.
        admin.rpush(index, "ada@example.org")
        admin.hsetnx(subject, "note", "ada@example.org")
        admin.hsetnx(f"{prefix}k:{'s' * 22}", "dek", "4111 1111 1111 1111 is the card of ada, ok..")
        admin.hsetnx(f"{prefix}k:bob@example.org", "dek", "x")
        admin.zadd(f"{prefix}x", {"ada@example.org": 1})
        admin.hset(keys.usage(ACME), "ada@example.org", "x")
        head = f"{content(admin).decode().removesuffix(':l')}:h"
        admin.hset(head, mapping={"tag": "ada@example.org", "m1": "bob@example.org"})
    after = await found(scene)
    assert after.plain == 8
    assert after.hits["Email"] == 7
    assert after.hits["Card"] == 5


async def test_a_replica_that_was_cut_off_is_not_passed_over(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    primary = start_server(Flavour.VALKEY_9)
    replica = start_server(Flavour.VALKEY_9, replica_of=primary)
    async with scene_on(primary, tmp_path) as scene:
        scene.frameworks = ("GDPR",)
        await scene.declare()
        assert (await scene.judged("DefaultUserOff")).judgement.status is Status.PASS
        with replica.admin() as admin:
            admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        result = await scene.judged("DefaultUserOff")
        assert result.judgement.status is Status.ERROR
        assert f"{replica.endpoint}: it answers, and is not in step" in words(result)
        replica.stop()
        result = await scene.judged("DefaultUserOff")
        assert result.judgement.status is Status.ERROR
        assert replica.endpoint in words(result)


async def test_many_conversations_are_nothing_in_clear(scene: Scene) -> None:
    """Their set is read page by page, and has a time with each."""
    await scene.declare()
    await scene.agent().conversation("s", user="ada").append(Message.human("hello"))
    with scene.server.admin() as admin:
        many = {f"_:{number:022}": 1_764_000_000_000 + number for number in range(2000)}
        admin.zadd(f"{keys.prefix(ACME)}x", many)
        assert (admin.memory_usage(f"{keys.prefix(ACME)}x") or 0) > ONLY_MANY
    assert (await found(scene)).plain == 0


async def test_what_cannot_be_read_was_not_looked_through(scene: Scene) -> None:
    await at_work(scene)
    scene.decrypt = True
    with scene.server.admin() as admin:
        admin.xadd(f"{keys.records(ACME)}note", {"card": "4111 1111 1111 1111, CVV: 123"})
    assert (await scene.judged("NoForbiddenData")).judgement.status is Status.SKIP
    assert (await scene.judged("Encrypted")).judgement.status is Status.FAIL


async def test_a_conversation_whose_oldest_go_while_it_is_read_is_read_to_its_end(
    scene: Scene,
) -> None:
    """An append trims what is past the cut-off, and all that follows moves up."""
    await scene.declare()
    (login,) = await scene.sources().stores()
    assert not isinstance(login.settings, Missing)
    witness = StoreWitness(login.settings)
    name = f"{keys.records(ACME)}_:{'l' * 22}:l"
    read: list[bytes] = []
    with scene.server.admin() as admin:
        admin.rpush(name, *(f"{number:04} {'y' * 1000}" for number in range(3000)))
        trims = iter((10, 0, 700))
        async for page in witness.contents(lambda _tenant, part: part.endswith(b"l:l")):
            read += [entry[:4] for _, entry in page.entries]
            admin.ltrim(name, next(trims, 0), -1)
        left = [bytes(entry[:4]) for entry in admin.lrange(name, 0, -1)]
    await witness.close()
    assert len(left) == 2290
    assert set(left) <= set(read)
    assert read == sorted(set(read))
