"""The erasure of one person among a million keys: what other clients of the store notice of it.

Another process asks for a small value every two milliseconds all the while; what it waited is told
apart by what happened meanwhile: nothing, the SDK's part of `forget`, the operator's pass over the
whole store at its usual pace, and the files that are written anew.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from memtenant import Message, Tenant
from memtenant.memory.subjects import Subject
from memtenant.stores import Pace, Sought, StoreAdmin
from memtenant.tenancy.erasure import ErasureReceipt
from memtenant.tenancy.policy import AgentAccess, Isolation, SubjectRights, TenantPolicy
from tests.memory.bindings import Provisioned
from tests.stores.operators import INSTALLATION, next_term, settings_for
from tests.support import servers
from tests.support.servers import Flavour, Options, Server

__all__ = ["ErasureCost", "measure", "p99", "probing", "span"]

_STEWARD = TenantPolicy(access=AgentAccess.STEWARD, rights=SubjectRights(erasure=True))
_CONVERSATIONS, _MESSAGES = 100, 10
_FILL = 10_000
_IDLE = 5.0

_PROBE = """
import socket, sys, time
host, port, user, password, out = sys.argv[1:]
link = socket.create_connection((host, int(port)))
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def ask(*words):
    parts = b"".join(b"$%d\\r\\n%b\\r\\n" % (len(w), w) for w in (one.encode() for one in words))
    link.sendall(b"*%d\\r\\n" % len(words) + parts)
    return link.recv(4096)
ask("AUTH", user, password)
with open(out, "w", buffering=1) as file:
    while True:
        began = time.monotonic()
        ask("GET", "mt:{bulk.t}:r:0")
        file.write(f"{began} {time.monotonic() - began}\\n")
        time.sleep(0.002)
"""


@dataclass(frozen=True, slots=True)
class ErasureCost:
    """Seconds. ``scans`` are SCAN commands in the SDK's part; each p99 is what other clients waited
    for one GET meanwhile."""

    keys: int
    conversations: int
    idle_p99: float
    forget: float
    forget_p99: float
    scans: int
    rescan: float
    rescan_p99: float
    files: float
    files_p99: float

    @property
    def ratio(self) -> float:
        """How much longer others wait while a person is erased: the worse of both parts."""
        return max(self.forget_p99, self.rescan_p99) / self.idle_p99


def measure(count: int = 1_000_000) -> ErasureCost:
    """Erase one person of a tenant on a server with so many keys of others."""
    with (
        tempfile.TemporaryDirectory(prefix="memtenant-bench-") as folder,
        servers.running(Flavour.VALKEY_9, Options(appendonly=True)) as server,
    ):
        tenant = Provisioned(server, Path(folder), policy=_STEWARD)
        tenant.provision("default")
        _fill(server, count)
        return asyncio.run(_measure(tenant, Path(folder), count))


def _fill(server: Server, count: int) -> None:
    with server.admin() as admin:
        for first in range(0, count, _FILL):
            with admin.pipeline(transaction=False) as pipeline:
                for number in range(first, min(first + _FILL, count)):
                    pipeline.set(f"mt:{{bulk.t}}:r:{number}", "x" * 100)
                pipeline.execute()


async def _measure(of: Provisioned, folder: Path, count: int) -> ErasureCost:
    tenant = Tenant(of.source())
    for number in range(_CONVERSATIONS):
        for user in ("ada", "bob"):
            chat = tenant.conversation(str(number), user=user)
            await chat.extend([Message.human("x" * 200) for _ in range(_MESSAGES)])
    waits = folder / "waits"
    with probing(of.server, waits):
        idle = await span(asyncio.sleep(_IDLE))
        scans = _scans(of.server)
        began = time.monotonic()
        receipt = await tenant.forget("ada")
        forget = began, time.monotonic()
        scans = _scans(of.server) - scans
        rescan, files = await _operators_part(of, receipt)
        await asyncio.sleep(0.1)
    await tenant.aclose()
    found = [tuple(map(float, line.split())) for line in waits.read_text().splitlines()[:-1]]
    return ErasureCost(
        keys=count,
        conversations=_CONVERSATIONS,
        idle_p99=p99(found, idle),
        forget=forget[1] - forget[0],
        forget_p99=p99(found, forget),
        scans=scans,
        rescan=rescan[1] - rescan[0],
        rescan_p99=p99(found, rescan),
        files=files[1] - files[0],
        files_p99=p99(found, files),
    )


async def _operators_part(
    of: Provisioned, receipt: ErasureReceipt
) -> tuple[tuple[float, float], tuple[float, float]]:
    term = next_term()
    admin = StoreAdmin(
        settings_for(of.server), installation=INSTALLATION, fence=lambda: term, pace=Pace()
    )
    async with admin:
        await admin.discover()
        await admin.lead()
        subject = Subject(of.tenant, Isolation.MODERATE, receipt.subject, b"")
        key = of.keyring.active.key  # any key: nothing of the person is left
        rescan = await span(admin.erasure.rescan([Sought(receipt, subject, key)]))
        files = await span(admin.rewrite_files())
    return rescan, files


async def span(work: Awaitable[object]) -> tuple[float, float]:
    """When the work began and when it ended."""
    began = time.monotonic()
    await work
    return began, time.monotonic()


@contextmanager
def probing(server: Server, waits: Path) -> Iterator[None]:
    """Another process that notes in the file when it asked for a value, and how long it waited."""
    address = (server.host, str(server.port), server.admin_user, server.admin_password)
    probe = subprocess.Popen([sys.executable, "-c", _PROBE, *address, str(waits)])
    try:
        while not waits.exists() or waits.stat().st_size == 0:
            time.sleep(0.05)
        yield
    finally:
        probe.kill()
        probe.wait()


def _scans(server: Server) -> int:
    with server.admin() as admin:
        return int(admin.info("commandstats").get("cmdstat_scan", {}).get("calls", 0))


def p99(found: list[tuple[float, ...]], between: tuple[float, float]) -> float:
    """Of what was waited in that span."""
    waited = [wait for began, wait in found if between[0] <= began <= between[1]]
    return statistics.quantiles(waited, n=100)[98] if len(waited) > 1 else max(waited, default=0.0)
