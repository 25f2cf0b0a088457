"""A hold from its beginning to the day when an admin breaks it.

What it stops, what goes on, and who is named for what in the audit: the chart's admission policy
says who changed a spec.
"""

import json
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memtenant import Message
from memtenant.audit import OPERATOR, Entry, Event, Operation, is_authentic
from memtenant.crypto.audit_keys import INSTALLATION_LOG, audit_mac_key, audit_root
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import TenantHeld
from memtenant.memory.source import BindingSource
from memtenant.reconcile.telling import CHANGED_BY_ANNOTATION
from memtenant.sync import Tenant
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.chart import rendered
from tests.e2e.scene import Scene, eventually
from tests.memory.bindings import mount
from tests.support.servers import Server

pytestmark = pytest.mark.cluster

STAMP = f"{rendered.RELEASE}-changed-by"
HOLD = {"matter": "SEC-2026-014", "since": "2026-01-31T09:30:00Z", "tenantSelector": {}}


@pytest.fixture
def scene(stage: Callable[[], Scene]) -> Scene:
    scene = stage()
    scene.store(scene.server())
    found = rendered.objects("--set", "admission.changedBy=true")
    kinds = ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding")
    scene.cluster.apply(*(rendered.one(found, kind, STAMP) for kind in kinds))
    scene.stack.callback(
        scene.cluster.kubectl, "delete", ",".join(kind.lower() for kind in kinds), STAMP
    )
    eventually(lambda: declare_policy(scene, "ada") == "ada", "the stamp comes into force")
    scene.operator(changed_by_stamped="true")
    return scene


def declare_policy(scene: Scene, user: str, *holds: dict[str, Any]) -> str:
    """Declare the scene's policy as that user; who is stamped on it then."""
    policy = {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": "RetentionPolicy",
        "metadata": {"name": scene.policy_name},
        "spec": {
            "audit": {"mode": "Required"},
            "legalBasis": f"{user} {time.monotonic()}",
            "legalHolds": list(holds),
        },
    }
    as_user(scene, user, policy)
    found = scene.cluster.get("retentionpolicy", scene.policy_name)
    return str(found["metadata"].get("annotations", {}).get(CHANGED_BY_ANNOTATION, ""))


def as_user(scene: Scene, user: str, declared: dict[str, Any]) -> None:
    flags = ("--as", user, "--as-group", "system:masters")
    scene.cluster.kubectl("apply", "-f", "-", *flags, stdin=json.dumps(declared))


def told(scene: Scene, server: Server, log: str) -> list[tuple[Operation, dict[str, Any]]]:
    """What the operator told so far, under its own key."""
    secret = scene.cluster.get("secret", "memtenant-root", "-n", scene.home)
    root = audit_root(SecretKey(b64decode(secret["data"]["root"])))
    key = audit_mac_key(root, log, OPERATOR, 0)
    queue = keys.INSTALLATION_QUEUE
    if log != INSTALLATION_LOG:
        queue = keys.audit_queue(TenantId.parse(log))
    with server.admin() as admin:
        entries = [Entry.parse(one) for one in admin.lrange(queue, 0, -1)]
    events = [(Event.parse(entry.event), entry.event) for entry in entries]
    mine = [(one, raw) for one, raw in events if one.agent == OPERATOR]
    assert all(is_authentic(key, raw) for _, raw in mine)
    return [(one.operation, json.loads(one.detail or b"{}")) for one, _ in mine]


def beat(server: Server, log: str) -> None:
    """As a sealer does, for an hour; it was there before the tenant's queue is closed."""
    with server.admin() as admin:
        seconds, _ = admin.time()
        admin.hset(keys.limits(TenantId.parse(log)), "audit_heartbeat", (seconds + 3600) * 1000)
        admin.hset(keys.STORE_SEALER, "sealed_at", seconds * 1000)


def test_a_hold_stops_what_removes_until_an_admin_breaks_it_by_name(
    scene: Scene, tmp_path: Path
) -> None:
    server, team = scene.servers[0], scene.team()
    log = f"{team}.desk"
    desk = scene.tenant_object(
        team,
        "desk",
        deletionPolicy="Delete",
        agents=[{"name": "default", "access": "Steward"}],
    )
    as_user(scene, "trader", desk)
    scene.wait_ready(team, "desk")
    ((first, detail), (second, _)) = told(scene, server, log)
    assert (first, detail["by"]) == (Operation.PROVISIONED, "trader")
    assert second is Operation.AUDIT_STARTED
    beat(server, log)

    declare_policy(scene, "counsel", HOLD)
    held = (
        Operation.HOLD_SET,
        {"matter": "SEC-2026-014", "policy": scene.policy_name, "by": "counsel"},
    )
    eventually(lambda: held in told(scene, server, log), lambda: told(scene, server, log))
    scene.wait_ready(team, "desk")
    with Tenant(BindingSource(mount(tmp_path / "desk", scene.binding(team, "desk")))) as tenant:
        chat = tenant.conversation("s", user="ada")
        chat.append(Message.human("sell"))
        assert [one.text for one in chat.messages()] == ["sell"]
        with pytest.raises(TenantHeld):
            chat.clear()
    scene.delete_tenant(team, "desk")
    scene.wait_condition(team, "desk", "DeletionBlocked", "True", "LegalHold")

    declare_policy(scene, "mallory")
    scene.wait_gone(team, "desk")
    deeds = told(scene, server, log)
    assert (Operation.HOLD_RELEASED, held[1] | {"by": "mallory"}) in deeds
    operations = [operation for operation, _ in deeds]
    assert operations.count(Operation.PURGED) == 1
    assert operations.index(Operation.DEPROVISIONED) < operations.index(Operation.PURGED)

    def stamped() -> set[str]:
        seen = [detail for _, detail in told(scene, server, INSTALLATION_LOG)]
        return {detail["by"] for detail in seen if detail["name"] == scene.policy_name}

    eventually(lambda: stamped() >= {"counsel", "mallory"}, stamped)
