"""What a pass over a store asks of the server at a time is little, and it rests in between."""

import asyncio
import itertools
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from memtenant.clock import Clock
from memtenant.crypto.primitives import SecretKey
from memtenant.memory.subjects import Subject
from memtenant.stores import (
    Address,
    ExpiryScan,
    Pace,
    ScanPosition,
    Sought,
    StoreAdmin,
    StoreSettings,
)
from memtenant.stores.connection import Command, NodeClient, Reply, Session
from memtenant.stores.pace import PacedPass
from memtenant.stores.scan import scan_tenant_keys
from memtenant.stores.survey import survey
from memtenant.tenancy import keys
from memtenant.tenancy.erasure import ErasurePhase, ErasureReceipt
from memtenant.tenancy.policy import Isolation
from tests.functions.tenants import in_ms, provision
from tests.stores.operators import ACME, GLOBEX, leading, make_operator, settings_for
from tests.stores.test_expiry import HOUR, header
from tests.support.servers import Server

# How many of a command keep a server busy for about a tenth of a millisecond.
AT_ONCE = {"FCALL": 1, "FCALL_RO": 2, "EVAL_RO": 20, "SCAN": 1}
OTHERS = 50
ASKED = datetime(2026, 11, 1, tzinfo=UTC)


async def test_a_pass_rests_several_times_as_long_as_it_worked() -> None:
    """With a duty of a fifth, a second of work is followed by four of rest. What happens between
    two rests is work, also the consumer's."""
    seconds = itertools.count()
    rested: list[float] = []

    class Recorded(Pace):
        async def rest(self, busy: float) -> None:
            rested.append(busy * (1 / self.duty - 1))

    paced = PacedPass(Recorded(duty=0.2, clock=Clock(monotonic=lambda: float(next(seconds)))))
    await paced.rest()
    next(seconds)  # something else takes a second
    await paced.rest()
    assert rested == [4.0, 8.0]


async def test_a_pass_removes_two_dozen_times_in_a_second_at_most() -> None:
    """A removal is the longest of pieces: with more of them, others would meet one too often. What
    rests not at all does not here either."""
    rested: list[float] = []

    class Recorded(Pace):
        async def rest(self, busy: float) -> None:
            rested.append(busy * (1 / self.duty - 1))

    for duty in (0.2, 1.0):
        paced = Recorded(duty=duty, clock=Clock(monotonic=lambda: 0.0)).begin()
        await paced.rest(removed=True)
        await paced.rest()
    assert rested == [pytest.approx(0.04), 0, 0, 0]


async def test_a_pass_sees_every_key_in_small_batches(valkey: Server) -> None:
    make_operator(valkey)
    with valkey.admin() as admin:
        for number in range(3000):
            admin.set(f"{keys.records(ACME)}{number}", "x")
    rests = itertools.count()

    class Counted(Pace):
        async def rest(self, busy: float) -> None:
            next(rests)

    node = NodeClient(settings_for(valkey).endpoint, settings_for(valkey))
    paced = Counted().begin()
    batches = [batch async for batch in scan_tenant_keys(node, ScanPosition(), paced)]
    await node.close()
    assert sum(map(len, batches)) == 3000
    assert max(map(len, batches)) < 200
    assert next(rests) >= len(batches)


def _plant(server: Server) -> None:
    """Half of it has expired."""
    now = in_ms()
    with server.admin() as admin, admin.pipeline(transaction=False) as pipe:
        for tenant, number in itertools.product((ACME, GLOBEX), range(150)):
            entry = header(1, now - number % 2 * 2 * HOUR) + b"\xfa" + b"x" * 200
            name = f"{keys.records(tenant)}_:talk-{number}"
            pipe.rpush(f"{name}:l", *[entry] * (600 if number < 4 else 5))
            pipe.hset(f"{name}:h", "meta", b"title")
            pipe.hset(keys.dek(tenant, f"subject-{number}"), "dek", b"k" * 44)
            pipe.rpush(keys.subject_index(tenant, "subject"), f"_:talk-{number}")
        for tenant in (ACME, GLOBEX):
            pipe.hset(keys.limits(tenant), "cutoff_content", now - HOUR)
        pipe.execute()


async def _all_passes(store: StoreAdmin, reader: NodeClient) -> None:
    receipt = ErasureReceipt("1" * 32, "alias", ErasurePhase.REQUESTED, "default", ASKED)
    for isolation in (Isolation.MODERATE, Isolation.MINIMAL):
        sought = Sought(receipt, Subject(ACME, isolation, "alias", b"tag"), SecretKey(bytes(32)))
        await store.erasure.rescan([sought])
    pages = survey(reader, wanted=lambda _tenant, _part: True, pace=Pace(duty=1.0))
    assert [page async for page in pages]
    assert [one async for one in store.data_keys(lambda _tenant: True, ScanPosition())]
    await store.measure()
    scan = ExpiryScan()
    assert await store.expire_scanned(scan, most=100_000)
    assert scan.removed[ACME].messages > 600
    assert sum((await store.purge([ACME, GLOBEX])).values()) > 300


async def test_nothing_that_a_pass_sends_at_a_time_keeps_the_server_from_others(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one client sent in one go runs in one go: so others wait for as long as that takes."""
    sent: list[list[Command]] = []
    run = Session.run

    async def recorded(
        self: Session, commands: Iterable[Command], *, wait: float | None = None
    ) -> list[Reply]:
        sent.append(batch := list(commands))
        return await run(self, batch, wait=wait)

    for tenant in (ACME, GLOBEX):
        await asyncio.to_thread(provision, valkey, tenant=tenant)
    _plant(valkey)
    address = Address(valkey.host, valkey.port)
    everything = StoreSettings(address, valkey.admin_user, lambda: valkey.admin_password)
    async with leading(valkey) as store:
        reader = NodeClient(address, everything)
        monkeypatch.setattr(Session, "run", recorded)
        await _all_passes(store, reader)
        await reader.close()
    assert {str(command[0]) for batch in sent for command in batch} >= {*AT_ONCE, "UNLINK"}
    for batch in sent:
        share = sum(1 / AT_ONCE.get(str(command[0]), OTHERS) for command in batch)
        assert share < 1.2, [command[:2] for command in batch]
