"""The server that is used without a cluster: the embedded Valkey, or the one of ``--redis``.

In a cluster a MemoryStore says where its server is and a Secret holds the password. Without one,
the Secret is rarely at hand, so one rule holds: **a MemoryStore whose admin Secret is neither among
the manifests nor in the state folder is stood in for by the local server**. It keeps its name and
everything that it says about tenants; only where the server is and how to log in are replaced.
Where no MemoryStore is declared at all, one named ``local`` is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from memtenant.errors import UsageError
from memtenant.resources.port import Declared
from memtenant.stores import StoreTls, embedded
from memtenant.stores.instances import EmbeddedInstances

__all__ = [
    "LOCAL_SECRET",
    "LOCAL_STORE",
    "PASSWORD_ENV",
    "STAND_IN",
    "Server",
    "embedded_server",
    "given_server",
    "instances_folder",
    "instances_of",
    "server_folder",
    "stood_in",
    "stored_server",
]

LOCAL_STORE = "local"
LOCAL_SECRET = "memtenant-local-server"  # noqa: S105 - a Secret's name
STAND_IN = "memtenant.dev/local-server"
"""Annotation of a MemoryStore that the local server stands in for: ``embedded`` or ``given``."""

PASSWORD_ENV = "MEMTENANT_REDIS_PASSWORD"  # noqa: S105 - a variable's name

_DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class Server:
    """Where the local server is and how the operator's part logs in."""

    endpoint: str
    username: str
    password: str = field(repr=False)
    embedded: bool
    tls: bool = False
    ca: str = ""

    def secret_data(self) -> dict[str, bytes]:
        """What the Secret `LOCAL_SECRET` holds."""
        return {"password": self.password.encode()} | (
            {"ca.crt": self.ca.encode()} if self.ca else {}
        )


def server_folder(state: Path) -> Path:
    """Where the embedded server of a state folder lives."""
    return state.resolve() / "valkey"


def instances_folder(state: Path) -> Path:
    """Where the instances of a state folder's Strict tenants live, each in a folder of its own."""
    return state.resolve() / "instances"


def instances_of(state: Path) -> EmbeddedInstances:
    """Where the instances of Strict tenants run."""
    return EmbeddedInstances(instances_folder(state))


async def embedded_server(state: Path) -> tuple[Server, bool]:
    """The state folder's own Valkey, started if it does not run; and whether it was started now."""
    folder = server_folder(state)
    found = await embedded.running(folder)
    started = found is None
    if found is None:
        found = await embedded.start(folder)
    return Server(str(found.address), found.username, found.password, embedded=True), started


def given_server(
    url: str,
    *,
    password_file: Path | None = None,
    ca_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Server:
    """The server of ``redis[s]://[user[:password]@]host[:port]``.

    The password is the file's, else the URL's, else ``MEMTENANT_REDIS_PASSWORD``'s. Raises
    `UsageError`, which never repeats the URL: it may hold a password.
    """
    environ = os.environ if environ is None else environ
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _bad("it cannot be read as a URL") from None
    if parts.scheme not in ("redis", "rediss"):
        raise _bad("it must start with redis:// or, for TLS, rediss://")
    if not host or not host.isascii():
        raise _bad("it names no host")
    if parts.path not in ("", "/", "/0") or parts.query or parts.fragment:
        raise _bad("memtenant uses database 0 and takes no options in the URL")
    if ca_file is not None and parts.scheme != "rediss":
        raise UsageError("--redis-ca is for TLS: write --redis rediss://…")
    password = _password(unquote(parts.password or ""), password_file, environ)
    shown = f"[{host}]" if ":" in host else host
    return Server(
        endpoint=f"{shown}:{port or _DEFAULT_PORT}",
        username=unquote(parts.username or "") or "default",
        password=password,
        embedded=False,
        tls=parts.scheme == "rediss",
        ca="" if ca_file is None else _ca_of(ca_file),
    )


def stored_server(store: Declared, secret: Mapping[str, bytes]) -> Server:
    """The server that a stand-in of an earlier run stands for."""
    return Server(
        endpoint=store.spec["standalone"]["endpoint"],
        username=store.spec["adminUsername"],
        password=secret.get("password", b"").decode("utf-8", "replace"),
        embedded=store.annotations.get(STAND_IN) == "embedded",
        tls="tls" in store.spec,
        ca=secret.get("ca.crt", b"").decode("utf-8", "replace"),
    )


def stood_in(spec: Mapping[str, Any], server: Server) -> dict[str, Any]:
    """The spec of a MemoryStore with the local server in the place of its own."""
    replaced = {
        **spec,
        "standalone": {"endpoint": server.endpoint},
        "adminUsername": server.username,
        "adminSecretRef": {"name": LOCAL_SECRET, "key": "password"},
    }
    replaced.pop("tls", None)
    for other in ("sentinel", "cluster"):
        replaced.pop(other, None)
    if server.tls:
        ref = {"caSecretRef": {"name": LOCAL_SECRET, "key": "ca.crt"}} if server.ca else {}
        replaced["tls"] = ref
    return replaced


def _password(in_url: str, file: Path | None, environ: Mapping[str, str]) -> str:
    if file is not None:
        return _text_of(file, "--redis-password-file").rstrip("\r\n")
    return in_url or environ.get(PASSWORD_ENV, "")


def _text_of(file: Path, option: str) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise UsageError(f"{option}: {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option}: {file} is not text") from None


def _ca_of(file: Path) -> str:
    text = _text_of(file, "--redis-ca")
    try:
        StoreTls(ca=text).context()
    except ValueError:
        raise UsageError(f"--redis-ca: {file} holds no certificates (PEM)") from None
    return text


def _bad(why: str) -> UsageError:
    return UsageError(
        f"--redis cannot be used: {why}. Write redis://USER@HOST:PORT and give the password with "
        f"--redis-password-file or in {PASSWORD_ENV}"
    )
