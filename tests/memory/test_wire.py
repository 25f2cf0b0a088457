"""Commands and replies as bytes: whole, in pieces, and what is no reply."""

import socket
import threading
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.memory._sync.link import Link
from memtenant.memory.options import Options
from memtenant.memory.wire import (
    ErrorReply,
    LoginFailed,
    Replies,
    led_to_primary,
    logged_in,
    packed,
)

_WORDS = st.text("abc :$*+-é", max_size=20).map(str.encode)
_REPLIES = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40) | _WORDS.map(bytes),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


def written(reply: object) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case ErrorReply():
            return b"-%b\r\n" % reply.text.encode()
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(written(one) for one in reply)
    raise AssertionError(reply)


@given(st.lists(_REPLIES | st.just(ErrorReply("NOPERM no")), max_size=5), st.data())
def test_replies_come_back_however_their_bytes_are_cut(
    wanted: list[object], data: st.DataObject
) -> None:
    stream = b"".join(written(one) for one in wanted)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    replies = Replies()
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        replies.feed(stream[begin:end])
    assert replies.ready == wanted


def test_a_reply_that_is_not_complete_is_not_ready() -> None:
    replies = Replies()
    replies.feed(b"*2\r\n$3\r\nabc\r\n$3\r\nab")
    assert replies.ready == []
    replies.feed(b"c\r\n+OK\r\n-ERR MT_ERASED\r\n")
    assert replies.ready == [[b"abc", b"abc"], b"OK", ErrorReply("MT_ERASED")]


@pytest.mark.parametrize("data", [b"HTTP/1.1 400\r\n", b":x\r\n", b"$x\r\n", b"*\r\n", b"\r\n"])
def test_bytes_that_are_no_reply_end_the_connection(data: bytes) -> None:
    with pytest.raises(ConnectionError, match="no reply"):
        Replies().feed(data)


def test_a_command_is_counted_in_bytes() -> None:
    assert packed([("SET", "é", 7), (b"PING",)]) == (
        b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa9\r\n$1\r\n7\r\n*1\r\n$4\r\nPING\r\n"
    )


def test_a_refused_login_is_told_from_a_server_that_takes_no_connection() -> None:
    logged_in([b"OK", ErrorReply("unknown subcommand")])
    with pytest.raises(LoginFailed):
        logged_in([ErrorReply("WRONGPASS invalid username-password pair"), b"OK"])
    with pytest.raises(ConnectionError, match="max number"):
        logged_in([ErrorReply("max number of clients reached"), b"OK"])


def test_a_replica_is_no_primary() -> None:
    led_to_primary([[b"server", b"redis", b"role", b"master", b"modules", []], b"OK"])
    with pytest.raises(ConnectionError, match="it is a replica now"):
        led_to_primary([[b"server", b"redis", b"role", b"replica", b"modules", []], b"OK"])


def test_without_asyncio_a_server_that_answers_byte_by_byte_is_not_waited_for_endlessly() -> None:
    mine, servers = socket.socketpair()
    link = Link(mine, Options(timeout=0.1), 1, ("localhost", 1))
    link.opened()

    def drip() -> None:
        with servers, suppress(OSError):
            for byte in b"$6000\r\n" + b"x" * 6000:
                servers.send(bytes((byte,)))
                time.sleep(0.01)

    server = threading.Thread(target=drip)
    server.start()
    with pytest.raises(TimeoutError):
        link.exchange([("GET", "x")])
    link.drop()
    server.join()
