"""Where evidence comes from: a state folder by hand, or a cluster in a job."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from memtenant.archive import SealedEntry, SealedGap
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.reports.evidence import LogEvidence, LogKeyReaders, Missing
from memtenant.resources.port import Declared, Kind
from memtenant.stores.connection import StoreSettings
from memtenant.tenancy.identity import TenantId

__all__ = ["Declarations", "Log", "Sources", "StoreLogin"]


@dataclass(frozen=True, slots=True)
class StoreLogin:
    """How a store is read. ``administrators``: users that are declared to administer it, or that
    memtenant makes for itself; others are told of. ``settings`` may be why there are none."""

    name: str
    settings: StoreSettings | Missing
    administrators: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Declarations:
    """What is declared. ``namespaces``: the labels of each, for the selectors of holds."""

    policies: Sequence[Declared] = ()
    stores: Sequence[Declared] = ()
    tenants: Sequence[Declared] = ()
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, kind: Kind) -> Sequence[Declared]:
        """Those of one kind."""
        return {Kind.POLICY: self.policies, Kind.STORE: self.stores, Kind.TENANT: self.tenants}[
            kind
        ]


class Log(Protocol):
    """The sealed log, read and not written."""

    def verify(self, but: Collection[str], trusted: str, now: datetime) -> LogEvidence | Missing:
        """Whether the tree verifies, and all logs but these; ``trusted`` is a checkpoint that was
        held before (a note), or empty. `Missing` where they cannot be read."""
        ...

    def leaves(self, log_id: str) -> Iterator[SealedEntry | SealedGap]:
        """Every leaf of a log that is kept, in order."""
        ...


class Sources(Protocol):
    """All that a run looks at. Whatever cannot be had is a `Missing` and never left out."""

    async def declarations(self) -> Declarations | Missing:
        """Policies, stores, tenants and the labels of namespaces."""
        ...

    async def stores(self) -> Sequence[StoreLogin]:
        """How each declared store is read."""
        ...

    def log(self) -> Log | Missing:
        """The archive."""
        ...

    async def log_key_readers(self) -> LogKeyReaders | Missing:
        """Who can read the key that seals the log."""
        ...

    async def keyrings(self, tenant: TenantId) -> Sequence[AgentKeyring]:
        """The keys of a tenant's agents, where the run was given them; none: not decrypted."""
        ...
