"""Commands and replies as they go over the wire (RESP, protocol 2), without I/O.

Of our own, because redis-py's packing, reader and connection take more of an append than sealing it
does, and importing them more than importing the SDK (docs/performance.md); and because its error
replies lose their code in ways that differ from version to version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memtenant.functions.fcall import Words

__all__ = ["ErrorReply", "LoginFailed", "Replies", "led_to_primary", "logged_in", "login", "packed"]

_HEADS = tuple(b"\r\n$%d\r\n" % size for size in range(256))
"""What ends a word and begins the next one, which has so many bytes."""

_SIMPLE, _ERROR, _NUMBER, _BULK, _ARRAY = b"+-:$*"


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error, as the server wrote it: a code in capitals (ERR, which says nothing, is left out),
    then what happened."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def code(self) -> str:
        """The first word, if it is one of capitals; else empty."""
        first = self.text.partition(" ")[0]
        return first if first.isupper() else ""


class LoginFailed(Exception):
    """The server refused the username or the password."""


def packed(commands: Sequence[Words]) -> bytes:
    """The commands of one pipeline, to be written at once."""
    parts: list[bytes] = []
    for words in commands:
        parts.append(b"*%d" % len(words))
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            size = len(data)
            parts += (_HEADS[size] if size < len(_HEADS) else b"\r\n$%d\r\n" % size, data)
        parts.append(b"\r\n")
    return b"".join(parts)


def login(username: str, password: str) -> tuple[Words, ...]:
    """What a connection begins with. Servers before 7.2 do not know the second, which only tells
    administrators whose connection it is."""
    # HELLO and not AUTH: its answer tells the server's role too, and no rule can deny it.
    hello = ("HELLO", 2, "AUTH", username, password)
    return hello, ("CLIENT", "SETINFO", "LIB-NAME", "memtenant")


def logged_in(replies: Sequence[object]) -> None:
    """Check what came back for `login`: raises `LoginFailed`, or ``ConnectionError``."""
    told = replies[0]
    if isinstance(told, ErrorReply):
        if told.code == "WRONGPASS":
            raise LoginFailed(told.text)
        raise ConnectionRefusedError(told.text)


def led_to_primary(replies: Sequence[object]) -> None:
    """Raises ``ConnectionError`` where the answer to `login` is a replica's: an agent would read
    there what was true some time ago."""
    told = replies[0]
    fields = dict(zip(told[::2], told[1::2], strict=False)) if isinstance(told, list) else {}
    if fields.get(b"role", b"master") != b"master":
        raise ConnectionRefusedError("it is a replica now, not the primary")


class Replies:
    """Takes bytes as they come and makes replies of them.

    Bulk and simple strings are bytes, numbers int, arrays lists, an error an `ErrorReply`; nothing
    is None. ``ready`` holds the replies that are complete.
    """

    __slots__ = ("_open", "_rest", "ready")

    def __init__(self) -> None:
        self.ready: list[object] = []
        self._rest = b""
        self._open: list[tuple[list[object], int]] = []  # arrays begun, and their full lengths

    def feed(self, data: bytes) -> None:
        """Raises ``ConnectionError`` for bytes that are no reply: the connection is of no use."""
        if self._rest:
            data = self._rest + data
        at = 0
        try:
            while (end := data.find(b"\r\n", at)) >= 0:
                kind, head = data[at], data[at + 1 : end]
                value: object
                after = end + 2
                if kind == _BULK:
                    size = int(head)
                    value = None
                    if size >= 0:
                        begin, after = after, after + size + 2
                        if len(data) < after:
                            break
                        value = data[begin : after - 2]
                elif kind == _NUMBER:
                    value = int(head)
                elif kind == _ARRAY:
                    size = int(head)
                    value = [] if size == 0 else None
                    if size > 0:
                        self._open.append(([], size))
                        at = after
                        continue
                elif kind == _SIMPLE:
                    value = head
                elif kind == _ERROR:
                    value = ErrorReply(head.decode("utf-8", "replace").removeprefix("ERR "))
                else:
                    raise ConnectionError("the store's answer is no reply that memtenant knows")
                at = after
                self._place(value)
        except ValueError:
            raise ConnectionError("the store's answer is no reply that memtenant knows") from None
        self._rest = data[at:]

    def _place(self, value: object) -> None:
        """Put a value where it belongs; arrays that are full with it are values themselves."""
        while self._open:
            items, size = self._open[-1]
            items.append(value)
            if len(items) < size:
                return
            value = self._open.pop()[0]
        self.ready.append(value)
