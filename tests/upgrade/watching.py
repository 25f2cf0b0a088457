"""Watches a store while operators change: who writes in which term, and which Functions are there.

By MONITOR, which shows every command but those of administration, with the address it came from. A
login begins a connection: a later one may come from the same port, and be somebody else's.
"""

import re
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from memtenant.tenancy.keys import STORE_EPOCH
from tests.support.servers import Server

_LINE = re.compile(rb'^\+[\d.]+ \[\d+ ([^\]]+)\] (".*")$')
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_LOGINS = {"AUTH", "HELLO"}
_READS = {
    *("GET", "HGET", "HMGET", "HGETALL", "HLEN", "HKEYS", "HEXISTS", "HSTRLEN", "EXISTS", "TYPE"),
    *("LLEN", "LRANGE", "LINDEX", "SCAN", "PTTL", "ZCARD", "ZSCORE", "ZRANGEBYSCORE", "WATCH"),
    *("EVAL_RO", "FCALL_RO", "MEMORY"),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A command that a connection had executed."""

    connection: str
    words: tuple[str, ...]

    @property
    def writes(self) -> bool:
        """Whether it changes a key of a tenant."""
        return self.words[0].upper() not in _READS and self.key.startswith("mt:{")

    @property
    def key(self) -> str:
        """The first key that it names, if any."""
        place = 3 if self.words[0].upper() == "FCALL" else 1
        return next(iter(self.words[place:]), "")


@dataclass(frozen=True, slots=True)
class Written:
    """A key that an operator wrote, how, by which connection, while which term led."""

    term: str
    connection: str
    command: str
    key: str


@dataclass
class Watch:
    """From `start` to `close`."""

    server: Server
    commands: list[Seen] = field(default_factory=list)
    libraries: list[frozenset[str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _socket: socket.socket | None = None

    def start(self) -> None:
        """Begin; returns when it sees."""
        self._socket = socket.create_connection((self.server.host, self.server.port))
        stream = self._socket.makefile("rb")
        login = ("AUTH", self.server.admin_user, self.server.admin_password)
        for words in (login, ("MONITOR",)):
            self._socket.sendall(" ".join(words).encode() + b"\r\n")
            assert stream.readline() == b"+OK\r\n"
        for work in (lambda: self._follow(stream), self._look):
            self._threads.append(threading.Thread(target=work, daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """End."""
        self._stop.set()
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def terms(self) -> list[str]:
        """The terms that led, in their order."""
        return [one.words[2] for one in self.commands if _takes_over(one)]

    def written(self) -> list[Written]:
        """What operators wrote of tenants, each with the term that led then; not what agents and
        the sealer write, who have no term."""
        operators = {one.connection for one in self.commands if STORE_EPOCH in one.words[1:]}
        found, term = [], ""
        for one in self.commands:
            term = one.words[2] if _takes_over(one) else term
            if one.connection in operators and one.writes:
                found.append(Written(term, one.connection, one.words[0], one.key))
        return found

    def _follow(self, stream: BinaryIO) -> None:
        logins: Counter[str] = Counter()
        with suppress(OSError, ValueError):
            for line in stream:
                found = _LINE.match(line.rstrip())
                # Commands inside of a Function have no connection of their own.
                if found is not None and found[1] != b"lua":
                    words = tuple(one.decode("latin-1") for one in _WORD.findall(found[2])[:4])
                    address = found[1].decode()
                    logins[address] += words[0].upper() in _LOGINS
                    if len(words) > 1:
                        self.commands.append(Seen(f"{address} #{logins[address]}", words))

    def _look(self) -> None:
        with self.server.admin() as admin:
            while not self._stop.is_set():
                listed = str(
                    admin.execute_command("FUNCTION", "LIST", "LIBRARYNAME", "memtenant_*")
                )
                names = frozenset(re.findall(r"memtenant_\d+", listed))
                if not self.libraries or self.libraries[-1] != names:
                    self.libraries.append(names)
                time.sleep(0.05)


def _takes_over(one: Seen) -> bool:
    return one.words[0].upper() == "SET" and one.words[1] == STORE_EPOCH
