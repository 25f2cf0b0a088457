"""The volume of an instance is full for a while: that is told, and it costs no data later."""

import asyncio
import resource
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from memtenant.jobs.link import StoreLink
from memtenant.reconcile.once import local_world
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.world import World
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import ObjectKey
from memtenant.rules.instance import instance_name
from memtenant.stores import embedded
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.reconcile.instances import Host, declare_tenants, looks, tenant_key
from tests.support import tiers
from tests.support.processes import Unavailable
from tests.support.servers import Flavour

pytestmark = pytest.mark.redis

ONE = TenantId("health", "one")
STORE = ObjectKey.store("own")
QUEUE = keys.audit_queue(ONE)


@pytest.fixture(params=[Flavour.VALKEY_9, Flavour.REDIS_8], ids=lambda flavour: flavour.value)
def host(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    """Instances of each flavour, which a limit on the size of files does not end."""
    try:
        binary = request.param.binary()
    except Unavailable as missing:
        tiers.cannot_run(str(missing))
    program = tmp_path / "server"
    program.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {binary} \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "_binary", lambda: program)
    made = Host(tmp_path / "instances")
    yield made
    asyncio.run(made.stop())


@dataclass
class Volume:
    """That of the instance's process, by the limit that it has on the size of its files."""

    pid: int
    file: Path

    @classmethod
    async def of(cls, root: Path) -> "Volume":
        found = await embedded.running(root / str(ONE))
        assert found is not None
        *_, newest = sorted((found.folder / "appendonlydir").glob("*.incr.aof"))
        return cls(found.pid, newest)

    def fill(self) -> None:
        """Room for a part of the next command."""
        _, most = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (self.file.stat().st_size + 100, most))

    def free(self) -> None:
        _, most = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most, most))


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while not await is_so():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)


async def push(link: StoreLink, many: int) -> int:
    """Entries of a kilobyte; how many the server took."""
    run = link.admin._nodes.keyspace.run
    replies = [(await run([("RPUSH", QUEUE, "x" * 1000)]))[0] for _ in range(many)]
    return sum(not isinstance(reply, redis.ResponseError) for reply in replies)


async def rewritten(link: StoreLink) -> None:
    """The file written anew, as a server does with one that grew: it opens the next one in another
    way than at its start."""
    await link.admin.rewrite_append_only_file()

    async def is_so() -> bool:
        return not (await link.admin.refresh()).primary.file.rewriting

    await until(is_so)


async def writable(link: StoreLink) -> None:
    async def is_so() -> bool:
        return (await link.admin.refresh()).primary.file.writable

    await until(is_so)


async def filled(link: StoreLink, volume: Volume) -> int:
    """The volume full, noticed by the server; how many entries it took before. While its disk is
    busy it writes what it took a moment later."""
    taken = await push(link, 5)
    volume.fill()
    async with asyncio.timeout(120):
        while more := await push(link, 1):
            taken += more
    return taken


async def told(resources: FolderResources) -> tuple[str, str]:
    """What the tenant's condition Ready says."""
    declared = await resources.get(tenant_key(ONE))
    assert declared is not None
    (ready,) = (one for one in declared.status["conditions"] if one["type"] == "Ready")
    return ready["status"], ready["reason"]


async def repaired(world: World) -> tuple[str, ...]:
    """What repairs did until one wrote the file anew."""
    reconciler = WorldReconciler(world)
    did: tuple[str, ...] = ()
    async with asyncio.timeout(120):
        while not did:
            did = (await reconciler.repair(STORE)).did
    return did


async def test_a_full_volume_is_told_and_the_next_start_loses_nothing(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            link, reconciler = world.links[str(ONE)], WorldReconciler(world)
            await rewritten(link)
            volume = await Volume.of(tmp_path / "instances")
            taken = await filled(link, volume)
            assert tenant_key(ONE) in (await reconciler.repair(STORE)).enqueue
            await looks(world, resources, "first", 1)
            assert await told(resources) == ("False", "StoreCannotSave")

            volume.free()
            await writable(link)
            assert await push(link, 5) == 5
            assert "append-only file" in (await repaired(world))[0]
            await looks(world, resources, "first", 1)
            assert await told(resources) == ("True", "Provisioned")
            await link.admin._nodes.keyspace.call("RPUSH", QUEUE, "the last one")

            await host.stop()
            await looks(world, resources, "first", 1)
            ask = world.links[str(ONE)].admin._nodes.keyspace.call
            assert await ask("LLEN", QUEUE) == taken + 6
    events = (tmp_path / "state" / "events.log").read_text()
    assert '"StoreCannotSave"' in events
    assert '"FileRewritten"' in events


async def test_an_instance_is_not_restarted_before_it_could_read_its_file(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            link = world.links[str(ONE)]
            volume = await Volume.of(tmp_path / "instances")
            await filled(link, volume)
            await WorldReconciler(world).repair(STORE)
            await looks(world, resources, "second", 2)
            volume.free()
            await writable(link)
            await looks(world, resources, "second", 1)  # ends with the repair that asks for it
            assert host.restarts == []
            await repaired(world)
            await looks(world, resources, "second", 2)
            assert host.restarts == [(ONE, "second")]


async def test_an_operator_that_starts_meanwhile_waits_and_has_the_file_written_anew(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            volume = await Volume.of(tmp_path / "instances")
            await filled(world.links[str(ONE)], volume)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            assert await told(resources) == ("False", "InstanceNotReady")
            volume.free()
            await writable(world.links[str(ONE)])
            await looks(world, resources, "first", 1)
            assert await told(resources) == ("True", "Provisioned")
            assert await repaired(world)


async def test_an_instance_whose_secret_is_deleted_meanwhile_is_not_restarted_either(
    tmp_path: Path, host: Host
) -> None:
    with FolderResources.open(tmp_path / "state") as resources:
        declare_tenants(resources, ONE)
        async with local_world(resources, instances=host) as world:
            await looks(world, resources, "first", 1)
            link = world.links[str(ONE)]
            await rewritten(link)
            volume = await Volume.of(tmp_path / "instances")
            taken = await filled(link, volume)
            await WorldReconciler(world).repair(STORE)
            volume.free()
            await writable(link)
            assert await push(link, 5) == 5
            stored = await resources.get_secret(resources.home, instance_name(ONE))
            assert stored is not None
            await resources.delete_secret(stored)
            await looks(world, resources, "first", 1)
            assert host.restarts == []
            async with asyncio.timeout(120):
                while world.links[str(ONE)].cut_off is not None:
                    await WorldReconciler(world).repair(STORE)
            await host.stop()
            await looks(world, resources, "first", 1)
            ask = world.links[str(ONE)].admin._nodes.keyspace.call
            assert await ask("LLEN", QUEUE) == taken + 5
