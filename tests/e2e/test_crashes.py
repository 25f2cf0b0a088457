"""The operator is killed, frozen, and cut off from the API server. Tenants end as declared."""

import random
import time

import pytest

from tests.e2e import invariants
from tests.e2e.scene import Scene, eventually
from tests.support.servers import Options

pytestmark = pytest.mark.cluster


def test_operator_killed_at_random_points_of_a_hundred_reconciles_converges(scene: Scene) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    primary = scene.server(Options(aclfile=True, appendonly=True))
    replica = scene.server(Options(aclfile=True, appendonly=True), replica_of=primary)
    scene.policy()
    scene.store(primary)
    team = scene.team()
    for identity in "ab":
        scene.operator(
            identity, lease_duration="2", lease_renew_deadline="1.6", lease_retry_period="0.3"
        )
    alive: dict[str, dict[str, object]] = {}
    gone: set[str] = set()
    changes = 0
    for _ in range(10):
        leader = scene.leading()
        for _ in range(10):
            changes += 1
            _change_something(scene, chance, team, alive, gone, f"t{changes}")
        time.sleep(chance.uniform(0, 0.7))
        leader.kill()
        eventually(lambda leader=leader: len(leader.exits) > 0, "the end of the killed")  # type: ignore[misc]

    scene.wait_gone(team, *gone)
    scene.wait_ready(team, *alive)
    scene.settled()
    invariants.check(scene, primary, replica)
    for name, spec in alive.items():
        agents = {"default"} if not spec.get("agents") else {"one", "two"}
        found = scene.seen(team, name)
        assert found is not None
        assert {told["agent"] for told in found["status"]["bindings"]} == agents


def _change_something(
    scene: Scene,
    chance: random.Random,
    team: str,
    alive: dict[str, dict[str, object]],
    gone: set[str],
    fresh: str,
) -> None:
    what = chance.choice(["new", "new", "rotate", "agents", "delete"]) if alive else "new"
    name = fresh if what == "new" else chance.choice(sorted(alive))
    spec = alive.setdefault(name, {"deletionPolicy": chance.choice(["Delete", "Shred"])})
    if what == "delete":
        scene.delete_tenant(team, name)
        del alive[name]
        gone.add(name)
        return
    if what == "rotate":
        spec["annotations"] = {"memtenant.dev/rotate": fresh}
    if what == "agents":
        spec["agents"] = [{"name": "one"}, {"name": "two", "access": "ReadOnly"}]
    scene.tenant(team, name, **spec)
