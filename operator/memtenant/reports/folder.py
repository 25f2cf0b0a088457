"""The sources of a run over a state folder: what `memtenant report run` looks at by hand."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from memtenant.archive import ArchiveReader
from memtenant.clock import Clock, system_clock
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.signing import SigningKey, VerifyingKey
from memtenant.errors import ArchiveUnavailable, KeyInvalid, MemtenantError
from memtenant.files import read_plain
from memtenant.reports.evidence import LogKeyReaders, Missing
from memtenant.reports.log import ArchiveLog
from memtenant.reports.logins import logins
from memtenant.reports.sources import Declarations, StoreLogin
from memtenant.resources.port import Kind, Resources
from memtenant.rules.systemusers import SystemRole, SystemSecret
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.identity import TenantId

__all__ = ["FolderSources"]


class FolderSources:
    """`memtenant.reports.sources.Sources`. ``archive`` and ``signer`` are folders: the archive, and
    the one with the log's key; ``key`` is the public key where only that is at hand. ``decrypt``
    opens a sample of records with the keys that are in the folder."""

    def __init__(
        self,
        resources: Resources,
        *,
        archive: Path,
        signer: Path,
        key: VerifyingKey | None = None,
        decrypt: bool = False,
        clock: Clock = system_clock,
    ) -> None:
        self._resources = resources
        self._archive = archive
        self._signer = signer
        self._key = key
        self._decrypt = decrypt
        self._clock = clock

    async def declarations(self) -> Declarations | Missing:
        """All that is declared in the folder."""
        resources = self._resources
        return Declarations(
            policies=tuple(await resources.list(Kind.POLICY)),
            stores=tuple(await resources.list(Kind.STORE)),
            tenants=tuple(await resources.list(Kind.TENANT)),
            namespaces={one.name: one.labels for one in await resources.list_namespaces()},
        )

    async def stores(self) -> Sequence[StoreLogin]:
        """As the reporter's user, which the operator's reconcile makes here too."""
        stored = await self._resources.get_secret(
            self._resources.home, SystemRole.REPORTER.secret_name
        )
        known = SystemSecret() if stored is None else SystemSecret.from_data(stored.data)
        return logins(known.stores, await self._resources.list(Kind.STORE))

    def log(self) -> ArchiveLog | Missing:
        """The archive, with the key of the signer's folder."""
        try:
            return ArchiveLog(ArchiveReader.open(self._archive), self._key or self._public_key())
        except ArchiveUnavailable as error:
            return Missing("archive", str(error))

    async def log_key_readers(self) -> LogKeyReaders | Missing:
        """By the mode of the key's file: who else on this machine may read it."""
        file = self._signer / "key"
        try:
            found = file.stat()
        except OSError as error:
            return Missing("log key", f"{file} cannot be looked at: {error.strerror or error}")
        owner = f"the account with uid {found.st_uid}"
        others = [
            who
            for bit, who in (
                (stat.S_IRGRP, f"the group with gid {found.st_gid}"),
                (stat.S_IROTH, "everybody on this machine"),
            )
            if found.st_mode & bit
        ]
        return LogKeyReaders(
            at=self._clock.now(),
            readers=(owner, *others),
            expected=(owner,),
            single=True,
            said="by the mode of its file",
        )

    async def keyrings(self, tenant: TenantId) -> Sequence[AgentKeyring]:
        """From the bindings of its agents. Under Strict isolation each has keys of its own."""
        if not self._decrypt:
            return ()
        found = []
        for secret in await self._bindings(tenant):
            try:
                binding = Binding.from_mapping(secret)
                if binding.tenant == tenant:
                    found.append(AgentKeyring.from_json(binding.keyring))
            except MemtenantError:
                continue
        return found

    async def _bindings(self, tenant: TenantId) -> list[dict[str, bytes]]:
        declared = next(
            (
                one
                for one in await self._resources.list(Kind.TENANT)
                if (one.key.namespace, one.key.name) == (tenant.namespace, tenant.name)
            ),
            None,
        )
        found = []
        for one in declared.status.get("bindings", ()) if declared else ():
            stored = await self._resources.get_secret(tenant.namespace, str(one.get("name")))
            if stored is not None:
                found.append(dict(stored.data))
        return found

    def _public_key(self) -> VerifyingKey | None:
        try:
            name = read_plain(self._signer / "origin").decode()
            return SigningKey(name, read_plain(self._signer / "key")).public
        except (OSError, KeyInvalid, UnicodeDecodeError):
            return None
