"""A tenant that is audited because its policy, a framework or its own spec says so.

The operator drives what the Functions obey; the sealer's part, the heartbeat, is written by hand.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from memtenant import Message
from memtenant.audit import Operation
from memtenant.errors import AuditUnavailable
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from tests.reconcile.auditing import ACME, REQUIRED, Scene, made
from tests.reconcile.conftest import Ground, told
from tests.support.servers import Server

pytestmark = pytest.mark.redis


@pytest.fixture
async def scene(valkey: Server, tmp_path: Path) -> AsyncIterator[Scene]:
    async for one in made(Ground(valkey, tmp_path / "state"), tmp_path):
        yield one


@pytest.fixture
async def each_scene(redis_server: Server, tmp_path: Path) -> AsyncIterator[Scene]:
    async for one in made(Ground(redis_server, tmp_path / "state"), tmp_path):
        yield one


async def test_closed_refuses_what_cannot_be_audited_and_open_counts_it(each_scene: Scene) -> None:
    scene = each_scene
    assert scene.entry() == Audited(60, keep_months=12, evidence_months=12)
    chat = (await scene.agent()).conversation("s", user="ada")
    with pytest.raises(AuditUnavailable):  # there is no sealer
        await chat.append(Message.human("nobody hears this"))
    scene.beat()
    await chat.append(Message.human("one"))
    await chat.messages()
    assert await scene.by_agents() == [Operation.APPEND]
    scene.beat(live=False)
    with pytest.raises(AuditUnavailable):
        await chat.append(Message.human("two"))
    assert len(await chat.messages()) == 1
    scene.ground.policy(audit={"mode": "Required", "onFailure": "Open"})
    await scene.ground.settle()
    await chat.append(Message.human("three"))
    assert await scene.by_agents() == []
    with scene.server.admin() as admin:
        assert admin.hget(keys.usage(ACME), "dropped") == b"1"


async def test_reads_leave_events_where_the_policy_requires_them(each_scene: Scene) -> None:
    scene = each_scene
    scene.beat()
    chat = (await scene.agent()).conversation("s", user="ada")
    await chat.append(Message.human("one"))
    await chat.messages()
    scene.ground.policy(audit={"mode": "Required", "reads": "Required"})
    await scene.ground.settle()
    await scene.drained()
    await chat.messages()
    await chat.messages(1)
    assert await scene.by_agents() == [Operation.READ, Operation.READ]


async def test_a_look_leaves_the_heartbeat_alone_and_writes_nothing(scene: Scene) -> None:
    scene.beat()
    before = scene.limits()
    await scene.drained()
    assert not any(one.did for one in (await scene.ground.settle()).values())
    assert scene.limits() == before
    assert await scene.drained() == []


async def test_a_tenant_cannot_leave_an_audit_that_its_policy_requires(scene: Scene) -> None:
    scene.beat()
    scene.ground.tenant("acme", audit={"mode": "Disabled"})
    await scene.ground.settle()
    status = await scene.ground.tenant_status("acme")
    assert told(status, "Stalled")[:2] == ("True", "AuditRequired")
    assert told(status, "Stalled")[2].startswith("spec.audit.mode: RetentionPolicy 'standard'")
    assert (scene.limits()["audit"], scene.entry()) == (
        "1",
        Audited(60, keep_months=12, evidence_months=12),
    )
    await (await scene.agent()).conversation("s", user="ada").append(Message.human("one"))
    assert Operation.APPEND in await scene.by_agents()


@pytest.mark.parametrize(
    ("policy", "tenant", "mode", "reads", "clause"),
    [
        ({}, {}, "Disabled", "Disabled", ""),
        ({}, {"audit": {"mode": "Enabled"}}, "Enabled", "Disabled", "spec.audit.mode"),
        ({"frameworks": ["HIPAA"]}, {}, "Enabled", "Enabled", "HIPAA 45 CFR 164.312(b)"),
    ],
)
async def test_the_status_says_whether_and_why_a_tenant_is_audited(
    scene: Scene, policy: Any, tenant: Any, mode: str, reads: str, clause: str
) -> None:
    scene.ground.policy(**policy)
    scene.ground.tenant("acme", **tenant)
    await scene.ground.settle()
    audit = (await scene.ground.tenant_status("acme")).audit
    assert audit is not None
    assert (audit.mode, audit.reads) == (mode, reads)
    assert clause in audit.clause
    assert scene.limits()["audit"] == ("1" if mode == "Enabled" else "0")


async def test_an_audit_that_is_switched_off_is_drained_to_its_end(scene: Scene) -> None:
    scene.beat()
    await (await scene.agent()).conversation("s", user="ada").append(Message.human("one"))
    scene.ground.policy()
    await scene.ground.settle()
    assert scene.limits()["audit"] == "0"
    assert scene.entry() == Audited(60, closing=True, keep_months=12, evidence_months=12)
    assert Operation.APPEND in await scene.by_agents()
    scene.ground.policy(**REQUIRED)
    await scene.ground.settle()
    assert scene.entry() == Audited(60, keep_months=12, evidence_months=12)
