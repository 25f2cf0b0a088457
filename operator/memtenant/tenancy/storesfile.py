"""``stores.json``: every store with the login of one of the installation's own processes.

The operator writes it into the Secret of the sealer and of the reporter, which mount it. Format 1
only grows: a reader ignores fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from memtenant.errors import KeyInvalid
from memtenant.tenancy.document import DocumentInvalid, Fields, canonical_json, read_json
from memtenant.tenancy.sentinel import SentinelAccess

__all__ = ["CLUSTER", "STORES_FILE", "Endpoint", "StoreAccess", "StoresFile"]

STORES_FILE = "stores.json"
CLUSTER = "Cluster"
"""The flavour of a store whose keys are on several nodes."""

_MAX_BYTES = 1 << 20
"""What a Secret holds at most: some 600 stores with a CA each, thousands without."""

_MOST = 10_000
_LONGEST_PEM = 256 * 1024
_LONGEST_SECRET = 4096


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """How one store is reached and who logs in.

    flavour: ``Standalone``; ``Sentinel``: then ``sentinel`` says whom to ask for the primary, and
    the endpoint is where it was last; or ``Cluster``, whose endpoints are nodes that tell where the
    others are. ca_crt, client_crt, client_key are PEM, empty where there is none; server_name is
    the name to expect in certificates, empty for the endpoint's host.
    """

    name: str
    flavour: str
    endpoints: tuple[Endpoint, ...]
    username: str
    password: str = field(repr=False)
    tls: bool = False
    ca_crt: str = ""
    server_name: str = ""
    client_crt: str = ""
    client_key: str = field(default="", repr=False)
    sentinel: SentinelAccess | None = None


@dataclass(frozen=True, slots=True)
class StoresFile:
    """All stores, by name."""

    stores: tuple[StoreAccess, ...] = ()

    def __iter__(self) -> Iterator[StoreAccess]:
        return iter(self.stores)

    def get(self, name: str) -> StoreAccess | None:
        """The store of that name, or None."""
        return next((one for one in self.stores if one.name == name), None)

    def put(self, access: StoreAccess) -> Self:
        """With this store, in place of what there was of it."""
        others = (one for one in self.stores if one.name != access.name)
        return type(self)(tuple(sorted((*others, access), key=lambda one: one.name)))

    def without(self, name: str) -> Self:
        """Without that store."""
        return type(self)(tuple(one for one in self.stores if one.name != name))

    def to_json(self) -> bytes:
        """Canonical: the same stores are the same bytes. Passwords in clear: for a Secret only."""
        return canonical_json({"format": 1, "stores": [_written(one) for one in self.stores]})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote; `KeyInvalid` names the field, never shows a value."""
        try:
            fields = read_json(data, limit=_MAX_BYTES)
            fields.integer("format", 1, 1)
            return cls(tuple(_access(one) for one in fields.each("stores", _MOST)))
        except DocumentInvalid as error:
            raise KeyInvalid(
                f"{STORES_FILE} cannot be read: {error}. Mount the Secret that the operator wrote, "
                "unchanged; where its format is newer, update memtenant"
            ) from None


def _written(access: StoreAccess) -> dict[str, object]:
    optional = {
        "caCrt": access.ca_crt,
        "serverName": access.server_name,
        "clientCrt": access.client_crt,
        "clientKey": access.client_key,
    }
    asked = {} if access.sentinel is None else {"sentinel": _asked(access.sentinel)}
    return {
        **asked,
        "name": access.name,
        "flavour": access.flavour,
        "endpoints": [{"host": one.host, "port": one.port} for one in access.endpoints],
        "tls": access.tls,
        "username": access.username,
        "password": access.password,
        **{name: value for name, value in optional.items() if value},
    }


def _asked(sentinel: SentinelAccess) -> dict[str, object]:
    return {
        "endpoints": [{"host": host, "port": port} for host, port in sentinel.endpoints],
        "master": sentinel.master,
        "username": sentinel.username,
        "password": sentinel.password,
        "serverName": sentinel.server_name,
    }


def _sentinel(fields: Fields) -> SentinelAccess:
    return SentinelAccess(
        tuple((one.host, one.port) for one in _endpoints(fields)),
        fields.text("master", 253),
        fields.text("username", 253),
        fields.text("password", _LONGEST_SECRET),
        fields.text("serverName", 253),
    )


def _endpoints(fields: Fields) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(one.text("host", 253), one.integer("port", 1, 65_535))
        for one in fields.each("endpoints", 100)
    )


def _access(fields: Fields) -> StoreAccess:
    def optional(name: str, longest: int) -> str:
        return fields.text(name, longest) if name in fields else ""

    return StoreAccess(
        name=fields.text("name", 253),
        flavour=fields.text("flavour", 64),
        endpoints=_endpoints(fields),
        username=fields.text("username", 253),
        password=fields.text("password", _LONGEST_SECRET),
        tls=fields.flag("tls"),
        ca_crt=optional("caCrt", _LONGEST_PEM),
        server_name=optional("serverName", 253),
        client_crt=optional("clientCrt", _LONGEST_PEM),
        client_key=optional("clientKey", _LONGEST_PEM),
        sentinel=_sentinel(fields.inner("sentinel")) if "sentinel" in fields else None,
    )
