"""The erasure of persons among a million keys: what other clients of the store notice of it.

Told apart are the SDK's part of `forget`, the operator's pass over the whole store at its usual
pace, and the files that are written anew.
"""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from memtenant import Message, Tenant
from memtenant.memory.subjects import Subject
from memtenant.stores import Sought, StoreAdmin
from memtenant.tenancy.erasure import ErasureReceipt
from memtenant.tenancy.policy import AgentAccess, Isolation, SubjectRights, TenantPolicy
from tests.bench.bystander import Bystander, Turns, Waits, elsewhere, watching
from tests.memory.bindings import Provisioned
from tests.stores.operators import INSTALLATION, next_term, settings_for
from tests.support import servers
from tests.support.servers import Flavour, Options, Server

__all__ = ["ErasureCost", "measure"]

_STEWARD = TenantPolicy(access=AgentAccess.STEWARD, rights=SubjectRights(erasure=True))
_PERSONS, _CONVERSATIONS, _MESSAGES = 18, 50, 10
_APPENDS = 2 * _CONVERSATIONS
_FILL = 10_000


@dataclass(frozen=True, slots=True)
class ErasureCost:
    """``scans`` are SCAN commands in the SDK's part, ``seconds`` what that took for one person; of
    each part what others waited for one GET meanwhile, and while one agent does nothing but append
    (``append``)."""

    keys: int
    conversations: int
    scans: int
    seconds: float
    append: Waits
    forget: Waits
    rescan: Waits
    files: Waits

    @property
    def ratio(self) -> float:
        """How much longer others wait while a person is erased: the worse of both parts."""
        return max(self.forget.ratio, self.rescan.ratio)


def measure(count: int = 1_000_000) -> ErasureCost:
    """Erase persons of a tenant on a server with so many keys of others."""
    with (
        tempfile.TemporaryDirectory(prefix="memtenant-bench-") as folder,
        servers.running(Flavour.VALKEY_9, Options(appendonly=True)) as server,
    ):
        tenant = Provisioned(server, Path(folder), policy=_STEWARD)
        tenant.provision("default")
        _fill(server, count)
        with watching(server, Path(folder)) as others:
            return elsewhere(_measure(tenant, others, count))


def _fill(server: Server, count: int) -> None:
    with server.admin() as admin:
        for first in range(0, count, _FILL):
            with admin.pipeline(transaction=False) as pipeline:
                for number in range(first, min(first + _FILL, count)):
                    pipeline.set(f"mt:{{bulk.t}}:r:{number}", "x" * 100)
                pipeline.execute()


async def _measure(of: Provisioned, others: Bystander, count: int) -> ErasureCost:
    tenant = Tenant(of.source())
    persons = [f"person-{number}" for number in range(_PERSONS)]
    for user in persons:
        for number in range(_CONVERSATIONS):
            chat = tenant.conversation(str(number), user=user)
            await chat.extend([Message.human("x" * 200) for _ in range(_MESSAGES)])
    append, forget, scans = Turns(of.server), Turns(of.server), _scans(of.server)
    for user in persons:
        await append.over(_appending(tenant), pieces=_APPENDS)
        await forget.over(tenant.forget(user), pieces=_CONVERSATIONS)
    scans = _scans(of.server) - scans
    receipt = await tenant.forget(persons[-1])
    rescan, files = await _operators_part(of, receipt)
    await asyncio.sleep(0.1)
    await tenant.aclose()
    return ErasureCost(
        keys=count,
        conversations=_CONVERSATIONS,
        scans=scans,
        seconds=forget.worked / _PERSONS,
        append=others.waited(append),
        forget=others.waited(forget),
        rescan=others.waited(rescan),
        files=others.waited(files),
    )


async def _appending(tenant: Tenant) -> None:
    chat = tenant.conversation("endless", user="bystander")
    for _ in range(_APPENDS):
        await chat.append(Message.human("x" * 200))


async def _operators_part(of: Provisioned, receipt: ErasureReceipt) -> tuple[Turns, Turns]:
    term, rescan, files = next_term(), Turns(of.server), Turns(of.server)
    admin = StoreAdmin(
        settings_for(of.server), installation=INSTALLATION, fence=lambda: term, pace=rescan.pace()
    )
    async with admin:
        await admin.discover()
        await admin.lead()
        subject = Subject(of.tenant, Isolation.MODERATE, receipt.subject, b"")
        key = of.keyring.active.key  # any key: nothing of the person is left
        rescan.begin()
        await admin.erasure.rescan([Sought(receipt, subject, key)])
        await rescan.end()
        await files.over(admin.rewrite_files())
    return rescan, files


def _scans(server: Server) -> int:
    with server.admin() as admin:
        return int(admin.info("commandstats").get("cmdstat_scan", {}).get("calls", 0))
