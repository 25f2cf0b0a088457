"""Numbers that states and banks give to people, and the day of birth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from memtenant.masking.findings import Finding
from memtenant.masking.reading import WALL, Reading
from memtenant.tenancy.masking import Detector

__all__ = ["birth_dates", "driver_licences", "ibans", "passports", "social_security_numbers"]

# Lengths of the IBAN registry (ISO 13616).
_LENGTHS: Final = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH CR HR LI LV",
        22: "BG BH DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ DJ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?= ?[A-Za-z0-9])")
_SIGNS = re.compile(r"[A-Za-z0-9]+")

_SSN = re.compile(r"(?<![\w-])([0-9]{3})-([0-9]{2})-([0-9]{4})(?!\w|-[0-9])")
_SSN_SHAPE = re.compile(r"(?<![\w-])[0-9]{3}[- .]?[0-9]{2}[- .]?[0-9]{4}(?!\w|[-.][0-9])")
_SSN_WORD = re.compile(r"(?<![a-z])(?:ssn|social[ -]security|ss#|itin|soc\.? sec)")
_SSN_HINTS = ("ssn", "social", "ss#", "itin", "soc")

_MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    "|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|januar|februar|m\u00e4rz|mai|juni|juli|oktober"
    "|dezember|janvier|f\u00e9vrier|mars|avril|juin|juillet|ao\u00fbt|septembre|octobre|novembre"
    "|d\u00e9cembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre"
    "|noviembre|diciembre"
)
_DATE = re.compile(
    r"(?<![\w.,/-])(?:[0-9]{4}[./-][0-9]{1,2}[./-][0-9]{1,2}"
    r"|[0-9]{1,2}[./ -][0-9]{1,2}[./ -](?:[0-9]{4}|[0-9]{2})"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th|\.)? ?(?:of |de )?(?:{_MONTHS})\.?,? ?(?:de |of )?[0-9]{{4}}"
    rf"|(?:{_MONTHS})\.? [0-9]{{1,2}}(?:st|nd|rd|th)?,? [0-9]{{4}})(?!\w)"
)
_BIRTH_WORD = re.compile(
    r"(?<![a-z])(?:d\.?o\.?b\b\.?|date of birth|birth ?da(?:te|y)|born|birthday"
    r"|geburtsdatum|geboren|geb\.|n\u00e9e? le|date de naissance"
    r"|fecha de nacimiento|nacid[oa] el)"
)
_BIRTH_HINTS = ("dob", "d.o.b", "birth", "born", "geb", "naissance", "n\u00e9", "naci")

_PASSPORT_WORD = re.compile(r"passport|passeport|reisepass|pasaporte|passaporto")
_PASSPORT = re.compile(r"(?<![\w-])(?=[A-Za-z0-9]{0,5}[0-9]{3})[A-Za-z0-9]{6,9}(?![\w-])")
_LICENCE_WORD = re.compile(
    r"driv(?:er'?s?|ers'|ing) ?licen[cs]e|(?<![a-z])dl ?(?:no|num|#|:)|f\u00fchrerschein"
    r"|permis de conduire|licencia de conducir"
)
_LICENCE_HINTS = ("licen", "dl", "hrerschein", "permis")
_LICENCE = re.compile(
    r"(?<![\w-])(?=[A-Za-z0-9]{0,6}-?[0-9]{3})[A-Za-z0-9](?:-?[A-Za-z0-9]){5,18}(?![\w-])"
)
_NEAR = 40
_LEAST_DIGITS = 5


def ibans(reading: Reading) -> Iterator[Finding]:
    """Account numbers whose length is their country's and whose check digits are right."""
    plain, start = reading.plain, 0
    while head := _IBAN.search(plain, start):
        start = head.end()
        length = _LENGTHS.get(head[0][:2].upper())
        found = _iban_at(plain, head.start(), length) if length else None
        if found is not None:
            yield found
            start = found.end


def _iban_at(plain: str, start: int, length: int) -> Finding | None:
    """As many letters and digits as the country has, in groups apart by one space or dash."""
    signs, end = "", start
    while len(signs) < length:
        part = _SIGNS.match(plain, end, end + length - len(signs))
        if part is None:
            if not signs or plain[end : end + 1] not in (" ", "-"):
                return None
            part = _SIGNS.match(plain, end + 1, end + 1 + length - len(signs))
            if part is None:
                return None
        signs += part[0]
        end = part.end()
    if plain[end : end + 1].isalnum() or not _mod_97(signs.upper()):
        return None
    return Finding(start, end, Detector.IBAN, signs.upper())


def _mod_97(iban: str) -> bool:
    return int("".join(str(int(one, 36)) for one in iban[4:] + iban[:4])) % 97 == 1


def social_security_numbers(reading: Reading) -> Iterator[Finding]:
    """US numbers: valid ones with dashes anywhere, and whatever has the shape beside a word for
    them: a mistyped number is personal too."""
    for start, end in reading.runs:
        for one in _SSN.finditer(reading.plain, start, end + 2):
            area, group, serial = one.groups()
            if area not in ("000", "666") and area < "900" and group != "00" and serial != "0000":
                yield Finding(*one.span(), Detector.SOCIAL_SECURITY, area + group + serial)
    for one in _beside(reading, _SSN_HINTS, _SSN_WORD, _SSN_SHAPE):
        yield _numbered(one, Detector.SOCIAL_SECURITY)


def birth_dates(reading: Reading) -> Iterator[Finding]:
    """A date right behind a word for birth."""
    for one in _beside(reading, _BIRTH_HINTS, _BIRTH_WORD, _DATE):
        yield Finding(*one.span(), Detector.BIRTH_DATE, one[0])


def passports(reading: Reading) -> Iterator[Finding]:
    """Six to nine letters and digits behind a word for a passport."""
    for one in _beside(reading, ("pass", "pasa"), _PASSPORT_WORD, _PASSPORT):
        yield _numbered(one, Detector.PASSPORT)


def driver_licences(reading: Reading) -> Iterator[Finding]:
    """A number behind a word for a licence to drive."""
    for one in _beside(reading, _LICENCE_HINTS, _LICENCE_WORD, _LICENCE):
        yield _numbered(one, Detector.DRIVER_LICENCE)


def _beside(
    reading: Reading, hints: tuple[str, ...], word: re.Pattern[str], value: re.Pattern[str]
) -> Iterator[re.Match[str]]:
    """The first value within reach behind each of the words."""
    lower = reading.lower
    if not any(hint in lower for hint in hints):
        return
    for one in word.finditer(lower):
        stop = one.end() + _NEAR
        wall = lower.find(WALL, one.end(), stop)
        found = value.search(lower, one.end(), stop if wall < 0 else wall)
        if found is None:
            continue
        # A pattern that is told to stop does not see what is behind: look again with all of it.
        whole = value.match(lower, found.start())
        if whole is not None:
            yield whole


def _numbered(one: re.Match[str], detector: Detector) -> Finding:
    return Finding(*one.span(), detector, re.sub("[ .-]", "", one[0]).upper())
