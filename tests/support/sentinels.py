"""Real Sentinels over a real primary and its replicas.

with watched(Flavour.VALKEY_9) as watched:
    watched.primary.kill9()
    watched.wait_for_failover()
"""

import contextlib
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support import processes, servers
from tests.support.certificates import Authority
from tests.support.servers import Flavour, Options, Server

MASTER = "main"
_QUORUM = 2
_PATIENT, _HURRIED = "20000", "1000"
"""Milliseconds without an answer after which a Sentinel takes a server for dead. A busy machine is
silent for a second or two."""


@dataclass(slots=True)
class Sentinel:
    """One Sentinel process; without a password it lets anybody in."""

    flavour: Flavour
    primary: Server
    password: str
    by_name: bool = False
    port: int = 0
    folder: Path = field(default_factory=Path)
    down_after: str = _PATIENT
    _process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    def client(self, username: str = "default", password: str | None = None) -> "redis.Redis":
        """A client, as the administrator or as somebody else, without retries."""
        ca_file = str(self.primary.ca_file) if self.primary.ca_file else None
        return redis.Redis(
            "127.0.0.1",
            self.port,
            username=username,
            password=self.password if password is None else password,
            ssl=ca_file is not None,
            ssl_ca_certs=ca_file,
            socket_timeout=servers.PATIENCE,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
            protocol=2,
        )

    def start(self) -> None:
        """Start as if it were new: it knows the primary that it was told at first."""
        self.folder = Path(tempfile.mkdtemp(prefix="memtenant-sentinel-"))
        self.port = self.port or processes.free_port()
        config = self.folder / "sentinel.conf"
        config.touch(mode=0o600)
        config.write_text("\n".join(self._lines()) + "\n")
        self.start_again()

    def start_again(self) -> None:
        """Start with all that it knew when it ended."""
        config = self.folder / "sentinel.conf"
        log = self.folder / "sentinel.log"
        self._process = processes.spawn(
            [str(self.flavour.binary()), str(config), "--sentinel"],
            log=log,
            cwd=self.folder,
            new_session=True,
        )
        processes.wait_until(self._answers, what="a Sentinel", child=self._process, log=log)

    def kill9(self) -> None:
        """Crash it."""
        assert self._process is not None
        processes.kill(self._process)

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay open and get no answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def discard(self) -> None:
        """Kill it and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self.kill9()
        shutil.rmtree(self.folder, ignore_errors=True)

    def take_for_dead_after(self, milliseconds: str) -> None:
        """Be so patient from now on, and when it is started anew."""
        self.down_after = milliseconds
        if self._process is not None and self._process.poll() is None:
            words = ("SENTINEL", "SET", MASTER, "down-after-milliseconds", milliseconds)
            with self.client() as client:
                client.execute_command(*words)

    def told(self) -> tuple[str, int]:
        """Where it says that the primary is."""
        with self.client() as client:
            host, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return host.decode(), int(port)

    def knows(self, replicas: int, sentinels: int) -> bool:
        """Whether it found that many of each."""
        with self.client() as client:
            client.response_callbacks.clear()
            found = client.execute_command("SENTINEL", "MASTER", MASTER)
        facts = dict(zip(found[::2], found[1::2], strict=True))
        return (
            int(facts[b"num-slaves"]) >= replicas
            and int(facts[b"num-other-sentinels"]) >= sentinels
        )

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def _lines(self) -> list[str]:
        at = f"{'localhost' if self.by_name else self.primary.host} {self.primary.port}"
        user, password = self.primary.peer
        names = ("resolve-hostnames", "announce-hostnames") if self.by_name else ()
        lines = [
            "bind 127.0.0.1",
            f"dir {self.folder}",
            *(f"sentinel {setting} yes" for setting in names),
            f"sentinel monitor {MASTER} {at} {_QUORUM}",
            f"sentinel auth-user {MASTER} {user}",
            f"sentinel auth-pass {MASTER} {password}",
            f"sentinel down-after-milliseconds {MASTER} {self.down_after}",
            f"sentinel failover-timeout {MASTER} 4000",
            f"sentinel parallel-syncs {MASTER} 2",
        ]
        if self.password:
            lines += [f"requirepass {self.password}", f"sentinel sentinel-pass {self.password}"]
        if self.primary.ca_file is None:
            return [*lines, f"port {self.port}"]
        there = self.primary.folder
        return [
            *lines,
            "port 0",
            f"tls-port {self.port}",
            f"tls-cert-file {there / 'server.crt'}",
            f"tls-key-file {there / 'server.key'}",
            f"tls-ca-cert-file {there / 'ca.crt'}",
            "tls-auth-clients no",
            "tls-replication yes",
        ]


@dataclass(slots=True)
class Watched:
    """A primary, its replicas, and the Sentinels that watch them."""

    nodes: tuple[Server, ...]
    sentinels: tuple[Sentinel, ...]

    @property
    def endpoints(self) -> list[str]:
        """Of all Sentinels."""
        return [one.endpoint for one in self.sentinels]

    @property
    def password(self) -> str:
        """Of the Sentinels."""
        return self.sentinels[0].password

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        """Within it what is down, be it a node or a Sentinel, is soon taken for that."""
        for one in self.sentinels:
            one.take_for_dead_after(_HURRIED)
        try:
            yield
        finally:
            for one in self.sentinels:
                one.take_for_dead_after(_PATIENT)

    @property
    def primary(self) -> Server:
        """The node that the first Sentinel calls the primary."""
        port = self.sentinels[0].told()[1]
        return next(node for node in self.nodes if node.port == port)

    def settle(self) -> Server:
        """Wait until all Sentinels name the same primary, and every other node follows it; that
        one."""
        told: set[int] = set()

        def is_settled() -> bool:
            nonlocal told
            try:
                told = {one.told()[1] for one in self.sentinels}
                followed = {
                    node.port if (upstream := node.upstream) is None else upstream
                    for node in self.nodes
                }
            except redis.RedisError:
                return False  # one is away, or is cut off by Sentinels that change its role
            return len(told) == 1 and followed == told

        processes.wait_until(is_settled, what="nodes that follow one primary")
        return next(node for node in self.nodes if node.port in told)

    def wait_for_failover(self, former: Server) -> Server:
        """Wait until another node is the primary, for all Sentinels, which hurry; that one."""

        def replaced() -> bool:
            told = {one.told()[1] for one in self.sentinels}
            return len(told) == 1 and former.port not in told

        with self.hurried():
            processes.wait_until(replaced, what="a failover")
        return self.primary

    def wait_for_replica(self, node: Server) -> None:
        """Wait until the node follows the primary."""

        def follows() -> bool:
            try:
                with node.admin() as client:
                    facts = client.info("replication")
            except redis.ConnectionError:
                return False  # Sentinels cut every client of a node that they change
            return bool(facts["role"] == "slave" and facts["master_link_status"] == "up")

        processes.wait_until(follows, what=f"{node.endpoint} as a replica")


@contextlib.contextmanager
def watched(
    flavour: Flavour,
    *,
    replicas: int = 2,
    options: Options | None = None,
    password: str | None = None,
    tls: Authority | None = None,
    by_name: bool = False,
) -> Iterator[Watched]:
    """Three Sentinels that know each other and all nodes; ``by_name``: as localhost."""
    config = {"replica-announce-ip": "localhost"} if by_name else {}
    options = options or Options(appendonly=True, tls=tls, config=config)
    password = secrets.token_hex(16) if password is None else password
    with ExitStack() as stack:
        primary = stack.enter_context(servers.running(flavour, options))
        followers = [
            stack.enter_context(servers.running(flavour, options, replica_of=primary))
            for _ in range(replicas)
        ]
        found = []
        for _ in range(3):
            sentinel = Sentinel(flavour, primary, password, by_name)
            stack.callback(sentinel.discard)
            sentinel.start()
            found.append(sentinel)
        processes.wait_until(
            lambda: all(one.knows(replicas, len(found) - 1) for one in found),
            what="Sentinels that know each other",
        )
        yield Watched((primary, *followers), tuple(found))
