"""What a tenant may not have: refused in words, with nothing half-made, whatever is declared."""

import http
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from memtenant.api import KINDS
from tests.api import generated
from tests.e2e import invariants
from tests.e2e.api import Api
from tests.e2e.scene import API, Scene, condition, eventually
from tests.e2e.witness import Json
from tests.support.servers import Options

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def scene(stage: Callable[[], Scene]) -> Scene:
    scene = stage()
    server = scene.server(Options(appendonly=True))
    scene.policy()
    scene.policy(f"narrow-{scene.tag}", allowedNamespaces=_labelled("policy", "yes"))
    scene.policy(
        f"strict-{scene.tag}",
        encryption={"mode": "Required"},
        erasure={"mode": "Required"},
        allowedDeletionPolicies=["Shred"],
        retention={"content": {"min": "10d", "max": "20d", "default": "15d"}},
    )
    scene.store(
        server,
        allowedNamespaces=_labelled("blue", "yes"),
        residencies=["eu-west"],
        tenantPolicy={
            "allowedRetentionPolicies": [
                scene.policy_name,
                f"narrow-{scene.tag}",
                f"strict-{scene.tag}",
            ],
            "minIsolation": "Moderate",
            "maxMemoryPerTenant": "64Mi",
            "maxMemoryPerNamespace": "100Mi",
        },
        capacity={"memory": "150Mi"},
    )
    scene.operator()
    return scene


def _labelled(label: str, value: str) -> Json:
    return {"from": "Selector", "selector": {"matchLabels": {label: value}}}


@pytest.mark.parametrize(
    ("reason", "field", "limit", "labels", "spec"),
    [
        ("NamespaceNotAllowed", "spec.storeRef.name", "allowedNamespaces", {}, {}),
        (
            "NamespaceNotAllowed",
            "spec.retentionPolicyRef.name",
            "allowedNamespaces",
            {"blue": "yes"},
            {"retentionPolicyRef": {"name": "narrow-{tag}"}},
        ),
        (
            "RetentionPolicyNotFound",
            "spec.retentionPolicyRef.name",
            "does not exist",
            {"blue": "yes"},
            {"retentionPolicyRef": {"name": "nowhere"}},
        ),
        (
            "StoreNotFound",
            "spec.storeRef.name",
            "does not exist",
            {"blue": "yes"},
            {"storeRef": {"name": "nowhere"}},
        ),
        (
            "ResidencyNotOffered",
            "spec.residency",
            "residencies: eu-west",
            {"blue": "yes"},
            {"residency": "us-east"},
        ),
        (
            "QuotaTooLarge",
            "spec.quota.memory",
            "maxMemoryPerTenant: 64Mi",
            {"blue": "yes"},
            {"quota": {"memory": "65Mi"}},
        ),
        (
            "IsolationTooWeak",
            "spec.isolation",
            "minIsolation",
            {"blue": "yes"},
            {"isolation": "Minimal"},
        ),
        (
            "DeletionPolicyNotAllowed",
            "spec.deletionPolicy",
            "Shred",
            {"blue": "yes"},
            {"retentionPolicyRef": {"name": "strict-{tag}"}, "deletionPolicy": "Retain"},
        ),
        (
            "EncryptionRequired",
            "spec.encryption.mode",
            "strict-{tag}",
            {"blue": "yes"},
            {
                "retentionPolicyRef": {"name": "strict-{tag}"},
                "deletionPolicy": "Shred",
                "encryption": {"mode": "Disabled"},
            },
        ),
        (
            "",
            "spec.retention.content",
            "20d",
            {"blue": "yes"},
            {
                "retentionPolicyRef": {"name": "strict-{tag}"},
                "deletionPolicy": "Shred",
                "retention": {"content": "21d"},
            },
        ),
        (
            "",
            "spec.retention.content",
            "10d",
            {"blue": "yes"},
            {
                "retentionPolicyRef": {"name": "strict-{tag}"},
                "deletionPolicy": "Shred",
                "retention": {"content": "9d"},
            },
        ),
    ],
)
def test_a_tenant_that_asks_for_more_than_it_may_is_told_the_field_and_the_limit(
    scene: Scene, reason: str, field: str, limit: str, labels: dict[str, str], spec: Json
) -> None:
    team = scene.team(labels=labels)

    scene.tenant(team, "acme", **json.loads(json.dumps(spec).replace("{tag}", scene.tag)))

    message = scene.wait_condition(team, "acme", "Stalled", "True", reason)
    assert field in message
    assert limit.replace("{tag}", scene.tag) in message
    assert scene.condition(team, "acme", "Ready")[0] == "False"
    assert scene.record(team, "acme") is None
    assert scene.binding_or_none(team, "acme", "default") is None


def test_room_is_given_to_whom_fits_and_comes_back_with_a_deletion(scene: Scene) -> None:
    one, other = scene.team(labels={"blue": "yes"}), scene.team(labels={"blue": "yes"})

    def ask(team: str, name: str, memory: str) -> None:
        scene.tenant(team, name, quota={"memory": memory}, deletionPolicy="Delete")

    ask(one, "first", "60Mi")
    scene.wait_ready(one, "first")
    ask(one, "second", "60Mi")
    message = scene.wait_condition(one, "second", "Stalled", "True", "NamespaceQuotaExceeded")
    assert "maxMemoryPerNamespace: 100Mi" in message
    ask(other, "third", "64Mi")
    scene.wait_ready(other, "third")
    ask(other, "fourth", "30Mi")
    message = scene.wait_condition(other, "fourth", "Stalled", "True", "CapacityExceeded")
    assert "capacity.memory: 150Mi" in message

    ask(one, "second", "20Mi")
    scene.wait_ready(one, "second")
    scene.delete_tenant(other, "third")
    scene.wait_gone(other, "third")
    scene.wait_ready(other, "fourth")
    for team, names in ((one, ("first", "second")), (other, ("fourth",))):
        for name in names:
            scene.delete_tenant(team, name)
        scene.wait_gone(team, *names)


def test_a_binding_name_that_somebody_took_is_left_to_them(scene: Scene) -> None:
    team = scene.team(labels={"blue": "yes"})
    scene.cluster.kubectl(
        "create", "secret", "generic", "acme-default", "-n", team, "--from-literal=mine=yes"
    )

    scene.tenant(team, "acme", deletionPolicy="Delete")

    def told() -> bool:
        found = scene.seen(team, "acme")
        return found is not None and "acme-default" in json.dumps(found.get("status", {}))

    eventually(told, "the tenant says which Secret is in its way")
    secret = scene.cluster.get("secret", "acme-default", "-n", team)
    assert list(secret["data"]) == ["mine"]
    scene.cluster.kubectl("delete", "secret", "acme-default", "-n", team)
    scene.wait_ready(team, "acme")
    scene.delete_tenant(team, "acme")
    scene.wait_gone(team, "acme")


def test_whatever_is_declared_is_rejected_or_told_and_never_half_made(scene: Scene) -> None:
    team = scene.team(labels={"blue": "yes", "policy": "yes"})
    api = Api(scene.cluster)
    accepted: list[str] = []
    for index, spec in enumerate(_drawn("MemoryTenant", 160)):
        name = f"t{index}"
        raw = {"metadata": {"name": name, "namespace": team}, "spec": _near(scene, index, spec)}
        if _taken(api, "MemoryTenant", raw):
            accepted.append(name)
    for kind in ("RetentionPolicy", "MemoryStore"):
        for index, spec in enumerate(_drawn(kind, 30)):
            raw = {"metadata": {"name": f"made-{scene.tag}-{index}"}, "spec": spec}
            _taken(api, kind, raw)
    assert len(accepted) >= 30

    eventually(
        lambda: all(_told(scene.seen(team, name)) for name in accepted),
        lambda: [scene.seen(team, name) for name in accepted if not _told(scene.seen(team, name))],
    )
    # Who was told to wait for something may be made since: the next try comes within two seconds.
    scene.settled(quiet=4)
    made = [name for name in accepted if scene.ready(team, name)]
    assert len(made) >= 5
    for name in accepted:
        if name not in made:
            assert scene.record(team, name) is None, scene.seen(team, name)
    bound = {s["metadata"]["name"] for s in scene.witness.all("secrets") if _is_in(s, team)}
    agents = {
        told["name"]
        for name in made
        for told in (scene.seen(team, name) or {})["status"]["bindings"]
    }
    assert bound == agents
    # The operator is as well as before.
    scene.tenant(team, "afterwards", quota={"memory": "1Mi"}, deletionPolicy="Delete")
    eventually(lambda: _told(scene.seen(team, "afterwards")), "the operator goes on")
    assert scene.replicas[0].exits == []
    invariants.no_secret_is_shown(scene)


def _is_in(secret: Json, team: str) -> bool:
    return bool(secret["metadata"]["namespace"] == team)


def _told(item: Json | None) -> bool:
    """Ready, or not with a sentence about it."""
    if item is None:
        return False
    ready, stalled = condition(item, "Ready"), condition(item, "Stalled")
    if ready[0] == "True":
        return True
    if stalled[0] == "True":
        return len(stalled[2].split()) >= 5
    waiting = condition(item, "Reconciling")
    return waiting[0] == "True" and len(waiting[2].split()) >= 5


def _drawn(kind: str, count: int) -> list[Any]:
    """So many specs, from valid ones to hostile ones."""
    drawn: list[Any] = []

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from([0, 0, 2, 6]).flatmap(lambda broken: generated.specs(kind, broken)))
    def draw(spec: Any) -> None:
        drawn.append(spec)

    draw()
    return drawn


def _near(scene: Scene, index: int, spec: Any) -> Any:
    """Most of them with references that exist, so that more than the first rule is tried."""
    if not isinstance(spec, dict) or index % 4 == 0:
        return spec
    near = {**spec, "retentionPolicyRef": {"name": scene.policy_name}}
    near.pop("storeRef", None)
    if index % 4 != 1:
        near.pop("residency", None)
        near["quota"] = {"memory": "1Mi"}
    if index % 4 == 3:
        near.pop("encryption", None)
        near["isolation"] = "Moderate"
    return near


def _taken(api: Api, kind: str, raw: Json) -> bool:
    """Whether the API server took the object; a rejection must say why."""
    code, answer = api.create(KINDS[kind].NAMES.plural, {"apiVersion": API, "kind": kind, **raw})
    if code == http.HTTPStatus.CREATED:
        return True
    assert code in (400, 422), answer
    assert len(answer["message"]) > 20
    return False
