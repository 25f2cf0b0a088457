"""The calls on what a tenant or a subject has once; see `memtenant.functions.fcall`."""

from __future__ import annotations

from dataclasses import dataclass

from memtenant.functions.fcall import Leaving, Reader, Reading, Words, fcall
from memtenant.functions.keyspace import TenantKeys
from memtenant.functions.replies import Status, items, not_understood, status_of

__all__ = ["LeaveEvent", "ReadIndex"]


@dataclass(frozen=True, slots=True)
class ReadIndex(Reading):
    """Where a subject's records are."""

    tenant: TenantKeys
    index: bytes
    reader: Reader | None = None

    @property
    def words(self) -> Words:
        """``FCALL_RO index …``, or ``FCALL index_audited …``"""
        tenant, reader = self.tenant, self.reader
        if reader is None:
            return fcall("FCALL_RO", "index", (self.index, tenant.limits), ())
        keys = (self.index, tenant.limits, tenant.usage, tenant.queue)
        return fcall("FCALL", "index_audited", keys, (reader.agent, reader.event))

    def read(self, reply: object) -> tuple[bytes, ...]:
        """``<scope>:<conversation>`` or ``c:<context>``, in the order in which they began."""
        status, rest = status_of(reply)
        if status is not Status.OK:
            raise not_understood()
        return tuple(entry for entry in items(rest, 1) if isinstance(entry, bytes))


@dataclass(frozen=True, slots=True)
class LeaveEvent(Leaving):
    """An event about what happened at the agent. Nothing is written where the tenant is not
    audited."""

    tenant: TenantKeys
    agent: str
    event: bytes = b""

    @property
    def words(self) -> Words:
        """``FCALL event …``"""
        keys = (self.tenant.limits, self.tenant.usage, self.tenant.queue)
        return fcall("FCALL", "event", keys, (self.agent, self.event))

    def read(self, reply: object) -> None:
        """It is in the queue, or none was asked for."""
        status, _ = status_of(reply)
        if status is not Status.OK:
            raise not_understood()
