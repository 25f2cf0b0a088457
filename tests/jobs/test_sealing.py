"""The sealer on real servers: what it takes is sealed once, whatever is killed and whenever."""

import asyncio
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from memtenant.archive import (
    ArchiveFolder,
    ArchiveReader,
    FolderSigner,
    Kept,
    Part,
    Result,
    Space,
    verify,
)
from memtenant.archive.log import Judged, Log
from memtenant.archive.segments import months as archive_months
from memtenant.archive.tree import TREE_FOLDER
from memtenant.audit.leaf import Verdict
from memtenant.clock import Clock
from memtenant.crypto.audit_keys import INSTALLATION_LOG, audit_mac_key
from memtenant.errors import (
    ArchiveBusy,
    ArchiveUnavailable,
    SignerConflict,
    StoreUnavailable,
)
from memtenant.jobs import budget
from memtenant.jobs.engine import Engine
from memtenant.jobs.keeping import FOR_EVER, told_months
from memtenant.jobs.seal import StoreDrain
from memtenant.jobs.sealing import Sealing
from memtenant.stores.sealerconnections import SealerConnections
from memtenant.stores.sealing import Page, SealingStore
from memtenant.tenancy import keys
from memtenant.tenancy.audited import Audited
from memtenant.tenancy.endpoint import endpoint_from
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.period import Period
from memtenant.tenancy.sentinel import SentinelAccess
from memtenant.tenancy.storesfile import Endpoint, StoreAccess, StoresFile
from tests.archive.making import LOG, ROOT, Agent
from tests.audit.auditor import audit
from tests.conftest import StartServer
from tests.jobs.sealers import (
    ACME,
    Observed,
    admit,
    days_pass,
    engine_over,
    sealed_entries,
    sealer,
)
from tests.support.sentinels import MASTER, watched
from tests.support.servers import Flavour, Options, Server

QUEUE, LIMITS, REPORT = keys.audit_queue(ACME), keys.limits(ACME), keys.sealer_report(ACME)

SEALED_DAILY = pytest.mark.usefixtures("sealed_daily")


@pytest.fixture
def sealed_daily(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there had been a seal on each day: all the time between two of them is proven."""
    monkeypatch.setattr("memtenant.archive.leaps.DAY", 2**62)


def now_opened() -> int:
    return int(time.time()) - 5


def an_auditor_finds(folder: Path) -> tuple[int, list[str]]:
    """Who has docs/audit-format.md, the oldest checkpoint that there is, and the audit keys."""
    root = folder / "archive"
    held = next(iter(ArchiveReader.open(root).checkpoints())).note
    public = (root / "checkpoints/key").read_text()
    found = audit(root, public, held, lambda *whose: audit_mac_key(ROOT, *whose).secret)
    return found.verdict, [*found.touched, *found.contradicted]


def fields(admin: "redis.Redis", key: str) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in admin.hgetall(key).items()}


async def test_what_is_in_the_queues_is_sealed_and_taken_away(
    redis_server: Server, tmp_path: Path
) -> None:
    stores = await admit(redis_server)
    entries = Agent(opened=now_opened()).some(7001)
    with redis_server.admin() as admin:
        admin.rpush(QUEUE, *entries)
        admin.rpush(keys.INSTALLATION_QUEUE, b"nobody's event")
        async with sealer(tmp_path, stores) as sealing:
            step = await sealing.step()
            assert step.failures == {}
            assert (step.drained["shared"].events, step.drained["shared"].bad) == (7001, 1)
            again = await sealing.step()
        assert again.drained["shared"].entries == 0
        assert not admin.exists(QUEUE, keys.INSTALLATION_QUEUE)
        seconds, _ = admin.time()
        beat = admin.hget(LIMITS, "audit_heartbeat")
        assert beat is not None
        assert abs(int(beat) - seconds * 1000) < 30_000
        report = fields(admin, REPORT)
        told = {
            name.decode(): one.decode() for name, one in admin.hgetall(keys.STORE_SEALER).items()
        }
    assert report["size"] == "7001"
    assert (report["gaps"], report["bad"], report["irregular_at"]) == ("0", "0", "0")
    assert sealed_entries(tmp_path) == entries
    latest = ArchiveReader.open(tmp_path / "archive").latest()
    assert latest is not None
    assert told["root"] == latest.checkpoint.root.hex()
    assert int(told["tree_size"]) == latest.checkpoint.size
    assert told["trouble"] == ""


async def test_what_is_missing_and_what_is_false_is_told(valkey: Server, tmp_path: Path) -> None:
    stores = await admit(valkey)
    agent = Agent(opened=now_opened())
    first, _, third = agent.some(3)
    with valkey.admin() as admin:
        admin.rpush(QUEUE, first, third, third, b"forged" + first)
        admin.hset(keys.usage(ACME), "dropped", "4")
        async with sealer(tmp_path, stores) as sealing:
            drained = (await sealing.step()).drained["shared"]
        report = fields(admin, REPORT)
    found = (drained.events, drained.gaps, drained.bad, drained.duplicates)
    assert found == (2, 1, 1, 1)
    assert (report["gaps"], report["bad"], report["dropped_seen"]) == ("1", "1", "4")
    assert int(report["irregular_at"]) > 0


def losses(folder: Path) -> list[dict[str, object]]:
    """What the sealer itself told of the tenant's log."""
    found = []
    for one in ArchiveReader.open(folder / "archive").events(LOG):
        event = one.event()
        if event.agent == "sealer":
            assert (one.verdict, event.binding_version) == (Verdict.GOOD, 0)
            found.append({"operation": event.operation.name, **json.loads(event.detail)})
    return found


async def test_what_was_dropped_is_told_once_in_the_log_with_its_time(
    valkey: Server, tmp_path: Path
) -> None:
    stores = await admit(valkey)
    usage = keys.usage(ACME)
    with valkey.admin() as admin:
        # The last one is an agent's word, or that of a store that was rolled back.
        for count in ("4", "4", "6", "1"):
            admin.hset(usage, "dropped", count)
            async with sealer(tmp_path, stores) as sealing:
                assert (await sealing.step()).failures == {}
        assert fields(admin, REPORT)["dropped_told"] == "1"
        # Of a tenant that goes the count goes too.
        admin.hset(keys.STORE_AUDITED, LOG, Audited(1, closing=True).to_json())
        admin.delete(usage)
        async with sealer(tmp_path, stores) as sealing:
            await sealing.step()
    assert [(one["was"], one["counted"]) for one in losses(tmp_path)] == [(0, 4), (4, 6), (6, 1)]
    assert an_auditor_finds(tmp_path) == (0, [])


async def test_that_nobody_drained_is_told_whatever_the_store_counted(
    redis_server: Server, tmp_path: Path
) -> None:
    others = [TenantId("sales", name) for name in ("closed", "young", "new")]
    stores = await admit(redis_server, ACME, *others)
    with redis_server.admin() as admin:
        now = int(admin.time()[0]) * 1000
        for tenant, on_failure, beat in (
            (ACME, "Open", now - 90_000),
            (others[0], "Closed", now - 90_000),
            (others[1], "Open", now + 600_000),
            (others[2], "Open", 0),
        ):
            told = {"audit": "1", "on_failure": on_failure, "audit_heartbeat": str(beat)}
            admin.hset(keys.limits(tenant), mapping=told)
        async with sealer(tmp_path, stores) as sealing:
            await sealing.step()
            await sealing.step()
    (lapse,) = losses(tmp_path)
    assert (lapse["operation"], lapse["since"]) == ("NOT_DRAINED", now - 30_000)
    assert int(str(lapse["until"])) >= now
    assert ArchiveReader.open(tmp_path / "archive").logs() == [LOG]
    assert an_auditor_finds(tmp_path) == (0, [])


async def test_a_lapse_that_the_log_did_not_take_is_not_ended_by_a_heartbeat(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = await admit(valkey)

    async def refused(_: Engine, deeds: Iterable[str]) -> dict[str, Exception]:
        return {log: ArchiveUnavailable("the log is full") for log in deeds}

    with valkey.admin() as admin:
        before = str(int(admin.time()[0]) * 1000 - 90_000)
        lapsing = {"audit": "1", "on_failure": "Open", "audit_heartbeat": before}
        admin.hset(LIMITS, mapping=lapsing)
        async with sealer(tmp_path, stores) as sealing:
            monkeypatch.setattr(Engine, "tell", refused)
            await sealing.step()
            assert admin.hget(LIMITS, "audit_heartbeat") == before.encode()
            monkeypatch.undo()
            await sealing.step()
        assert admin.hget(LIMITS, "audit_heartbeat") != before.encode()
    assert [one["operation"] for one in losses(tmp_path)] == ["NOT_DRAINED"]


async def test_a_heartbeat_follows_only_what_the_archive_took(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = await admit(valkey)

    def full(*_: object, **__: object) -> None:
        raise ArchiveUnavailable("the archive cannot be used: No space left on device")

    monkeypatch.setattr(ArchiveFolder, "replace", full)
    with valkey.admin() as admin:
        async with sealer(tmp_path, stores) as sealing:
            step = await sealing.step()
            assert isinstance(step.failures["shared"], ArchiveUnavailable)
            assert admin.hget(LIMITS, "audit_heartbeat") is None
            trouble = admin.hget(keys.STORE_SEALER, "trouble")
            assert trouble is not None
            assert b"No space left" in trouble
            monkeypatch.undo()
            assert (await sealing.step()).failures == {}
        assert admin.hget(LIMITS, "audit_heartbeat") is not None
        assert admin.hget(keys.STORE_SEALER, "trouble") == b""


async def test_agents_of_a_tenant_that_is_new_do_not_wait_for_the_next_heartbeat(
    valkey: Server, tmp_path: Path
) -> None:
    stores = await admit(valkey)
    late = TenantId("sales", "late")
    async with sealer(tmp_path, stores) as sealing:
        await sealing.step()
        with valkey.admin() as admin:
            admin.hset(keys.STORE_AUDITED, str(late), Audited(60).to_json())
            admin.hset(keys.STORE_AUDITED, "no tenant", "nonsense")
            admin.hset(keys.limits(late), "format", "1")
            step = await sealing.step()
            assert admin.hget(keys.limits(late), "audit_heartbeat") is not None
    assert step.drained["shared"].unreadable == ("no tenant",)


async def test_what_cannot_be_signed_before_somebody_acts_stops_the_heartbeat(
    valkey: Server, tmp_path: Path
) -> None:
    stores = await admit(valkey)
    with valkey.admin() as admin:
        admin.rpush(QUEUE, *Agent(opened=now_opened()).some(3))
        async with sealer(tmp_path, stores) as sealing:
            await sealing.step()
        admin.hdel(LIMITS, "audit_heartbeat")
        (tree,) = (tmp_path / "archive" / "tree").glob("*.log")
        tree.write_bytes(bytes(tree.stat().st_size))
        shutil.rmtree(tmp_path / "archive" / "state")
        async with sealer(tmp_path, stores) as sealing:
            for _ in range(2):
                assert (await sealing.step()).failures
        assert admin.hget(LIMITS, "audit_heartbeat") is None
        assert admin.hget(keys.STORE_SEALER, "trouble") not in (None, b"")


@SEALED_DAILY
async def test_months_that_are_older_than_they_are_kept_go(valkey: Server, tmp_path: Path) -> None:
    stores = await admit(valkey)
    moment = [datetime(2024, 3, 10, tzinfo=UTC)]
    clock = Clock(now=lambda: moment[0])
    agent = Agent(opened=int(moment[0].timestamp()))
    with valkey.admin() as admin:
        kept = Audited(60, keep_months=12)
        admin.hset(keys.STORE_AUDITED, str(ACME), kept.to_json())
        for months in (0, 6, 14):
            moment[0] = Period(months, "mo").after(datetime(2024, 3, 10, tzinfo=UTC))
            admin.rpush(QUEUE, *agent.some(2))
            async with sealer(tmp_path, stores, clock=clock) as sealing:
                assert (await sealing.step()).failures == {}
                await sealing.step()
    reader = ArchiveReader.open(tmp_path / "archive")
    assert reader.months(LOG) == ["2024-09", "2025-05"]
    found = verify(reader)
    assert not [one for one in found.findings if one.tampered]
    assert [one.first for one in found.logs if one.log_id == LOG] == [2]
    assert an_auditor_finds(tmp_path) == (0, [])


@SEALED_DAILY
async def test_a_log_of_a_tenant_that_is_gone_goes_after_the_longest_that_was_said_of_it(
    valkey: Server, tmp_path: Path
) -> None:
    """And what is about no tenant after the longest of all, with the tree."""
    other = TenantId("sales", "other")
    stores = await admit(valkey, ACME, other)
    start = datetime(2024, 3, 10, tzinfo=UTC)
    moment = [start]
    clock = Clock(now=lambda: moment[0])

    async def step() -> None:
        async with sealer(tmp_path, stores, clock=clock) as sealing:
            for _ in range(2):
                assert (await sealing.step()).failures == {}

    def first(reader: ArchiveReader) -> list[str]:
        tree = archive_months(reader.archive, TREE_FOLDER)[0]
        return [reader.months(log)[0] for log in (LOG, INSTALLATION_LOG)] + [tree]

    with valkey.admin() as admin:
        brief = Audited(60, keep_months=6, evidence_months=6).to_json()
        admin.hset(keys.STORE_AUDITED, str(other), brief)
        admin.rpush(QUEUE, *Agent(opened=int(start.timestamp())).some(3))
        admin.rpush(keys.INSTALLATION_QUEUE, b"about no tenant")
        for entry in (Audited(60, keep_months=12, evidence_months=24).to_json(), brief):
            admin.hset(keys.STORE_AUDITED, str(ACME), entry)
            await step()
        anchor = ArchiveReader.open(tmp_path / "archive").latest()
        admin.hdel(keys.STORE_AUDITED, str(ACME))
        begins = []
        for months in (8, 14, 26):
            moment[0] = Period(months, "mo").after(start)
            await step()
            begins.append(first(ArchiveReader.open(tmp_path / "archive")))
    old = "2024-03"
    assert begins == [[old, old, old], ["2024-05", old, old], ["2025-05", "2024-05", "2024-11"]]
    found = verify(ArchiveReader.open(tmp_path / "archive"), trusted=anchor)
    # The tree begins where the checkpoint ends that was kept.
    assert (found.result, found.findings) == (Result.GOOD, ())


@SEALED_DAILY
async def test_the_log_of_a_tenant_that_was_held_at_its_end_is_kept(
    valkey: Server, tmp_path: Path
) -> None:
    stores = await admit(valkey)
    start = datetime(2024, 3, 10, tzinfo=UTC)
    moment = [start]
    with valkey.admin() as admin:
        admin.rpush(QUEUE, *Agent(opened=int(start.timestamp())).some(3))
        for kept in (12, None):
            admin.hset(keys.STORE_AUDITED, str(ACME), Audited(60, keep_months=kept).to_json())
            async with sealer(tmp_path, stores, clock=Clock(now=lambda: moment[0])) as sealing:
                await sealing.step()
        admin.delete(keys.STORE_AUDITED)
        moment[0] = Period(2, "y").after(start)
        async with sealer(tmp_path, stores, clock=Clock(now=lambda: moment[0])) as sealing:
            for _ in range(2):
                assert (await sealing.step()).failures == {}
    assert len(sealed_entries(tmp_path)) == 3


async def test_a_sealer_whose_clock_is_ahead_lets_no_month_go(
    valkey: Server, tmp_path: Path
) -> None:
    stores = await admit(valkey)
    with valkey.admin() as admin:
        kept = Audited(60, keep_months=12)
        admin.hset(keys.STORE_AUDITED, str(ACME), kept.to_json())
        admin.rpush(QUEUE, *Agent(opened=now_opened()).some(2))
        async with sealer(tmp_path, stores) as sealing:
            await sealing.step()
        ahead = Period(7, "y").after(datetime.now(UTC))
        async with sealer(tmp_path, stores, clock=Clock(now=lambda: ahead)) as sealing:
            for _ in range(2):
                assert (await sealing.step()).failures == {}
    assert len(sealed_entries(tmp_path)) == 2


async def test_what_was_sealed_while_the_clock_was_years_behind_is_no_older_than_the_seals_prove(
    valkey: Server, tmp_path: Path
) -> None:
    """Of a new log. Its months go when time has passed since the clock was put right."""
    stores = await admit(valkey)
    right = datetime(2024, 3, 10, tzinfo=UTC)
    moment = [datetime(2017, 1, 30, tzinfo=UTC)]
    clock = Clock(now=lambda: moment[0])

    async def months_after_a_step() -> list[str]:
        async with sealer(tmp_path, stores, clock=clock) as sealing:
            for _ in range(2):
                assert (await sealing.step()).failures == {}
        return ArchiveReader.open(tmp_path / "archive").months(LOG)

    with valkey.admin() as admin:
        kept = Audited(60, keep_months=2, evidence_months=2).to_json()
        admin.hset(keys.STORE_AUDITED, str(ACME), kept)
        agent = Agent(opened=int((right - timedelta(days=4)).timestamp()))
        for days in (0, 3):
            admin.rpush(QUEUE, *agent.some(2))
            days_pass(tmp_path, moment, moment[0] + timedelta(days=days))
            await months_after_a_step()
        moment[0] = right
        behind = ["2017-01", "2017-02"]
        assert await months_after_a_step() == behind
        days_pass(tmp_path, moment, right + timedelta(days=55))
        assert await months_after_a_step() == behind
        # The server was restored: the first comes again.
        admin.rpush(QUEUE, agent.entry(1), *agent.some(1))
        await months_after_a_step()
        days_pass(tmp_path, moment, right + timedelta(days=90))
        assert await months_after_a_step() == ["2024-05"]
    assert len(sealed_entries(tmp_path)) == 1


async def test_of_a_tenant_that_was_audited_for_less_than_a_window_the_period_is_said(
    valkey: Server, tmp_path: Path
) -> None:
    stores = await admit(valkey)
    with valkey.admin() as admin:
        async with sealer(tmp_path, stores) as sealing:
            await sealing.step()
            brief = str(TenantId("sales", "brief"))
            admin.hset(keys.STORE_AUDITED, brief, Audited(60, keep_months=6).to_json())
            await sealing._drains["shared"].round()
            admin.hdel(keys.STORE_AUDITED, brief)
            for _ in range(2):
                await sealing.step()
            kept = await sealing._engine.keep({})
    assert kept[brief] == Kept(6, 6)


def test_of_a_log_that_two_stores_name_the_longest_period_counts() -> None:
    """Who administers a store may write there what he likes, also of a tenant on another."""
    theirs, held = Audited(60, keep_months=84, evidence_months=84), Audited(60)
    false = Audited(60, keep_months=1, evidence_months=1)
    for stores in ([{LOG: theirs}, {LOG: false}], [{LOG: false}, {LOG: theirs}]):
        assert told_months(stores, {}) == {LOG: 84, INSTALLATION_LOG: 84, "tree": 84}
    assert told_months([{LOG: held}, {LOG: false}], {})[LOG] == FOR_EVER


@SEALED_DAILY
async def test_while_a_store_does_not_answer_nothing_goes_that_it_may_tell_of(
    valkey: Server, tmp_path: Path
) -> None:
    """A hold may have been set meanwhile."""
    stores = await admit(valkey)
    away = StoreAccess("gone", "Standalone", (Endpoint("127.0.0.1", 1),), "mt.sealer", "x")
    moment = [datetime(2024, 3, 10, tzinfo=UTC)]
    clock = Clock(now=lambda: moment[0])

    async def step(stores: StoresFile) -> list[str]:
        async with sealer(tmp_path, stores, clock=clock) as sealing:
            for _ in range(2):
                assert (await sealing.step()).sealed is not None
        return ArchiveReader.open(tmp_path / "archive").months(LOG)

    with valkey.admin() as admin:
        kept = Audited(60, keep_months=6, evidence_months=6).to_json()
        admin.hset(keys.STORE_AUDITED, str(ACME), kept)
        admin.rpush(QUEUE, *Agent(opened=int(moment[0].timestamp())).some(3))
        await step(stores)
        admin.hdel(keys.STORE_AUDITED, str(ACME))
        moment[0] = Period(2, "y").after(moment[0])
        assert await step(stores.put(away)) == ["2024-03"]
        assert await step(stores) == ["2025-09"]


@SEALED_DAILY
async def test_a_month_that_is_damaged_keeps_no_other_log_from_being_sealed(
    valkey: Server, tmp_path: Path
) -> None:
    stores = await admit(valkey)
    moment = [datetime(2024, 3, 10, tzinfo=UTC)]
    agent = Agent(opened=int(moment[0].timestamp()))
    with valkey.admin() as admin:
        kept = Audited(60, keep_months=2)
        for _ in range(3):
            admin.rpush(QUEUE, *agent.some(2))
            async with sealer(tmp_path, stores, clock=Clock(now=lambda: moment[0])) as sealing:
                assert (await sealing.step()).failures == {}
            moment[0] += timedelta(days=31)
        moment[0] += timedelta(days=200)
        admin.hset(keys.STORE_AUDITED, str(ACME), kept.to_json())
        (tmp_path / "archive" / "logs" / LOG / "2024-04.head").write_bytes(b"?")
        async with sealer(tmp_path, stores, clock=Clock(now=lambda: moment[0])) as sealing:
            for _ in range(2):
                step = await sealing.step()
                assert (step.failures, step.sealed is None) == ({}, False)
    months = ArchiveReader.open(tmp_path / "archive").months(LOG)
    assert months[:3] == ["2024-03", "2024-04", "2024-05"]


async def test_notes_of_reads_that_cannot_be_looked_at_keep_nothing_from_being_sealed(
    valkey: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stores = await admit(valkey)
    async with sealer(tmp_path, stores) as sealing:
        (tmp_path / "archive" / "reads").write_bytes(b"as a folder of another user")
        for _ in range(2):
            step = await sealing.step()
            assert (step.failures, step.sealed is None) == ({}, False)
    assert caplog.text.count("who read the log is told nowhere") == 1


async def test_a_tenant_that_is_gone_gets_no_limits_back(valkey: Server, tmp_path: Path) -> None:
    stores = await admit(valkey)
    with valkey.admin() as admin:
        admin.delete(LIMITS)
        async with sealer(tmp_path, stores) as sealing:
            await sealing.step()
        assert not admin.exists(LIMITS)
        admin.hset(LIMITS, "format", "1")
        admin.hset(keys.STORE_AUDITED, str(ACME), Audited(60, closing=True).to_json())
        admin.rpush(QUEUE, *Agent(opened=now_opened()).some(3))
        async with sealer(tmp_path, stores) as sealing:
            assert (await sealing.step()).drained["shared"].events == 3
        assert admin.hget(LIMITS, "audit_heartbeat") is None
    assert len(sealed_entries(tmp_path)) == 3


async def test_a_queue_that_lost_entries_is_told(valkey: Server, tmp_path: Path) -> None:
    stores = await admit(valkey)
    observed = Observed()
    async with sealer(tmp_path, stores, observed) as sealing:
        await sealing.step()
        with valkey.admin() as admin:
            admin.rpush(QUEUE, *Agent(opened=now_opened()).some(10))
            drain: StoreDrain = sealing._drains["shared"]
            drain.left[LOG] = 12
            await sealing.step()
            told = admin.hget(REPORT, "irregular_at")
    assert observed.counts["shrunk"] == 1
    assert told not in (None, b"0")


async def test_entries_that_changed_under_the_sealers_hands_stay(
    valkey: Server, tmp_path: Path
) -> None:
    stores = await admit(valkey)
    store = SealingStore(lambda: stores.stores[0])
    first, second = Agent(opened=now_opened()).some(2)
    with valkey.admin() as admin:
        admin.rpush(QUEUE, first)
        pages = await store.pages([LOG], 10)
        assert pages == [Page((first,))]
        admin.delete(QUEUE)
        admin.rpush(QUEUE, second)
        assert await store.trim({LOG: pages[0]}) == {LOG: False}
        assert admin.lrange(QUEUE, 0, -1) == [second]
    await store.close()


async def test_an_entry_of_any_size_takes_no_sealer_down(valkey: Server, tmp_path: Path) -> None:
    stores = await admit(valkey)
    first, last = Agent(opened=now_opened()).some(2)
    with valkey.admin() as admin:
        admin.rpush(QUEUE, first)
        admin.rpush(QUEUE, b"x" * (33 << 20))
        admin.rpush(QUEUE, last)
        async with sealer(tmp_path, stores) as sealing:
            step = await sealing.step()
            step = await sealing.step()
        assert step.failures == {}
        assert not admin.exists(QUEUE)
    events = ArchiveReader.open(tmp_path / "archive").events(LOG)
    verdicts = [one.verdict for one in events]
    assert verdicts == [Verdict.GOOD, Verdict.OVERSIZED, Verdict.GOOD]


@pytest.mark.parametrize("count", ["9" * 5000, "-3", "many"])
async def test_what_an_agent_writes_for_its_dropped_events_takes_no_sealer_down(
    valkey: Server, tmp_path: Path, count: str
) -> None:
    stores = await admit(valkey)
    with valkey.admin() as admin:
        admin.hset(keys.usage(ACME), "dropped", count)
        async with sealer(tmp_path, stores) as sealing:
            assert (await sealing.step()).failures == {}
        assert admin.hget(REPORT, "dropped_seen") == b"0"


async def test_a_count_of_dropped_events_that_is_megabytes_takes_no_sealer_down(
    valkey: Server, tmp_path: Path
) -> None:
    others = [TenantId("sales", f"t{number}") for number in range(5)]
    stores = await admit(valkey, ACME, *others)
    with valkey.admin() as admin:
        admin.hset(keys.usage(ACME), "dropped", b"7" * (33 << 20))
        admin.hset(keys.usage(others[3]), "dropped", "4")
        async with sealer(tmp_path, stores) as sealing:
            assert (await sealing.step()).failures == {}
            assert (await sealing.step()).failures == {}
        assert admin.hget(REPORT, "dropped_seen") == b"0"
        assert admin.hget(keys.sealer_report(others[3]), "dropped_seen") == b"4"


async def test_counters_of_one_tenant_that_are_no_hash_hide_no_seal_of_the_others(
    valkey: Server, tmp_path: Path
) -> None:
    """An agent may remove its tenant's counters, and put what it likes in their place."""
    stores = await admit(valkey)
    with valkey.admin() as admin:
        admin.set(keys.usage(ACME), "x")
        async with sealer(tmp_path, stores) as sealing:
            assert (await sealing.step()).failures == {}
        assert admin.hget(keys.STORE_SEALER, "beat_at") not in (None, b"0")


async def test_many_large_entries_are_not_read_one_by_one(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As each would cost a whole page of them, and every other tenant its heartbeat."""
    stores = await admit(valkey)
    reads = []
    pages = SealingStore.pages

    async def counted(store: SealingStore, logs: list[str], most: int) -> list[Page] | None:
        reads.append(most)
        return await pages(store, logs, most)

    monkeypatch.setattr(SealingStore, "pages", counted)
    with valkey.admin() as admin:
        admin.rpush(QUEUE, *(number.to_bytes(4, "big") * 2000 for number in range(4500)))
        async with sealer(tmp_path, stores) as sealing:
            assert (await sealing.step()).failures == {}
        assert not admin.exists(QUEUE)
    assert len(reads) < 50


async def test_the_queues_of_many_tenants_wait_for_disk_and_store_together(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = [TenantId("sales", f"t{number:03}") for number in range(250)]
    stores = await admit(valkey, *tenants)
    entries = {
        str(tenant): Agent(opened=now_opened(), log_id=str(tenant)).some(1 + place % 3)
        for place, tenant in enumerate(tenants)
    }
    appends, runs = list[int](), list[int]()
    append, run = ArchiveFolder.append, SealerConnections.run

    def counted(archive: ArchiveFolder, parts: list[Part]) -> None:
        appends.append(len(parts))
        append(archive, parts)

    async def asked(nodes: SealerConnections, commands: list[Any], **at: Any) -> list[object]:
        runs.append(len(commands))
        return await run(nodes, commands, **at)

    with valkey.admin() as admin:
        for log, some in entries.items():
            admin.rpush(keys.audit_queue(TenantId.parse(log)), *some)
        async with sealer(tmp_path, stores) as sealing:
            monkeypatch.setattr(ArchiveFolder, "append", counted)
            monkeypatch.setattr(SealerConnections, "run", asked)
            step = await sealing.step()
            monkeypatch.undo()
            assert step.failures == {}
            assert appends[:2] == [200, 50]
            assert len(runs) < 40
            # One that cannot be read with the others holds none of them up.
            admin.rpush(keys.audit_queue(tenants[7]), b"x" * (33 << 20))
            admin.rpush(keys.audit_queue(tenants[8]), b"nobody's")
            await sealing.step()
            await sealing.step()
        assert not any(admin.exists(keys.audit_queue(tenant)) for tenant in tenants)
    for log, some in entries.items():
        assert sealed_entries(tmp_path, log)[: len(some)] == some


async def test_who_fills_the_archive_is_stopped_and_nobody_else(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = TenantId("sales", "other")
    stores = await admit(valkey, ACME, other)
    space = [Space(100_000_000, 15_000_000)]
    monkeypatch.setattr(ArchiveFolder, "space", lambda _: space[0])
    days = [0]
    clock = Clock(now=lambda: datetime.now(UTC) + timedelta(days=days[0]))
    noise = Agent(opened=now_opened())
    with valkey.admin() as admin:
        async with sealer(tmp_path, stores, clock=clock) as sealing:
            noise_before = noise.some(12_000)
            admin.rpush(QUEUE, *noise_before)  # of a share of 1,000,000 bytes
            admin.rpush(keys.audit_queue(other), b"x")
            drained = (await sealing.step()).drained["shared"]
            assert (drained.stopped, drained.waiting) == ((LOG,), 2000)
            assert admin.llen(QUEUE) == 2000
            assert not admin.exists(keys.audit_queue(other))
            assert admin.hget(LIMITS, "audit_heartbeat") is None
            assert admin.hget(keys.limits(other), "audit_heartbeat") is not None
            assert fields(admin, REPORT)["stopped"] == "1"
        async with sealer(tmp_path, stores, clock=clock) as sealing:
            # A start begins no new day.
            drained = (await sealing.step()).drained["shared"]
            assert (drained.stopped, drained.waiting) == ((LOG,), 2000)
            # What is in the archive already takes no room of it again.
            admin.lpush(QUEUE, *reversed(noise_before))
            days[0] = 1
            drained = (await sealing.step()).drained["shared"]
            assert (drained.stopped, drained.waiting) == ((), 0)
            assert fields(admin, REPORT)["stopped"] == "0"
            # What is kept for seals is nobody's, and what is about no tenant is still taken.
            space[0] = Space(100_000_000, 5_000_000)
            admin.rpush(QUEUE, *noise.some(10))
            admin.rpush(keys.INSTALLATION_QUEUE, b"nobody's event")
            step = await sealing.step()
            assert (step.failures["shared"].reason, admin.llen(QUEUE)) == ("ArchiveFull", 10)
            assert step.sealed is not None
            assert not admin.exists(keys.INSTALLATION_QUEUE)
            assert b"Enlarge" in admin.hget(keys.STORE_SEALER, "trouble")


async def test_a_flooded_queue_fills_no_archive_and_keeps_what_is_over_its_budget(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it counts against the tenant; the others' events are taken all the same."""
    monkeypatch.setattr(budget, "WINDOW", 1.0)
    other = TenantId("sales", "other")
    stores = await admit(valkey, ACME, other)
    moment = [0.0]
    clock = Clock(monotonic=lambda: moment[0])
    flood = [number.to_bytes(4, "big") * 300 for number in range(10_000)]
    with valkey.admin() as admin:
        admin.rpush(QUEUE, *flood)
        admin.rpush(keys.audit_queue(other), *flood[:100])
        admin.rpush(keys.INSTALLATION_QUEUE, *flood)
        async with sealer(tmp_path, stores, clock=clock) as sealing:
            drained = (await sealing.step()).drained["shared"]
            assert (drained.flooded, drained.waiting) == ((LOG,), 5000)
            assert admin.llen(QUEUE) == 5000
            assert not admin.exists(keys.audit_queue(other), keys.INSTALLATION_QUEUE)
            moment[0] += 1
            assert (await sealing.step()).drained["shared"].entries == 0
            admin.hset(LIMITS, "writes_per_second", "10000")
            moment[0] += 3
            await sealing.step()
            assert not admin.exists(QUEUE)
    assert len(sealed_entries(tmp_path)) == len(flood)


async def test_a_round_that_takes_long_leaves_nobody_without_a_heartbeat(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents of one tenant flood its queue; those of another are refused 60 seconds after the
    last heartbeat."""
    late = TenantId("sales", "late")
    stores = await admit(valkey, ACME, late)
    moment, beats = [0.0], list[tuple[float, int]]()
    clock = Clock(monotonic=lambda: moment[0])
    take, beat = Engine.take, SealingStore.beat

    async def slowly(engine: Engine, *rest: Any) -> dict[str, Any]:
        moment[0] += 15
        return await take(engine, *rest)

    async def noted(store: SealingStore, tenants: list[TenantId]) -> int:
        beats.append((moment[0], len(tenants)))
        return await beat(store, tenants)

    monkeypatch.setattr(Engine, "take", slowly)
    monkeypatch.setattr(SealingStore, "beat", noted)
    with valkey.admin() as admin:
        async with sealer(tmp_path, stores, clock=clock) as sealing:
            await sealing.step()
            for _ in range(3):
                for tenant in (ACME, late):
                    admin.rpush(keys.audit_queue(tenant), *[b"x" * 100] * 12_000)
                await sealing.step()
    times = [at for at, tenants in beats if tenants == 2]
    assert max(after - before for before, after in pairwise(times)) <= 20


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_log_that_is_read_back_for_long_holds_up_its_tenant_alone(
    valkey: Server, tmp_path: Path, restarts: bool
) -> None:
    """An agent chooses how much that is: it pushes events whose counters were passed long ago."""
    other = TenantId("sales", "other")
    stores = await admit(valkey, ACME, other)
    theirs, beat = keys.audit_queue(other), "audit_heartbeat"
    moment = [0.0]
    clock = Clock(monotonic=lambda: moment[0])
    agent, neighbour = Agent(opened=now_opened()), Agent(opened=now_opened(), log_id=str(other))
    first = [*agent.some(3), *(number.to_bytes(4, "big") * 250 for number in range(3000))]
    known, forged, new = agent.entry(1), agent.entry(2, detail=b"another"), agent.next()
    pushed, rounds = list[bytes](), []

    async def turn(sealing: Sealing) -> bool:
        """Whether the log is read back after it; the neighbour is served meanwhile."""
        moment[0] += 10
        pushed.append(neighbour.next())
        admin.rpush(theirs, pushed[-1])
        admin.hdel(LIMITS, beat)
        admin.hdel(keys.limits(other), beat)
        await sealing._turn()
        assert not admin.exists(theirs)
        assert admin.hexists(keys.limits(other), beat)
        assert sealed_entries(tmp_path, str(other)) == pushed
        waits = bool(admin.exists(QUEUE))
        assert admin.hexists(LIMITS, beat) is not waits
        assert (admin.hget(REPORT, "read_back_since") != b"0") is waits
        return waits

    with valkey.admin() as admin:
        admin.rpush(QUEUE, *first)
        async with sealer(tmp_path, stores, clock=clock) as sealing:
            assert not await turn(sealing)
        admin.rpush(QUEUE, known, forged, new)
        observed = Observed()
        if restarts:
            async with sealer(tmp_path, stores, observed, clock=clock, read_back=1) as sealing:
                for _ in range(3):
                    assert await turn(sealing)
        async with sealer(tmp_path, stores, observed, clock=clock, read_back=1) as sealing:
            while await turn(sealing):
                admin.rpush(QUEUE, agent.next())
                rounds.append(admin.llen(QUEUE))
            size = admin.llen(QUEUE)
        assert len(rounds) >= 4
        assert size == 0
    late = sealed_entries(tmp_path)[len(first) :]
    assert late[:2] == [forged, new]
    assert len(late) == 2 + len(rounds)
    assert observed.counts["duplicates"] == 1


async def test_an_entry_that_brings_out_a_fault_stops_the_log_of_its_tenant_alone(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = TenantId("sales", "other")
    stores = await admit(valkey, ACME, other)
    judge = Log.judge

    def faulty(log: Log, *rest: Any) -> Judged:
        if log.log_id == LOG:
            raise IndexError("an entry that nobody thought of")
        return judge(log, *rest)

    monkeypatch.setattr(Log, "judge", faulty)
    with valkey.admin() as admin:
        for tenant in (ACME, other):
            admin.rpush(keys.audit_queue(tenant), b"x")
        async with sealer(tmp_path, stores) as sealing:
            step = await sealing.step()
        assert step.drained["shared"].refused == (LOG,)
        assert admin.llen(QUEUE) == 1
        assert admin.hget(LIMITS, "audit_heartbeat") is None
        assert not admin.exists(keys.audit_queue(other))
        assert admin.hget(keys.limits(other), "audit_heartbeat") is not None


async def test_a_trim_whose_answer_was_lost_is_no_loss(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = await admit(valkey)
    observed = Observed()
    trim = SealingStore.trim

    async def silent(store: SealingStore, read: dict[str, Page]) -> dict[str, bool]:
        await trim(store, read)
        raise StoreUnavailable("it did not answer in time")

    async with sealer(tmp_path, stores, observed) as sealing:
        await sealing.step()
        with valkey.admin() as admin:
            admin.rpush(QUEUE, *Agent(opened=now_opened()).some(10))
            sealing._drains["shared"].left[LOG] = 10
            monkeypatch.setattr(SealingStore, "trim", silent)
            await sealing.step()
            monkeypatch.undo()
            assert (await sealing.step()).failures == {}
            assert admin.hget(REPORT, "irregular_at") == b"0"
    assert observed.counts["shrunk"] == 0


async def test_of_two_sealers_of_an_archive_one_is_refused(valkey: Server, tmp_path: Path) -> None:
    stores = await admit(valkey)
    async with sealer(tmp_path, stores) as sealing:
        await sealing.step()
        with pytest.raises(ArchiveBusy):
            async with sealer(tmp_path, stores):
                pass


async def test_of_two_sealers_with_one_key_one_signs(valkey: Server, tmp_path: Path) -> None:
    """Two volumes, one key: what a wrong restore or a second release comes to."""
    signer = FolderSigner(tmp_path / "audit")
    with (
        ArchiveFolder.open(tmp_path / "one", writable=True) as one,
        ArchiveFolder.open(tmp_path / "two", writable=True) as two,
    ):
        first, second = (engine_over(at, signer=signer) for at in (one, two))
        await first.open()
        await second.open()
        sealed = await first.seal()
        with pytest.raises(SignerConflict):
            await second.seal()
        assert signer.load() is not None
        assert (await first.seal()).window == sealed.window + 1
        for engine in (first, second):
            await engine.close()


async def test_a_store_that_is_away_keeps_no_other_from_being_drained(
    valkey: Server, tmp_path: Path
) -> None:
    stores = await admit(valkey)
    away = stores.stores[0]
    gone = type(away)(
        "gone", "Standalone", (type(away.endpoints[0])("127.0.0.1", 1),), "mt.sealer", "x"
    )
    with valkey.admin() as admin:
        admin.rpush(QUEUE, *Agent(opened=now_opened()).some(3))
    async with sealer(tmp_path, stores.put(gone)) as sealing:
        step = await sealing.step()
    assert step.drained["shared"].events == 3
    assert step.sealed is not None
    assert [str(error.reason) for error in step.failures.values()] == ["StoreUnavailable"]


def spawned(folder: Path, stores: StoresFile) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.sealers", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(stores.to_json())
    process.stdin.close()
    return process


def some_agents(count: int) -> Iterator[bytes]:
    agents = [Agent(number=number, opened=now_opened()) for number in range(count)]
    chance = random.Random(11)
    while True:
        yield chance.choice(agents).next()


@pytest.mark.parametrize("kills", [4])
async def test_nothing_is_lost_or_doubled_when_the_sealer_is_killed_anywhere(
    redis_server: Server, tmp_path: Path, kills: int
) -> None:
    stores = await admit(redis_server)
    chance, source, pushed = random.Random(7), some_agents(5), []
    with redis_server.admin() as admin:
        for _ in range(kills):
            process = spawned(tmp_path, stores)
            until = time.monotonic() + chance.uniform(0.6, 1.4)
            while time.monotonic() < until:
                batch = [next(source) for _ in range(200)]
                admin.rpush(QUEUE, *batch)
                pushed += batch
                await asyncio.sleep(0.01)
            process.kill()
            process.wait()
        async with sealer(tmp_path, stores) as sealing:
            step = await sealing.step()
        report = admin.hget(REPORT, "gaps")
    assert step.failures == {}
    assert sealed_entries(tmp_path) == pushed
    assert report == b"0"


async def test_a_server_that_is_killed_in_a_round_loses_and_doubles_nothing(
    flavour: Flavour, start_server: StartServer, tmp_path: Path
) -> None:
    always = {"appendfsync": "always"}  # a second later is too late for who is killed before
    server = start_server(flavour, Options(aclfile=True, appendonly=True, config=always))
    stores = await admit(server)
    agent, pushed = Agent(opened=now_opened()), list[bytes]()
    chance = random.Random(3)
    async with sealer(tmp_path, stores) as sealing:
        for _ in range(3):
            with server.admin() as admin:
                batch = agent.some(15_000)
                admin.rpush(QUEUE, *batch)
                pushed += batch
            step = asyncio.create_task(sealing.step())
            await asyncio.sleep(chance.uniform(0.01, 0.15))
            server.kill9()
            await step
            server.start()
        await sealing.step()  # its connection may be one that the kill came too late for
        assert (await sealing.step()).failures == {}
    assert sealed_entries(tmp_path) == pushed


async def test_of_a_server_that_was_rolled_back_a_gap_tells_what_nobody_had_sealed(
    flavour: Flavour, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(flavour, Options(aclfile=True, appendonly=True))
    stores = await admit(server)
    agent = Agent(opened=now_opened())
    sealed, unsealed, lost, after = agent.some(100), agent.some(50), agent.some(20), agent.some(5)

    def push(entries: list[bytes]) -> None:
        with server.admin() as admin:
            admin.rpush(QUEUE, *entries)

    async with sealer(tmp_path, stores) as sealing:
        push(sealed)
        await sealing.step()
        push(unsealed)
        server.stop()
        shutil.copytree(server.folder, tmp_path / "backup")
        server.start()
        await sealing.step()
        await sealing.step()
        push(lost)
        server.kill9()
        shutil.rmtree(server.folder)
        shutil.copytree(tmp_path / "backup", server.folder)
        server.start()
        assert "shared" in (await sealing.step()).failures  # the connection is gone
        drained = (await sealing.step()).drained["shared"]
        assert (drained.events, drained.duplicates, drained.gaps) == (0, 50, 0)
        push(after)
        drained = (await sealing.step()).drained["shared"]
    assert (drained.events, drained.gaps) == (5, 1)
    assert sealed_entries(tmp_path) == [*sealed, *unsealed, *after]
    (gap,) = ArchiveReader.open(tmp_path / "archive").gaps(LOG)
    assert (gap.first, gap.last) == (151, 170)


async def test_after_a_failover_the_new_primary_is_drained(tmp_path: Path) -> None:
    """Sentinels say where it is; what the former one had taken away may come again."""
    with watched(Flavour.VALKEY_9, replicas=1) as nodes:
        former = nodes.primary
        (access,) = (await admit(former)).stores
        with former.admin() as admin:
            (replica,) = [node for node in nodes.nodes if node.port != former.port]
            copy_user(former, replica, access.username)
            agent = Agent(opened=now_opened())
            first = agent.some(100)
            admin.rpush(QUEUE, *first)
            assert admin.wait(1, 60_000) == 1
        asked = tuple(endpoint_from(endpoint) for endpoint in nodes.endpoints)
        sentinel = SentinelAccess(asked, MASTER, "default", nodes.password)
        stores = StoresFile((replace(access, flavour="Sentinel", sentinel=sentinel),))
        async with sealer(tmp_path, stores) as sealing:
            assert (await sealing.step()).drained["shared"].events == 100
            former.kill9()
            nodes.wait_for_failover(former)
            second = agent.some(10)
            with nodes.primary.admin() as admin:
                admin.rpush(QUEUE, *second)
            assert "shared" in (await sealing.step()).failures  # the connection is gone
            assert (await sealing.step()).drained["shared"].events == 10
    assert sealed_entries(tmp_path) == [*first, *second]


def copy_user(source: Server, target: Server, name: str) -> None:
    """As the operator makes it on every node."""
    with source.admin() as admin:
        rules = next(line for line in admin.acl_list() if line.startswith(f"user {name} "))
    with target.admin() as admin:
        admin.execute_command("ACL", "SETUSER", name, "reset", *_rules(rules))


def _rules(line: str) -> list[str]:
    """The words of ACL LIST, selectors whole."""
    return re.findall(r"\([^)]*\)|\S+", line)[2:]
