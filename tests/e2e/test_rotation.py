"""Credentials and keys turn under open connections; what is old ends, and what is lost is told."""

import random
import secrets
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from memtenant import Message
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.memory.source import BindingSource
from memtenant.sync import Tenant
from memtenant.tenancy import keys
from memtenant.tenancy.binding import Binding
from tests.e2e import invariants
from tests.e2e.operator import QUICK_LEASE
from tests.e2e.remembering import recall, remember
from tests.e2e.scene import Scene, eventually, login, works
from tests.memory.bindings import mount
from tests.support.servers import Options, Server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def scene(stage: Callable[[], Scene]) -> Scene:
    scene = stage()
    server = scene.server(Options(appendonly=True))
    scene.server(Options(appendonly=True), replica_of=server)
    scene.policy()
    scene.store(server)
    scene.operator(kubelet_lag="3", credential_grace="10", key_grace="2", **QUICK_LEASE)
    return scene


@pytest.fixture
def nodes(scene: Scene) -> list[Server]:
    return scene.servers


def rotate(scene: Scene, team: str, name: str, token: str) -> None:
    annotation = f"memtenant.dev/rotate={token}"
    scene.cluster.kubectl("annotate", "mtenant", name, "-n", team, "--overwrite", annotation)


def new_binding(
    scene: Scene, team: str, name: str, old: Binding, agent: str = "default"
) -> Binding:
    """The agent's binding once it shows another credential."""

    def differs() -> bool:
        found = scene.binding_or_none(team, name, agent)
        return found is not None and found.password != old.password

    eventually(differs, "a new credential in the binding")
    return scene.binding(team, name, agent)


def test_an_open_connection_survives_the_overlap_and_no_longer(
    scene: Scene, nodes: list[Server]
) -> None:
    team = scene.team()
    agents = [{"name": "writer"}, {"name": "reader", "access": "ReadOnly"}]
    scene.tenant(
        team, "acme", agents=agents, credentials={"minOverlap": "3s"}, deletionPolicy="Delete"
    )
    scene.wait_ready(team, "acme")
    old = scene.binding(team, "acme", "writer")
    old_reader = scene.binding(team, "acme", "reader")
    busy = [login(old, node) for node in nodes]
    for connection in busy:
        connection.exists(f"mt:{{{team}.acme}}:u")

    rotate(scene, team, "acme", "first")
    new = new_binding(scene, team, "acme", old, "writer")

    assert (new.username, new.version > old.version) != (old.username, True)
    assert all(works(new, node) for node in nodes)
    assert all(works(old, node) for node in nodes), "both work while they overlap"
    for connection in busy:
        connection.exists(f"mt:{{{team}.acme}}:u")
    # The reader is idle and goes first; the writer stays connected and goes at the grace's end.
    eventually(lambda: not any(works(old_reader, node) for node in nodes), "idle: revoked")
    eventually(lambda: not any(works(old, node) for node in nodes), "busy: revoked after all")
    for connection in busy:
        with pytest.raises(redis.RedisError):
            # Without a retry: the client would log in again, in vain.
            connection.exists(f"mt:{{{team}.acme}}:u")
        connection.close()
    assert all(works(new, node) for node in nodes)
    scene.wait_ready(team, "acme")
    invariants.check(scene, *nodes)


def test_agents_of_a_minimal_tenant_turn_together(scene: Scene, nodes: list[Server]) -> None:
    team = scene.team()
    scene.tenant(
        team,
        "bots",
        isolation="Minimal",
        agents=[{"name": "one"}, {"name": "two"}],
        credentials={"minOverlap": "1s"},
        deletionPolicy="Delete",
    )
    scene.wait_ready(team, "bots")
    old = scene.binding(team, "bots", "one")

    rotate(scene, team, "bots", "once")

    new = new_binding(scene, team, "bots", old, "one")
    eventually(lambda: scene.binding(team, "bots", "two").username == new.username, "both turned")
    eventually(lambda: not any(works(old, node) for node in nodes), "the old one is revoked")
    assert works(scene.binding(team, "bots", "two"))


def test_credentials_rotate_by_themselves_and_a_version_never_repeats(scene: Scene) -> None:
    team = scene.team()
    scene.tenant(
        team,
        "acme",
        credentials={"rotateEvery": "5s", "minOverlap": "1s"},
        deletionPolicy="Delete",
    )
    scene.wait_ready(team, "acme")
    seen = [scene.binding(team, "acme")]
    for _ in range(2):
        seen.append(new_binding(scene, team, "acme", seen[-1]))
        assert works(seen[-1])
    versions = [binding.version for binding in seen]
    assert versions == sorted(set(versions))
    assert len({binding.password for binding in seen}) == len(seen)
    scene.tenant(team, "acme", credentials={"minOverlap": "1s"}, deletionPolicy="Delete")
    scene.wait_ready(team, "acme")
    last = scene.binding(team, "acme")
    eventually(lambda: not any(works(old) for old in seen if old != last), "old ones are revoked")
    scene.delete_tenant(team, "acme")
    scene.wait_gone(team, "acme")


def keyed_tenant(scene: Scene, team: str, name: str, key: bytes) -> Binding:
    """A Ready tenant under a root key of its own, with one message."""
    scene.secret(team, f"{name}-key", {"root": key})
    scene.tenant(
        team,
        name,
        encryption={"mode": "Enabled", "keySecretRef": {"name": f"{name}-key", "key": "root"}},
        deletionPolicy="Delete",
    )
    scene.wait_ready(team, name)
    binding = scene.binding(team, name)
    with login(binding) as agent:
        remember(agent, binding, "under the first key")
    return binding


class Agent(threading.Thread):
    """Writes and reads by the SDK all the time, with a binding that its kubelet hands over late."""

    def __init__(self, scene: Scene, team: str, name: str, folder: Path) -> None:
        super().__init__()
        self._scene, self._team, self._name = scene, team, name
        self._folder = folder / name
        self._ending = threading.Event()
        self._mounting = threading.Lock()
        self._kubelet = threading.Thread(target=self._follow)
        self.texts: list[str] = []
        self.problems: list[str] = []

    def mounted(self) -> Path:
        """The folder, as the Secret is now."""
        with self._mounting:
            return mount(self._folder, self._scene.binding(self._team, self._name))

    def _follow(self) -> None:
        """In a thread of its own: no kubelet waits for an agent's call."""
        while not self._ending.wait(1):
            self.mounted()

    def run(self) -> None:
        with Tenant(BindingSource(self.mounted())) as tenant:
            self._kubelet.start()
            while not self._ending.is_set():
                number = len(self.texts)
                chat = tenant.conversation("s", user=f"user-{number // 5}")
                try:
                    chat.append(Message.human(str(number)))
                    assert chat.messages()
                except Exception as error:  # noqa: BLE001 -- whatever it is, it is a failed call
                    self.problems.append(repr(error))
                self.texts.append(str(number))
                time.sleep(0.05)

    def end(self) -> None:
        self._ending.set()
        self.join()
        self._kubelet.join()


def test_a_changed_key_secret_turns_the_key_while_agents_work_and_the_operator_is_killed(
    scene: Scene, tmp_path: Path
) -> None:
    team = scene.team()
    old = keyed_tenant(scene, team, "acme", secrets.token_bytes(32))
    agent = Agent(scene, team, "acme", tmp_path)
    agent.start()
    try:
        scene.secret(team, "acme-key", {"root": b64encode(secrets.token_bytes(32)) + b"\n"})
        for _ in range(3):
            time.sleep(random.uniform(1, 4))
            scene.leading().kill()
        eventually(lambda: is_turned(scene, team, "acme", 2), "version 1 is destroyed")
        agent.mounted()
        time.sleep(1.5)  # an agent looks at its binding once a second
    finally:
        agent.end()

    assert agent.problems == []
    assert len(agent.texts) > 20
    before = AgentKeyring.from_json(old.keyring)
    new = scene.binding(team, "acme")
    after = AgentKeyring.from_json(new.keyring)
    assert [kek.version for kek in after.keks] == [after.active] == [2]
    assert after.name_key.secret == before.name_key.secret, "or every key would be renamed"
    assert new.password == old.password
    tenant = new.tenant
    with scene.servers[0].admin() as admin:
        stored = [admin.hget(name, "dek") for name in admin.scan_iter(keys.dek(tenant, "*"))]
        assert {one[:4] for one in stored if one is not None} == {(2).to_bytes(4, "big")}
        assert admin.hget(keys.limits(tenant), "least_kek") == b"2"
        assert admin.hget(keys.limits(tenant), "replicas") == b"1"
    with login(new) as connection:
        assert recall(connection, new) == ["under the first key"]
    with Tenant(BindingSource(agent.mounted())) as memory:
        users = range(0, len(agent.texts), 5)
        found = [memory.conversation("s", user=f"user-{n // 5}").messages() for n in users]
    assert [one.text for messages in found for one in messages] == agent.texts
    invariants.check(scene, *scene.servers)


def is_turned(scene: Scene, team: str, name: str, version: int) -> bool:
    status = (scene.seen(team, name) or {})["status"]
    return status.get("keyVersion") == version and "keys" not in status


def test_a_vanished_key_secret_stops_nobody_and_no_key_takes_its_place(scene: Scene) -> None:
    team = scene.team()
    key = secrets.token_bytes(32)
    old = keyed_tenant(scene, team, "acme", key)

    scene.cluster.kubectl("delete", "secret", "acme-key", "-n", team)

    message = scene.wait_condition(team, "acme", "KeyAvailable", "False", "KeySecretMissing")
    assert f"{team}/acme-key" in message
    assert scene.ready(team, "acme")
    assert scene.binding(team, "acme") == old
    # Whatever else changes meanwhile still happens.
    rotate(scene, team, "acme", "meanwhile")
    new = new_binding(scene, team, "acme", old)
    assert new.keyring.replace(b"", b"") != b""
    with login(new) as agent:
        assert recall(agent, new) == ["under the first key"]

    scene.secret(team, "acme-key", {"root": key.hex().encode()})

    scene.wait_condition(team, "acme", "KeyAvailable", "True")
    found = scene.seen(team, "acme")
    assert found is not None
    assert found["status"]["keyVersion"] == 1


def test_an_invalid_key_is_refused_without_showing_a_byte_of_it(scene: Scene) -> None:
    team = scene.team()
    wrong = secrets.token_hex(31).encode()
    scene.secret(team, "bad-key", {"root": wrong, "short": wrong[:20]})
    for key in ("root", "short", "missing"):
        ref = {"name": "bad-key", "key": key}
        scene.tenant(team, f"with-{key}", encryption={"mode": "Enabled", "keySecretRef": ref})
    good = keyed_tenant(scene, team, "acme", secrets.token_bytes(32))

    scene.secret(team, "acme-key", {"root": wrong})

    for name in ("with-root", "with-short", "with-missing", "acme"):
        message = scene.wait_condition(team, name, "Stalled", "True", "KeySecretInvalid")
        assert "32 bytes" in message or "missing" in message
    assert scene.binding_or_none(team, "with-root", "default") is None
    assert scene.binding(team, "acme") == good
    assert works(good), "agents go on with what they have"
    text = "".join(invariants.shown(scene).values())
    chunks = {wrong[at : at + 8].decode() for at in range(len(wrong) - 8)}
    assert not [chunk for chunk in chunks if chunk in text]

    scene.secret(team, "bad-key", {"root": secrets.token_bytes(32)})
    scene.wait_ready(team, "with-root")
