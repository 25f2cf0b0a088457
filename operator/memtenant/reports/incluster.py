"""A run in the cluster: the sources of a report job, which reads and does not administer.

What the job is not given, or may not read, is missing evidence, and so an error of the controls
that need it; only a policy that is not there, or files that cannot be written, end the run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memtenant.api.fields import Isolation
from memtenant.archive import ArchiveReader
from memtenant.clock import Clock, system_clock
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.primitives import SecretKey
from memtenant.crypto.signing import VerifyingKey
from memtenant.errors import ArchiveUnavailable, KeyInvalid, MemtenantError
from memtenant.reports.evidence import LogKeyReaders, Missing
from memtenant.reports.log import ArchiveLog
from memtenant.reports.logins import logins
from memtenant.reports.sources import Declarations, StoreLogin
from memtenant.resources.connection import Connection
from memtenant.resources.logkey import LOG_NAME, published_key
from memtenant.resources.port import Declared, Kind, Resources
from memtenant.resources.secretreaders import read_grants, secret_readers
from memtenant.rules.instance import instance_name
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.storesfile import STORES_FILE, StoresFile

__all__ = [
    "ClusterSources",
    "Mounts",
    "admin_secrets",
    "read_audit_key",
    "read_installation",
    "read_public_key",
]

_log = logging.getLogger(__name__)
_AUDIT_KEY = "audit.key"
_INSTALLATION = "installation"
_KEYRING = "keyring.json"


@dataclass(frozen=True, slots=True)
class Mounts:
    """The job's volumes that it reads: the Secret of the reporter, the archive, and a folder for
    each agent's keys that it was given."""

    reporter: Path
    archive: Path
    keyrings: Path


class ClusterSources:
    """`memtenant.reports.sources.Sources`, as a job of its own ServiceAccount sees them.

    ``audit_namespace`` is where the log's key is, ``public_key`` its public half, ``expected`` who
    is declared to read it.
    """

    def __init__(
        self,
        connection: Connection,
        resources: Resources,
        mounts: Mounts,
        *,
        audit_namespace: str,
        public_key: VerifyingKey | None,
        expected: Sequence[str],
        clock: Clock = system_clock,
    ) -> None:
        self._connection = connection
        self._resources = resources
        self._mounts = mounts
        self._audit_namespace = audit_namespace
        self._public_key = public_key
        self._expected = tuple(expected)
        self._clock = clock
        self._keyrings: tuple[AgentKeyring, ...] | None = None

    async def declarations(self) -> Declarations | Missing:
        """All that is declared in the cluster."""
        resources = self._resources
        try:
            return Declarations(
                policies=tuple(await resources.list(Kind.POLICY)),
                stores=tuple(await resources.list(Kind.STORE)),
                tenants=tuple(await resources.list(Kind.TENANT)),
                namespaces={one.name: one.labels for one in await resources.list_namespaces()},
            )
        except MemtenantError as error:
            return Missing("declared objects", str(error))

    async def stores(self) -> Sequence[StoreLogin]:
        """As the reporter's user, by the Secret that the operator wrote."""
        try:
            known = StoresFile.from_json((self._mounts.reporter / STORES_FILE).read_bytes())
        except (OSError, KeyInvalid):
            known = StoresFile()  # each store then says that it has no user of the reporter
        return logins(known, await self._resources.list(Kind.STORE))

    def log(self) -> ArchiveLog | Missing:
        """The archive that is mounted."""
        try:
            return ArchiveLog(ArchiveReader.open(self._mounts.archive), self._public_key)
        except ArchiveUnavailable as error:
            return Missing("archive", str(error))

    async def log_key_readers(self) -> LogKeyReaders | Missing:
        """By what RBAC grants in the audit namespace, against what it grants of the stores' own
        Secrets: no account may be in both."""
        try:
            found = await read_grants(self._connection, self._audit_namespace)
            at_home = await read_grants(self._connection, self._resources.home)
            stores = await self._resources.list(Kind.STORE)
            tenants = await self._resources.list(Kind.TENANT)
        except MemtenantError as error:
            return Missing("readers of the log key", str(error))
        administrators = {
            who
            for secret in admin_secrets(stores, tenants)
            for who in secret_readers(at_home, secret)
        }
        return LogKeyReaders(
            at=self._clock.now(),
            readers=secret_readers(found, LOG_NAME),
            expected=self._expected,
            administrators=tuple(sorted(administrators)),
            said="by RBAC (get, list, watch, patch or delete of the Secret); not counted: "
            "system:masters, the control plane, kube-system, and who may start a pod in the "
            "namespace",
        )

    async def keyrings(self, tenant: TenantId) -> Sequence[AgentKeyring]:
        """Those that the chart's value ``reports.keyrings`` names; by default it names none."""
        if self._keyrings is None:
            self._keyrings = tuple(_keyrings(self._mounts.keyrings))
        return [one for one in self._keyrings if one.tenant == tenant]


def _keyrings(folder: Path) -> Iterator[AgentKeyring]:
    for file in sorted(folder.glob(f"*/{_KEYRING}")):
        try:
            yield AgentKeyring.from_json(file.read_bytes())
        except (OSError, MemtenantError) as error:
            _log.warning("nothing is decrypted by %s: %s", file, error)


async def read_public_key(connection: Connection, namespace: str) -> VerifyingKey | None:
    """The log's public key as the sealer publishes it, apart from the archive; None where it does
    not: then the log is not proven, and the report says so."""
    try:
        return await published_key(connection, namespace)
    except MemtenantError as error:
        _log.warning("the log's public key is not at hand: %s", error)
        return None


def read_audit_key(mounts: Mounts) -> SecretKey | None:
    """The reporter's own key of the audit log; None where the operator has not made it."""
    try:
        return SecretKey((mounts.reporter / _AUDIT_KEY).read_bytes())
    except (OSError, MemtenantError, ValueError):
        return None


def read_installation(mounts: Mounts) -> str:
    """Which installation this is; empty where the operator has not said so."""
    try:
        return (mounts.reporter / _INSTALLATION).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def admin_secrets(stores: Iterable[Declared], tenants: Iterable[Declared]) -> set[str]:
    """The Secrets by which somebody administers a store, or a Strict tenant's own instance."""
    found = {
        instance_name(TenantId(one.key.namespace, one.key.name))
        for one in tenants
        if one.spec.get("isolation") == Isolation.STRICT.value
    }
    for one in stores:
        ref = one.spec.get("adminSecretRef")
        if isinstance(ref, dict) and isinstance(ref.get("name"), str):
            found.add(ref["name"])
    return found
