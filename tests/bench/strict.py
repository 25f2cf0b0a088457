"""`python -m tests.bench.strict [--pods] [INSTANCES]`: what Strict tenants cost the operator.

Each has a Valkey of its own, made and looked after as without a cluster: the operator's work on the
servers is the same there, and that on pods is not in the figures. They are of the process' own CPU.
With ``--pods`` they are in a cluster instead (`tests.bench.strictpods`).
"""

import argparse
import asyncio
import gc
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from memtenant.api.validate import defaulted
from memtenant.reconcile.once import fill, local_world, settle
from memtenant.reconcile.outcome import Outcome
from memtenant.reconcile.reconciler import WorldReconciler
from memtenant.reconcile.world import World
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import API_VERSION, Kind, ObjectKey
from memtenant.stores.instances import EmbeddedInstances
from tests.bench import strictpods
from tests.bench.processes import rss_mb
from tests.bench.report import Row, table

_STORE = ObjectKey.store("own")
_POLICY = ObjectKey.policy("standard")
_EVERY = {"repair": 5.0, "audit": 15.0, "erase": 10.0, "measure": 60.0, "expire": 300.0}
"""Seconds between two rounds, as the operator's settings have them."""

_TIMES = 3


@dataclass(frozen=True, slots=True)
class StrictCost:
    """For each of so many instances: milliseconds of CPU to make it, of a round over it, and of a
    look at its tenant; the kilobytes that the operator grew by, and its connections."""

    instances: int
    made: float
    rounds: dict[str, float]
    looked_at: float
    grown: float
    connections: float

    @property
    def at_rest(self) -> float:
        """Milliseconds of CPU in a second, for each instance."""
        return sum(cost / _EVERY[name] for name, cost in self.rounds.items())


def measure(instances: int) -> StrictCost:
    """Over as many Valkeys, of a dozen megabytes each."""
    return asyncio.run(_measure(instances))


def rows(cost: StrictCost) -> list[Row]:
    """As lines of the report."""
    all_of_them = cost.at_rest * cost.instances / 10
    return [
        Row(
            f"{cost.instances} Strict tenants, each with its instance: the operator's CPU",
            "",
            f"{cost.made:.0f} ms to make one, {cost.looked_at:.1f} ms to look at its tenant, "
            f"{cost.rounds['repair']:.1f} ms a repair; all at rest {all_of_them:.1f} % of a core",
            None,
        ),
        Row(
            "… the operator's memory and connections",
            "",
            f"{cost.grown:.0f} KB and {cost.connections:.1f} connections each",
            None,
        ),
    ]


async def _measure(instances: int) -> StrictCost:
    with tempfile.TemporaryDirectory(prefix="memtenant-strict-") as folder:
        host = EmbeddedInstances(Path(folder) / "instances")
        try:
            with FolderResources.open(Path(folder) / "state") as resources:
                _declare(resources, Kind.STORE, _STORE, dedicated={"image": "none"})
                _declare(resources, Kind.POLICY, _POLICY)
                async with local_world(resources, instances=host) as world:
                    return await _costs(world, resources, instances)
        finally:
            await host.stop()


async def _costs(world: World, resources: FolderResources, instances: int) -> StrictCost:
    reconciler = WorldReconciler(world)
    # What comes with the first one alone is not counted: the proof of the rules, modules, caches.
    await _make(world, resources, range(1))
    before = rss_mb(os.getpid())
    made = await _cpu(lambda: _make(world, resources, range(1, instances + 1)))
    gc.collect()
    rounds = {name: await _round(getattr(reconciler, name)) for name in _EVERY}
    looked_at = await _cpu(lambda: _look(reconciler, [_tenant(n) for n in range(instances)]))
    return StrictCost(
        instances,
        made / instances,
        {name: cost / instances for name, cost in rounds.items()},
        looked_at / instances,
        (rss_mb(os.getpid()) - before) * 1000 / instances,
        _connections() / instances,
    )


async def _make(world: World, resources: FolderResources, numbers: Sequence[int]) -> None:
    for number in numbers:
        _declare(
            resources,
            Kind.TENANT,
            _tenant(number),
            isolation="Strict",
            retentionPolicyRef={"name": _POLICY.name},
            agents=[{"name": "one"}, {"name": "two"}],
        )
    await fill(world.mirror, resources)
    failed = [one for one in await settle(world) if one.error is not None]
    assert not failed, failed[0]


async def _look(reconciler: WorldReconciler, tenants: Sequence[ObjectKey]) -> None:
    for tenant in tenants:
        await reconciler.reconcile(tenant, "bench")


async def _round(step: Callable[[ObjectKey], Awaitable[Outcome]]) -> float:
    await step(_STORE)

    async def again() -> None:
        for _ in range(_TIMES):
            await step(_STORE)

    return await _cpu(again) / _TIMES


async def _cpu(work: Callable[[], Awaitable[None]]) -> float:
    """Milliseconds of this process' CPU."""
    before = time.process_time()
    await work()
    return (time.process_time() - before) * 1000


def _connections() -> int:
    links = Path("/proc/self/fd").iterdir()
    return sum(str(link.readlink()).startswith("socket:") for link in links if link.is_symlink())


def _tenant(number: int) -> ObjectKey:
    return ObjectKey.tenant("strict", f"t{number}")


def _declare(resources: FolderResources, kind: Kind, key: ObjectKey, **spec: object) -> None:
    metadata = {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
    raw = {"apiVersion": API_VERSION, "kind": kind.value, "metadata": metadata, "spec": spec}
    resources.declare(key, defaulted(raw)["spec"])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.strict", description=__doc__)
    parser.add_argument("instances", type=int, nargs="?", help="how many (default 50; 20 pods)")
    parser.add_argument("--pods", action="store_true", help="in a cluster, each with its pod")
    options = parser.parse_args()
    if options.pods:
        with_pods = strictpods.measure(options.instances or 20)
        print(table(strictpods.rows(with_pods)))
        return
    instances = options.instances or 50
    cost = measure(instances)
    print(table(rows(cost)))
    for name, each in cost.rounds.items():
        print(f"{name}: {each:.2f} ms an instance, every {_EVERY[name]:.0f} s")


if __name__ == "__main__":
    main()
