"""The binding Secret: everything that an agent needs to open its tenant's memory.

Its type and fields follow the Service Binding specification 1.1 for Kubernetes, so a plain Redis
client can use it too. Mounted, it is a folder ``$SERVICE_BINDING_ROOT/<name>/`` with a file for
each field. ``keyring.json`` is opaque here; `memtenant.crypto.keyring` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from memtenant.errors import BindingInvalid, InvalidResource
from memtenant.tenancy.cluster import ClusterAccess
from memtenant.tenancy.endpoint import endpoint_from
from memtenant.tenancy.identity import AgentName, TenantId, agent_name
from memtenant.tenancy.policy import MAX_POLICY_BYTES, TenantPolicy
from memtenant.tenancy.sentinel import SentinelAccess

__all__ = ["BINDING_PROVIDER", "BINDING_SECRET_TYPE", "BINDING_TYPE", "Binding"]

BINDING_SECRET_TYPE = "servicebinding.io/redis"  # noqa: S105 - the type of a Secret
BINDING_TYPE = "redis"
BINDING_PROVIDER = "memtenant"

_MAX_TEXT = 1024
_LIMITS = {
    "ca.crt": 256 * 1024,
    "keyring.json": 64 * 1024,
    "policy.json": MAX_POLICY_BYTES,
    "sentinelEndpoints": 8 * 1024,
    "clusterEndpoints": 24 * 1024,
}
"""Largest size of a field in bytes, where not ``_MAX_TEXT``. A whole Secret stops at 1 MiB."""

_REQUIRED = (
    "type",
    "provider",
    "host",
    "port",
    "username",
    "password",
    "uri",
    "tenantId",
    "agent",
    "version",
    "keyring.json",
    "policy.json",
)
_SENTINEL = ("sentinelEndpoints", "sentinelMaster", "sentinelUsername", "sentinelPassword")
"""All of them in a binding to a store that Sentinels watch, none in another."""

_OPTIONAL = ("ca.crt", *_SENTINEL, "clusterEndpoints", "tlsServerName")

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_HOST = re.compile(r"[0-9A-Za-z._:%-]+")
_READ_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Binding:
    """One agent's access to its tenant.

    ``version`` counts the credentials of this agent from 1. ``ca_crt`` is the PEM bundle that the
    server's certificate is checked against; empty with ``tls`` means the system's own bundle.
    With ``sentinel``, ``host`` and ``port`` are those of the primary when the binding was written:
    Sentinels know where it is now. With ``cluster`` they are those of one of its nodes.
    """

    tenant: TenantId
    agent: AgentName
    version: int
    host: str
    port: int
    username: str
    password: str = field(repr=False)
    keyring: bytes = field(repr=False)
    policy: TenantPolicy
    tls: bool = False
    ca_crt: str = ""
    sentinel: SentinelAccess | None = None
    cluster: ClusterAccess | None = None

    @property
    def uri(self) -> str:
        """``redis://user:password@host:port``, percent-encoded; ``rediss`` where TLS is on."""
        scheme = "rediss" if self.tls else "redis"
        host = f"[{quote(self.host, safe=':')}]" if ":" in self.host else self.host
        user, password = quote(self.username, safe=""), quote(self.password, safe="")
        return f"{scheme}://{user}:{password}@{host}:{self.port}"

    def to_secret_data(self) -> dict[str, bytes]:
        """The Secret's data, before base64; no ``ca.crt`` where there is none."""
        texts = {
            "type": BINDING_TYPE,
            "provider": BINDING_PROVIDER,
            "host": self.host,
            "port": str(self.port),
            "username": self.username,
            "password": self.password,
            "uri": self.uri,
            "tenantId": str(self.tenant),
            "agent": self.agent,
            "version": str(self.version),
            **(self.sentinel.to_fields() if self.sentinel else {}),
            **(self.cluster.to_fields() if self.cluster else {}),
        }
        data = {name: text.encode() for name, text in texts.items()}
        data |= {"keyring.json": self.keyring, "policy.json": self.policy.to_json()}
        return data | ({"ca.crt": self.ca_crt.encode()} if self.ca_crt else {})

    @classmethod
    def from_mapping(cls, data: Mapping[str, bytes]) -> Binding:
        """Read a Secret's data; further fields are ignored (a newer operator may add some).

        Each text may end in one newline, as editors and ``kubectl create --from-file`` leave it.
        Raises `BindingInvalid` that names the field and never shows its value.
        """
        for name in _REQUIRED:
            if name not in data:
                raise _invalid(name, "is missing")
        for name in (*_REQUIRED, *_OPTIONAL):
            limit = _LIMITS.get(name, _MAX_TEXT)
            if len(data.get(name, b"")) > limit:
                raise _invalid(name, f"is larger than {limit} bytes")
        _expect(data, "type", BINDING_TYPE)
        _expect(data, "provider", BINDING_PROVIDER)
        binding = cls(
            tenant=_tenant(data),
            agent=_agent(data),
            version=_integer(data, "version", 10**9 - 1),
            host=_host(data),
            port=_integer(data, "port", 65_535),
            username=_line(data, "username"),
            password=_line(data, "password"),
            keyring=data["keyring.json"],
            policy=TenantPolicy.from_json(data["policy.json"]),
            tls=_line(data, "uri").startswith("rediss://"),
            ca_crt=_text(data, "ca.crt") if "ca.crt" in data else "",
            sentinel=_sentinel(data) if any(name in data for name in _SENTINEL) else None,
            cluster=_cluster(data) if "clusterEndpoints" in data else None,
        )
        if _target(_line(data, "uri")) != _target(binding.uri):
            raise _invalid("uri", "contradicts host, port, username or password")
        return binding

    @classmethod
    def from_folder(cls, folder: Path) -> Binding:
        """Read a mounted binding, ``$SERVICE_BINDING_ROOT/<name>``.

        The kubelet replaces a mounted Secret by turning the link ``..data`` to a new folder. All
        files are read through one target of that link, so that a username of before a rotation
        never meets a password of after it.
        """
        for _ in range(_READ_ATTEMPTS):
            turned = folder / "..data"
            source = turned.resolve() if turned.is_symlink() else folder
            data = _read_files(source)
            if not turned.is_symlink() or turned.resolve() == source:
                return cls.from_mapping(data)
        raise BindingInvalid(
            f"The binding in {folder} changed while it was read, {_READ_ATTEMPTS} times in a row: "
            "try again"
        )


def _read_files(folder: Path) -> dict[str, bytes]:
    data: dict[str, bytes] = {}
    for name in (*_REQUIRED, *_OPTIONAL):
        try:
            with (folder / name).open("rb") as file:
                data[name] = file.read(_LIMITS.get(name, _MAX_TEXT) + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _invalid(name, f"cannot be read from {folder} ({error.strerror})") from None
    return data


def _invalid(name: str, what: str) -> BindingInvalid:
    return BindingInvalid(
        f"{name} of the binding {what}: mount the whole Secret that the operator wrote "
        "(status.binding.name of the MemoryTenant), unchanged"
    )


def _text(data: Mapping[str, bytes], name: str) -> str:
    try:
        return data[name].decode()
    except UnicodeDecodeError:
        raise _invalid(name, "is not UTF-8") from None


def _line(data: Mapping[str, bytes], name: str) -> str:
    text = _text(data, name).removesuffix("\n").removesuffix("\r")
    if not text or not text.isprintable():
        raise _invalid(name, "is empty, or more than one line of text")
    return text


def _expect(data: Mapping[str, bytes], name: str, expected: str) -> None:
    if _line(data, name) != expected:
        raise _invalid(name, f"is not {expected}")


def _integer(data: Mapping[str, bytes], name: str, most: int) -> int:
    text = _line(data, name)
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise _invalid(name, f"is not a whole number from 1 to {most}")
    return int(text)


def _target(uri: str) -> tuple[str | None, ...] | None:
    """What a URI connects to and as whom; a path and options are its reader's affair."""
    try:
        parts = urlsplit(uri)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        host = unquote(parts.hostname or "").lower()
        return parts.scheme, user, password, host, str(parts.port)
    except ValueError:
        return None


def _host(data: Mapping[str, bytes]) -> str:
    text = _line(data, "host")
    if not _HOST.fullmatch(text):
        raise _invalid("host", "is not a host name or address")
    return text


def _sentinel(data: Mapping[str, bytes]) -> SentinelAccess:
    for name in _SENTINEL:
        if name not in data:
            raise _invalid(name, "is missing")
    return SentinelAccess(
        _endpoints(data, "sentinelEndpoints"),
        _line(data, "sentinelMaster"),
        _line(data, "sentinelUsername"),
        _line(data, "sentinelPassword"),
        _server_name(data),
    )


def _cluster(data: Mapping[str, bytes]) -> ClusterAccess:
    return ClusterAccess(_endpoints(data, "clusterEndpoints"), _server_name(data))


def _endpoints(data: Mapping[str, bytes], name: str) -> tuple[tuple[str, int], ...]:
    try:
        return tuple(endpoint_from(text.strip()) for text in _line(data, name).split(","))
    except ValueError:
        raise _invalid(name, "is not host:port,host:port") from None


def _server_name(data: Mapping[str, bytes]) -> str:
    return _line(data, "tlsServerName") if "tlsServerName" in data else ""


def _tenant(data: Mapping[str, bytes]) -> TenantId:
    try:
        return TenantId.parse(_line(data, "tenantId"))
    except InvalidResource:
        raise _invalid("tenantId", "is not <namespace>.<name>") from None


def _agent(data: Mapping[str, bytes]) -> AgentName:
    try:
        return agent_name(_line(data, "agent"))
    except InvalidResource:
        raise _invalid("agent", "is not a DNS label of at most 40 characters") from None
