"""Telephone numbers: our own candidates, judged by the numbering plans of libphonenumber.

Its own matcher took 36 ms on 16 KB of JSON; looking only where seven digits stand together takes
microseconds. The library is imported at the first candidate: an agent whose users name no numbers
never waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from memtenant.masking.findings import Finding
from memtenant.masking.reading import WALL, Reading
from memtenant.tenancy.masking import Detector

__all__ = ["phones"]

_INTERNATIONAL = re.compile(r"(?<![\w+])(?:\+|00 ?(?=[1-9][0-9]{0,2}[ ./]))[0-9 ().\-/]{7,24}")
_NORTH_AMERICAN = re.compile(
    r"(?<![\w.+-])(?:1[ .-])?(?:\([0-9]{3}\) ?[0-9]{3}[ .-]|[0-9]{3}([ .-])[0-9]{3}\1)[0-9]{4}"
    r"(?!\w|[-./][0-9])"
)
_TRUNK = re.compile(
    r"(?<![\w.+/-])(?:\(0[1-9][0-9]{0,4}\) ?|0[1-9][0-9]{0,4}[ /])[0-9][0-9 ]{4,12}[0-9]"
    r"(?!\w|[-.:/][0-9])"
)
_TRUNK_REGIONS: Final = ("GB", "DE", "FR", "NL", "CH", "AU")
"""Whose national numbers are found without a word beside them: 0, and groups."""

_WORD = re.compile(
    r"(?<![a-z])(?:phone|telephone|tel|mobile|cell|cellphone|call|fax|whatsapp|sms|text"
    r"|handy|telefon|t\u00e9l\u00e9phone|tel\u00e9fono|reach)(?![a-z])"
)
_HINTS = (
    *("phone", "tel", "mobile", "cell", "call", "fax", "whatsapp", "sms", "text", "handy"),
    *("t\u00e9l", "reach"),
)
_BESIDE = re.compile(r"(?<![\w.-])[+(]?[0-9][0-9 ().\-/]{5,20}[0-9](?!\w|[-./:][0-9])")
_SOMETHING_ELSE = re.compile(
    r"(?<![a-z])(?:id|ticket|order|case|ref|reference|invoice|account|extension|ext|card|room|error"
    r"|code|log|at [0-9]{1,4}:|version|session|trace)(?![a-z])|[.!?;\n]"
)
_A_DATE = re.compile(r"(?:19|20)[0-9]{2}[-./ ][01]?[0-9][-./ ][0-3]?[0-9](?![0-9])")
_GAP = 24
_MOST_JUDGED: Final = 500
_DECIMAL = re.compile(r"\+[0-9]+\.[0-9]+")
_GROUP_AT_END = re.compile(r"[ ().\-/]+[0-9]+$")


class _Plans:
    """The numbering plans, asked so often for one text and no more: a judgement takes a tenth of a
    millisecond. A text with more candidates than that is a list of numbers, and all are taken."""

    def __init__(self) -> None:
        self._left = _MOST_JUDGED

    def know(self, text: str, region: str | None) -> bool:
        """Whether it is a valid number, of the region or with its country's code."""
        import phonenumbers  # at the first candidate, see above

        self._left -= 1
        if self._left < 0:
            return True
        try:
            return bool(phonenumbers.is_valid_number(phonenumbers.parse(text, region)))
        except phonenumbers.NumberParseException:
            return False


def phones(reading: Reading) -> Iterator[Finding]:
    """Valid international and North American numbers, valid national ones with their 0, and
    whatever has seven to fifteen digits behind a word for a telephone."""
    plain, plans = reading.plain, _Plans()
    for start, end in reading.runs:
        # Two more on each side: what a number begins with, and what must not stand behind it.
        around = (max(start - 2, 0), end + 2)
        for one in _INTERNATIONAL.finditer(plain, *around):
            found = _international(one, plans)
            if found is not None:
                yield found
        for one in _NORTH_AMERICAN.finditer(plain, *around):
            if plans.know(one[0], "US"):
                yield _phone(one[0], one.start())
        for one in _TRUNK.finditer(plain, *around):
            if any(plans.know(one[0], region) for region in _TRUNK_REGIONS):
                yield _phone(one[0], one.start())
    if any(hint in reading.lower for hint in _HINTS):
        yield from _beside_words(reading.lower)


def _international(one: re.Match[str], plans: _Plans) -> Finding | None:
    """The longest part that is valid: another number may stand behind it."""
    text = one[0].rstrip(" ().-/")
    if _DECIMAL.fullmatch(text):
        return None
    for _ in range(4):
        number = f"+{text[2:]}" if text.startswith("00") else text
        if plans.know(number, None):
            return _phone(text, one.start())
        shorter = _GROUP_AT_END.sub("", text)
        if shorter == text:
            return None
        text = shorter
    return None


def _beside_words(lower: str) -> Iterator[Finding]:
    for word in _WORD.finditer(lower):
        end = word.end()
        number = _BESIDE.search(lower, end, end + _GAP + 24)
        if number is None or number.start() > end + _GAP:
            continue
        between = lower[end : number.start()]
        whole = _BESIDE.match(lower, number.start())
        if whole is None or WALL in between or _SOMETHING_ELSE.search(between):
            continue
        digits = sum(one.isdigit() for one in whole[0])
        if 7 <= digits <= 15 and not _A_DATE.match(whole[0]):
            yield _phone(whole[0], whole.start())


def _phone(text: str, start: int) -> Finding:
    digits = "".join(one for one in text if one.isdigit())
    return Finding(start, start + len(text), Detector.PHONE, digits.removeprefix("00"))
