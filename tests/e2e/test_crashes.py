"""The operator is killed at any moment. Tenants end as declared, and nothing is left over."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e import invariants
from tests.e2e.scene import Scene, eventually
from tests.support.servers import Options

pytestmark = pytest.mark.e2e

_KILLS, _MOST_KILLS, _CHANGES = 12, 40, 24
_RECONCILES = 100
"""Kills go on until so many reconciles came to their end: a leader that dies soon makes few."""


@dataclass
class Team:
    """A team that makes, changes, rotates and deletes tenants at random."""

    scene: Scene
    chance: random.Random
    name: str
    alive: dict[str, dict[str, Any]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    made: int = 0

    def change(self, count: int) -> None:
        """So many changes, as one `kubectl apply` and one `kubectl delete`."""
        changed: set[str] = set()
        doomed: set[str] = set()
        for _ in range(count):
            (doomed if (name := self._change()) in self.gone else changed).add(name)
        objects = [
            self.scene.tenant_object(self.name, name, **self.alive[name])
            for name in sorted(changed - doomed)
        ]
        if objects:
            self.scene.cluster.apply(*objects)
        if doomed:
            self.scene.cluster.kubectl(
                "delete", "mtenant", *doomed, "-n", self.name, "--wait=false", "--ignore-not-found"
            )

    def _change(self) -> str:
        kinds = ["new", "new", "rotate", "agents", "delete"]
        what = self.chance.choice(kinds) if self.alive else "new"
        self.made += 1
        name = f"t{self.made}" if what == "new" else self.chance.choice(sorted(self.alive))
        spec = self.alive.setdefault(
            name, {"deletionPolicy": self.chance.choice(["Delete", "Shred"])}
        )
        if what == "delete":
            del self.alive[name]
            self.gone.add(name)
        elif what == "rotate":
            spec["annotations"] = {"memtenant.dev/rotate": str(self.made)}
        elif what == "agents":
            spec["agents"] = [{"name": "one"}, {"name": "two", "access": "ReadOnly"}]
        return name


def test_operator_killed_at_random_points_of_a_hundred_reconciles_converges(scene: Scene) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    options = Options(aclfile=True, appendonly=True)
    primary = scene.server(options)
    replica = scene.server(options, replica_of=primary)
    scene.policy()
    scene.store(primary)
    team = Team(scene, chance, scene.team())
    for identity in "ab":
        scene.operator(
            identity, lease_duration="2", lease_renew_deadline="1.6", lease_retry_period="0.3"
        )
    with ThreadPoolExecutor(1) as person:
        for kills in range(_MOST_KILLS):
            if kills >= _KILLS and reconciled(scene) >= _RECONCILES:
                break
            leader = scene.leading()
            exits = len(leader.exits)
            changes = person.submit(team.change, _CHANGES)
            time.sleep(chance.uniform(0.05, 2.5))
            leader.kill()
            eventually(lambda: len(leader.exits) > exits, "the end of the killed")  # noqa: B023
            changes.result()

    scene.wait_gone(team.name, *team.gone)
    scene.wait_ready(team.name, *team.alive)
    scene.settled()
    invariants.check(scene, primary, replica)
    for name, spec in team.alive.items():
        agents = {"default"} if not spec.get("agents") else {"one", "two"}
        found = scene.seen(team.name, name)
        assert found is not None
        assert {told["agent"] for told in found["status"]["bindings"]} == agents
    assert reconciled(scene) >= _RECONCILES


def reconciled(scene: Scene) -> int:
    """How many reconciles the operators tell to have done."""
    return sum(one.log.read_text().count('"message": "reconciled ') for one in scene.replicas)
