"""A text as detectors read it: without what only disguises it, and with the way back.

Digits of other scripts and full-width signs become ASCII, rare spaces and dashes plain ones, and
characters that nobody sees are left out, because ``4111<zero width>1111`` is a card number to
whoever copies it. Placeholders that are there already become walls that no pattern crosses: what
was masked once is not looked at again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from memtenant.masking.findings import Finding
from memtenant.masking.placeholders import PLACEHOLDER

__all__ = ["WALL", "Reading"]

WALL: Final = "\uffff"
"""A noncharacter: in no pattern, and in no text that was meant to be read."""

# Zeros of the decimal digits that keyboards and fonts offer beside ASCII's.
_ZEROS = (
    *(0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6),
    *(0x0D66, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x17E0, 0x1810, 0xFF10),
    *(0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6),
)
_SPACES = "\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_DASHES = "\u2010-\u2015\u2212\ufe58\ufe63"
_DOTS = "\u2024\u3002\uff61"
_SIGNS = "\uff01-\uff5e"  # full-width ASCII
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069"
    "\u20e3\ufe00-\ufe0f\ufeff]"
)
_DIGITS = "".join(f"{chr(zero)}-{chr(zero + 9)}" for zero in _ZEROS)
_ALIKE = re.compile(f"[{_SPACES}{_DASHES}{_DOTS}{_SIGNS}{_DIGITS}{WALL}]")
_DIGIT = re.compile("[0-9]")
_GROUP = re.compile("[0-9]+")
_RUN = re.compile(r"[0-9][0-9 ().\-/_]{5,}[0-9]")


def _plain_forms() -> dict[int, str]:
    forms = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    forms |= {zero + digit: str(digit) for zero in _ZEROS for digit in range(10)}
    for signs, plain in ((_SPACES, " "), (_DASHES, "-"), (_DOTS, ".")):
        for first, last in re.findall("(.)(?:-(.))?", signs):
            forms |= dict.fromkeys(range(ord(first), ord(last or first) + 1), plain)
    forms[ord(WALL)] = " "  # only a placeholder is a wall
    return forms


_FORMS = _plain_forms()


class Reading:
    """``plain`` is what detectors read; `place` gives the characters of the text behind a part.

    ``has_digits``: there is a digit at all. ``runs``: where seven of them may stand together, with
    what people put between. ``cards`` is filled by the first detector that looks for them.
    """

    __slots__ = ("_groups", "_left_out", "_lower", "cards", "has_digits", "plain", "runs")

    def __init__(self, text: str) -> None:
        self.cards: list[Finding] | None = None
        self._lower: str | None = None
        self._groups: list[tuple[int, int]] | None = None
        self._left_out: list[int] = []
        if not (text.isascii() and text.isprintable()):
            text = self._undisguised(text)
        self.plain = _walled(text)
        self.has_digits = _DIGIT.search(self.plain) is not None
        self.runs = [one.span() for one in _RUN.finditer(self.plain)] if self.has_digits else []

    def _undisguised(self, text: str) -> str:
        gone = [one.start() for one in _INVISIBLE.finditer(text)]
        if gone:
            text = _INVISIBLE.sub("", text)
            self._left_out = [where - before for before, where in enumerate(gone)]
        if not text.isascii() and _ALIKE.search(text):
            text = text.translate(_FORMS)
        return text

    @property
    def lower(self) -> str:
        """``plain`` in small letters, each in its place."""
        if self._lower is None:
            lower = self.plain.lower()
            if len(lower) != len(self.plain):
                lower = "".join(one.lower() if one.isascii() else one for one in self.plain)
            self._lower = lower
        return self._lower

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Where digits stand together."""
        if self._groups is None:
            self._groups = [one.span() for one in _GROUP.finditer(self.plain)]
        return self._groups

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where a part of ``plain`` (not empty) stands in the text."""
        if not self._left_out:
            return start, end
        return (
            start + bisect_right(self._left_out, start),
            end + bisect_right(self._left_out, end - 1),
        )


def _walled(text: str) -> str:
    if "<" not in text:
        return text
    return PLACEHOLDER.sub(lambda one: WALL * len(one[0]), text)
