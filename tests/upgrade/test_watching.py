"""What the watch of a store takes for one connection, and for a write of an operator."""

import socket
import struct

from memtenant.tenancy.keys import STORE_EPOCH
from tests.support import processes
from tests.support.servers import Server
from tests.upgrade.watching import Watch

LIMITS = "mt:{team.acme}:o:limits"


def test_who_comes_from_a_port_that_an_operator_had_is_somebody_else(valkey: Server) -> None:
    watch = Watch(valkey)
    watch.start()
    try:
        port = say(valkey, f"GET {STORE_EPOCH}", f"HSET {LIMITS} memory 1")
        say(valkey, f"SET {STORE_EPOCH} 2")
        say(valkey, f"HSET {LIMITS} audit_heartbeat 1", port=port)
        processes.wait_until(
            lambda: "audit_heartbeat" in [one.words[2] for one in watch.commands if one.words[2:]],
            what="the last command in MONITOR",
        )
    finally:
        watch.close()
    assert [(one.term, one.key) for one in watch.written()] == [("", LIMITS)]


def say(server: Server, *commands: str, port: int = 0) -> int:
    """Log in from a port, have the commands executed, and leave it free at once; which it was."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.bind((server.host, port))
        connection.connect((server.host, server.port))
        answers = connection.makefile("rb")
        for command in (f"AUTH {server.admin_user} {server.admin_password}", *commands):
            connection.sendall(command.encode() + b"\r\n")
            assert not answers.readline().startswith(b"-")
        return int(connection.getsockname()[1])
