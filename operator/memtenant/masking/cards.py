"""Payment cards, what verifies them, and what their magnetic stripe holds."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from memtenant.masking.findings import Finding
from memtenant.masking.reading import WALL, Reading
from memtenant.tenancy.masking import Detector

__all__ = ["card_numbers", "card_tracks", "card_verifications"]

_LONGEST = 19
_LONGEST_PREFIX = 6
_LEAST_IN_GROUP = 3
"""Digits in each group but the last one: 4-6-5 is a card's number, 10 20 30 a list."""
_GAPS = frozenset(("", " ", "-", ".", "/", "  ", " - ", "_"))
_SHOWN_FROM = 15
"""Digits from which a mask may show the first six and the last four: five at least stay hidden."""

# (first, last prefix, lengths): the ranges that issuers publish. More than one length is common.
_16 = frozenset((16,))
_16_TO_19 = frozenset((16, 17, 18, 19))
_12_TO_19 = frozenset(range(12, 20))
_ISSUERS: Final = (
    ("4", "4", frozenset((13, 16, 19))),  # Visa
    ("51", "55", _16),  # Mastercard
    ("2221", "2720", _16),
    ("34", "34", frozenset((15,))),  # American Express
    ("37", "37", frozenset((15,))),
    ("6011", "6011", _16_TO_19),  # Discover
    ("644", "659", _16_TO_19),
    ("300", "305", frozenset((14, 16, 17, 18, 19))),  # Diners Club
    ("3095", "3095", frozenset((14, 16, 17, 18, 19))),
    ("36", "36", frozenset((14, 16, 17, 18, 19))),
    ("38", "39", frozenset((14, 16, 17, 18, 19))),
    ("3528", "3589", _16_TO_19),  # JCB
    ("62", "62", _16_TO_19),  # UnionPay
    ("2200", "2204", _16_TO_19),  # Mir
    ("60", "60", _16),  # RuPay
    ("81", "82", _16),
    ("508", "508", _16),
    ("5018", "5018", _12_TO_19),  # Maestro
    ("5020", "5020", _12_TO_19),
    ("5038", "5038", _12_TO_19),
    ("5893", "5893", _12_TO_19),
    ("6304", "6304", _12_TO_19),
    ("6759", "6759", _12_TO_19),
    ("6761", "6763", _12_TO_19),
    ("506099", "506198", frozenset((16, 18, 19))),  # Verve
    ("9792", "9792", _16),  # Troy
)
_ISSUERS_BY_DIGIT = {
    digit: tuple(one for one in _ISSUERS if one[0][0] <= digit <= one[1][0])
    for digit in "0123456789"
}
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

_STRONG = re.compile(
    r"(?<![a-z])(?:cvv2?|cvc2?|cvn2?|cav2|card (?:verification|security|validation)"
    r"(?: (?:code|value|number|no))?|(?:kartenpr\u00fcf|pr\u00fcf)(?:nummer|ziffer)"
    r"|cryptogramme(?: visuel)?)(?![a-z])"
)
_WEAK = re.compile(
    r"(?<![a-z])(?:cid2?|csc|security code|c\u00f3digo de seguridad"
    r"|(?:code|number|digits) (?:on|at) the (?:back|reverse|front))(?![a-z])"
)
_STRONG_HINTS = ("cv", "cav2", "card ", "fnummer", "fziffer", "cryptogramme")
_WEAK_HINTS = ("cid", "csc", "security ", "digo de seg", "the back", "the reverse", "the front")
_CARD_WORDS = ("card", "visa", "mastercard", "amex", "american express", "tarjeta", "karte")
_NEAR = 120

_CODE = re.compile(
    r"(?<!\w)(?<![0-9][.,:/-])(?:[0-9]{3,4}|[0-9] [0-9] [0-9](?: [0-9])?)(?!\w|[.,:/-][0-9])"
)
_REACH = 44
_SEEN_BEHIND = 10
"""Characters that a code and what must not follow it take: it is not cut off by the reach."""
_SENTENCE_ENDS = re.compile(r"(?<!no)[.!;\n]\s")
_BEFORE = re.compile(
    r"(?<![\w.,:/-])([0-9]{3,4})(?: (?:is|was|as|being)(?: (?:the|my|your|his|her|our))?"
    r"(?: card(?:'s)?)?| ?\((?:the |my )?) ?(?:cvv2?|cvc2?|cvn2?|card (?:verification|security))"
    r"(?![a-z])"
)
_AFTER_CARD = re.compile(
    r"[\s,;:|/-]{0,4}(?:(?:expir(?:y|es|ation)|exp|valid|good|date|thru|until)[\s.:]{1,3}){0,3}"
    r"((?:[0-9]{1,2}\s?[/-]\s?(?:[0-9]{4}|[0-9]{2}))?)[\s,;:|/-]{1,4}([0-9]{3,4})"
    r"(?!\w|[.,:/-][0-9]|%)"
)
_SPELLED = re.compile(r"(?<![\w.])(?<![0-9][ .-])[0-9](?:[ .-][0-9]){11,18}(?!\w|[ .-][0-9])")
_TRACK = re.compile(
    r"(?<![0-9A-Za-z])[%;]?[bB]?([0-9]{12,19})(?:\^[^\^\n\uffff]{2,26}\^[0-9]{4,7}[^?\s\uffff]{0,60}"
    r"|[=D][0-9]{7,30})\??"
)


def card_numbers(reading: Reading) -> list[Finding]:
    """12 to 19 digits of an issuer's range whose check digit is right, however they are grouped."""
    if reading.cards is None:
        reading.cards = sorted(_cards(reading)) if reading.runs else []
    return reading.cards


def _cards(reading: Reading) -> Iterator[Finding]:
    place, groups = 0, reading.groups
    while place < len(groups):
        found = _card_at(reading.plain, groups, place)
        if found is None:
            place += 1
            continue
        finding, place = found
        yield finding
    for one in _SPELLED.finditer(reading.plain):
        digits = "".join(sign for sign in one[0] if sign.isdigit())
        if len(digits) in _lengths(digits) and _luhn(digits):
            yield _card(*one.span(), digits)


def _card_at(plain: str, groups: list[tuple[int, int]], place: int) -> tuple[Finding, int] | None:
    """The longest card number that begins with this group of digits."""
    start, end = groups[place]
    if not _ISSUERS_BY_DIGIT[plain[start]] or _is_inside_word(plain, start):
        return None
    digits = plain[start:end]
    lengths: frozenset[int] = frozenset()
    best: tuple[Finding, int] | None = None
    after = place + 1
    while len(digits) <= _LONGEST:
        if not lengths and len(digits) >= _LONGEST_PREFIX:
            lengths = _lengths(digits)
            if not lengths:
                break
        if len(digits) in lengths and not _goes_on(plain, end) and _luhn(digits):
            best = _card(start, end, digits), after
        if after == len(groups) or end - groups[after - 1][0] < _LEAST_IN_GROUP:
            break
        if groups[after][0] - end > 3 or plain[end : groups[after][0]] not in _GAPS:
            break
        end = groups[after][1]
        digits += plain[groups[after][0] : end]
        after += 1
    return best


def _card(start: int, end: int, digits: str) -> Finding:
    shown = f"******{digits[-4:]}"
    if len(digits) >= _SHOWN_FROM:
        shown = digits[:6] + shown
    return Finding(start, end, Detector.CARD, digits, shown)


def _lengths(digits: str) -> frozenset[int]:
    """The lengths that numbers with these first digits may have."""
    return frozenset().union(
        *(
            lengths
            for first, last, lengths in _ISSUERS_BY_DIGIT[digits[0]]
            if first <= digits[: len(first)] <= last
        )
    )


def _luhn(digits: str) -> bool:
    total = sum(map(int, digits[-1::-2])) + sum(_DOUBLED[int(one)] for one in digits[-2::-2])
    return total % 10 == 0


def _is_inside_word(plain: str, start: int) -> bool:
    """Whether digits go on to the left: after a letter, or as the decimals of a number."""
    before = plain[start - 1] if start else " "
    if before == ".":
        return start > 1 and plain[start - 2].isdigit()
    return before.isalnum() or before == "_"


def _goes_on(plain: str, end: int) -> bool:
    after = plain[end : end + 1]
    return after.isalnum() or after == "_"


def card_tracks(reading: Reading) -> Iterator[Finding]:
    """What a card's stripe holds: track 1 or 2, with a card's number in it."""
    plain = reading.plain
    if not any(mark in plain for mark in "^=D"):
        return
    for one in _TRACK.finditer(plain):
        digits = one[1]
        if len(digits) in _lengths(digits) and _luhn(digits):
            yield Finding(*one.span(), Detector.CARD_TRACK, one[0])


def card_verifications(reading: Reading) -> Iterator[Finding]:
    """Three or four digits beside a word for them, or behind a card's number."""
    lower = reading.lower
    cards = card_numbers(reading)
    if any(hint in lower for hint in _STRONG_HINTS):
        answered = 0
        for code in _BEFORE.finditer(lower):
            card = _card_from(cards, code.start())
            if card is not None and card.start < code.start():
                continue
            yield from _codes_behind(reading, lower, answered, code.start(), cards)
            yield _verification(reading.plain, *code.span(1))
            answered = code.end()
        yield from _codes_behind(reading, lower, answered, len(lower), cards)
    if any(hint in lower for hint in _WEAK_HINTS):
        for word in _WEAK.finditer(lower):
            if _speaks_of_a_card(lower, word.start(), word.end(), cards):
                yield from _code_after(reading, word.end(), cards)
    for card in cards:
        behind = _AFTER_CARD.match(lower, card.end)
        if behind and (behind[1] or len(behind[2]) == _code_length(card.value)):
            yield _verification(reading.plain, *behind.span(2))


def _codes_behind(
    reading: Reading, lower: str, start: int, end: int, cards: list[Finding]
) -> Iterator[Finding]:
    """Behind each of the words that stand between two places."""
    for word in _STRONG.finditer(lower, start, end):
        yield from _code_after(reading, word.end(), cards)


def _code_after(reading: Reading, end: int, cards: list[Finding]) -> Iterator[Finding]:
    """The first code within reach, in the same sentence; a card's number may stand before it."""
    plain = reading.plain
    stop = end + _REACH
    card = _card_from(cards, end)
    if card is not None and card.start < stop:
        stop = card.end + _REACH
    if (wall := plain.find(WALL, end, stop)) >= 0:
        stop = wall
    if pause := _SENTENCE_ENDS.search(plain, end, stop):
        stop = pause.start()
    for code in _CODE.finditer(plain, end, stop + _SEEN_BEHIND):
        if code.start() >= stop:
            return
        if card is None or code.end() <= card.start or code.start() >= card.end:
            yield _verification(plain, *code.span())
            return


def _card_from(cards: list[Finding], start: int) -> Finding | None:
    """The first card that ends behind this place."""
    place = bisect_right(cards, start, key=lambda card: card.end)
    return cards[place] if place < len(cards) else None


def _speaks_of_a_card(lower: str, start: int, end: int, cards: list[Finding]) -> bool:
    first, last = max(start - _NEAR, 0), end + _NEAR
    near = _card_from(cards, first)
    if near is not None and near.start < last:
        return True
    around = lower[first:last]
    return any(word in around for word in _CARD_WORDS)


def _code_length(card: str) -> int:
    return 4 if card[:2] in ("34", "37") else 3


def _verification(plain: str, start: int, end: int) -> Finding:
    return Finding(start, end, Detector.CARD_VERIFICATION, plain[start:end].replace(" ", ""))
