"""What a server executes, and for whom."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.servers import Server

_WRITES = {"SET", "HSET", "HDEL", "DEL", "UNLINK", "ACL SETUSER", "ACL DELUSER", "CLIENT KILL"}


@dataclass
class Heard:
    """What a server executed, in its order: (port of the client, command's words)."""

    commands: list[tuple[int, list[str]]] = field(default_factory=list)

    def writes_from(self, ports: set[int], *, term: int) -> list[list[str]]:
        """Writes that came from these ports after the store's epoch was raised to the term."""
        starts = [
            index
            for index, (_, words) in enumerate(self.commands)
            if words[:3] == ["SET", "mt:store:epoch", str(term)]
        ]
        assert starts, "the new term was never set"
        return [
            words
            for port, words in self.commands[starts[0] :]
            if port in ports and {words[0].upper(), " ".join(words[:2]).upper()} & _WRITES
        ]


@contextmanager
def listening(server: Server) -> Iterator[Heard]:
    """MONITOR, in a thread. Commands of a transaction show when they are executed."""
    heard, client = Heard(), server.admin(patience=None)  # nothing may be executed for long
    opened, ended, last = threading.Event(), threading.Event(), secrets.token_hex(8)

    def listen() -> None:
        with client.monitor() as monitor:  # type: ignore[no-untyped-call]
            opened.set()
            for one in monitor.listen():
                words = one["command"].split()
                if words[-1:] == [last]:
                    ended.set()
                    return
                port = int(one["client_port"]) if str(one["client_port"]).isdigit() else 0
                heard.commands.append((port, words))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert opened.wait(120)
    yield heard
    with server.admin() as admin:
        admin.echo(last)
    assert ended.wait(120), "what was executed last was not heard"


def ports_of(pid: int) -> set[int]:
    """The local TCP ports that a process has."""
    inodes = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return set()
    rows = [line.split() for line in table]
    return {int(row[1].rsplit(":", 1)[1], 16) for row in rows if row[9] in inodes}
