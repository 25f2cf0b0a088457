"""Operators, stores and tenants of one test, and the words in which a test moves them."""

import json
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from memtenant.tenancy.binding import Binding
from tests.e2e import belongings
from tests.e2e.api import Api
from tests.e2e.operator import MEMTENANT, Replica, Sealer
from tests.e2e.witness import Json, Witness
from tests.support import servers
from tests.support.controlplane.cluster import Cluster
from tests.support.servers import Flavour, Options, Server

API = "memtenant.dev/v1alpha1"
PATIENCE = 240.0
"""Seconds that anything may take. No test asserts how long it took."""


class Reached(Protocol):
    """Where a server listens."""

    @property
    def host(self) -> str:
        """Its address."""

    @property
    def port(self) -> int:
        """Its port."""


class NeverHappened(AssertionError):
    """What a test waited for did not come."""


def eventually(
    holds: Callable[[], object], what: str | Callable[[], object], timeout: float = PATIENCE
) -> None:
    """Wait until it holds; says ``what`` was missing otherwise."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise NeverHappened(str(what() if callable(what) else what))
        time.sleep(0.05)


@dataclass
class Scene:
    """Everything has a name of its own, so that scenes can follow one another on one cluster. Only
    one scene at a time may have operators: they look after all tenants of the cluster.
    """

    cluster: Cluster
    folder: Path
    stack: ExitStack
    witness: Witness
    tag: str = field(default_factory=lambda: secrets.token_hex(3))
    replicas: list[Replica] = field(default_factory=list)
    sealers: list[Sealer] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    secrets_made: list[bytes] = field(default_factory=list)

    @property
    def home(self) -> str:
        """The operators' namespace."""
        return f"home-{self.tag}"

    @property
    def store_name(self) -> str:
        """The scene's first store."""
        return f"store-{self.tag}"

    @property
    def policy_name(self) -> str:
        """The scene's first policy: no framework, no bound."""
        return f"policy-{self.tag}"

    # --- the platform's part -----------------------------------------------------------------

    def server(
        self,
        options: Options | None = None,
        *,
        replica_of: Server | None = None,
        let_in: bool = True,
    ) -> Server:
        """A Valkey of the scene's own. A replica lets the operator in as its primary does, or not
        before `let_in` is called: ACL users are not replicated."""
        started = self.stack.enter_context(
            servers.running(Flavour.VALKEY_9, options, replica_of=replica_of)
        )
        self.servers.append(started)
        if replica_of is not None and not let_in:
            self._shut_out(started)
        return started

    def _shut_out(self, replica: Server) -> None:
        """Give the operator's user another password there than on its primary."""
        shared, replica.admin_password = replica.admin_password, secrets.token_hex(16)
        with replica.client(replica.admin_user, shared) as admin:
            admin.acl_setuser(
                replica.admin_user,
                enabled=True,
                reset_passwords=True,
                passwords=[f"+{replica.admin_password}"],
            )
            if replica.aclfile:
                admin.acl_save()

    def let_in(self, replica: Server) -> None:
        """Give the replica the operator's user of its primary."""
        assert replica.replica_of is not None
        replica.admin_password, own = replica.replica_of.admin_password, replica.admin_password
        with replica.client(replica.admin_user, own) as admin:
            admin.acl_setuser(
                replica.admin_user, enabled=True, passwords=[f"+{replica.admin_password}"]
            )
            if replica.aclfile:
                admin.acl_save()

    def operator(
        self,
        identity: str = "a",
        kubeconfig: Path | None = None,
        program: Sequence[str] = MEMTENANT,
        **settings: str,
    ) -> Replica:
        """A replica, started."""
        replica = Replica(
            identity=identity,
            kubeconfig=kubeconfig or self.cluster.kubeconfig,
            home=self.home,
            folder=self.folder,
            program=program,
            settings=settings,
        )
        self.replicas.append(replica)
        replica.start()
        return replica

    def store(self, server: Server, *, name: str = "", endpoint: str = "", **spec: Any) -> str:
        """Declare the server as a MemoryStore, or what `sentinel` or `cluster` says; its name."""
        name = name or self.store_name
        password = server.admin_password.encode()
        self.secret(self.home, f"{name}-admin", {"password": password})
        if not spec.keys() & {"sentinel", "cluster"}:
            spec["standalone"] = {"endpoint": endpoint or server.endpoint}
        self.cluster.declare(
            _object(
                "MemoryStore",
                name,
                {
                    "adminUsername": server.admin_user,
                    "adminSecretRef": {"name": f"{name}-admin", "key": "password"},
                    **spec,
                },
            )
        )
        return name

    def policy(self, name: str = "", **spec: Any) -> str:
        """Declare a RetentionPolicy; its name."""
        name = name or self.policy_name
        self.cluster.declare(_object("RetentionPolicy", name, spec))
        return name

    def team(self, name: str = "", labels: Mapping[str, str] | None = None) -> str:
        """A namespace for tenants."""
        name = name or f"team-{self.tag}-{secrets.token_hex(2)}"
        self.cluster.declare(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": dict(labels or {})},
            }
        )
        if name not in self.namespaces:
            self.namespaces.append(name)
        return name

    def secret(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """A Secret, or its next content."""
        self.secrets_made += data.values()
        encoded = {key: _base64(value) for key, value in data.items()}
        self.cluster.declare(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace},
                "data": encoded,
            }
        )

    # --- the teams' part ---------------------------------------------------------------------

    def tenant_object(self, team: str, name: str, **spec: Any) -> Json:
        """A MemoryTenant as a team writes it."""
        labels = spec.pop("labels", {})
        annotations = spec.pop("annotations", {})
        made = _object(
            "MemoryTenant",
            name,
            {
                "retentionPolicyRef": {"name": self.policy_name},
                "storeRef": {"name": self.store_name},
                "quota": {"memory": "16Mi", "conversations": 100},
                **spec,
            },
        )
        made["metadata"] |= {"namespace": team, "labels": labels, "annotations": annotations}
        return made

    def tenant(self, team: str, name: str, **spec: Any) -> None:
        """Declare a tenant, or change it."""
        self.cluster.declare(self.tenant_object(team, name, **spec))

    def delete_tenant(self, team: str, name: str) -> None:
        """Ask for its deletion; does not wait."""
        self.cluster.kubectl("delete", "mtenant", name, "-n", team, "--wait=false")

    # --- what is -----------------------------------------------------------------------------

    def seen(self, team: str, name: str) -> Json | None:
        """The tenant as last seen."""
        return self.witness.latest("memorytenants", team, name)

    def condition(self, team: str, name: str, kind: str) -> tuple[str, str, str]:
        """(status, reason, message) of a tenant's condition for its current generation."""
        found = self.seen(team, name)
        return condition(found, kind) if found else ("", "", "")

    def ready(self, team: str, name: str) -> bool:
        """Whether the tenant, as it is declared now, is Ready."""
        found = self.seen(team, name)
        return found is not None and is_ready(found)

    def wait_ready(self, team: str, *names: str) -> None:
        """Wait until the tenants are Ready."""
        missing = set(names)

        def all_are() -> bool:
            missing.difference_update({name for name in missing if self.ready(team, name)})
            return not missing

        eventually(
            all_are, lambda: [f"{team}/{n} not Ready: {self._told(team, n)}" for n in missing]
        )

    def wait_condition(self, team: str, name: str, kind: str, status: str, reason: str = "") -> str:
        """Wait for a condition; its message."""

        def holds() -> bool:
            found = self.condition(team, name, kind)
            return found[0] == status and reason in ("", found[1])

        eventually(
            holds, lambda: f"{kind} {status} {reason} of {team}/{name}: {self._told(team, name)}"
        )
        return self.condition(team, name, kind)[2]

    def wait_gone(self, team: str, *names: str) -> None:
        """Wait until the tenants are gone."""
        eventually(
            lambda: not any(self.seen(team, name) for name in names),
            lambda: [f"{team}/{n} is there: {self._told(team, n)}" for n in names],
        )

    def wait_store(self, name: str = "", status: str = "True") -> None:
        """Wait until the store is Ready (or is not)."""
        name = name or self.store_name

        def holds() -> bool:
            found = self.witness.latest("memorystores", "", name)
            return found is not None and condition(found, "Ready")[0] == status

        eventually(holds, lambda: f"store: {self.witness.latest('memorystores', '', name)}")

    def binding(self, team: str, tenant: str, agent: str = "default") -> Binding:
        """The agent's binding Secret, as the API server holds it now: what is seen of a tenant may
        be newer than what is seen of its Secrets."""
        secret = self._secret_now(team, f"{tenant}-{agent}")
        assert secret is not None, f"no binding of {team}/{tenant} {agent}"
        return Binding.from_mapping(data_of(secret))

    def binding_or_none(self, team: str, tenant: str, agent: str) -> Binding | None:
        """The agent's binding Secret as last seen."""
        secret = self.witness.latest("secrets", team, f"{tenant}-{agent}")
        return None if secret is None else Binding.from_mapping(data_of(secret))

    def record(self, team: str, tenant: str) -> dict[str, bytes] | None:
        """The data of the tenant's record in the home namespace, as the API server holds it now."""
        secret = self._secret_now(self.home, f"{team}.{tenant}-keyring")
        return None if secret is None else data_of(secret)

    def _secret_now(self, namespace: str, name: str) -> Json | None:
        with Api.of(self.cluster) as api:
            return api.get("secrets", namespace, name)

    def phase(self, team: str, tenant: str) -> str:
        """The phase of the tenant's record; empty where there is none."""
        record = self.record(team, tenant)
        return "" if record is None else str(json.loads(record["record.json"])["phase"])

    def at_home(self) -> dict[str, list[Json]]:
        """All that is in the operators' namespace now, by plural. It is asked for, not watched:
        what the cluster itself does to such objects is no change of the scene."""
        with Api.of(self.cluster) as api:
            return {plural: api.list(plural, self.home) for plural in belongings.KINDS}

    def leader(self) -> str:
        """The identity of the replica that leads now; empty if none does."""
        lease = self.witness.latest("leases", self.home, "memtenant-operator")
        holder = (lease or {}).get("spec", {}).get("holderIdentity") or ""
        return str(holder).partition("_")[0]

    def leading(self) -> Replica:
        """The replica that leads, waited for."""
        eventually(lambda: any(r.identity == self.leader() for r in self.replicas), "a leader")
        return next(r for r in self.replicas if r.identity == self.leader())

    def settled(self, quiet: float = 2.0) -> None:
        """Wait until nothing but Leases changes for some seconds."""
        mark, since = len(self.witness.changes), time.monotonic()
        deadline = since + PATIENCE
        while time.monotonic() - since < quiet:
            time.sleep(0.1)
            if any(change.plural != "leases" for change in self.witness.since(mark)):
                mark, since = len(self.witness.changes), time.monotonic()
            if since > deadline:
                raise NeverHappened("the objects do not come to rest")

    def _told(self, team: str, name: str) -> str:
        found = self.seen(team, name)
        return "it is not there" if found is None else json.dumps(found.get("status", {}))


def condition(item: Json, kind: str) -> tuple[str, str, str]:
    """(status, reason, message) of a condition that speaks of the object's generation."""
    for one in item.get("status", {}).get("conditions", []):
        if one["type"] == kind:
            if one.get("observedGeneration", 0) < item["metadata"]["generation"]:
                return "Outdated", one["reason"], one["message"]
            return one["status"], one["reason"], one["message"]
    return "", "", ""


def is_ready(item: Json) -> bool:
    """Whether the object, as it is declared now, is Ready."""
    return condition(item, "Ready")[0] == "True"


def data_of(secret: Json) -> dict[str, bytes]:
    """A Secret's data, decoded."""
    return {name: b64decode(value) for name, value in secret.get("data", {}).items()}


def login(binding: Binding, server: Reached | None = None) -> "redis.Redis":
    """A client with the binding's credentials, to where the binding says or to the server."""
    host, port = (server.host, server.port) if server else (binding.host, binding.port)
    return redis.Redis(
        host,
        port,
        username=binding.username,
        password=binding.password,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
        socket_timeout=20,
    )


def works(binding: Binding, server: Server | None = None) -> bool:
    """Whether the binding's credentials can log in and read."""
    try:
        with login(binding, server) as client:
            client.exists(f"mt:{{{binding.tenant}}}:u")
    except redis.RedisError:
        return False
    return True


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> Json:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


def _base64(value: bytes) -> str:
    return b64encode(value).decode()
