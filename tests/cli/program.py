"""The program as its users run it: arguments in, an exit code and two streams out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from memtenant.cli import main
from memtenant.resources.port import API_VERSION
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.keys import records

TENANT = TenantId("support", "acme")
NEIGHBOUR = TenantId("sales", "globex")


@dataclass(frozen=True, slots=True)
class Ended:
    """One finished command."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err

    def data(self) -> Any:
        return json.loads(self.out)


@dataclass(slots=True)
class Program:
    """`memtenant` over one state folder."""

    state: Path
    streams: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> Ended:
        self.streams.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = self.streams.readouterr()
        return Ended(code, out, err)

    def do(self, *arguments: str | Path) -> Ended:
        """The command, which must succeed."""
        ended = self(*arguments)
        assert ended.code == 0, ended.said
        return ended

    def write(self, name: str, *objects: dict[str, Any]) -> Path:
        """A manifest beside the state folder."""
        path = self.state.parent / name
        path.write_text("\n---\n".join(json.dumps(one) for one in objects))
        return path

    def binding_folder(self, tenant: TenantId = TENANT, agent: str = "default") -> Path:
        return self.state / "bindings" / tenant.namespace / f"{tenant.name}-{agent}"

    def binding(self, tenant: TenantId = TENANT, agent: str = "default") -> Binding:
        return Binding.from_folder(self.binding_folder(tenant, agent))

    def connect(self, tenant: TenantId = TENANT, agent: str = "default") -> "redis.Redis":
        """A plain client with nothing but the binding's uri, as any agent could."""
        uri = (self.binding_folder(tenant, agent) / "uri").read_text()
        return redis.Redis.from_url(uri)

    def status(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.do("get", kind, name, "-o", "json").data()["status"]
        return found


def policy(name: str = "standard", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "RetentionPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def tenant(tenant_id: TenantId = TENANT, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "MemoryTenant",
        "metadata": {"name": tenant_id.name, "namespace": tenant_id.namespace},
        "spec": {"retentionPolicyRef": {"name": "standard"}} | spec,
    }


def store(name: str = "shared", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "MemoryStore",
        "metadata": {"name": name},
        "spec": {
            "standalone": {"endpoint": "valkey.example.com:6379"},
            "adminSecretRef": {"name": "valkey-admin", "key": "password"},
        }
        | spec,
    }


def record_key(tenant_id: TenantId = TENANT, name: str = "c:one:l") -> str:
    """A key where the tenant's own content may be."""
    return f"{records(tenant_id)}{name}"
