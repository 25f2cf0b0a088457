"""What chaos is done to: a platform as small as it can be and still have every part."""

import random
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from memtenant.archive import ArchiveReader
from memtenant.audit.checkpoint import SignedCheckpoint
from memtenant.rules.systemusers import SystemRole
from tests.chaos.agents import Agent, Agents
from tests.chaos.disk import Disk
from tests.chaos.mounts import Mounts
from tests.chaos.people import People
from tests.controller.faults import FaultyApi, faulty_api
from tests.e2e.cutting import CuttingProxy
from tests.e2e.operator import Replica, Sealer
from tests.e2e.scene import Scene, eventually
from tests.e2e.staging import control_plane_with_kinds, staged
from tests.support.servers import Options, Server

__all__ = ["Clock", "World", "made"]

_CLOCKED = Path(__file__).with_name("clocked.py")
_CUT_AFTER = 40_000

KEY_SECRET = "own-key"

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
    """Everything that faults reach. ``nodes`` are the store's servers, the primary first;
    ``agents_of`` says who works in which tenant."""

    scene: Scene
    chance: random.Random
    proxy: CuttingProxy
    api: FaultyApi
    nodes: list[Server]
    disks: dict[str, Disk]
    clocks: dict[str, Clock]
    mounts: Mounts
    agents: Agents
    people: People
    keys: dict[tuple[str, str], bytes] = field(default_factory=dict)
    kept: list[SignedCheckpoint] = field(default_factory=list)

    @property
    def sealer(self) -> Sealer:
        """The one."""
        return self.scene.sealers[0]

    @property
    def archive(self) -> Path:
        """The sealer's."""
        return self.disks["archive"].root / "log"

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
def made(seed: int, folder: Path) -> Iterator[World]:
    """A world in which every agent was served once. At its end everything stops; what should never
    have been logged or shown is an AssertionError then."""
    chance = random.Random(f"{seed}/world")
    # Under `Unavailable` nothing is worth starting: the disks are tried first.
    disks = {name: Disk.mounted(folder / f"disk-{name}") for name in ("one", "two", "archive")}
    with ExitStack() as stack:
        cluster = stack.enter_context(control_plane_with_kinds())
        scene = stack.enter_context(staged(cluster, folder))
        world = _furnished(scene, chance, folder, disks)
        yield world


def _furnished(scene: Scene, chance: random.Random, folder: Path, disks: dict[str, Disk]) -> World:
    aclfile = chance.random() < 0.5  # else a restart forgets users
    primary = scene.server(Options(aclfile=aclfile, appendonly=True, parent=disks["one"].root))
    replica = scene.server(
        Options(aclfile=aclfile, appendonly=True, parent=disks["two"].root), replica_of=primary
    )
    proxy = scene.stack.enter_context(
        CuttingProxy.before(primary.host, primary.port, chance, _CUT_AFTER)
    )
    api = scene.stack.enter_context(faulty_api(scene.cluster, folder))
    clocks = {who: Clock(folder / f"clock-{who}") for who in ("operator", "sealer")}
    mounts = Mounts(scene, folder / "mounts")
    agents = Agents()
    scene.stack.callback(agents.close)
    teams = [scene.team(), scene.team()]
    people = People(scene, teams, chance)
    world = World(
        scene, chance, proxy, api, [primary, replica], disks, clocks, mounts, agents, people
    )
    _declare_platform(world)
    _start_processes(world)
    _move_in(world)
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
    scene.store(world.nodes[0], endpoint=world.proxy.endpoint)


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
    audited = {"retentionPolicyRef": {"name": _audited(scene)}}
    _occupy(world, first, "ledger", durability="Replicated", **audited)
    _occupy(world, first, "desk", **audited)
    _occupy(world, second, "plain", durability="Replicated", isolation="Minimal")
    _occupy(world, second, "own", encryption=own_key)


def _occupy(world: World, team: str, name: str, **spec: object) -> None:
    replicated, audited = spec.get("durability") == "Replicated", "retentionPolicyRef" in spec
    there = [
        Agent(
            (team, name),
            agent,
            world.mounts.folder(team, f"{name}-{agent}"),
            replicated=replicated,
            audited=audited,
            steward=agent == "triage" and replicated and audited,
        )
        for agent in ("triage", "answers")
    ]
    world.agents.all += there
    quota = {"memory": "256Mi", "conversations": 100}
    world.people.keep(there, team, name, quota=quota, **spec)


def _audited(scene: Scene) -> str:
    return f"audited-{scene.tag}"
