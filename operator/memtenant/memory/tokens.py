"""How many tokens a message is, for ``window`` and for whoever budgets.

Any function of a text will do, such as ``lambda text: len(encoding.encode(text))``. The default
needs no tokenizer's tables: it weighs what the text is made of (docs/sdk.md, Tokens: its error).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from memtenant.memory.messages import Message

__all__ = ["ESTIMATE_MARGIN", "TokenCounter", "estimate_tokens", "message_tokens"]

TokenCounter = Callable[[str], int]

ESTIMATE_MARGIN: Final = 0.34
"""By how much a text may have more tokens than `estimate_tokens` says: in 99 of 100 texts it has
not (docs/sdk.md, Tokens). A budget by the estimate leaves that much room."""

_PER_MESSAGE: Final = 4
"""What providers add for a message's role and its separators."""

_MOST: Final = 2**24 - 1
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS = b"0123456789"
_SIGNS = bytes(byte for byte in range(33, 127) if byte not in _LETTERS + _DIGITS)
_ACCENTED, _TWO_BYTES, _LONGER = (  # the first bytes of UTF-8: é, then я, then 好
    bytes(range(0xC2, 0xC6)),
    bytes(range(0xC6, 0xE0)),
    bytes(range(0xE0, 0xF5)),
)


def _only(members: bytes) -> bytes:
    """A table for ``bytes.translate``: ``x`` for each member, a space for all others."""
    return bytes(b"x"[0] if byte in members else b" "[0] for byte in range(256))


_WORDS, _RUNS_OF_SIGNS = _only(_LETTERS), _only(_SIGNS)
_OPAQUE = _only(_LETTERS + _DIGITS + b"+/=_-")
_LONG: Final = 40
"""Characters without a space or another sign: base64, a hash, a token, a path."""

# Tokens in eighths: least squares over the texts and tokenizers of docs/sdk.md, rounded.
_PER_WORD, _PER_LETTER_BEYOND_FOUR = 8, 1
_PER_DIGIT, _PER_SIGN, _PER_RUN_OF_SIGNS, _PER_LINE = 9, 2, 4, 4
_PER_ACCENTED, _PER_TWO_BYTES, _PER_CHARACTER = 24, 3, 8
_PER_OPAQUE = 6


def estimate_tokens(text: str) -> int:
    """An estimate for today's byte-pair tokenizers, in a few microseconds.

    A word, a digit and a Chinese character are a token each; of what has no words, such as base64,
    three tokens are four characters.
    """
    data = text.encode("utf-8", "replace")
    eighths = 0
    if b"x" * _LONG in data.translate(_OPAQUE):
        data, opaque = _without_opaque(data)
        eighths += _PER_OPAQUE * opaque
    words = _runs(data.translate(_WORDS))
    eighths += _PER_WORD * words + _PER_DIGIT * _count(data, _DIGITS)
    eighths += _PER_LETTER_BEYOND_FOUR * max(_count(data, _LETTERS) - 4 * words, 0)
    eighths += _PER_SIGN * _count(data, _SIGNS)
    eighths += _PER_RUN_OF_SIGNS * _runs(data.translate(_RUNS_OF_SIGNS))
    eighths += _PER_LINE * data.count(b"\n")
    if not data.isascii():
        eighths += _PER_ACCENTED * _count(data, _ACCENTED)
        eighths += _PER_TWO_BYTES * _count(data, _TWO_BYTES)
        eighths += _PER_CHARACTER * _count(data, _LONGER)
    return (eighths + 7) // 8


def message_tokens(message: Message, counter: TokenCounter) -> int:
    """The tokens of a whole message, its tool calls included."""
    total = _PER_MESSAGE
    if isinstance(message.content, str):
        total += counter(message.content)
    else:
        for part in message.content:
            text = part.get("text")
            total += counter(text if isinstance(text, str) else _json(part))
    for call in message.tool_calls:
        total += counter(call.name) + counter(_json(call.arguments))
    return min(total, _MOST)


def _count(data: bytes, members: bytes) -> int:
    return len(data) - len(data.translate(None, members))


def _runs(marked: bytes) -> int:
    """How many runs of ``x``."""
    return marked.count(b"x ") + marked.endswith(b"x")


def _without_opaque(data: bytes) -> tuple[bytes, int]:
    """The rest, and how many characters stood in long runs."""
    rest, start, total = bytearray(), 0, 0
    marked = data.translate(_OPAQUE)
    while (found := marked.find(b"x" * _LONG, start)) >= 0:
        end = marked.find(b" ", found)
        end = len(data) if end < 0 else end
        rest += data[start:found]
        total += end - found
        start = end
    return bytes(rest + data[start:]), total


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
