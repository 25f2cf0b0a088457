"""The API server is away or refuses; the leader stands still. The other leads, one writer only."""

import time
from pathlib import Path

import pytest

from tests.controller.faults import faulty_api
from tests.e2e import invariants
from tests.e2e.monitoring import listening, ports_of
from tests.e2e.operator import QUICK_LEASE, Replica
from tests.e2e.scene import Scene, eventually, works
from tests.support.servers import Options, Server

pytestmark = pytest.mark.e2e

AWAY = 30.0
"""Seconds without an API server: longer than any lease or pause here."""


def test_operator_survives_half_a_minute_without_the_api_server(fragile_scene: Scene) -> None:
    scene = fragile_scene
    server = scene.server(Options(appendonly=True))
    scene.policy()
    scene.store(server)
    team = scene.team()
    for identity in "ab":
        scene.operator(identity, **QUICK_LEASE)
    scene.tenant(team, "stays", deletionPolicy="Delete")
    scene.tenant(team, "goes", deletionPolicy="Delete")
    scene.wait_ready(team, "stays", "goes")
    stays = scene.binding(team, "stays")
    # Asked for at the last moment: the operator may or may not have begun.
    scene.tenant(team, "late", deletionPolicy="Delete")
    scene.delete_tenant(team, "goes")

    scene.cluster.stop_api()
    until = time.monotonic() + AWAY
    while time.monotonic() < until:
        assert works(stays), "agents do not need the API server"
        time.sleep(1)
    scene.cluster.start_api()
    scene.tenant(team, "after", deletionPolicy="Delete")

    scene.wait_gone(team, "goes")
    scene.wait_ready(team, "stays", "late", "after")
    assert scene.binding(team, "stays").password == stays.password
    invariants.check(scene, server)


@pytest.mark.parametrize("code", [409, 410, 429, 500])
def test_operator_converges_when_the_api_server_refuses(
    scene: Scene, code: int, tmp_path: Path
) -> None:
    server = scene.server()
    scene.policy()
    team = scene.team()
    with faulty_api(scene.cluster, tmp_path) as api:
        scene.operator(kubeconfig=api.kubeconfig)
        scene.store(server)
        scene.wait_store()
        again = 1 if code == 429 else None
        # Not PUT, which renews the Lease: a lost leadership is another test.
        for method in ("GET", "POST", "PATCH"):
            api.refuse(code, 5, method=method, retry_after=again)
        for plural in ("memorytenants", "secrets"):
            api.lose_watch(plural)
        for index in range(6):
            scene.tenant(team, f"t{index}", deletionPolicy="Delete")
        api.expire_watch(code if code in (410, 500) else 410)

        scene.wait_ready(team, *(f"t{index}" for index in range(6)))
        for method in ("PATCH", "DELETE"):
            api.refuse(code, 2, method=method, retry_after=again)
        scene.delete_tenant(team, "t0")
        scene.wait_gone(team, "t0")
        invariants.check(scene, server)
        for replica in scene.replicas:
            replica.stop()


def test_a_frozen_leader_never_writes_again_once_another_leads(scene: Scene) -> None:
    primary = scene.server()
    replica = scene.server(replica_of=primary)
    scene.policy()
    scene.store(primary)
    team = scene.team()
    scene.operator("a", **QUICK_LEASE)
    scene.leading()
    scene.operator("b")  # who takes over is to keep the Lease, however busy the machine is
    scene.tenant(team, "first", deletionPolicy="Delete")
    scene.wait_ready(team, "first")
    frozen = scene.leading()
    other = next(r for r in scene.replicas if r is not frozen)
    before = _term(primary)
    names = [f"t{index}" for index in range(30)]

    with listening(primary) as at_primary, listening(replica) as at_replica:
        scene.cluster.apply(
            *(scene.tenant_object(team, name, deletionPolicy="Delete") for name in names)
        )
        eventually(lambda: scene.binding_or_none(team, names[0], "default"), "work in full swing")
        frozen.freeze()
        ports = ports_of(frozen.pid)
        eventually(lambda: scene.leader() == other.identity, "the other leads")
        eventually(lambda: _term(primary) > before, "its term on the store")
        scene.wait_ready(team, *names)
        with primary.admin() as admin:
            admin.acl_deluser(scene.binding(team, names[0]).username)
        exits = len(frozen.exits)
        frozen.thaw()

        def ended() -> bool:
            ports.update(ports_of(frozen.pid))
            return len(frozen.exits) > exits

        eventually(ended, "the thawed one ends")
        eventually(lambda: works(scene.binding(team, names[0])), "the repair of the new leader")

    assert frozen.exits[-1] != 0
    assert scene.leader() == other.identity
    eventually(lambda: frozen.alive, "the thawed one is back as standby")
    for heard in (at_primary, at_replica):
        assert heard.writes_from(ports, term=_term(primary)) == []
    scene.tenant(team, "last", deletionPolicy="Delete")
    scene.wait_ready(team, "last")
    assert scene.leader() == other.identity
    invariants.check(scene, primary, replica)


def _term(server: Server) -> int:
    with server.admin() as admin:
        stored = admin.get("mt:store:epoch")
    return int(stored.split()[0]) if stored else 0


def test_the_operators_stop_in_order_and_the_standby_takes_over(scene: Scene) -> None:
    server = scene.server()
    scene.policy()
    scene.store(server)
    team = scene.team()
    first, second = scene.operator("a"), scene.operator("b")
    scene.tenant(team, "t", deletionPolicy="Delete")
    scene.wait_ready(team, "t")
    leader = scene.leading()
    standby = second if leader is first else first

    assert leader.stop() == 0

    eventually(lambda: scene.leader() == standby.identity, "the standby leads")
    scene.delete_tenant(team, "t")
    scene.wait_gone(team, "t")
    _stopped_in_order(standby)
    invariants.check(scene, server)


def _stopped_in_order(replica: Replica) -> None:
    assert replica.stop() == 0
    assert "stopped in order" in replica.log.read_text()
