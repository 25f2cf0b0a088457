"""What must hold whenever the operator has come to rest, whatever happened before."""

import hashlib
import http.client
import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import redis

from memtenant.rules.acl import parse_user
from memtenant.stores.slots import epoch_keys
from memtenant.tenancy import keys
from memtenant.tenancy.binding import BINDING_SECRET_TYPE, Binding
from memtenant.tenancy.identity import TenantId, agent_user
from memtenant.tenancy.policy import Isolation
from tests.e2e import belongings
from tests.e2e.instances import Instance
from tests.e2e.scene import Scene, eventually, is_ready, login
from tests.e2e.witness import Json
from tests.support.servers import Server

_OURS = "app.kubernetes.io/managed-by"
_OF_THE_INSTALLATION = {
    keys.INSTALLATION_QUEUE,
    keys.STORE_AUDITED,
    keys.STORE_EPOCH,
    keys.STORE_OWNER,
    keys.STORE_SEALER,
    keys.STORE_TOLD,
    *epoch_keys().values(),
}


Node = Server | Instance
Instances = Mapping[TenantId, Instance]
Writer = tuple[TenantId, str]


def check(scene: Scene, *nodes: Server, instances: Instances = MappingProxyType({})) -> None:
    """Everything below, on these nodes, all of one store, and on the instances of Strict tenants.

    Waits for rest: the repair of a node may come a moment after a tenant says Ready.
    """

    def found() -> list[str]:
        return orphans(scene, *nodes, instances=instances)

    eventually(lambda: not found(), found)
    ready = [item for item in scene.witness.all("memorytenants") if _of(scene, item)]
    ready = [item for item in ready if is_ready(item)]
    bindings = [binding for item in ready for binding in _bindings(scene, item)]
    writers = {writer for item in ready for writer in _writers(item)}
    strict = [one for one in bindings if one.policy.isolation is Isolation.STRICT]
    shared = [one for one in bindings if one.policy.isolation is not Isolation.STRICT]
    for node in nodes:
        _agents_reach_their_own_keys_alone(shared, writers, node)
        _are_shut_out(strict, node)
    for tenant, instance in instances.items():
        own = [one for one in strict if one.tenant == tenant]
        _agents_reach_their_own_keys_alone(own, writers, instance)
        _are_shut_out([one for one in bindings if one not in own], instance)
        nobody_is_let_in_without_a_password(instance)
    no_secret_is_shown(scene)


def former_credentials_are_refused(scene: Scene, *nodes: Node) -> None:
    """Waits until no password of a binding that ever was lets in, but those that the operator's
    records hold now."""
    valid = {
        (agent_user(TenantId.parse(fields["tenantId"]), name, slot), credential["password"])
        for fields, credentials in _records(scene)
        if fields["phase"] == "Active"
        for name, principal in credentials.items()
        for slot, credential in principal["slots"].items()
    }
    former = {}
    for change in scene.witness.since(0):
        data = _data(change.object) if change.plural == "secrets" else {}
        if data.get("provider") == b"memtenant" and change.name[0] in scene.namespaces:
            login_of = data.get("username", b"").decode(), data.get("password", b"").decode()
            former[login_of] = f"{'/'.join(change.name)}, a former version: {login_of[0]}"
    for user, password in former.keys() - valid:
        for node in nodes:
            eventually(
                lambda node=node, user=user, password=password: not _lets_in(node, user, password),  # type: ignore[misc]
                f"{node.endpoint} lets in {former[user, password]}",
            )


def _lets_in(node: Node, user: str, password: str) -> bool:
    with node.client(user, password) as client:
        try:
            client.execute_command("ACL", "WHOAMI")
        except redis.exceptions.AuthenticationError:
            return False
    return True


def orphans(scene: Scene, *nodes: Server, instances: Instances = MappingProxyType({})) -> list[str]:
    """What exists without an owner, or is missing, in words."""
    tenants = {TenantId(*_name(item)): item for item in scene.witness.all("memorytenants")}
    records = {
        TenantId.parse(fields["tenantId"]): (fields, credentials)
        for fields, credentials in _records(scene)
    }
    found = []
    for tenant, (fields, _) in records.items():
        if fields["phase"] == "Active" and tenant not in tenants:
            found.append(f"the record of {tenant} is Active and there is no such tenant")
        if fields["phase"] == "Deleting":
            found.append(f"the record of {tenant} is still in deletion")
    shared = {
        tenant: record for tenant, record in records.items() if record[0]["isolation"] != "Strict"
    }
    places: list[tuple[Node, dict[TenantId, tuple[Json, Json]]]] = [(one, shared) for one in nodes]
    places += [(one, {tenant: records[tenant]}) for tenant, one in instances.items()]
    for node, owners in places:
        found += _users_without_an_owner(owners, node)
        if node.upstream is None:
            found += _keys_without_an_owner(owners, node)
    found += _bindings_without_an_owner(scene, tenants)
    found += _objects_without_an_owner(scene, tenants, records)
    return found


def _users_without_an_owner(
    records: dict[TenantId, tuple[Json, Json]], node: Node
) -> Iterator[str]:
    wanted = {
        agent_user(tenant, name, slot)
        for tenant, (fields, credentials) in records.items()
        if fields["phase"] == "Active"
        for name, principal in credentials.items()
        for slot in principal["slots"]
    }
    with node.admin() as admin:
        names = [name if isinstance(name, str) else name.decode() for name in admin.acl_users()]
    there = {name for name in names if parse_user(name) is not None}
    yield from (f"{node.endpoint} lacks user {name}" for name in sorted(wanted - there))
    yield from (f"{node.endpoint} has user {name}" for name in sorted(there - wanted))


def _keys_without_an_owner(
    records: dict[TenantId, tuple[Json, Json]], primary: Node
) -> Iterator[str]:
    with primary.admin() as admin:
        for key in sorted(set(admin.scan_iter("mt:*", count=1000))):
            owner = keys.tenant_of(key)
            if owner is None:
                if key.decode() not in _OF_THE_INSTALLATION:
                    yield f"key {key!r} belongs to no tenant"
            elif owner not in records:
                yield f"key {key!r} belongs to a tenant without a record"


def _bindings_without_an_owner(scene: Scene, tenants: dict[TenantId, Json]) -> Iterator[str]:
    for secret in scene.witness.all("secrets"):
        namespace, name = _name(secret)
        ours = secret["metadata"].get("labels", {}).get(_OURS) == "memtenant"
        is_binding = secret.get("type") == BINDING_SECRET_TYPE
        if namespace not in scene.namespaces or not (ours and is_binding):
            continue
        binding = Binding.from_mapping(_data(secret))
        item = tenants.get(binding.tenant)
        told = [] if item is None else item.get("status", {}).get("bindings", [])
        if name not in [one["name"] for one in told]:
            yield f"Secret {namespace}/{name} is a binding of no tenant"


def _objects_without_an_owner(
    scene: Scene, tenants: dict[TenantId, Json], records: dict[TenantId, tuple[Json, Json]]
) -> list[str]:
    try:
        home = scene.at_home()
    except (OSError, http.client.HTTPException) as error:
        return [f"{scene.home} cannot be looked at: {error}"]
    policies = scene.witness.all("retentionpolicies")
    said = {tenant: fields for tenant, (fields, _) in records.items()}
    return list(belongings.without_an_owner(home, belongings.Owners(tenants, said, policies)))


def _are_shut_out(bindings: list[Binding], node: Node) -> None:
    for binding in bindings:
        let_in = _lets_in(node, binding.username, binding.password)
        assert not let_in, f"{node.endpoint} lets in {binding.username}, whose memory is elsewhere"


def nobody_is_let_in_without_a_password(instance: Instance) -> None:
    """The default user is off, however often the instance was made anew."""
    with instance.client("default", "") as stranger:
        try:
            stranger.ping()
        except redis.exceptions.AuthenticationError:
            return
    raise AssertionError(f"{instance.endpoint} lets in who has no password")


def _agents_reach_their_own_keys_alone(
    bindings: list[Binding], writers: set[Writer], node: Node
) -> None:
    """Two others' are tried by each agent, and everybody's by some."""
    probes = list({_probe(binding): binding.tenant for binding in bindings}.items())
    for binding in bindings:
        at = probes.index((_probe(binding), binding.tenant))
        others = [*probes[at + 1 :], *probes[:at]]
        is_writer = (binding.tenant, binding.agent) in writers
        _agent_reaches_its_own_keys_alone(binding, node, others[:2], is_writer=is_writer)


def _probe(binding: Binding) -> str:
    """A key of the agent's own: under Strict isolation no other agent of the tenant reaches it."""
    scope = f"{binding.agent}_" if binding.policy.isolation is Isolation.STRICT else "e2e"
    return f"{keys.records(binding.tenant)}{scope}:probe:l"


def _agent_reaches_its_own_keys_alone(
    binding: Binding, node: Node, others: list[tuple[str, TenantId]], *, is_writer: bool
) -> None:
    """A Ready tenant's credentials log in, read, write where they may, and see no neighbour."""
    own = _probe(binding)
    with login(binding, node) as agent:
        writes = _reads(agent, own) and node.upstream is None
        if writes:
            is_let = _writes(agent, own)
            assert is_let or not is_writer, f"{node.endpoint} lets {binding.username} write nothing"
        for other, tenant in others:
            for command in (
                ("LRANGE", other, "0", "-1"),
                ("RPUSH", other, "x"),
                ("HGETALL", keys.access(tenant)),
            ):
                _is_denied(agent, *command)
        _is_denied(agent, "HSET", keys.limits(binding.tenant), "memory", "1")
        _is_denied(agent, "ACL", "LIST")
    if writes:
        with node.admin() as admin:
            admin.delete(own)


def _reads(agent: "redis.Redis", key: str) -> bool:
    """Whether the key is on the node; another one of a Cluster says on which it is."""
    try:
        agent.lrange(key, 0, -1)
    except redis.exceptions.MovedError:
        return False
    return True


def _writes(agent: "redis.Redis", own: str) -> bool:
    """Whether it may."""
    try:
        agent.rpush(own, "x")
    except redis.exceptions.NoPermissionError:
        return False
    assert agent.lrange(own, -1, -1) == [b"x"]
    return True


def _is_denied(agent: "redis.Redis", *command: str) -> None:
    try:
        answer = agent.execute_command(*command)  # type: ignore[no-untyped-call]
    except redis.exceptions.NoPermissionError:
        return
    raise AssertionError(f"{command} answered {answer!r}")


# --- secrets ---------------------------------------------------------------------------------


def no_secret_is_shown(scene: Scene) -> None:
    """No password, hash of one, or key that ever was is in a log, Event, object or argv."""
    texts = shown(scene)
    for secret in secrets_that_were(scene):
        for form in _forms(secret):
            for where, text in texts.items():
                assert form not in text, f"{where} shows a secret of {len(secret)} bytes"
    for text in texts.values():
        # The mask hides what has the form of a secret: something tried to log one.
        assert "[masked]" not in text, text[text.index("[masked]") - 1000 :][:1200]


def shown(scene: Scene) -> dict[str, str]:
    """Everything that people read, by where it is: all versions of all objects but Secrets."""
    texts = {}
    for process in (*scene.replicas, *scene.sealers):
        texts[f"log of {process.identity}"] = process.log.read_text(errors="replace")
        texts[f"argv of {process.identity}"] = json.dumps(process.argv)
    for plural in ("events", "memorytenants", "memorystores", "retentionpolicies", "leases"):
        changes = [c.object for c in scene.witness.since(0) if c.plural == plural]
        texts[plural] = "\n".join({text for item in changes for text in _strings(item)})
    metadata = [c.object["metadata"] for c in scene.witness.since(0) if c.plural == "secrets"]
    texts["metadata of Secrets"] = "\n".join({t for item in metadata for t in _strings(item)})
    return texts


def _strings(value: Any) -> Iterator[str]:
    """Every text in an object. Each is searched once, however many versions have it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


def secrets_that_were(scene: Scene) -> set[bytes]:
    """Every password and key in any version of any Secret of the scene."""
    found = {value for value in scene.secrets_made if len(value) >= 8}
    found |= {server.admin_password.encode() for server in scene.servers}
    for change in scene.witness.since(0):
        if change.plural != "secrets" or change.name[0] not in (scene.home, *scene.namespaces):
            continue
        for name, value in _data(change.object).items():
            if name.endswith("keyring.json") or name == "credentials.json":
                found |= set(_leaves(_json_of(value)))
            elif name in ("password", "root", "sentinelPassword"):
                found.add(value)
    return found


def _json_of(value: bytes) -> Any:
    try:
        return json.loads(value or b"{}")
    except ValueError:
        return {}  # a test edited it


def _leaves(value: Any, name: str = "") -> Iterator[bytes]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    elif name == "password":
        yield value.encode()
    elif name in ("key", "wrapped", "nameKey", "tokenKey", "auditKey"):
        yield b64decode(value)


def _forms(secret: bytes) -> set[str]:
    encoded = {b64encode(secret), urlsafe_b64encode(secret)}
    forms = {secret.hex(), secret.hex().upper(), hashlib.sha256(secret).hexdigest()}
    forms |= {form.decode().rstrip("=") for form in encoded}
    try:
        text = secret.decode().strip()
    except UnicodeDecodeError:
        return forms
    return forms | ({text} if len(text) >= 8 else set())


# --- reading ---------------------------------------------------------------------------------


def _records(scene: Scene) -> Iterator[tuple[Json, Json]]:
    for secret in scene.witness.all("secrets"):
        namespace, name = _name(secret)
        if namespace == scene.home and name.endswith("-keyring"):
            data = _data(secret)
            yield json.loads(data["record.json"]), json.loads(data["credentials.json"])


def _bindings(scene: Scene, item: Json) -> Iterator[Binding]:
    namespace, name = _name(item)
    for told in item["status"]["bindings"]:
        binding = scene.binding(namespace, name, told["agent"])
        assert binding.username == told["username"], (binding.username, told)
        yield binding


def _writers(item: Json) -> Iterator[Writer]:
    """The tenant's agents whom neither their access nor a quota keeps from writing."""
    if item["status"]["access"]["mode"] != "ReadWrite":
        return
    declared = item.get("spec", {}).get("agents", [])
    readers = {one["name"] for one in declared if one.get("access") == "ReadOnly"}
    for told in item["status"]["bindings"]:
        if told["agent"] not in readers:
            yield TenantId(*_name(item)), told["agent"]


def _of(scene: Scene, item: Json) -> bool:
    return item["metadata"]["namespace"] in scene.namespaces


def _name(item: Json) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _data(secret: Json) -> dict[str, bytes]:
    return {name: b64decode(value) for name, value in secret.get("data", {}).items()}
