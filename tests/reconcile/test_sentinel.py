"""A store under Sentinels: agents go on over a failover, and every node is made whole."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from memtenant.api.store_status import AclState, NodeRole, StoreFlavour
from memtenant.tenancy.binding import Binding
from tests.reconcile.at_work import (
    STORE,
    Writer,
    has_users,
    nothing_lost,
    operating,
    users_of,
    written,
)
from tests.reconcile.conftest import Ground
from tests.support import processes
from tests.support.certificates import Authority
from tests.support.sentinels import MASTER, Watched
from tests.support.servers import Flavour

AGENTS = tuple(f"agent-{number}" for number in range(8))


@pytest.fixture(scope="module", params=[Flavour.VALKEY_9, Flavour.REDIS_7], ids=str)
def trio(
    request: pytest.FixtureRequest, redis_sentinels: Callable[..., AbstractContextManager[Watched]]
) -> Iterator[Watched]:
    """Three Sentinels over a primary and two replicas; by TLS where the program has it, else they
    tell of each other by name."""
    tls = Authority("tests") if request.param.speaks_tls else None
    with redis_sentinels(request.param, tls=tls, by_name=tls is None) as found:
        yield found


@pytest.fixture
async def on_sentinels(trio: Watched, tmp_path: Path) -> AsyncIterator[Ground]:
    """The store declared by its Sentinels, with a tenant of eight agents."""
    made = Ground(trio.primary, tmp_path / "state")
    made.open()
    made.policy()
    secret = {"password": trio.primary.admin_password, "sentinel": trio.password}
    tls = {}
    if trio.primary.ca_file is not None:
        secret["ca.crt"] = trio.primary.ca_file.read_text()
        reference = {"name": "admin", "key": "ca.crt"}
        tls = {"tls": {"caSecretRef": reference, "serverName": "localhost"}}
    made.resources.declare_secret(
        made.resources.home, "admin", {key: text.encode() for key, text in secret.items()}
    )
    made.resources.declare(
        STORE,
        {
            "sentinel": {
                "endpoints": trio.endpoints,
                "masterName": MASTER,
                "authSecretRef": {"name": "admin", "key": "sentinel"},
            },
            "adminUsername": trio.primary.admin_user,
            "adminSecretRef": {"name": "admin", "key": "password"},
            **tls,
        },
    )
    made.tenant("acme", durability="Replicated", agents=[{"name": name} for name in AGENTS])
    yield made
    made.close()


async def test_agents_go_on_over_a_failover_and_lose_nothing_acknowledged(
    trio: Watched, on_sentinels: Ground
) -> None:
    former = trio.primary
    async with operating(on_sentinels):
        status = await on_sentinels.store_status("shared")
        assert status.flavour is StoreFlavour.SENTINEL
        assert Counter(node.role for node in status.nodes) == {
            NodeRole.PRIMARY: 1,
            NodeRole.REPLICA: 2,
        }
        writers = [Writer(on_sentinels, name) for name in AGENTS]
        stop = asyncio.Event()
        writing = [asyncio.create_task(one.write(stop)) for one in writers]
        await written(writers, 3)
        before = users_of(former)
        assert before

        former.kill9()
        promoted = await asyncio.to_thread(trio.wait_for_failover, former)
        await written(writers, 3)
        assert users_of(promoted) == before

        former.start()  # with the users of its configuration alone: none of ours
        await asyncio.to_thread(trio.wait_for_replica, former)
        await asyncio.to_thread(
            processes.wait_until, lambda: has_users(former, before), what="its users"
        )
        await written(writers, 3)

        # A replica is taken away for good: agents wait for the one that is left.
        removed = next(node for node in trio.nodes if node is not trio.primary)
        removed.kill9()
        await written(writers, 3)
        stop.set()
        await asyncio.gather(*writing)

        await nothing_lost(writers)
    # On a machine that is busy the Sentinels may have replaced that one meanwhile.
    promoted = trio.primary
    replica = next(node for node in trio.nodes if node not in (promoted, removed))
    await on_sentinels.settle()
    status = await on_sentinels.store_status("shared")
    roles = {int(node.address.rpartition(":")[2]): (node.role, node.acl) for node in status.nodes}
    assert roles == {
        promoted.port: (NodeRole.PRIMARY, AclState.IN_SYNC),
        replica.port: (NodeRole.REPLICA, AclState.IN_SYNC),
    }
    stored = await on_sentinels.resources.get_secret("support", f"acme-{AGENTS[0]}")
    assert stored is not None
    binding = Binding.from_mapping(stored.data)
    assert binding.port == promoted.port  # for clients that cannot ask Sentinels
    assert binding.sentinel is not None
    assert [f"{host}:{port}" for host, port in binding.sentinel.endpoints] == trio.endpoints
    assert not any(trio.password.encode() in value for value in stored.data.values())
