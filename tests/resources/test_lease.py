"""One leader at a time, in terms that only grow, whatever happens to it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from memtenant.clock import Clock
from memtenant.resources.connection import Connection
from memtenant.resources.lease import TERM_ANNOTATION, Elector, LeadershipLost, LeaseTimes
from tests.resources.electing import LIMITS, NAME, TIMES
from tests.resources.served import ServedTime, served_time
from tests.support.controlplane.cluster import Cluster
from tests.support.relay import Proxy

PATIENCE = 60.0


@dataclass
class Candidate:
    """An elector at work, and the terms that it led."""

    elector: Elector
    terms: list[int] = field(default_factory=list)
    leads: asyncio.Event = field(default_factory=asyncio.Event)
    leaves: asyncio.Event = field(default_factory=asyncio.Event)
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False

    async def run(self) -> None:
        await self.elector.run(self._lead)

    async def _lead(self, term: int) -> None:
        self.terms.append(term)
        self.leads.set()
        try:
            await self.leaves.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            await self.drained.wait()
            raise
        finally:
            self.leads.clear()


class Election:
    """Makes candidates and ends them. `time` is theirs."""

    def __init__(self, connection: Connection, namespace: str, time: ServedTime) -> None:
        self.time = time
        self._connection = connection
        self._namespace = namespace
        self._candidates: list[Candidate] = []
        self._tasks: list[asyncio.Task[None]] = []

    def candidate(
        self,
        identity: str,
        *,
        clock: Clock | None = None,
        connection: Connection | None = None,
        drains: bool = False,
    ) -> tuple[Candidate, asyncio.Task[None]]:
        candidate = Candidate(
            Elector(
                connection or self._connection,
                namespace=self._namespace,
                name=NAME,
                identity=identity,
                times=TIMES,
                clock=clock or self.time.clock(),
            )
        )
        if not drains:
            candidate.drained.set()
        task = asyncio.create_task(candidate.run())
        self._candidates.append(candidate)
        self._tasks.append(task)
        return candidate, task

    async def end(self) -> None:
        for candidate in self._candidates:
            candidate.drained.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def connection(cluster: Cluster) -> AsyncIterator[Connection]:
    async with Connection.open(kubeconfig=cluster.kubeconfig, limits=LIMITS) as opened:
        yield opened


@pytest.fixture
async def election(
    cluster: Cluster, connection: Connection, namespace: str
) -> AsyncIterator[Election]:
    async with (
        Connection.open(kubeconfig=cluster.kubeconfig) as own,
        served_time(own, namespace) as time,
    ):
        election = Election(connection, namespace, time)
        yield election
        await election.end()


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    with Proxy.to(cluster.host, cluster.port) as proxy:
        yield proxy


@pytest.fixture
def kubeconfig_by_proxy(cluster: Cluster, proxy: Proxy, tmp_path: Path) -> Path:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://{proxy.endpoint}"
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


async def leading(candidate: Candidate) -> int:
    async with asyncio.timeout(PATIENCE):
        await candidate.leads.wait()
    return candidate.terms[-1]


async def test_a_released_lease_is_taken_at_once_in_a_greater_term(election: Election) -> None:
    first, task = election.candidate("first")
    term = await leading(first)
    assert first.elector.term == term
    second, _ = election.candidate("second")
    first.leaves.set()
    await task
    assert await leading(second) > term
    assert first.elector.term is None


async def test_of_many_candidates_one_leads(election: Election) -> None:
    candidates = [election.candidate(f"c{number}")[0] for number in range(8)]
    await election.time.passes(1.5 * TIMES.duration)
    assert sum(len(candidate.terms) for candidate in candidates) == 1


async def test_a_leader_without_the_api_server_stops_before_another_may_lead(
    election: Election, proxy: Proxy, kubeconfig_by_proxy: Path
) -> None:
    async with Connection.open(kubeconfig=kubeconfig_by_proxy, limits=LIMITS) as cut_off:
        first, task = election.candidate("first", connection=cut_off)
        term = await leading(first)
        second, _ = election.candidate("second")
        proxy.refuse()
        with pytest.raises(LeadershipLost):
            async with asyncio.timeout(PATIENCE):
                await task
        assert first.cancelled
        assert second.terms == []
        assert await leading(second) > term


async def test_a_short_outage_of_the_api_server_changes_no_leader(
    election: Election, proxy: Proxy, kubeconfig_by_proxy: Path
) -> None:
    async with Connection.open(kubeconfig=kubeconfig_by_proxy, limits=LIMITS) as shaky:
        first, _ = election.candidate("first", connection=shaky)
        await leading(first)
        proxy.refuse()
        await election.time.passes(TIMES.renew_deadline / 3)
        proxy.accept()
        await election.time.passes(TIMES.renew_deadline)
        assert first.leads.is_set()
        assert len(first.terms) == 1


async def test_the_term_grows_after_the_lease_was_deleted_and_with_a_clock_that_lags(
    election: Election,
    cluster: Cluster,
    namespace: str,
    proxy: Proxy,
    kubeconfig_by_proxy: Path,
) -> None:
    first, task = election.candidate("first")
    term = await leading(first)
    lagging = election.time.clock(now=lambda: datetime.now(UTC) - timedelta(days=1))
    async with Connection.open(kubeconfig=kubeconfig_by_proxy, limits=LIMITS) as by_proxy:
        second, _ = election.candidate("second", clock=lagging, connection=by_proxy)
        async with asyncio.timeout(PATIENCE):
            while second.elector.holder is None:  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(0.05)
        proxy.refuse()
        task.cancel()
        await asyncio.wait({task})
        await asyncio.to_thread(cluster.kubectl, "delete", "lease", NAME, "-n", namespace)
        proxy.accept()
        assert await leading(second) > term
        await election.end()


async def test_a_leader_whose_lease_is_deleted_makes_it_again_in_the_same_term(
    election: Election, cluster: Cluster, namespace: str
) -> None:
    first, _ = election.candidate("first")
    term = await leading(first)
    second, _ = election.candidate("second")
    await asyncio.to_thread(cluster.kubectl, "delete", "lease", NAME, "-n", namespace)
    await election.time.passes(TIMES.renew_deadline)
    leaders = [candidate for candidate in (first, second) if candidate.leads.is_set()]
    assert len(leaders) == 1
    if leaders == [second]:  # it saw the gap first
        assert second.terms[-1] > term
    else:
        lease = await asyncio.to_thread(cluster.get, "lease", NAME, "-n", namespace)
        assert lease["metadata"]["annotations"][TERM_ANNOTATION] == str(term)


async def test_an_edit_by_somebody_else_costs_no_leadership(
    election: Election, cluster: Cluster, namespace: str
) -> None:
    first, _ = election.candidate("first")
    await leading(first)
    await asyncio.to_thread(
        cluster.kubectl, "annotate", "lease", NAME, "seen-by=admin", "-n", namespace
    )
    await election.time.passes(TIMES.duration)
    assert first.leads.is_set()
    assert len(first.terms) == 1


async def test_a_leader_that_is_told_to_stop_drains_before_another_leads(
    election: Election,
) -> None:
    first, task = election.candidate("first", drains=True)
    term = await leading(first)
    second, _ = election.candidate("second")
    task.cancel()
    await election.time.passes(1.5 * TIMES.duration)
    assert second.terms == []
    first.drained.set()
    with suppress(asyncio.CancelledError):
        await task
    assert await leading(second) > term


async def test_a_frozen_leader_has_lost_when_it_is_thawed(
    election: Election, cluster: Cluster, namespace: str
) -> None:
    frozen = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.resources.electing"),
        *(str(cluster.kubeconfig), namespace, "frozen"),
        stdout=subprocess.PIPE,
    )
    assert frozen.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            leads = (await frozen.stdout.readline()).decode().split()
        assert leads[0] == "leads"
        second, _ = election.candidate("second")
        with suppress(ProcessLookupError):  # a busy machine: it has lost and ended already
            frozen.send_signal(signal.SIGSTOP)
        term = await leading(second)
        assert term > int(leads[1])
        with suppress(ProcessLookupError):
            frozen.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            assert await frozen.stdout.readline() == b"lost, term now None\n"
            await frozen.wait()
        assert second.terms == [term]
        assert second.leads.is_set()
    finally:
        if frozen.returncode is None:
            frozen.kill()
            await frozen.wait()


@pytest.mark.parametrize(
    "times",
    [(15.0, 15.0, 2.0), (15.0, 10.0, 10.0), (15.5, 10.0, 2.0), (15.0, 10.0, 0.0)],
)
def test_times_that_cannot_be_safe_are_refused(times: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"is needed|whole seconds"):
        LeaseTimes(*times)
