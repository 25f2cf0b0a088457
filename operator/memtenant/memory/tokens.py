"""How many tokens a message is, for ``window`` and for whoever budgets.

Any function of a text will do, such as ``lambda text: len(encoding.encode(text))``. The default
needs no tokenizer's tables: it weighs words, digits, punctuation and other scripts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from memtenant.memory.messages import Message

__all__ = ["TokenCounter", "estimate_tokens", "message_tokens"]

TokenCounter = Callable[[str], int]

_PER_MESSAGE: Final = 4
"""What providers add for a message's role and its separators."""

_MOST: Final = 2**24 - 1
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS = b"0123456789"
_SPACES = b" \t\r\n"
_OTHER_SCRIPTS = bytes(range(128, 256))


def estimate_tokens(text: str) -> int:
    """An estimate for today's byte-pair tokenizers; rather too many than too few.

    A word of up to six letters is a token, and every two letters beyond; two digits, a sign of
    punctuation and two bytes of UTF-8 of other scripts are one each. Texts without words, such as
    base64, come out near one token for two characters.
    """
    data = text.encode("utf-8", "replace")
    letters = len(data) - len(data.translate(None, _LETTERS))
    digits = len(data) - len(data.translate(None, _DIGITS))
    spaces = len(data) - len(data.translate(None, _SPACES))
    foreign = len(data) - len(data.translate(None, _OTHER_SCRIPTS))
    signs = len(data) - letters - digits - spaces - foreign
    words = min(letters, spaces + signs + 1)
    beyond = max(letters - 6 * words, 0)
    return words + (beyond + digits + foreign + 1) // 2 + signs


def message_tokens(message: Message, counter: TokenCounter) -> int:
    """The tokens of a whole message, its tool calls included."""
    total = _PER_MESSAGE
    if isinstance(message.content, str):
        total += counter(message.content)
    else:
        for part in message.content:
            text = part.get("text")
            total += counter(text if isinstance(text, str) else json.dumps(part, default=str))
    for call in message.tool_calls:
        total += counter(call.name) + counter(json.dumps(call.arguments, default=str))
    return min(total, _MOST)
