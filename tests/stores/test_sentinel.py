"""Sentinels: who is believed, and what an agent may do there."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import redis

from memtenant.errors import StoreRefused, StoreUnavailable
from memtenant.stores import Address, Role, SentinelSettings, StoreAdmin
from memtenant.stores.sentinel import Told, agreed, agreed_replicas, chosen
from memtenant.tenancy import keys
from tests.stores.operators import ACME, INSTALLATION, make_operator, next_term, settings_for
from tests.support import processes
from tests.support.sentinels import MASTER, Watched
from tests.support.servers import Flavour, Server

AGENTS = "memtenant-agents"
AGENTS_PASSWORD = "the-agents"


@pytest.fixture(scope="module", params=[Flavour.VALKEY_9, Flavour.REDIS_7], ids=str)
def trio(
    request: pytest.FixtureRequest, redis_sentinels: Callable[..., AbstractContextManager[Watched]]
) -> Iterator[Watched]:
    """Three Sentinels over a primary and two replicas, for the whole module."""
    with redis_sentinels(request.param) as found:
        make_operator(*found.nodes)
        yield found


TRUE, FALSE = Address("10.0.0.1", 6379), Address("10.6.6.6", 6379)


def says(number: int, primary: Address, *others: int, epoch: int = 7, alone: str = "") -> Told:
    """What Sentinel ``number`` says."""
    named = tuple(sentinel(other) for other in others)
    return Told(sentinel(number), f"id-{number}", primary, epoch, named, alone)


def sentinel(number: int) -> Address:
    return Address(f"10.0.1.{number}", 26379)


def test_one_sentinel_that_lies_is_not_believed_whatever_epoch_it_tells() -> None:
    lie = says(3, FALSE, epoch=1 << 40)
    assert chosen([says(1, TRUE), says(2, TRUE), lie], MASTER).primary == TRUE
    with pytest.raises(StoreUnavailable) as failure:
        chosen([says(1, TRUE), lie], MASTER)
    assert failure.value.reason == "SentinelsDisagree"


def test_one_that_is_cut_off_does_not_count() -> None:
    cut_off = says(3, FALSE, alone="NOQUORUM")
    assert chosen([says(1, TRUE), cut_off], MASTER).primary == TRUE


def test_a_sentinel_cannot_make_up_others_that_speak_for_it() -> None:
    answers = [says(1, TRUE, 2, 3), says(2, TRUE, 1, 3), says(3, FALSE, 1, 2, 4, 5, 6, 7)]
    assert agreed(answers) == {sentinel(1), sentinel(2), sentinel(3)}
    assert agreed([says(1, TRUE, 2, 3)]) == {sentinel(1), sentinel(2), sentinel(3)}


@pytest.mark.parametrize(
    ("told", "agreed_on"), [((2, 2, 0), 2), ((9, 1, 1), 1), ((1, 0, 0), 0), ((2, 0), 0), ((1,), 1)]
)
def test_replicas_are_as_many_as_more_than_half_of_the_sentinels_know(
    told: tuple[int, ...], agreed_on: int
) -> None:
    answers = [replace(says(number, TRUE), replicas=many) for number, many in enumerate(told)]
    assert agreed_replicas(answers) == agreed_on


@dataclass
class Asking:
    """How the operator asks; a test changes what it is about."""

    endpoints: tuple[Address, ...]
    password: str
    master: str = MASTER

    @classmethod
    def of(cls, trio: Watched) -> "Asking":
        """As it should be."""
        return cls(tuple(Address("127.0.0.1", one.port) for one in trio.sentinels), trio.password)

    @asynccontextmanager
    async def looking(self, trio: Watched) -> AsyncIterator[StoreAdmin]:
        """A `StoreAdmin` that was not discovered yet."""
        number = next_term()
        settings = settings_for(trio.nodes[0])
        sentinels = SentinelSettings(
            self.endpoints, self.master, lambda: self.password, AGENTS, AGENTS_PASSWORD
        )
        admin = StoreAdmin(
            settings, installation=INSTALLATION, fence=lambda: number, sentinels=sentinels
        )
        async with admin:
            yield admin


async def test_the_primary_is_the_one_that_the_sentinels_tell(trio: Watched) -> None:
    async with Asking.of(trio).looking(trio) as store:
        facts = await store.discover()
    told = Address(*trio.sentinels[0].told())
    assert (facts.primary.address, facts.primary.role) == (told, Role.PRIMARY)
    assert {node.address.port for node in facts.nodes} == {node.port for node in trio.nodes}


async def test_a_primary_that_no_replica_hears_removes_no_tenant_for_good(trio: Watched) -> None:
    """It may be cut off from them and be replaced: the tenant's keys would be back."""
    primary = trio.settle()
    replicas = [node for node in trio.nodes if node is not primary]
    with primary.admin() as admin:
        admin.hset(keys.limits(ACME), "memory", 1)
    async with Asking.of(trio).looking(trio) as store:
        await store.discover()
        await store.lead()
        log_in(replicas, "wrong")
        with primary.admin() as admin:
            admin.execute_command("CLIENT", "KILL", "TYPE", "replica")
        processes.wait_until(lambda: not any(node.upstream for node in replicas), what="deafness")
        with pytest.raises(StoreUnavailable, match="none follows") as failure:
            await store.purge([ACME])
        log_in(replicas, primary.peer[1])
        assert trio.settle() is primary
        await store.purge([ACME])
    assert failure.value.reason == "ReplicasBehind"
    for node in trio.nodes:
        with node.admin() as admin:
            assert not admin.exists(keys.limits(ACME))


def log_in(replicas: list[Server], password: str) -> None:
    """Let them follow with this password from now on."""
    for replica in replicas:
        with replica.admin() as admin:
            admin.config_set("masterauth", password)


async def test_agents_may_ask_for_the_primary_and_for_nothing_else(trio: Watched) -> None:
    only_one = Asking.of(trio)
    only_one.endpoints = only_one.endpoints[:1]
    async with only_one.looking(trio) as store:
        await store.discover()
        assert await store.admit_agents() == len(trio.sentinels)
        assert await store.admit_agents() == 0
        with trio.sentinels[1].client() as sentinel:
            sentinel.execute_command("ACL", "SETUSER", AGENTS, "+sentinel|masters")
        assert await store.admit_agents() == 1
    for one in trio.sentinels:
        with one.client(AGENTS, AGENTS_PASSWORD) as agent:
            question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
            assert int(agent.execute_command(*question)[1]) == one.told()[1]
            for words in (
                ("SENTINEL", "MASTERS"),
                ("SENTINEL", "FAILOVER", MASTER),
                ("SENTINEL", "SET", MASTER, "quorum", "1"),
                ("SENTINEL", "MONITOR", "other", "127.0.0.1", "1", "1"),
                ("SENTINEL", "REMOVE", MASTER),
                ("ACL", "SETUSER", AGENTS, "+@all"),
                ("SUBSCRIBE", "+switch-master"),
                ("INFO",),
            ):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    agent.execute_command(*words)
        assert f"user {AGENTS} on " in (one.folder / "sentinel.conf").read_text()


async def test_what_stands_in_the_way_is_told(trio: Watched) -> None:
    wrong = Asking.of(trio)
    wrong.password = "wrong"
    unknown = Asking.of(trio)
    unknown.master = "other"
    for asking, reason in ((wrong, "SentinelRefused"), (unknown, "PrimaryUnknown")):
        async with asking.looking(trio) as store:
            with pytest.raises(StoreRefused) as failure:
                await store.discover()
        assert failure.value.reason == reason
        assert "wrong" not in str(failure.value)


@pytest.mark.parametrize("declared", [3, 2], ids=["declared", "not declared"])
async def test_an_open_sentinel_is_refused_although_the_others_are_not(
    trio: Watched, declared: int
) -> None:
    asking = Asking.of(trio)
    asking.endpoints = asking.endpoints[:declared]
    with trio.sentinels[2].client() as sentinel:
        sentinel.execute_command("ACL", "SETUSER", "default", "nopass")
        try:
            async with asking.looking(trio) as store:
                with pytest.raises(StoreRefused, match="send every agent") as failure:
                    await store.discover()
            assert failure.value.reason == "SentinelOpen"
        finally:
            sentinel.execute_command("ACL", "SETUSER", "default", "resetpass", f">{trio.password}")


async def test_sentinels_that_are_away_are_done_without_and_the_last_alone_is_not_believed(
    trio: Watched,
) -> None:
    """Last in this module: two of the Sentinels are gone afterwards."""
    trio.sentinels[0].kill9()
    async with Asking.of(trio).looking(trio) as store:
        assert (await store.discover()).primary.role is Role.PRIMARY
        trio.sentinels[1].kill9()
        with (
            trio.hurried(),
            pytest.raises(StoreUnavailable, match="out of date") as failure,
        ):
            await until_it_fails(store)
    assert failure.value.reason == "SentinelsWithoutQuorum"


async def until_it_fails(store: StoreAdmin) -> None:
    async with asyncio.timeout(60):
        while True:
            await store.discover()
            await asyncio.sleep(0.1)
