"""The store restarts, fails over, is cut off or is gone. Users come back, nothing is left over."""

import random

import pytest

from tests.e2e import invariants
from tests.e2e.cutting import CuttingProxy
from tests.e2e.scene import PATIENCE, Scene, eventually, login, works
from tests.support.relay import Proxy
from tests.support.servers import Options

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("appendonly", [True, False], ids=["data kept", "data lost"])
def test_users_come_back_after_a_restart_without_an_aclfile(scene: Scene, appendonly: bool) -> None:
    server = scene.server(Options(appendonly=appendonly))
    scene.policy()
    scene.store(server)
    team = scene.team()
    scene.operator()
    for name in ("a", "b"):
        scene.tenant(team, name, deletionPolicy="Delete")
    scene.wait_ready(team, "a", "b")
    binding = scene.binding(team, "a")
    with server.admin() as admin:
        limits = admin.hgetall(f"mt:{{{team}.a}}:o:limits")
        access = admin.hgetall(f"mt:{{{team}.a}}:o:access")

    server.restart()

    eventually(lambda: works(binding), "the agent's credentials work again")
    assert scene.binding(team, "a") == binding
    with server.admin() as admin:
        for part, before in (("limits", limits), ("access", access)):
            key = f"mt:{{{team}.a}}:o:{part}"
            eventually(
                lambda key=key, before=before: admin.hgetall(key) == before,  # type: ignore[misc]
                f"the operator's own hashes are back: {key}",
            )
    scene.wait_store()
    scene.wait_ready(team, "a", "b")
    invariants.check(scene, server)


def test_a_revoked_user_that_a_node_brings_back_goes_again(scene: Scene) -> None:
    server = scene.server(Options(aclfile=True, appendonly=True))
    scene.policy()
    scene.store(server)
    team = scene.team()
    scene.operator(kubelet_lag="0.5", credential_grace="1")
    scene.tenant(team, "a", deletionPolicy="Delete", credentials={"minOverlap": "1s"})
    scene.wait_ready(team, "a")
    old = scene.binding(team, "a")
    assert server.aclfile is not None
    eventually(lambda: old.username in server.aclfile.read_text(), "the aclfile knows the user")  # type: ignore[union-attr]
    stale = server.aclfile.read_bytes()
    scene.cluster.kubectl("annotate", "mtenant", "a", "-n", team, "memtenant.dev/rotate=1")
    eventually(lambda: not works(old), "the old credential is revoked")

    server.stop()
    server.aclfile.write_bytes(stale)
    server.start()

    eventually(lambda: works(scene.binding(team, "a")), "the new credential works")
    eventually(lambda: not works(old), "the revoked credential is gone again")
    invariants.check(scene, server)


def test_agents_work_on_a_promoted_replica(scene: Scene) -> None:
    primary = scene.server(Options(appendonly=True))
    replica = scene.server(Options(appendonly=True), replica_of=primary)
    scene.policy()
    team = scene.team()
    with Proxy.to(primary.host, primary.port) as proxy:
        scene.store(primary, endpoint=proxy.endpoint)
        scene.operator()
        for name in ("a", "b", "c"):
            scene.tenant(team, name, deletionPolicy="Delete")
        scene.wait_ready(team, "a", "b", "c")
        binding = scene.binding(team, "a")
        assert f"{binding.host}:{binding.port}" == proxy.endpoint
        assert works(binding, replica)

        primary.kill9()
        replica.promote()
        proxy.point_to(replica.host, replica.port)

        with login(binding) as agent:
            assert agent.rpush(f"mt:{{{team}.a}}:r:shared:s:l", "after the failover") == 1
        # Something to do on the new primary, and a new replica of it.
        scene.tenant(team, "d", deletionPolicy="Delete")
        scene.wait_ready(team, "d")
        fresh = scene.server(Options(appendonly=True), replica_of=replica)
        eventually(lambda: works(binding, fresh), "the new replica is provisioned")
        scene.wait_store()
        invariants.check(scene, replica, fresh)
        scene.replicas[0].stop()


def test_tenants_wait_for_a_replica_that_does_not_let_the_operator_in(scene: Scene) -> None:
    primary = scene.server()
    replica = scene.server(replica_of=primary, let_in=False)
    scene.policy()
    scene.store(primary)
    team = scene.team()
    scene.operator()
    scene.wait_store()

    scene.tenant(team, "a", deletionPolicy="Delete")

    message = scene.wait_condition(team, "a", "Reconciling", "True")
    assert replica.endpoint in message
    assert scene.condition(team, "a", "Stalled")[0] != "True", "time or somebody else mends it"
    assert scene.binding_or_none(team, "a", "default") is None
    scene.let_in(replica)
    scene.wait_ready(team, "a")
    invariants.check(scene, primary, replica)


def test_connections_cut_in_mid_provisioning_converge(scene: Scene) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    server = scene.server()
    scene.policy()
    team = scene.team()
    names = [f"t{index}" for index in range(20)]
    with CuttingProxy.before(server.host, server.port, random.Random(seed), 60_000) as proxy:
        scene.store(server, endpoint=proxy.endpoint)
        scene.operator()
        scene.wait_store()
        proxy.break_()
        scene.cluster.apply(
            *(scene.tenant_object(team, name, deletionPolicy="Delete") for name in names)
        )
        eventually(lambda: proxy.cuts >= 30, lambda: f"only {proxy.cuts} cuts")
        for name in names[:5]:
            scene.delete_tenant(team, name)
        eventually(lambda: proxy.cuts >= 40, lambda: f"only {proxy.cuts} cuts")
        proxy.heal()

        scene.wait_gone(team, *names[:5])
        scene.wait_ready(team, *names[5:])
        scene.wait_store()
        invariants.check(scene, server)
        scene.replicas[0].stop()


def test_a_namespace_goes_although_its_store_is_gone_and_the_store_is_cleaned_later(
    scene: Scene,
) -> None:
    server = scene.server(Options(aclfile=True, appendonly=True))
    scene.policy()
    scene.store(server)
    team = scene.team()
    scene.operator(store_gone_grace="2")
    policies = {"kept": "Retain", "deleted": "Delete", "shredded": "Shred"}
    for name, policy in policies.items():
        scene.tenant(team, name, deletionPolicy=policy)
    scene.wait_ready(team, *policies)
    for name in policies:
        with login(scene.binding(team, name)) as agent:
            agent.rpush(f"mt:{{{team}.{name}}}:r:shared:s:l", "memory")
    users = {name: scene.binding(team, name).username for name in policies}

    server.stop()
    scene.wait_store(status="False")
    scene.cluster.kubectl("delete", "namespace", team, f"--timeout={PATIENCE:.0f}s")

    scene.wait_gone(team, *policies)
    for name in policies:
        assert scene.phase(team, name) == "Orphaned"
    assert scene.record(team, "shredded")["keyring.json"] == b""  # type: ignore[index]
    assert scene.record(team, "kept")["keyring.json"] != b""  # type: ignore[index]

    server.start()

    for name in ("deleted", "shredded"):
        eventually(lambda name=name: scene.record(team, name) is None, "the record goes last")  # type: ignore[misc]
    eventually(lambda: scene.phase(team, "kept") == "Retained", "what is retained is kept")
    with server.admin() as admin:
        there = {user if isinstance(user, str) else user.decode() for user in admin.acl_users()}
        assert there.isdisjoint(users.values())
        left = {key.decode().split("}")[0] for key in admin.keys("mt:{*")}
        assert left == {f"mt:{{{team}.kept"}
    scene.wait_store()
    found = scene.witness.latest("memorystores", "", scene.store_name)
    assert found is not None
    assert [one["tenantId"] for one in found["status"]["orphans"]] == [f"{team}.kept"]
    invariants.no_secret_is_shown(scene)
