"""Quotas by measurement: writing stops at the limit on every node, and returns with room."""

from collections.abc import Callable

import pytest
import redis

from memtenant.tenancy import keys
from memtenant.tenancy.binding import Binding
from tests.e2e import invariants
from tests.e2e.scene import Scene, eventually, login, works
from tests.support.servers import Options, Server

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def scene(stage: Callable[[], Scene]) -> Scene:
    scene = stage()
    server = scene.server(Options(appendonly=True))
    scene.server(Options(appendonly=True), replica_of=server)
    scene.policy()
    scene.store(server)
    scene.operator(measure_interval="0.3")
    return scene


def list_key(binding: Binding, name: str) -> str:
    return f"{keys.records(binding.tenant)}shared:{name}:l"


def fill(agent: "redis.Redis", binding: Binding, name: str, size: int) -> None:
    """A conversation of about so many bytes."""
    agent.rpush(list_key(binding, name), *[b"x" * 10_000] * (size // 10_000))


def may(server: Server, binding: Binding, *command: str) -> bool:
    """What the node itself says of a command of the agent's."""
    with server.admin() as admin:
        answer = admin.execute_command("ACL", "DRYRUN", binding.username, *command)
    return answer in (b"OK", "OK", True)


def test_writing_stops_at_the_limit_on_every_node_and_returns_below_it(scene: Scene) -> None:
    team = scene.team()
    scene.tenant(
        team, "acme", quota={"memory": "2Mi", "conversations": 100}, deletionPolicy="Delete"
    )
    scene.wait_ready(team, "acme")
    binding = scene.binding(team, "acme")
    write = ("RPUSH", list_key(binding, "a"), "x")
    with login(binding) as agent:
        fill(agent, binding, "a", int(1.7 * MIB))
        scene.wait_condition(team, "acme", "WithinQuota", "True", "QuotaNearlyUsed")
        assert all(may(node, binding, *write) for node in scene.servers)

        fill(agent, binding, "b", int(0.4 * MIB))

        message = scene.wait_condition(team, "acme", "WithinQuota", "False", "QuotaExceeded")
        assert "memory" in message
        eventually(
            lambda: not any(may(node, binding, *write) for node in scene.servers),
            "no node lets the agent write",
        )
        with pytest.raises(redis.exceptions.NoPermissionError):
            agent.rpush(list_key(binding, "c"), "x")
        assert scene.ready(team, "acme")
        found = scene.seen(team, "acme")
        assert found is not None
        assert found["status"]["usage"]["memoryPercent"] >= 100
        assert agent.llen(list_key(binding, "a")) > 0, "reading goes on"

        assert agent.delete(list_key(binding, "b")) == 1

        scene.wait_condition(team, "acme", "WithinQuota", "True", "QuotaNearlyUsed")
        eventually(
            lambda: all(may(node, binding, *write) for node in scene.servers), "writing is back"
        )
        agent.rpush(list_key(binding, "a"), "x")
        agent.delete(list_key(binding, "a"))
    scene.wait_condition(team, "acme", "WithinQuota", "True", "WithinQuota")
    eventually(
        lambda: (
            {"QuotaExceeded", "QuotaRestored"}
            <= {event["reason"] for event in scene.witness.all("events")}
        ),
        "the Events of both",
    )
    invariants.check(scene, *scene.servers)


def test_a_raised_quota_lets_the_tenant_write_again(scene: Scene) -> None:
    team = scene.team()
    scene.tenant(
        team, "acme", quota={"memory": "16Mi", "conversations": 3}, deletionPolicy="Delete"
    )
    scene.wait_ready(team, "acme")
    binding = scene.binding(team, "acme")
    write = ("RPUSH", list_key(binding, "0"), "x")
    with login(binding) as agent:
        for name in range(3):
            agent.rpush(list_key(binding, str(name)), "x")
    message = scene.wait_condition(team, "acme", "WithinQuota", "False", "QuotaExceeded")
    assert "conversations" in message
    eventually(lambda: not any(may(n, binding, *write) for n in scene.servers), "no writing")

    scene.tenant(
        team, "acme", quota={"memory": "16Mi", "conversations": 100}, deletionPolicy="Delete"
    )

    scene.wait_condition(team, "acme", "WithinQuota", "True", "WithinQuota")
    eventually(lambda: all(may(n, binding, *write) for n in scene.servers), "writing is back")


def test_a_flooded_audit_queue_switches_its_user_off_and_closes_its_connections(
    scene: Scene,
) -> None:
    team = scene.team()
    for name in ("floods", "neighbour"):
        scene.tenant(team, name, deletionPolicy="Delete")
    scene.wait_ready(team, "floods", "neighbour")
    binding, neighbour = scene.binding(team, "floods"), scene.binding(team, "neighbour")
    open_on_replica = login(binding, scene.servers[1])
    open_on_replica.exists(keys.usage(binding.tenant))
    queue = keys.audit_queue(binding.tenant)
    with login(binding) as agent:
        try:
            for _ in range(20):
                agent.rpush(queue, *[b"x" * 100_000] * 10)
        except redis.RedisError:
            pass  # switched off before all of it was sent

    message = scene.wait_condition(team, "floods", "Ready", "False", "Flooded")
    assert "LTRIM" in message
    eventually(lambda: not any(works(binding, node) for node in scene.servers), "it is off")
    with pytest.raises(redis.RedisError):
        open_on_replica.exists(keys.usage(binding.tenant))
    assert works(neighbour)

    with scene.servers[0].admin() as admin:
        admin.ltrim(queue, 0, 9)

    scene.wait_ready(team, "floods")
    eventually(lambda: all(works(binding, node) for node in scene.servers), "it is on again")
