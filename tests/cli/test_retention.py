"""`memtenant retention`: by which clause something is kept, and what would go when."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from memtenant.cli import cluster
from memtenant.cli.exits import ExitCode
from memtenant.functions.keyspace import ContextKeys, ConversationKeys
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import ObjectKey
from memtenant.tenancy.keys import limits
from tests.cli.program import NEIGHBOUR, TENANT, Program, policy, tenant

DAY = 86_400_000


def entry(time_ms: int, body: bytes = b"\xfarecord") -> bytes:
    return b"\x10" + (1).to_bytes(5, "big") + time_ms.to_bytes(6, "big") + bytes(3) + body


def test_explain_names_the_clause_of_every_period_without_a_store(program: Program) -> None:
    manifests = program.write(
        "all.yaml",
        policy(frameworks=["HIPAA"], retention={"content": {"max": "90d"}}),
        policy("unused", frameworks=["SOX"]),
        tenant(retention={"content": "30d"}),
    )
    told = program.do("retention", "explain", "-f", manifests, "-o", "json").data()
    found = {one["object"]: one for one in told["objects"]}
    classes = found["MemoryTenant/support/acme"]["classes"]
    assert classes["content"]["kept"] == {
        "period": "30d",
        "source": "MemoryTenant",
        "clause": "spec.retention.content",
    }
    assert classes["content"]["atMost"]["period"] == "90d"
    assert classes["audit"]["atLeast"]["clause"].startswith("45 CFR 164.316(b)(2)(i)")
    cut = datetime.fromisoformat(found["MemoryTenant/support/acme"]["cutOffs"]["content"])
    assert timedelta(days=30) <= datetime.now(UTC) - cut <= timedelta(days=31)
    assert found["RetentionPolicy/unused"]["classes"]["audit"]["kept"]["period"] == "7y"
    shown = program.do("retention", "explain", "-f", manifests).out
    assert "17 CFR 210.2-06" in shown
    assert not (program.state / "valkey").exists()


def test_explain_shows_holds_and_what_cannot_be_resolved(program: Program) -> None:
    hold = [{"matter": "SEC-1", "since": "2026-01-01T00:00:00Z", "tenantSelector": {}}]
    held = program.write("held.yaml", policy(legalHolds=hold), tenant())
    assert "Held by SEC-1: nothing expires" in program.do("retention", "explain", "-f", held).out
    bad = program.write(
        "bad.yaml",
        policy(retention={"content": {"max": "10d"}}),
        tenant(retention={"content": "30d"}),
        tenant(NEIGHBOUR),
    )
    ended = program("retention", "explain", "-f", bad)
    assert ended.code == ExitCode.FAILED
    assert "cannot be resolved" in ended.out
    assert "must be at most 10d" in ended.out
    assert "MemoryTenant/sales/globex, under RetentionPolicy standard" in ended.out


def test_explain_knows_the_holds_of_tenants_whose_labels_no_manifest_has(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster a manifest adds labels to those that somebody else set there."""
    label = {"matchLabels": {"case": "sec-1"}}
    hold = [{"matter": "SEC-1", "since": "2026-01-01T00:00:00Z", "tenantSelector": label}]
    manifests = program.write("all.yaml", policy(legalHolds=hold), tenant())

    @asynccontextmanager
    async def folder(_target: object) -> AsyncIterator[FolderResources]:
        with FolderResources.open(program.state) as resources:
            key = ObjectKey.tenant(TENANT.namespace, TENANT.name)
            resources.declare(key, tenant()["spec"], labels=label["matchLabels"])
            yield resources

    monkeypatch.setattr(cluster, "resources", folder)
    explain = ("retention", "explain", "--context", "somewhere", "-f", manifests)
    assert "Held by SEC-1: nothing expires" in program.do(*explain).out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("preview", "--days", "-1"), "--days"),
        (("preview", "--days", "many"), "--days"),
        (("preview", "--days", "36501"), "36500"),
        (
            ("explain", "a/b/c", "-f", "all.yaml"),
            "'a/b/c' names no tenant: write NAME or NAMESPACE/NAME",
        ),
        (("explain", "", "-f", "all.yaml"), "'' names no tenant"),
        (("explain", "support/other", "-f", "all.yaml"), "there is no MemoryTenant/support/other"),
        (("explain", "-f", "missing.yaml"), "missing.yaml does not exist"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    program: Program, words: tuple[str, ...], says: str
) -> None:
    manifests = program.write("all.yaml", policy(), tenant())
    ended = program("retention", *(manifests if one == "all.yaml" else one for one in words))
    assert (ended.code, ended.out) == (ExitCode.FAILED, "")
    assert says in ended.err


@pytest.mark.redis
def test_preview_counts_what_apply_then_removes(program: Program) -> None:
    manifests = program.write(
        "all.yaml", policy(), tenant(retention={"content": "10d"}), tenant(NEIGHBOUR)
    )
    program.do("apply", "-f", manifests)
    now = time.time_ns() // 1_000_000
    old, young = (ConversationKeys.of(TENANT, "_", name) for name in ("old", "young"))
    context = ContextKeys.of(TENANT, "case")
    with program.connect() as agent:
        agent.rpush(old.list, entry(now - 8 * DAY), entry(now - 7 * DAY))
        agent.rpush(old.summaries, entry(now - 8 * DAY))
        agent.rpush(young.list, entry(now - 8 * DAY), entry(now - DAY))
        agent.hset(context.values, "one", entry(now - 8 * DAY))
        agent.hset(context.versions, "one", entry(now - 8 * DAY, b""))
        before = {key: agent.lrange(key, 0, -1) for key in (old.list, young.list)}

    def going(days: int) -> dict[str, object]:
        options = ("--days", str(days), "support/acme", "-o", "json")
        (found,) = program.do("retention", "preview", *options).data()["tenants"]
        return {**found["content"], **found["derived"]}

    assert going(1)["messages"] == 0
    found = going(5)
    assert (found["messages"], found["values"], found["summaries"]) == (3, 1, 1)
    assert (found["conversations"], found["contexts"]) == (1, 1)
    with program.connect() as agent:
        assert {key: agent.lrange(key, 0, -1) for key in before} == before
    shown = program.do("retention", "preview", "--days", "5").out
    assert "10d (MemoryTenant spec.retention.content)" in shown
    assert "sales.globex" in shown
    shorter = program.write("shorter.yaml", tenant(retention={"content": "5d"}))
    applied = program.do("apply", "-f", shorter)
    assert "(tenants: 1, records: 5)" in applied.out
    assert going(0)["messages"] == 0
    with program.connect() as agent:
        assert agent.exists(old.list, context.values) == 0
        assert agent.llen(young.list) == 1
        assert int(agent.hget(limits(TENANT), "cutoff_content") or 0) > 0


@pytest.mark.redis
def test_preview_says_what_stands_in_the_way(program: Program) -> None:
    assert "nothing is declared" in program("retention", "preview").err
    program.do("apply", "-f", program.write("all.yaml", policy(), tenant()))
    ended = program("retention", "preview", "support/other")
    assert ended.code == ExitCode.FAILED
    assert "there is no MemoryTenant/support/other" in ended.err
    hold = [{"matter": "SEC-1", "since": "2026-01-01T00:00:00Z", "tenantSelector": {}}]
    program.do("apply", "-f", program.write("held.yaml", policy(legalHolds=hold)))
    assert "held by SEC-1" in program.do("retention", "preview").out


@pytest.mark.redis
def test_preview_knows_a_hold_that_stands_though_its_label_is_gone(program: Program) -> None:
    label = {"case": "sec-1"}
    selector = {"matchLabels": label}
    hold = [{"matter": "SEC-1", "since": "2026-01-01T00:00:00Z", "tenantSelector": selector}]
    labelled = tenant()
    labelled["metadata"]["labels"] = label
    program.do("apply", "-f", program.write("all.yaml", policy(legalHolds=hold), labelled))
    program.do("apply", "-f", program.write("bare.yaml", tenant()))
    assert "held by SEC-1" in program.do("retention", "preview").out
