"""The SDK beside its peers: who takes how long to append and to read, and what it costs the server.

All contestants take turns on one server in short rounds, so that a machine that slows down slows
all of them; what is printed are medians over the rounds, and ratios of rates in the same round.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from tests.bench.progress import Progress
from tests.memory.bindings import Provisioned
from tests.support import servers
from tests.support.processes import Unavailable
from tests.support.servers import Flavour, Options, Server

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers"
CONTESTANTS = ("raw", "memtenant", "memtenant-masking", "langchain", "openai", "openai-encrypted")
LENGTHS = (100, 1_000, 10_000)
WRITERS = (1, 8, 64)
SHARED = "memtenant, one conversation"
BATCH = 16
MESSAGE_BYTES = 220

_NEEDS_PEERS = {"langchain", "openai", "openai-encrypted"}
_FILL = 100
_MOST_FILLED = 100_000
_APPENDS = 2_000


@dataclass(frozen=True, slots=True)
class Pass:
    """Some appends in a row: seconds of all, of each, of the server's CPU, and of the Function as
    the server counts it."""

    messages: int
    seconds: float
    latencies: list[float] = field(repr=False)
    server_cpu: float
    function: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


@dataclass(slots=True)
class Series:
    """The passes of one contestant under one condition, in the order of the rounds."""

    passes: list[Pass] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Messages a second, the median of the rounds."""
        return statistics.median(one.rate for one in self.passes)

    def percentile(self, share: float) -> float:
        """Seconds that this share of all appends took at most."""
        found = sorted(one for taken in self.passes for one in taken.latencies)
        return found[min(int(len(found) * share), len(found) - 1)]

    def beside(self, other: "Series") -> float:
        """The median of the ratios of both rates, round by round."""
        pairs = zip(self.passes, other.passes, strict=True)
        return statistics.median(mine.rate / its.rate for mine, its in pairs)

    @property
    def server_cpu(self) -> float:
        """The server's seconds for a message."""
        return statistics.median(one.server_cpu / one.messages for one in self.passes)

    @property
    def function(self) -> float:
        """Seconds in the Function for a message; 0 for those who call none."""
        return statistics.median(one.function / one.messages for one in self.passes)


@dataclass(slots=True)
class Costs:
    """What one append sends and what one message leaves."""

    commands: float
    sent: float
    received: float
    stored: float


@dataclass(slots=True)
class SdkResults:
    """By contestant; appends by number of writers and, in that, length of the conversation."""

    appends: dict[int, dict[int, dict[str, Series]]] = field(default_factory=dict)
    batch: Series = field(default_factory=Series)
    reads: dict[str, float] = field(default_factory=dict)
    costs: dict[str, Costs] = field(default_factory=dict)
    imports: dict[str, float] = field(default_factory=dict)


class Worker:
    """A contestant's process."""

    def __init__(self, name: str, where: str) -> None:
        python = Path(sys.executable)
        if name in _NEEDS_PEERS:
            python = PEERS / "bin" / "python"
            if not python.exists():
                raise Unavailable(f"{PEERS.name} is not there: run `make bench`, which makes it")
        self._process = subprocess.Popen(
            [str(python), "-m", "tests.bench.worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        self.ask(do="open", where=where)

    def ask(self, **order: Any) -> dict[str, Any]:
        """Do it, and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def stop(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@dataclass
class Arena:
    """A server and everybody who works on it."""

    server: Server
    admin: "redis.Redis"
    workers: dict[str, Worker]

    def append(self, name: str, sessions: list[str], count: int, batch: int = 1) -> Pass:
        """So many appends for each of the sessions, all at the same time."""
        self.admin.config_resetstat()
        before = self._cpu()
        answer = self.workers[name].ask(do="append", sessions=sessions, count=count, batch=batch)
        cpu = self._cpu() - before
        calls: dict[str, Any] = self.admin.info("commandstats")
        function = calls.get("cmdstat_fcall", {}).get("usec", 0) / 1e6
        messages = count * batch * len(sessions)
        return Pass(messages, answer["seconds"], answer["latencies"], cpu, function)

    def fill(self, name: str, sessions: list[str], count: int) -> None:
        """Bring new conversations to a length."""
        self.append(name, sessions, max(count // _FILL, 1), min(count, _FILL))

    def stored(self) -> int:
        """Bytes of all keys, as the server estimates them."""
        keys = list(self.admin.scan_iter("*", count=1000))
        return sum(int(self.admin.memory_usage(key, samples=0) or 0) for key in keys)

    def _cpu(self) -> float:
        info: dict[str, float] = self.admin.info("cpu")
        return info["used_cpu_user"] + info["used_cpu_sys"]


@contextmanager
def arena() -> Iterator[Arena]:
    """Valkey 9.1 with an aclfile and AOF; memtenant as the user of a tenant that the operator's
    own code made, the others as an administrator, whom the server's rules cost less."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memtenant-bench-")))
        options = Options(aclfile=True, appendonly=True)
        server = stack.enter_context(servers.running(Flavour.VALKEY_9, options))
        tenant = Provisioned(server, folder, limits={"memory": str(2**32)})
        tenant.provision()
        binding = str(tenant.bind())
        admin = stack.enter_context(server.admin())
        workers = {}
        for name in CONTESTANTS:
            workers[name] = Worker(name, binding if name.startswith("memtenant") else server.url)
            stack.callback(workers[name].stop)
        yield Arena(server, admin, workers)


def measure(results: SdkResults, *, quick: bool) -> None:
    """Everything, into ``results``."""
    rounds = 3 if quick else 9
    lengths = LENGTHS[:2] if quick else LENGTHS
    with arena() as here, Progress() as progress:
        for writers in WRITERS:
            results.appends[writers] = {}
            times = rounds if writers == 1 else min(rounds, 5)
            for length in lengths:
                progress.step(f"appends to {length:,} messages, writers: {writers}", times)
                results.appends[writers][length] = _appends(
                    here, length, writers, times, progress.advance
                )
        progress.step(f"batches of {BATCH}", rounds)
        for number in range(rounds):
            results.batch.passes.append(here.append("memtenant", [f"batch-{number}"], 60, BATCH))
            progress.advance()
        progress.step("reads of 1,000 messages", len(CONTESTANTS))
        for name in CONTESTANTS:
            here.fill(name, [f"{name}-read"], 1_000)
        for name in CONTESTANTS:
            answer = here.workers[name].ask(
                do="read", session=f"{name}-read", times=5 if quick else 15
            )
            assert answer["messages"] == 1_000, (name, answer)
            results.reads[name] = answer["seconds"]
            progress.advance()
        progress.step("what an append costs", len(CONTESTANTS))
        for name in CONTESTANTS:
            results.costs[name] = _costs(here, name)
            progress.advance()
        progress.step("imports", 1)
        results.imports = imports(5 if quick else 25)


def _appends(
    here: Arena, length: int, writers: int, rounds: int, advance: Callable[[], None]
) -> dict[str, Series]:
    """Each writer has a conversation of its own, of that length; of memtenant also all on one."""
    found = {name: Series() for name in _contenders(length, writers)}
    count = _APPENDS // writers if writers > 1 else 100 if length < 1_000 else 200
    for number in range(rounds):
        for name, series in found.items():
            shared = name == SHARED
            contestant = "memtenant" if shared else name
            # New conversations each round, so that they have about the length that is asked for;
            # many long ones, to which a round adds little, are filled once.
            once = not shared and length * writers >= max(LENGTHS)
            start = f"{name}-{length}-{writers}-{0 if once else number}"
            sessions = [f"{start}-{place}" for place in range(1 if shared else writers)]
            if number == 0 or not once:
                here.fill(contestant, sessions, length)
            each = sessions * writers if shared else sessions
            series.passes.append(here.append(contestant, each, count))
        advance()
    return found


def _contenders(length: int, writers: int) -> tuple[str, ...]:
    """Where filling takes minutes, memtenant and what its limit is a share of."""
    if writers == 1:
        return CONTESTANTS
    if length * writers > _MOST_FILLED:
        return ("raw", "memtenant", SHARED)
    return (*(name for name in CONTESTANTS if name != "memtenant-masking"), SHARED)


def _costs(here: Arena, name: str, count: int = 1_000) -> Costs:
    """What 1,000 appends sent, received and left. The own commands of this bench are few."""
    here.append(name, [f"{name}-costs"], 1)
    before = here.stored()
    here.admin.config_resetstat()
    start: dict[str, Any] = here.admin.info("stats")
    here.workers[name].ask(do="append", sessions=[f"{name}-costs"], count=count, batch=1)
    end: dict[str, Any] = here.admin.info("stats")
    calls: dict[str, Any] = here.admin.info("commandstats")
    sent = end["total_net_input_bytes"] - start["total_net_input_bytes"]
    received = end["total_net_output_bytes"] - start["total_net_output_bytes"]
    if "cmdstat_fcall" in calls:
        commands = calls["cmdstat_fcall"]["calls"]
    else:
        own = ("cmdstat_info", "cmdstat_config|resetstat")
        commands = sum(one["calls"] for key, one in calls.items() if key not in own)
    stored = here.stored() - before
    return Costs(commands / count, sent / count, received / count, stored / count)


def imports(times: int) -> dict[str, float]:
    """Seconds that an import takes in a fresh process, in turns: medians. With bytecode kept, as
    it is of an installed package, whatever this environment says."""
    statements = {
        "redis.asyncio": "import redis.asyncio",
        "memtenant": "from memtenant import Message, Tenant",
    }
    found: dict[str, list[float]] = {name: [] for name in statements}
    with tempfile.TemporaryDirectory(prefix="memtenant-bench-") as kept:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": kept}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(times + 1):
            for name, statement in statements.items():
                clock = "time.perf_counter()"
                code = f"import time; begun = {clock}; {statement}; print({clock} - begun)"
                done = subprocess.run(
                    [sys.executable, "-c", code],
                    check=True,
                    capture_output=True,
                    text=True,
                    env=env,
                )
                found[name].append(float(done.stdout))
    # The first of each also wrote its bytecode.
    return {name: statistics.median(taken[1:]) for name, taken in found.items()}
