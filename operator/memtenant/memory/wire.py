"""Commands as the server reads them (RESP): redis-py's own packing takes a fifth of an append."""

from __future__ import annotations

from collections.abc import Sequence

from memtenant.functions.calls import Words

__all__ = ["packed"]


def packed(commands: Sequence[Words]) -> bytes:
    """The commands of one pipeline, to be written at once."""
    parts: list[bytes] = []
    for words in commands:
        parts.append(b"*%d\r\n" % len(words))
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n" % len(data))
            parts.append(data)
            parts.append(b"\r\n")
    return b"".join(parts)
