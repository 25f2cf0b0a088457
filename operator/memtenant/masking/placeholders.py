"""What stands in the place of a value: ``<EMAIL>``, ``<CARD 411111******1111>``, or a token.

No placeholder has room for a value, so that nobody can smuggle one past the detectors by dressing
it up as masked already: a token is letters only, a card shows ten digits at most.
"""

from __future__ import annotations

import re
from typing import Final

from memtenant.crypto.primitives import SecretKey, mac
from memtenant.tenancy.masking import Detector

__all__ = ["PLACEHOLDER", "WORDS", "masked", "token"]

WORDS: Final = {
    Detector.CARD_VERIFICATION: "CVV",
    Detector.CARD_TRACK: "TRACK",
    Detector.CARD: "CARD",
    Detector.SECRET: "SECRET",
    Detector.URL_CREDENTIALS: "CREDENTIALS",
    Detector.IBAN: "IBAN",
    Detector.EMAIL: "EMAIL",
    Detector.SOCIAL_SECURITY: "SSN",
    Detector.PASSPORT: "PASSPORT",
    Detector.DRIVER_LICENCE: "LICENCE",
    Detector.BIRTH_DATE: "BIRTHDATE",
    Detector.PHONE: "PHONE",
    Detector.IP_ADDRESS: "IP",
}

_TOKEN_BYTES = 10
_LETTERS = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")

PLACEHOLDER: Final = re.compile(
    rf"<(?:(?:{'|'.join(WORDS.values())})(?::[a-p]{{{2 * _TOKEN_BYTES}}})?"
    r"|CARD (?:[0-9]{6})?\*{6}[0-9]{4})>"
)


def masked(detector: Detector, shown: str = "") -> str:
    """The placeholder that tells the kind of value, and ``shown`` of a card."""
    return f"<{WORDS[detector]} {shown}>" if shown else f"<{WORDS[detector]}>"


def token(detector: Detector, value: str, key: SecretKey) -> str:
    """One way, 80 bits: the same value under the same key is the same token."""
    digest = mac(key, f"{detector.value}:{value}".encode("utf-8", "surrogatepass"))
    letters = digest[:_TOKEN_BYTES].hex().encode().translate(_LETTERS).decode()
    return f"<{WORDS[detector]}:{letters}>"
