"""Where an agent's binding is, and noticing that it changed.

A mounted Secret is a folder ``$SERVICE_BINDING_ROOT/<name>/``. The kubelet replaces its files when
the operator rotates credentials or keys; a Secret in environment variables, or mounted by subPath,
never changes while the pod lives, which is detected and said.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.errors import BindingInvalid, MemtenantError
from memtenant.memory.locks import ShortLock
from memtenant.tenancy.binding import BINDING_PROVIDER, Binding
from memtenant.tenancy.identity import AgentName
from memtenant.tenancy.policy import Isolation

__all__ = ["ROOT_VARIABLE", "BindingSource", "OpenBinding", "frozen_mount"]

ROOT_VARIABLE: Final = "SERVICE_BINDING_ROOT"

_LOOK_EVERY = 1.0
"""Seconds between two looks at the folder while connections are in use."""

_WATCHED = (
    "version",
    "password",
    "keyring.json",
    "policy.json",
    "uri",
    "ca.crt",
    "sentinelEndpoints",
    "clusterEndpoints",
)
_log = logging.getLogger("memtenant.memory")


@dataclass(frozen=True, slots=True)
class OpenBinding:
    """A binding as it was read; ``generation`` counts its changes in this process."""

    binding: Binding
    keyring: AgentKeyring
    generation: int

    @property
    def owner(self) -> AgentName:
        """The agent whose own the conversations are (Strict isolation); empty where all agents of
        the tenant share them."""
        strict = self.binding.policy.isolation is Isolation.STRICT
        return self.binding.agent if strict else ""


class BindingSource:
    """The folder of one binding. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """Raises `BindingInvalid` or `KeyInvalid` where the binding cannot be used."""
        self.folder = folder
        self.frozen = frozen_mount(folder)
        self._signature = _signature(folder)
        self._open = _read(folder, 1)
        self._looked = time.monotonic()
        self._lock = ShortLock()
        if self.frozen:
            _log.warning("The binding in %s never changes: %s", folder, self.frozen)

    @classmethod
    def named(cls, name: str | None, environ: Mapping[str, str] | None = None) -> BindingSource:
        """The binding ``name`` under ``$SERVICE_BINDING_ROOT``; without a name, the only one of
        memtenant's there. Raises `BindingInvalid` with what there is."""
        return cls(_find(name, os.environ if environ is None else environ))

    def current(self, *, look: bool = False) -> OpenBinding:
        """The binding as it is now. The folder is looked at once a second, or at once with
        ``look``; one that cannot be read leaves what was read before."""
        now = time.monotonic()
        if look or now - self._looked >= _LOOK_EVERY:
            with self._lock:
                self._looked = now
                self._refresh()
        return self._open

    def _refresh(self) -> None:
        signature = _signature(self.folder)
        if signature == self._signature:
            return
        try:
            after = _read(self.folder, self._open.generation + 1)
        except MemtenantError as error:
            # Half-way through an update, or taken away: what was read may still serve.
            _log.warning("The changed binding in %s is not used: %s", self.folder, error)
            return
        self._signature = signature
        before = self._open.binding
        if (after.binding.tenant, after.binding.agent) != (before.tenant, before.agent):
            _log.error(
                "The binding in %s became another tenant's or agent's and is not used: restart "
                "the process",
                self.folder,
            )
            return
        self._open = after


def frozen_mount(folder: Path, mounts: str | None = None) -> str:
    """Why the folder will never change, in words; empty where it will.

    ``mounts`` is the text of ``/proc/self/mountinfo``, whose fields 4 and 5 are what of a file
    system is mounted, and where.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace")
        except OSError:
            return ""
    inside = str(folder.absolute())
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 5:
            continue
        root, where = fields[3], fields[4].replace("\\040", " ")
        if where == inside and "/volume-subpaths/" in root:
            return "it is mounted by subPath. Mount the Secret as a whole volume"
        if where.startswith(f"{inside}/") and where.removeprefix(f"{inside}/") in _WATCHED:
            return "its files are mounted one by one (subPath). Mount the Secret as a whole volume"
    return ""


def _find(name: str | None, environ: Mapping[str, str]) -> Path:
    root = environ.get(ROOT_VARIABLE)
    if not root:
        if "keyring.json" in environ or ("tenantId" in environ and "uri" in environ):
            raise BindingInvalid(
                "The binding's fields are environment variables, which never change while the pod "
                "lives, so that a rotation would lock the agent out: mount the Secret as a volume "
                f"at $({ROOT_VARIABLE})/<name>"
            )
        raise BindingInvalid(
            f"{ROOT_VARIABLE} is not set: mount the binding Secret (status.binding.name of the "
            "MemoryTenant) as a volume at <folder>/<name>, and set the variable to <folder>"
        )
    folder = Path(root)
    if name is not None:
        if name in ("", ".", "..") or "/" in name:
            raise BindingInvalid(f"{name!r} is not the name of a binding: it is one folder's name")
        if not (folder / name).is_dir():
            raise BindingInvalid(
                f"{folder} has no binding {name!r}; there is: {', '.join(_names(folder)) or 'none'}"
            )
        return folder / name
    names = _names(folder)
    if len(names) != 1:
        raise BindingInvalid(
            f"{folder} has no binding of memtenant's: mount the Secret at {folder}/<name>"
            if not names
            else f"{folder} has several bindings: say which, one of {', '.join(names)}"
        )
    return folder / names[0]


def _names(root: Path) -> list[str]:
    try:
        folders = [entry for entry in root.iterdir() if entry.is_dir()]
    except OSError as error:
        raise BindingInvalid(
            f"{ROOT_VARIABLE} is {root}, which cannot be read ({error.strerror}): mount the "
            "binding Secret below it"
        ) from None
    return sorted(folder.name for folder in folders if _is_ours(folder))


def _is_ours(folder: Path) -> bool:
    try:
        return (folder / "provider").read_text("utf-8", "replace").strip() == BINDING_PROVIDER
    except OSError:
        return False


def _read(folder: Path, generation: int) -> OpenBinding:
    binding = Binding.from_folder(folder)
    keyring = AgentKeyring.from_json(binding.keyring)
    if (keyring.tenant, keyring.agent) != (binding.tenant, binding.agent):
        raise BindingInvalid(
            f"keyring.json of the binding in {folder} is of another tenant or agent: mount the "
            "whole Secret that the operator wrote, unchanged"
        )
    return OpenBinding(binding, keyring, generation)


def _signature(folder: Path) -> object:
    """Changes when the folder does: the target of the kubelet's link, else times and sizes."""
    try:
        return str((folder / "..data").readlink())
    except OSError:
        pass  # not mounted by a kubelet, or not there at the moment
    found = []
    for name in _WATCHED:
        try:
            status = (folder / name).stat()
        except OSError:
            found.append((name, 0, 0, 0))
        else:
            found.append((name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
