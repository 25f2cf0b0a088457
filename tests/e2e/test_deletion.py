"""What a deletion leaves is what its policy says; holds, minimums and users are in its way."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.e2e import invariants
from tests.e2e.remembering import conversation_key, recall, remember
from tests.e2e.scene import PATIENCE, Scene, condition, eventually, login, works
from tests.support.servers import Options, Server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def scene(stage: Callable[[], Scene]) -> Scene:
    scene = stage()
    server = scene.server(Options(appendonly=True))
    scene.server(Options(appendonly=True), replica_of=server)
    scene.policy()
    scene.store(server)
    scene.operator(store_gone_grace="2")
    return scene


@pytest.fixture
def server(scene: Scene) -> Server:
    return scene.servers[0]


def keys_of(server: Server, team: str, tenant: str) -> set[str]:
    with server.admin() as admin:
        return {key.decode() for key in admin.keys(f"mt:{{{team}.{tenant}}}:*")}


def remembering_tenant(scene: Scene, team: str, name: str, **spec: object) -> None:
    """A Ready tenant with one message."""
    scene.tenant(team, name, **spec)
    scene.wait_ready(team, name)
    binding = scene.binding(team, name)
    with login(binding) as agent:
        remember(agent, binding, f"the secret of {name}")


@pytest.mark.parametrize("policy", ["Retain", "Delete", "Shred"])
def test_a_deletion_leaves_what_its_policy_says(scene: Scene, server: Server, policy: str) -> None:
    team = scene.team()
    remembering_tenant(scene, team, "acme", deletionPolicy=policy)
    remembering_tenant(scene, team, "neighbour", deletionPolicy="Delete")
    binding = scene.binding(team, "acme")
    with login(binding) as open_connection:
        open_connection.exists(conversation_key(binding))

        scene.delete_tenant(team, "acme")
        scene.wait_gone(team, "acme")

        with pytest.raises(Exception, match=r"(?i)closed|reset|invalid username-password"):
            open_connection.lrange(conversation_key(binding), 0, -1)
    assert not works(binding)
    eventually(lambda: not scene.binding_or_none(team, "acme", "default"), "the binding goes")
    record = scene.record(team, "acme")
    if policy == "Retain":
        assert conversation_key(binding) in keys_of(server, team, "acme")
        assert scene.phase(team, "acme") == "Retained"
        assert record is not None
        assert record["keyring.json"]
        assert record["credentials.json"] == b"{}"
    else:
        assert keys_of(server, team, "acme") == set()
        eventually(lambda: scene.record(team, "acme") is None, "the record goes last")
    eventually(
        lambda: f"{policy}Completed" in [event["reason"] for event in events(scene, team, "acme")],
        "the Event of the deletion",
    )
    neighbour = scene.binding(team, "neighbour")
    with login(neighbour) as agent:
        assert recall(agent, neighbour) == ["the secret of neighbour"]
    invariants.check(scene, *scene.servers)


def events(scene: Scene, team: str, name: str) -> list[dict[str, str]]:
    return [
        event
        for event in scene.witness.all("events")
        if event.get("regarding", {}).get("name") == name and event["metadata"]["namespace"] == team
    ]


def test_a_legal_hold_keeps_a_deleted_tenant_until_it_is_released(
    scene: Scene, server: Server
) -> None:
    hold = {
        "matter": "SEC-2026-014",
        "since": "2026-01-31T09:30:00Z",
        "tenantSelector": {"matchLabels": {"department": "trading"}},
    }
    policy = scene.policy(f"held-{scene.tag}", legalHolds=[hold])
    team = scene.team()
    remembering_tenant(
        scene,
        team,
        "desk",
        retentionPolicyRef={"name": policy},
        labels={"department": "trading"},
        deletionPolicy="Shred",
    )
    binding = scene.binding(team, "desk")

    scene.delete_tenant(team, "desk")

    message = scene.wait_condition(team, "desk", "DeletionBlocked", "True", "LegalHold")
    assert "SEC-2026-014" in message
    assert works(binding), "a blocked deletion takes nothing away"
    with login(binding) as agent:
        assert recall(agent, binding) == ["the secret of desk"]

    scene.policy(f"held-{scene.tag}", legalHolds=[])

    scene.wait_gone(team, "desk")
    assert keys_of(server, team, "desk") == set()


def test_a_hold_does_not_keep_a_namespace_from_going_and_its_data_stays(
    scene: Scene, server: Server
) -> None:
    hold = {"matter": "All", "since": "2026-01-31T09:30:00Z", "tenantSelector": {}}
    policy = scene.policy(f"all-held-{scene.tag}", legalHolds=[hold])
    team = scene.team()
    remembering_tenant(
        scene, team, "desk", retentionPolicyRef={"name": policy}, deletionPolicy="Delete"
    )
    before = keys_of(server, team, "desk")
    binding = scene.binding(team, "desk")

    scene.cluster.kubectl("delete", "namespace", team, f"--timeout={PATIENCE:.0f}s")

    assert keys_of(server, team, "desk") == before
    assert scene.phase(team, "desk") == "Retained"
    assert not works(binding)


def test_content_under_its_minimum_is_not_deleted(scene: Scene, server: Server) -> None:
    policy = scene.policy(
        f"kept-{scene.tag}", retention={"content": {"min": "30d", "default": "60d"}}
    )
    team = scene.team()
    spec = {"retentionPolicyRef": {"name": policy}, "deletionPolicy": "Delete"}
    remembering_tenant(scene, team, "young", **spec)
    remembering_tenant(scene, team, "lets-go", **spec)
    scene.tenant(team, "old", **spec)
    scene.wait_ready(team, "old")
    old = scene.binding(team, "old")
    with login(old) as agent:
        remember(agent, old, "long ago", age=timedelta(days=31))

    for name in ("young", "old", "lets-go"):
        scene.delete_tenant(team, name)

    scene.wait_gone(team, "old")
    assert keys_of(server, team, "old") == set()
    message = scene.wait_condition(team, "young", "DeletionBlocked", "True", "RetentionMinimum")
    assert "30d" in message
    assert "Retain" in message
    assert conversation_key(scene.binding(team, "young")) in keys_of(server, team, "young")
    # As the message says: Retain lets it go now.
    scene.wait_condition(team, "lets-go", "DeletionBlocked", "True", "RetentionMinimum")
    retain = '{"spec": {"deletionPolicy": "Retain"}}'
    scene.cluster.kubectl("patch", "mtenant", "lets-go", "-n", team, "--type=merge", "-p", retain)
    scene.wait_gone(team, "lets-go")
    assert scene.phase(team, "lets-go") == "Retained"
    scene.cluster.kubectl("patch", "mtenant", "young", "-n", team, "--type=merge", "-p", retain)
    scene.wait_gone(team, "young")


def test_a_recreated_tenant_reads_what_was_retained(scene: Scene) -> None:
    team = scene.team()
    remembering_tenant(scene, team, "acme", deletionPolicy="Retain")
    before = scene.binding(team, "acme")
    scene.delete_tenant(team, "acme")
    scene.wait_gone(team, "acme")

    scene.tenant(team, "acme", deletionPolicy="Delete")
    scene.wait_ready(team, "acme")

    binding = scene.binding(team, "acme")
    assert binding.password != before.password
    assert binding.version > before.version
    with login(binding) as agent:
        assert recall(agent, binding) == ["the secret of acme"]
    invariants.check(scene, *scene.servers)


def test_a_namespace_of_the_same_name_does_not_get_the_memory_of_the_one_before(
    scene: Scene,
) -> None:
    team = scene.team()
    remembering_tenant(scene, team, "acme", deletionPolicy="Retain")
    scene.cluster.kubectl("delete", "namespace", team, f"--timeout={PATIENCE:.0f}s")
    scene.team(team)

    scene.tenant(team, "acme", deletionPolicy="Delete")

    message = scene.wait_condition(team, "acme", "Stalled", "True", "RetainedForAnotherNamespace")
    assert scene.binding_or_none(team, "acme", "default") is None
    uid = scene.cluster.get("namespace", team)["metadata"]["uid"]
    command = message.split("runs: ")[1].split(". To start")[0]
    assert uid in command
    scene.cluster.kubectl(*command.split()[1:])
    # The record is the platform's: its change is noticed with the next look at the tenant.
    scene.cluster.kubectl("label", "mtenant", "acme", "-n", team, "look=again")
    scene.wait_ready(team, "acme")
    binding = scene.binding(team, "acme")
    with login(binding) as agent:
        assert recall(agent, binding) == ["the secret of acme"]


def test_a_deleted_tenant_leaves_nothing_to_one_of_its_name(scene: Scene) -> None:
    team = scene.team()
    remembering_tenant(scene, team, "acme", deletionPolicy="Delete")
    old = scene.binding(team, "acme")
    scene.delete_tenant(team, "acme")
    scene.wait_gone(team, "acme")

    scene.tenant(team, "acme", deletionPolicy="Delete")
    scene.wait_ready(team, "acme")

    binding = scene.binding(team, "acme")
    assert binding.keyring != old.keyring
    with login(binding) as agent:
        assert not agent.exists(conversation_key(binding))
    assert not works(old)


def test_policy_and_store_in_use_wait_for_their_tenants(scene: Scene) -> None:
    policy = scene.policy(f"used-{scene.tag}")
    store = scene.store(scene.server(), name=f"used-{scene.tag}", allowedNamespaces={"from": "All"})
    team = scene.team()
    scene.tenant(
        team,
        "acme",
        retentionPolicyRef={"name": policy},
        storeRef={"name": store},
        deletionPolicy="Delete",
    )
    scene.wait_ready(team, "acme")
    binding = scene.binding(team, "acme")

    scene.cluster.kubectl("delete", "rp", policy, "--wait=false")
    scene.cluster.kubectl("delete", "mstore", store, "--wait=false")

    for plural, name in (("retentionpolicies", policy), ("memorystores", store)):

        def blocked(plural: str = plural, name: str = name) -> bool:
            found = scene.witness.latest(plural, "", name)
            assert found is not None, f"{name} went although a tenant uses it"
            return condition(found, "DeletionBlocked")[:2] == ("True", "InUse")

        eventually(blocked, f"{name} says what it waits for")
    assert works(binding)

    scene.delete_tenant(team, "acme")
    scene.wait_gone(team, "acme")
    for plural, name in (("retentionpolicies", policy), ("memorystores", store)):
        eventually(
            lambda plural=plural, name=name: scene.witness.latest(plural, "", name) is None,  # type: ignore[misc]
            f"{name} goes with its last tenant",
        )
    with scene.servers[-1].admin() as admin:
        assert admin.keys("mt:*") == [], "the store is given up"
    scene.servers.pop()


def test_a_tenant_whose_store_is_not_declared_any_more_goes_and_leaves_a_record(
    scene: Scene,
) -> None:
    store = scene.store(scene.server(), name=f"lost-{scene.tag}")
    team = scene.team()
    scene.tenant(team, "acme", storeRef={"name": store}, deletionPolicy="Delete")
    scene.wait_ready(team, "acme")
    scene.cluster.kubectl("delete", "mstore", store, "--wait=false")
    free = '{"metadata": {"finalizers": null}}'
    scene.cluster.kubectl("patch", "mstore", store, "--type=merge", "-p", free)
    eventually(lambda: scene.witness.latest("memorystores", "", store) is None, "gone by force")

    scene.delete_tenant(team, "acme")

    scene.wait_gone(team, "acme")
    assert scene.phase(team, "acme") == "Orphaned"
    lost = scene.servers.pop()
    # Declared again, the store is cleaned of what it still holds.
    scene.store(lost, name=store)
    eventually(lambda: scene.record(team, "acme") is None, "the orphan is cleaned up")
    with lost.admin() as admin:
        assert admin.keys("mt:{*") == []
        assert not [user for user in admin.acl_users() if b"acme" in _bytes(user)]


def _bytes(user: bytes | str) -> bytes:
    return user.encode() if isinstance(user, str) else user


def test_a_damaged_record_stops_its_tenant_and_no_other(scene: Scene) -> None:
    team = scene.team()
    for name in ("acme", "former"):
        remembering_tenant(scene, team, name, deletionPolicy="Retain")
    scene.delete_tenant(team, "former")
    scene.wait_gone(team, "former")
    working = scene.binding(team, "acme")
    for name in ("acme", "former"):
        damage = '{"data": {"record.json": "bm8gSlNPTg=="}}'
        secret = f"{team}.{name}-keyring"
        scene.cluster.kubectl(
            "patch", "secret", secret, "-n", scene.home, "--type=merge", "-p", damage
        )

    scene.cluster.kubectl("label", "mtenant", "acme", "-n", team, "look=again")

    message = scene.wait_condition(team, "acme", "Stalled", "True", "RecordDamaged")
    assert "restore" in message
    assert works(working), "agents go on"
    assert scene.binding(team, "acme") == working
    scene.tenant(team, "other", deletionPolicy="Delete")
    scene.wait_ready(team, "other")
    scene.wait_store()
    for name in ("acme", "former"):
        scene.cluster.kubectl("delete", "secret", f"{team}.{name}-keyring", "-n", scene.home)


def test_a_record_that_lost_a_label_gets_it_back_by_itself(scene: Scene) -> None:
    team = scene.team()
    scene.tenant(team, "acme", deletionPolicy="Delete")
    scene.wait_ready(team, "acme")
    kept, name = scene.record(team, "acme"), f"{team}.acme-keyring"
    for label in ("memtenant.dev/component", "memtenant.dev/phase"):
        scene.cluster.kubectl("label", "secret", name, "-n", scene.home, f"{label}-")

        def whole(label: str = label) -> bool:
            secret = scene.cluster.get("secret", name, "-n", scene.home)
            return label in secret["metadata"]["labels"]

        eventually(whole, f"{label} is put back")
    assert scene.record(team, "acme") == kept
    scene.wait_ready(team, "acme")
