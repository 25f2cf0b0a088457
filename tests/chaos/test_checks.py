"""Each promise that a run of chaos ends with, broken once: the check has to say so.

A real operator's tenants on a real server; a folder stands for the API server and its watches.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from memtenant.errors import HistoryRewound
from memtenant.functions.library import libraries
from memtenant.resources.port import Kind
from memtenant.rules.instance import ADMIN_USER, claim_name, instance_name
from memtenant.rules.reporting import cron_job_name
from memtenant.tenancy import keys
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.identity import TenantId
from tests.chaos import checks, stores
from tests.chaos.agents import Agent, Agents
from tests.chaos.world import World
from tests.chart.rendered import CHART
from tests.conftest import StartServer
from tests.e2e import belongings, invariants
from tests.e2e.instances import Instance
from tests.e2e.scene import Scene, data_of, eventually
from tests.e2e.witness import Change, Json
from tests.reconcile.conftest import Ground
from tests.support.servers import Flavour, Server

USER, OTHER = "mt.support.acme.default.a", "mt.support.beta.default.a"
ACME, BETA = TenantId("support", "acme"), TenantId("support", "beta")


@dataclass
class Seen:
    """What a witness has of a folder; ``former`` are Secrets as they once were."""

    secrets: list[Json]
    memorytenants: list[Json]
    retentionpolicies: list[Json] = field(default_factory=list)
    planted: dict[str, list[Json]] = field(default_factory=dict)
    former: list[Json] = field(default_factory=list)
    namespaces: tuple[str, ...] = ("support",)
    home: str = "memtenant-system"
    replicas: tuple[Any, ...] = ()
    sealers: tuple[Any, ...] = ()
    servers: tuple[Any, ...] = ()
    secrets_made: tuple[bytes, ...] = ()

    @property
    def witness(self) -> "Seen":
        return self

    def all(self, plural: str) -> list[Json]:
        kinds = {
            "secrets": self.secrets,
            "memorytenants": self.memorytenants,
            "retentionpolicies": self.retentionpolicies,
        }
        return kinds[plural]

    def at_home(self) -> dict[str, list[Json]]:
        own = [one for one in self.secrets if one["metadata"]["namespace"] == self.home]
        there = {plural: list(self.planted.get(plural, ())) for plural in belongings.KINDS}
        return {**there, "secrets": own + there["secrets"]}

    def plant(self, plural: str, name: str, **metadata: Any) -> None:
        found = {"metadata": {"namespace": self.home, "name": name, **metadata}}
        self.planted.setdefault(plural, []).append(found)

    def since(self, _: int) -> list[Change]:
        return [Change("secrets", "MODIFIED", one) for one in (*self.former, *self.secrets)]

    def binding(self, namespace: str, name: str, agent: str) -> Binding:
        return Binding.from_mapping(data_of(self.secret(namespace, f"{name}-{agent}")))

    def secret(self, namespace: str, name: str) -> Json:
        wanted = {"namespace": namespace, "name": name}
        return next(one for one in self.secrets if wanted.items() <= one["metadata"].items())

    def orphans(self, node: Server) -> list[str]:
        return invariants.orphans(cast(Scene, self), node)

    def check(self, node: Server) -> None:
        invariants.check(cast(Scene, self), node)
        invariants.former_credentials_are_refused(cast(Scene, self), node)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, proven_once: None) -> None:
    """What is broken here stays so: nobody mends it while a check is patient."""
    for module in (invariants, checks):
        monkeypatch.setattr(module, "eventually", partial(eventually, timeout=0.2))


@pytest.fixture
async def seen(valkey: Server, tmp_path: Path) -> AsyncIterator[Seen]:
    ground = Ground(valkey, tmp_path / "state")
    ground.open()
    ground.policy()
    ground.store()
    for name in ("acme", "beta"):
        ground.tenant(name)
    await ground.settle()
    tenants: list[Json] = [
        {
            "metadata": {
                "namespace": one.key.namespace,
                "name": one.key.name,
                "generation": one.generation,
            },
            "status": dict(one.status),
        }
        for one in await ground.resources.list(Kind.TENANT)
    ]
    files = sorted(ground.folder.glob("secrets/*/*"))
    found = Seen([json.loads(one.read_text()) for one in files], tenants)
    found.home = ground.resources.home
    yield found
    ground.close()


async def test_nothing_is_wrong_where_nothing_was_broken(seen: Seen, valkey: Server) -> None:
    seen.check(valkey)


def a_user_of_nobody(admin: "redis.Redis") -> None:
    admin.execute_command("ACL", "SETUSER", "mt.support.gone.default.a", "on")  # type: ignore[no-untyped-call]


def a_user_less(admin: "redis.Redis") -> None:
    admin.acl_deluser(USER)


def a_key_of_a_tenant_that_is_gone(admin: "redis.Redis") -> None:
    admin.set(keys.limits(TenantId("support", "gone")), "1")


def a_key_of_nobody(admin: "redis.Redis") -> None:
    admin.set("mt:left-behind", "1")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (a_user_of_nobody, "has user mt.support.gone.default.a"),
        (a_user_less, f"lacks user {USER}"),
        (a_key_of_a_tenant_that_is_gone, "belongs to a tenant without a record"),
        (a_key_of_nobody, "belongs to no tenant"),
    ],
)
async def test_users_and_keys_without_an_owner_are_found(
    seen: Seen, valkey: Server, broken: Callable[["redis.Redis"], None], said: str
) -> None:
    with valkey.admin() as admin:
        broken(admin)
    (wrong,) = seen.orphans(valkey)
    assert said in wrong


async def test_a_binding_and_a_record_without_a_tenant_are_found(
    seen: Seen, valkey: Server
) -> None:
    seen.memorytenants = [one for one in seen.memorytenants if one["metadata"]["name"] == "acme"]
    assert sorted(seen.orphans(valkey)) == [
        "Secret support/beta-default is a binding of no tenant",
        "the record of support.beta is Active and there is no such tenant",
    ]


OURS = {"app.kubernetes.io/managed-by": "memtenant"}
GONE = TenantId("support", "gone")


@pytest.mark.parametrize(
    ("plural", "name", "labels"),
    [
        ("cronjobs", cron_job_name("standard"), OURS),
        ("leases", "left-behind", {}),
        ("networkpolicies", instance_name(GONE), OURS),
        ("persistentvolumeclaims", claim_name(GONE), OURS),
        ("secrets", instance_name(GONE), OURS),
        ("secrets", "left-behind", {"memtenant.dev/owner": "tenant-instance"}),
        ("services", instance_name(GONE), {}),
        ("statefulsets", instance_name(GONE), OURS),
        ("statefulsets", instance_name(ACME), OURS),  # which is not Strict
    ],
)
async def test_an_object_without_an_owner_is_found(
    seen: Seen, valkey: Server, plural: str, name: str, labels: dict[str, str]
) -> None:
    seen.plant(plural, name, labels=labels)
    assert seen.orphans(valkey) == [
        f"{belongings.KINDS[plural]} {seen.home}/{name} belongs to nobody"
    ]


async def test_what_belongs_to_tenant_policy_or_installation_is_not_told(
    seen: Seen, valkey: Server
) -> None:
    policy = {"name": "standard", "uid": "uid-1"}
    seen.retentionpolicies = [{"metadata": policy}]
    seen.plant("cronjobs", cron_job_name("standard"), labels=OURS, ownerReferences=[policy])
    seen.plant("leases", "memtenant-operator")
    seen.plant("secrets", "of-people")
    item = next(one for one in seen.memorytenants if one["metadata"]["name"] == "acme")
    item["spec"] = {"isolation": "Strict"}
    for plural in ("networkpolicies", "secrets", "services", "statefulsets"):
        seen.plant(plural, instance_name(ACME), labels=OURS)
    seen.plant("persistentvolumeclaims", claim_name(ACME), labels=OURS)
    assert seen.orphans(valkey) == []
    policy["uid"] = "of-another-of-that-name"
    seen.planted["cronjobs"][0]["metadata"]["ownerReferences"] = [{"uid": "uid-1"}]
    assert len(seen.orphans(valkey)) == 1


def test_a_retained_tenant_owns_its_volume_and_nothing_that_runs() -> None:
    home: dict[str, list[Json]] = {plural: [] for plural in belongings.KINDS}
    for plural, name in (
        ("statefulsets", instance_name(GONE)),
        ("persistentvolumeclaims", claim_name(GONE)),
    ):
        home[plural].append({"metadata": {"namespace": "home", "name": name}})
    record = {GONE: {"isolation": "Strict", "phase": "Retained"}}
    (wrong,) = belongings.without_an_owner(home, belongings.Owners({}, record, ()))
    assert wrong.startswith("StatefulSet ")


def test_every_kind_that_the_role_lets_the_operator_make_is_looked_at() -> None:
    _, role, *_ = (CHART / "templates" / "rbac.yaml").read_text().split("kind: Role\n")
    rules = role.partition("\n---")[0]
    written = set(re.findall(r"resources: \[(\w+)\]", rules)) - {"pods"}  # a StatefulSet's
    assert written == set(belongings.KINDS) - {"secrets"}
    assert "memtenant.secretRule" in rules


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (f"~{keys.records(BETA)}*", "LRANGE"),
        ("allkeys", "LRANGE"),
        (f"%W~{keys.records(BETA)}*", "RPUSH"),
        (f"%R~{keys.access(BETA)}", "HGETALL"),
        (f"~{keys.limits(ACME)}", "HSET"),
        ("+acl", "ACL"),
    ],
)
async def test_an_agent_that_reaches_more_than_its_own_is_found(
    seen: Seen, valkey: Server, rule: str, told: str
) -> None:
    with valkey.admin() as admin:
        admin.execute_command("ACL", "SETUSER", USER, "+@all", "-acl", rule)
    with pytest.raises(AssertionError, match=rf"\('{told}'.*answered"):
        seen.check(valkey)


async def test_an_agent_of_a_ready_tenant_that_is_not_let_in_is_found(
    seen: Seen, valkey: Server
) -> None:
    with valkey.admin() as admin:
        admin.execute_command("ACL", "SETUSER", USER, "resetpass", ">another")
    with pytest.raises(redis.AuthenticationError):
        seen.check(valkey)


async def test_an_agent_that_may_only_read_and_was_declared_to_write_is_found(
    seen: Seen, valkey: Server
) -> None:
    with valkey.admin() as admin:
        admin.execute_command("ACL", "SETUSER", USER, "clearselectors", "-rpush")
    with pytest.raises(AssertionError, match=f"lets {USER} write nothing"):
        seen.check(valkey)
    acme = next(one for one in seen.memorytenants if one["metadata"]["name"] == "acme")
    acme["spec"] = {"agents": [{"name": "default", "access": "ReadOnly"}]}
    seen.check(valkey)
    del acme["spec"]
    acme["status"]["access"]["mode"] = "OverQuota"
    seen.check(valkey)


def test_an_instance_that_asks_for_no_password_is_found(start_server: StartServer) -> None:
    server = start_server(Flavour.VALKEY_9)
    instance = Instance(server.host, server.port, server.admin_password)
    invariants.nobody_is_let_in_without_a_password(instance)
    with server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "default", "on", "nopass")
    with pytest.raises(AssertionError, match="has no password"):
        invariants.nobody_is_let_in_without_a_password(instance)


async def test_a_former_credential_that_lets_in_is_found(seen: Seen, valkey: Server) -> None:
    former = json.loads(json.dumps(seen.secret("support", "acme-default")))
    former["data"]["password"] = "Zm9ybWVyLXBhc3N3b3Jk"  # former-password
    seen.former = [former]
    seen.check(valkey)
    with valkey.admin() as admin:
        admin.execute_command("ACL", "SETUSER", USER, ">former-password")
    with pytest.raises(AssertionError, match=re.escape(f"a former version: {USER}")):
        seen.check(valkey)


# -- what a store is whole with, and instances ---------------------------------------------------


def test_functions_and_replicas_that_are_missing_are_found(valkey: Server) -> None:
    def lacking(replicas: int) -> list[str]:
        return list(stores.lacking([valkey], replicas))

    library = libraries()[0]
    with valkey.admin() as admin:
        for one in libraries():
            admin.function_load(one.code, replace=True)
        assert lacking(0) == []
        admin.function_delete(library.name)
    assert lacking(0) == [f"{library.name} on {valkey.endpoint}"]
    assert "1 replicas that follow a primary: there are 0" in lacking(1)


async def test_what_belongs_to_others_on_an_instance_is_found(seen: Seen, valkey: Server) -> None:
    instance = Instance(valkey.host, valkey.port, valkey.admin_password)
    with valkey.admin() as admin:
        admin.execute_command("ACL", "SETUSER", ADMIN_USER, "reset", "on", "~*", "+@all")
        admin.execute_command("ACL", "SETUSER", ADMIN_USER, f">{valkey.admin_password}")
    found = invariants.orphans(cast(Scene, seen), instances={ACME: instance})
    assert f"{valkey.endpoint} has user {OTHER}" in found
    assert any(f"{{{BETA}}}" in one and "without a record" in one for one in found)
    assert not any(USER in one or f"{{{ACME}}}" in one for one in found)


async def test_a_strict_tenants_agent_that_a_shared_store_lets_in_is_found(
    seen: Seen, valkey: Server
) -> None:
    data = seen.secret("support", "acme-default")["data"]
    policy = json.loads(b64decode(data["policy.json"]))
    strict = json.dumps(policy | {"isolation": "Strict"}).encode()
    data["policy.json"] = b64encode(strict).decode()
    with pytest.raises(AssertionError, match=f"lets in {USER}, whose memory is elsewhere"):
        seen.check(valkey)


# -- what agents were promised ---------------------------------------------------------------------


def agent(tmp_path: Path, *acknowledged: str, durable: bool = True, **parts: Any) -> Agent:
    there = Agent(("support", "acme"), "triage", tmp_path, durable=durable, audited=False)
    there.acknowledged = list(acknowledged)
    for name, value in parts.items():
        setattr(there, name, value)
    return there


def wrong(check: str, one: Agent, *stored: str) -> str:
    """What the check says of a world of this agent, of whom this is stored."""
    agents = Agents([one])
    try:
        world = SimpleNamespace(
            agents=SimpleNamespace(
                all=[one],
                surprises=[],
                stored=lambda _: list(stored),
                unserved_since=agents.unserved_since,
                stop=agents.stop,
            )
        )
        checks.CHECKS[check](cast(World, world))
    except AssertionError as error:
        return str(error)
    finally:
        agents.close()
    return ""


def test_an_acknowledged_append_that_is_lost_or_there_twice_is_found(tmp_path: Path) -> None:
    there = "what was acknowledged is there"
    assert wrong(there, agent(tmp_path, "a", "b"), "a", "b", "c") == ""
    assert "lost 1: ['b']" in wrong(there, agent(tmp_path, "a", "b"), "a")
    assert "stored twice: ['a']" in wrong(there, agent(tmp_path, "a"), "a", "a")
    told = agent(tmp_path, "a", forgotten={"a"})
    assert "lost 1" in wrong(there, told), "nobody may tell a Replicated tenant of a loss"


def test_what_an_async_tenant_lost_and_was_not_told_is_found(tmp_path: Path) -> None:
    there = "what was acknowledged is there"
    assert "never told" in wrong(there, agent(tmp_path, "a", durable=False))
    assert wrong(there, agent(tmp_path, "a", durable=False, rewound=1)) == ""
    assert wrong(there, agent(tmp_path, "a", durable=False, forgotten={"a"})) == ""


@pytest.mark.parametrize(("unsure", "violations"), [(False, 1), (True, 0)])
def test_a_durable_agent_may_miss_only_what_was_never_acknowledged(
    tmp_path: Path, unsure: bool, violations: int
) -> None:
    one = agent(tmp_path, unsure=unsure)
    one.told(HistoryRewound("the server lost writes"))
    assert len(one.violations) == violations


def test_an_agent_that_is_not_served_or_was_told_nonsense_is_found(tmp_path: Path) -> None:
    works, later = "every agent works", float("inf")
    assert wrong(works, agent(tmp_path, wrote=later, read=later)) == ""
    assert "triage" in wrong(works, agent(tmp_path))
    assert "triage" in wrong(works, agent(tmp_path, read=later)), "it may only read"
    told = agent(tmp_path, wrote=later, read=later, violations=["was told so"])
    assert wrong(works, told) != ""
