"""What chaos is done to: a platform as small as it can be and still have every part."""

import random
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memtenant.archive import ArchiveReader
from memtenant.audit.checkpoint import SignedCheckpoint
from memtenant.rules.systemusers import SystemRole
from memtenant.tenancy.identity import TenantId
from tests.chaos.agents import Agent, Agents
from tests.chaos.disk import Disk
from tests.chaos.mounts import Mounts
from tests.chaos.people import People
from tests.chaos.stores import MAKERS, Store
from tests.chaos.strict import Strict
from tests.controller.faults import FaultyApi, faulty_api
from tests.e2e.instances import Instance
from tests.e2e.operator import Replica, Sealer
from tests.e2e.scene import Scene, eventually
from tests.e2e.staging import control_plane_with_kinds, staged
from tests.support.servers import Server

__all__ = ["Clock", "World", "made"]

_CLOCKED = Path(__file__).with_name("clocked.py")

KEY_SECRET = "own-key"

DEDICATED = "dedicated"
"""The shape of a store that is standalone, beside templates of instances for Strict tenants."""

_PATIENT_LEASE = {
    "lease_duration": "6",
    "lease_renew_deadline": "5",
    "lease_retry_period": "1",
}
"""A renewal may take nearly as long as the period: on a machine that does all this at once, it
does."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The wall clock of some processes."""

    file: Path

    @property
    def program(self) -> tuple[str, ...]:
        """How memtenant is started with it."""
        return (sys.executable, "-P", str(_CLOCKED), str(self.file))

    def run_wrong(self, seconds: float) -> None:
        """Step it: by so many seconds it is before the true time."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.rename(self.file)


@dataclass
class World:
    """Everything that faults reach. ``disk`` is the archive's."""

    scene: Scene
    store: Store
    api: FaultyApi
    disk: Disk
    clocks: dict[str, Clock]
    mounts: Mounts
    agents: Agents
    people: People
    keys: dict[tuple[str, str], bytes] = field(default_factory=dict)
    kept: list[SignedCheckpoint] = field(default_factory=list)
    strict: Strict | None = None

    @property
    def nodes(self) -> list[Server]:
        """The store's servers."""
        return self.store.nodes

    @property
    def instances(self) -> dict[TenantId, Instance]:
        """Of Strict tenants, those that are there."""
        return {} if self.strict is None else self.strict.instances()

    @property
    def sealer(self) -> Sealer:
        """The one."""
        return self.scene.sealers[0]

    @property
    def archive(self) -> Path:
        """The sealer's."""
        return self.disk.root / "log"

    def operators(self, which: str) -> list[Replica]:
        """Of the two: the ``leader``, the ``standby``, or ``both``."""
        leader = self.scene.leader()
        chosen = {
            "leader": [one for one in self.scene.replicas if one.identity == leader],
            "standby": [one for one in self.scene.replicas if one.identity != leader],
        }
        return chosen.get(which, self.scene.replicas)

    def keep_checkpoint(self) -> None:
        """Keep the last checkpoint, as an auditor does: the log has to go on from it for ever."""
        if not self.archive.exists():
            return
        last = ArchiveReader.open(self.archive).latest()
        if last is not None and (not self.kept or self.kept[-1] != last):
            self.kept.append(last)


@contextmanager
def made(seed: int, shape: str, folder: Path) -> Iterator[World]:
    """A world with a store of this shape, in which every agent was served once. At its end
    everything stops; what should never have been logged or shown is an AssertionError then."""
    chance = random.Random(f"{seed}/world")
    # Under `Unavailable` nothing is worth starting: a disk is tried first.
    disk = Disk.mounted(folder / "disk-archive")
    with ExitStack() as stack:
        cluster = stack.enter_context(control_plane_with_kinds())
        scene = stack.enter_context(staged(cluster, folder))
        yield _furnished(scene, chance, shape, disk)


def _furnished(scene: Scene, chance: random.Random, shape: str, disk: Disk) -> World:
    folder = scene.folder
    store = MAKERS["standalone" if shape == DEDICATED else shape](scene, chance, folder)
    api = scene.stack.enter_context(faulty_api(scene.cluster, folder))
    clocks = {who: Clock(folder / f"clock-{who}") for who in ("operator", "sealer")}
    mounts = Mounts(scene, folder / "mounts")
    agents = Agents()
    scene.stack.callback(agents.close)
    teams = [scene.team(), scene.team()]

    def visit(place: tuple[str, str], agent: str) -> None:
        agents.visit(mounts.folder(place[0], f"{place[1]}-{agent}"))

    people = People(scene, teams, chance, visit)
    world = World(scene, store, api, disk, clocks, mounts, agents, people)
    _declare_platform(world)
    if shape == DEDICATED:
        world.strict = Strict.made(scene)
    _start_processes(world)
    _move_in(world)
    if world.strict is not None:
        _move_in_strictly(world, world.strict)
    mounts.start()
    scene.stack.callback(mounts.close)
    for team in teams:
        scene.wait_ready(team, *(name for there, name in people.alive if there == team))
    agents.start()
    eventually(
        lambda: not agents.unserved_since(0.0),
        lambda: [(str(one), one.refusals[-3:]) for one in agents.unserved_since(0.0)],
    )
    return world


def _declare_platform(world: World) -> None:
    scene = world.scene
    scene.policy()
    declare_audited(world)
    world.store.declare(scene)


def declare_audited(world: World, *holds: Mapping[str, object]) -> None:
    """The policy of the audited tenants, with these legal holds."""
    world.scene.policy(
        _audited(world.scene),
        audit={"mode": "Required", "onFailure": "Closed", "sealEvery": "5s"},
        legalHolds=list(holds),
    )


def _start_processes(world: World) -> None:
    scene, kubeconfig = world.scene, world.api.kubeconfig
    for identity in "ab":
        scene.operator(
            identity,
            kubeconfig=kubeconfig,
            program=world.clocks["operator"].program,
            kubelet_lag="2",
            credential_grace="6",
            resync_interval="20",
            audit_interval="1",
            **_PATIENT_LEASE,
            erase_interval="1",
            key_grace="2",
            shred_epoch="5",
        )
    sealer = Sealer(
        identity="sealer",
        kubeconfig=kubeconfig,
        folder=scene.folder,
        program=world.clocks["sealer"].program,
        archive=world.archive,
        files=world.mounts.folder(scene.home, SystemRole.SEALER.secret_name),
        audit_namespace=scene.team(f"audit-{scene.tag}"),
    )
    scene.sealers.append(sealer)
    sealer.start()


def _move_in(world: World) -> None:
    """Four tenants that stay, two agents in each: whatever a tenant can choose that matters here
    is chosen by one of them and not by another."""
    scene, (first, second) = world.scene, world.people.teams
    key = secrets.token_bytes(32)
    world.keys[second, KEY_SECRET] = key
    scene.secret(second, KEY_SECRET, {"root": key})
    own_key = {"mode": "Enabled", "keySecretRef": {"name": KEY_SECRET, "key": "root"}}
    audited: dict[str, Any] = {"retentionPolicyRef": {"name": _audited(scene)}}
    _occupy(world, first, "ledger", durable=True, durability="Replicated", **audited)
    _occupy(world, first, "desk", **audited)
    _occupy(world, second, "plain", durable=True, durability="Replicated", isolation="Minimal")
    _occupy(world, second, "own", encryption=own_key)


def _move_in_strictly(world: World, strict: Strict) -> None:
    """Two more: one whose instance has each write on its disk before it answers, and one that may
    lose a second."""
    first, second = world.people.teams
    strict.tenants += [TenantId(first, "vault"), TenantId(second, "clinic")]
    always: dict[str, Any] = {
        "storeRef": {"name": strict.template("Always")},
        "isolation": "Strict",
    }
    audited: dict[str, Any] = {"retentionPolicyRef": {"name": _audited(world.scene)}}
    _occupy(world, first, "vault", durable=True, **always, **audited)
    every_second: dict[str, Any] = {
        "storeRef": {"name": strict.template("EverySecond")},
        "isolation": "Strict",
    }
    _occupy(world, second, "clinic", **every_second)


def _occupy(world: World, team: str, name: str, *, durable: bool = False, **spec: Any) -> None:
    audited = "retentionPolicyRef" in spec
    there = [
        Agent(
            (team, name),
            agent,
            world.mounts.folder(team, f"{name}-{agent}"),
            durable=durable,
            audited=audited,
            steward=agent == "triage" and durable and audited,
        )
        for agent in ("triage", "answers")
    ]
    world.agents.all += there
    quota = {"memory": "256Mi", "conversations": 100}
    world.people.keep(there, team, name, quota=quota, **spec)


def _audited(scene: Scene) -> str:
    return f"audited-{scene.tag}"
