"""What is measured of the operator, each thing in the state that the one before it left."""

import asyncio
import math
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import redis

from memtenant.api.policy import RetentionPolicySpec
from memtenant.api.tenant import MemoryTenantSpec
from memtenant.rules.expiry import expiry
from memtenant.rules.policy import policy_facts
from memtenant.tenancy.identity import USER_PREFIX, TenantId
from tests.bench import bare
from tests.bench.api import (
    MERGE_PATCH,
    TENANTS,
    Api,
    ReadyWatch,
    at_once,
    requests,
    writes,
)
from tests.bench.bare import Sample
from tests.bench.processes import rss_mb
from tests.bench.progress import Progress
from tests.bench.stage import POLICY, TEAM, Rest, Stage, tenant

_WARM_UP = 20
_TRIAL = 100
_BARE = 2_000
"""Tenants of one pass of the bare loop at most: its rate does not depend on how many."""

_ENDS = 1_000
"""Tenants at the beginning and at the end of whom the rate is told apart."""

_CONCURRENCIES = (8, 16, 32, 64)
_NEWCOMER_EVERY = 0.25
_BEHIND = timedelta(seconds=2)
"""How late a resting operator may be with what is due."""

_REDIS_WRITES = ("acl|setuser", "acl|deluser", "hset", "hdel", "del", "set")


@dataclass(frozen=True, slots=True)
class Pass:
    """So many tenants made, by whichever of the two: seconds, and CPU seconds of who made them and
    of the API server with etcd."""

    tenants: int
    seconds: float
    cpu: float
    api_cpu: float
    requests: dict[str, int]

    @property
    def rate(self) -> float:
        """Tenants a second."""
        return self.tenants / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of the maker's CPU a tenant."""
        return self.cpu / self.tenants * 1000

    @property
    def api_cpu_ms(self) -> float:
        """Milliseconds of CPU of the API server and etcd a tenant."""
        return self.api_cpu / self.tenants * 1000

    def per_tenant(self, request: str) -> float:
        """How many of these requests the API server answered for one tenant."""
        return self.requests.get(request, 0) / self.tenants


@dataclass(frozen=True, slots=True)
class Convergence:
    """The bare loop before and after the operator, so that a machine that slows down is seen; and
    how fast the operator was with the first and with the last thousand."""

    before: Pass
    operator: Pass
    after: Pass
    concurrency: int
    first_rate: float
    last_rate: float

    @property
    def bare_rate(self) -> float:
        """Tenants a second of both bare passes together."""
        tenants = self.before.tenants + self.after.tenants
        return tenants / (self.before.seconds + self.after.seconds)

    @property
    def ratio(self) -> float:
        """How many times as long the operator takes."""
        return self.bare_rate / self.operator.rate


@dataclass(frozen=True, slots=True)
class NoOp:
    """Everything looked at anew with nothing to do: seconds, CPU seconds, writes, those to the API
    server by verb and resource. ``due``: tenants
    whose cut-offs moved meanwhile, as each tenant's do once in a step (`memtenant.rules.expiry`),
    which is a write to the store."""

    seconds: float
    cpu: float
    api_writes: dict[str, int]
    store_writes: int
    due: int


@dataclass(frozen=True, slots=True)
class Newcomers:
    """Seconds from creation to Ready of tenants made while the restarted operator settles."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """What 99 of 100 stay under."""
        return sorted(self.seconds)[math.ceil(0.99 * len(self.seconds)) - 1]

    @property
    def worst(self) -> float:
        """The longest."""
        return max(self.seconds)


@dataclass(slots=True)
class Results:
    """Everything that one run found. Memory is in MB."""

    tenants: int
    rss_before: float = 0.0
    rss_after: float = 0.0
    rss_end: float = 0.0
    convergence: Convergence | None = None
    resync: NoOp | None = None
    repair_seconds: float = 0.0
    repaired_users: int = 0
    restart: NoOp | None = None
    newcomers: Newcomers | None = None
    idle: NoOp | None = None
    late: dict[str, float] = field(default_factory=dict)
    """Steps that did not end, and the seconds that they had."""


async def converge(stage: Stage, api: Api, results: Results, progress: Progress) -> None:
    """``results.tenants`` new ones by the operator, between two passes of the bare loop."""
    operator, count = stage.operator, results.tenants
    async with _watching(api) as watch:
        progress.step("the operator warms up", 1)
        await _create(api, watch, "warm", _WARM_UP, 8)
        sample = await Sample.of(api, "warm-0")
        results.rss_before = rss_mb(operator.pid)
        progress.step("how many the bare loop does at once", len(_CONCURRENCIES) * _TRIAL)
        trials = {
            n: await bare.make_tenants(api, sample, f"trial{n}", _TRIAL, n, progress.advance)
            for n in _CONCURRENCIES
        }
        best = min(trials, key=lambda n: trials[n])
        before = await _bare_pass(stage, api, sample, "before", results, best, progress)
        progress.step(f"{count:,} new tenants", count)
        watch.seen = progress.advance
        asked, cpu, api_cpu = await requests(api), operator.cpu, stage.api_cpu()
        started = time.monotonic()
        seconds = await _create(api, watch, "new", count, best)
        made = Pass(
            count,
            seconds,
            operator.cpu - cpu,
            stage.api_cpu() - api_cpu,
            dict(await requests(api) - asked),
        )
        results.rss_after = rss_mb(operator.pid)
        await operator.settled(0)
        after = await _bare_pass(stage, api, sample, "after", results, best, progress)
    ready = sorted(at - started for name, at in watch.ready.items() if name.startswith("new-"))
    few = min(_ENDS, count - 1)
    first, last = few / ready[few - 1], few / (ready[-1] - ready[-1 - few])
    results.convergence = Convergence(before, made, after, best, first, last)


async def resync(stage: Stage, api: Api, results: Results) -> None:
    """Every tenant reconciled at once, as nothing else than an annotation of its policy changed.

    Once before, not counted: the first reconcile after the first measurement shows the usage.
    """
    operator = stage.operator
    await operator.wait_for_measurement()
    await _look_again(stage, api, "once")
    asked, stored, since = await requests(api), _store_writes(stage), datetime.now(UTC)
    started, cpu = time.monotonic(), operator.cpu
    rest = await _look_again(stage, api, "twice")
    asked = await requests(api) - asked
    asked["PATCH retentionpolicies"] -= 1  # ours
    results.resync = NoOp(
        rest.at - started,
        rest.cpu - cpu,
        writes(asked),
        _store_writes(stage) - stored,
        _cut_offs_due(results.tenants, since),
    )


async def _look_again(stage: Stage, api: Api, mark: str) -> Rest:
    operator = stage.operator
    done = await operator.tenants_reconciled() + await _tenants(api)
    patch = {"metadata": {"annotations": {"bench": mark}}}
    policy = f"/apis/memtenant.dev/v1alpha1/retentionpolicies/{POLICY}"
    await api.send("PATCH", policy, patch, MERGE_PATCH)
    return await operator.settled(done)


async def _tenants(api: Api) -> int:
    found = await api.send("GET", f"{TENANTS.format(TEAM)}?limit=1")
    return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))


async def repair(stage: Stage, results: Results) -> None:
    """All tenants' users deleted on the node, until the node is as it was."""
    with stage.server.admin() as admin:
        whole = _users(admin)
        ours = [name for name in _names(admin) if name.startswith(USER_PREFIX)]
        started = time.monotonic()
        admin.acl_deluser(*ours)
        # Names first: a whole list costs the server much more.
        while True:
            if len(_names(admin)) >= len(whole) and _users(admin) == whole:
                break
            await asyncio.sleep(0.05)
        results.repair_seconds = time.monotonic() - started
        results.repaired_users = len(ours)


async def restart(stage: Stage, api: Api, results: Results) -> None:
    """Left alone: how long it takes, and what it writes."""
    operator, count = stage.operator, await _tenants(api)
    operator.stop()
    before, since = (await requests(api), _store_writes(stage)), datetime.now(UTC)
    started = operator.start()
    rest = await operator.settled(count)
    results.restart = NoOp(
        rest.at - started,
        rest.cpu,
        writes(await requests(api) - before[0]),
        _store_writes(stage) - before[1],
        _cut_offs_due(results.tenants, since),
    )


async def newcomers(stage: Stage, api: Api, results: Results) -> None:
    """Once more, with tenants that come all the while, from the operator's lead on."""
    operator, count = stage.operator, await _tenants(api)
    operator.stop()
    operator.start()
    created: dict[str, float] = {}
    async with _watching(api) as watch:
        settling = asyncio.create_task(operator.settled(count))
        try:
            await operator.wait_for_lead()
            while not settling.done():
                name = f"late-{len(created)}"
                created[name] = time.monotonic()
                await api.send("POST", TENANTS.format(TEAM), tenant(name))
                await asyncio.sleep(_NEWCOMER_EVERY)
            await settling
            await watch.wait_for(set(created))
        finally:
            settling.cancel()
    results.newcomers = Newcomers([watch.ready[name] - at for name, at in created.items()])
    results.rss_end = rss_mb(operator.pid)


async def idle(stage: Stage, api: Api, results: Results, seconds: float) -> None:
    """Everything was looked at and measured, and nobody comes: for so many seconds."""
    operator = stage.operator
    await operator.wait_for_measurement()
    await operator.settled(0)
    asked, stored, since = await requests(api), _store_writes(stage), datetime.now(UTC)
    started, cpu = time.monotonic(), operator.cpu
    await asyncio.sleep(seconds)
    results.idle = NoOp(
        time.monotonic() - started,
        operator.cpu - cpu,
        writes(await requests(api) - asked),
        _store_writes(stage) - stored,
        _cut_offs_due(results.tenants, since),
    )


async def _create(api: Api, watch: ReadyWatch, prefix: str, count: int, concurrency: int) -> float:
    """Create tenants as fast as it goes; seconds from the first create to the last Ready."""
    started = time.monotonic()

    async def one(number: int) -> None:
        await api.send("POST", TENANTS.format(TEAM), tenant(f"{prefix}-{number}"))

    names = {f"{prefix}-{number}" for number in range(count)}
    await at_once(concurrency, count, one)
    await watch.wait_for(names)
    return max(watch.ready[name] for name in names) - started


async def _bare_pass(
    stage: Stage,
    api: Api,
    sample: Sample,
    prefix: str,
    results: Results,
    concurrency: int,
    progress: Progress,
) -> Pass:
    count = min(results.tenants, _BARE)
    progress.step(f"{count:,} tenants by the bare loop", count)
    asked, cpu, api_cpu = await requests(api), time.process_time(), stage.api_cpu()
    seconds = await bare.make_tenants(api, sample, prefix, count, concurrency, progress.advance)
    cpu, api_cpu = time.process_time() - cpu, stage.api_cpu() - api_cpu
    return Pass(count, seconds, cpu, api_cpu, dict(await requests(api) - asked))


@asynccontextmanager
async def _watching(api: Api) -> AsyncIterator[ReadyWatch]:
    watch = ReadyWatch()
    async with asyncio.TaskGroup() as together:
        following = together.create_task(watch.follow(api, TEAM))
        yield watch
        following.cancel()


def _store_writes(stage: Stage) -> int:
    with stage.server.admin() as admin:
        stats = admin.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in _REDIS_WRITES)


def _cut_offs_due(count: int, since: datetime) -> int:
    """Of how many of the tenants the next step after ``since`` has come by now."""
    policy = policy_facts(POLICY, RetentionPolicySpec.model_validate({"frameworks": ["GDPR"]}))
    resolution = policy.resolve_for(MemoryTenantSpec.model_validate(tenant("any")["spec"]))
    names = [f"warm-{number}" for number in range(_WARM_UP)]
    names += [f"new-{number}" for number in range(count)]
    since -= _BEHIND
    steps = (expiry(TenantId(TEAM, name), resolution, since, held=False) for name in names)
    now = datetime.now(UTC)
    return sum(one.next_step <= now for one in steps)


def _names(admin: "redis.Redis") -> set[str]:
    return {_text(name) for name in admin.acl_users()}


def _users(admin: "redis.Redis") -> set[str]:
    return {_text(line) for line in admin.acl_list()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
