"""The passes over all keys of a store: how fast they are, and what others notice of them.

Half of the conversations have passed their period, and no tenant's list tells so: the pass has to
find them. Each pass goes on for some seconds only, whatever there is; the rate tells the rest.
"""

import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from memtenant.functions.keyspace import ConversationKeys
from memtenant.stores import ExpiryScan, StoreAdmin, UsageScan
from memtenant.tenancy import keys
from tests.bench.bystander import ASKED_FOR, OTHERS, Bystander, Turns, Waits, elsewhere, watching
from tests.bench.report import Row
from tests.functions.tenants import in_ms, provision
from tests.stores.operators import ACME, INSTALLATION, next_term, settings_for
from tests.support import servers
from tests.support.servers import Flavour, Options, Server

__all__ = ["PassCost", "SweepCost", "measure", "rows"]

_MESSAGES = 10
_FILL = 2_000
_SECONDS, _PART = 15.0, 300
_HOUR = 3_600_000
_MANY = 10_000_000
_PIECES = ("scan", "memory|usage", "fcall_ro", "exec")
"""What passes send; what a transaction and a Function call is counted with it."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """So many messages or keys a second of work, what each took the server by its own count, and
    what others waited meanwhile."""

    rate: float
    server: float
    waits: Waits

    @property
    def hours(self) -> float:
        """For ten million of them."""
        return _MANY / self.rate / 3600


@dataclass(frozen=True, slots=True)
class SweepCost:
    """``look`` is a pass that finds nothing to remove, as on most days; ``usage`` the measurement
    of what tenants use."""

    conversations: int
    usage: PassCost
    look: PassCost
    remove: PassCost


def measure(conversations: int = 100_000) -> SweepCost:
    """The passes over a store with so many conversations of ten messages."""
    with (
        tempfile.TemporaryDirectory(prefix="memtenant-bench-") as folder,
        servers.running(Flavour.VALKEY_9, Options(appendonly=True)) as server,
    ):
        provision(server)
        _fill(server, conversations)
        with watching(server, Path(folder)) as others:
            return elsewhere(_measure(server, others, conversations))


def rows(cost: SweepCost) -> list[Row]:
    """The table's lines about it."""
    passes = (
        ("measure what tenants use", "keys", cost.usage),
        ("look for what has expired, where nothing has", "messages", cost.look),
        ("remove half of the messages, which nobody reads", "messages", cost.remove),
    )
    return [row for what, unit, one in passes for row in _pass_rows(what, unit, one)]


def _pass_rows(what: str, unit: str, cost: PassCost) -> list[Row]:
    waits = cost.waits
    return [
        Row(
            f"{what}, at the usual pace",
            "",
            f"{cost.rate:,.0f} {unit} a second: {_MANY:,} in {cost.hours:.1f} h; each is "
            f"{cost.server * 1e6:.1f} µs of the server",
            None,
        ),
        Row(
            "… what others wait meanwhile (p99 of a GET), beside idle",
            f"≤ {OTHERS:g} x",
            f"{waits.ratio:.2f} x: {waits}, {waits.samples:,} samples",
            waits.ratio <= OTHERS,
        ),
    ]


def _fill(server: Server, conversations: int) -> None:
    now = in_ms()
    with server.admin() as admin:
        admin.set(ASKED_FOR, "x" * 100)
        for first in range(0, conversations, _FILL):
            with admin.pipeline(transaction=False) as pipeline:
                for number in range(first, min(first + _FILL, conversations)):
                    time = now - (2 * _HOUR if number % 2 else 0)
                    entry = b"\x10" + bytes(5) + time.to_bytes(6, "big") + bytes(3) + b"x" * 205
                    talk = ConversationKeys.of(ACME, "_", str(number))
                    pipeline.rpush(talk.list, *[entry] * _MESSAGES)
                pipeline.execute()


async def _measure(server: Server, others: Bystander, conversations: int) -> SweepCost:
    usage = await _costs(server, others, _measured)
    _expire_after(server, 10 * _HOUR)
    look = await _costs(server, others, _swept)
    _expire_after(server, _HOUR)
    return SweepCost(conversations, usage, look, await _costs(server, others, _swept))


def _expire_after(server: Server, period: int) -> None:
    with server.admin() as admin:
        admin.hset(keys.limits(ACME), "cutoff_content", in_ms() - period)


async def _costs(
    server: Server, others: Bystander, work: Callable[[StoreAdmin, Turns], Awaitable[int]]
) -> PassCost:
    term, turns = next_term(), Turns(server)
    admin = StoreAdmin(
        settings_for(server), installation=INSTALLATION, fence=lambda: term, pace=turns.pace()
    )
    async with admin:
        await admin.discover()
        await admin.lead()
        before = _busy(server)
        turns.begin()
        seen = await work(admin, turns)
        await turns.end()
    busy = _busy(server) - before
    return PassCost(seen / turns.worked, busy / seen, others.waited(turns))


def _busy(server: Server) -> float:
    """Seconds that the server has worked for passes."""
    with server.admin() as admin:
        counted = admin.info("commandstats")
    used: list[int] = [counted.get(f"cmdstat_{one}", {}).get("usec", 0) for one in _PIECES]
    return sum(used) / 1e6


async def _measured(admin: StoreAdmin, turns: Turns) -> int:
    scan = UsageScan()
    await admin.measure(scan)
    return scan.result()[ACME].conversations


async def _swept(admin: StoreAdmin, turns: Turns) -> int:
    """How many messages the pass looked at."""
    scan = ExpiryScan()
    while turns.worked < _SECONDS and not await admin.expire_scanned(scan, most=_PART):
        pass
    left = sum(one.kept for one in scan.left.values())
    return left + sum(one.messages for one in scan.removed.values())
