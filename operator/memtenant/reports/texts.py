"""What can be read of a tenant, looked through for what should not be there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from memtenant.errors import RecordMalformed
from memtenant.masking.masker import Plan
from memtenant.memory.codec import unpack
from memtenant.tenancy.masking import Detector, MaskingAction

__all__ = ["TextSearch"]

_MOST_TEXTS: Final = 10_000
_TEXT_BYTES: Final = 64 * 1024
_DIGITS, _LEAST_DIGITS = tuple(bytes((digit,)) for digit in b"0123456789"), 3
_EVERYTHING: Final = Plan(dict.fromkeys(Detector, MaskingAction.MASK))


@dataclass(slots=True)
class TextSearch:
    """One tenant's. ``tell`` gets a detector and the key in which it found something; ``hits`` are
    counted by detector. ``looked_through``: texts that were, from begin to end."""

    tell: Callable[[str, bytes], None]
    hits: Counter[str] = field(default_factory=Counter)
    looked_through: int = 0
    _looked: int = 0

    def read(self, part: bytes, content: bytes, *, packed: bool) -> None:
        """A text in clear. Of a tenant with very many not all are looked at."""
        if self._looked >= _MOST_TEXTS:
            return
        self._looked += 1
        try:
            clear = unpack(content) if packed else content
        except RecordMalformed:
            clear = content
        self.find(part, clear)

    def find(self, part: bytes, clear: bytes) -> None:
        """Look for what should not be there in a text that can be read. One that is too long to
        be looked through to its end counts as none that was."""
        self.looked_through += len(clear) <= _TEXT_BYTES
        self.search(part, _words(clear[:_TEXT_BYTES].decode("utf-8", "replace")))

    def name(self, part: bytes, name: bytes) -> None:
        """Of a context's value, as agents chose it: what detectors find in a name has digits."""
        if sum(name.count(one) for one in _DIGITS) >= _LEAST_DIGITS:
            self.search(part, name.decode("utf-8", "replace").replace("_", " "))

    def search(self, part: bytes, text: str) -> None:
        """What is no text of a record, and is not counted as one."""
        for one in _EVERYTHING.found(text):
            self.hits[one.detector.value] += 1
            self.tell(one.detector.value, part)


def _words(text: str) -> str:
    """The texts of a JSON document apart, so that a detector reads words and not punctuation."""
    try:
        # Names may stand twice in an object: each pair is looked at.
        document = json.loads(text, object_pairs_hook=tuple)
        return "\n".join(_leaves(document))
    except (ValueError, RecursionError):
        return text


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif isinstance(value, tuple):
        for name, one in value:
            if isinstance(one, (str, int, float)):
                yield f"{name}: {one}"
            else:
                yield name
                yield from _leaves(one)
    elif isinstance(value, (int, float)):
        yield str(value)
