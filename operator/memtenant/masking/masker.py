"""What a detector finds, replaced as the rules say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from memtenant.crypto.primitives import SecretKey
from memtenant.masking.cards import card_numbers, card_tracks, card_verifications
from memtenant.masking.credentials import secrets
from memtenant.masking.findings import Finding, settled
from memtenant.masking.network import emails, ip_addresses, url_credentials
from memtenant.masking.people import (
    birth_dates,
    driver_licences,
    ibans,
    passports,
    social_security_numbers,
)
from memtenant.masking.phones import phones
from memtenant.masking.placeholders import masked, token
from memtenant.masking.reading import Reading
from memtenant.tenancy.masking import Detector, MaskingAction

__all__ = ["DETECTORS", "Masker", "Plan"]

Find = Callable[[Reading], Iterable[Finding]]

DETECTORS: Final[Mapping[Detector, Find]] = MappingProxyType(
    {
        Detector.CARD_VERIFICATION: card_verifications,
        Detector.CARD_TRACK: card_tracks,
        Detector.CARD: card_numbers,
        Detector.SECRET: secrets,
        Detector.URL_CREDENTIALS: url_credentials,
        Detector.IBAN: ibans,
        Detector.EMAIL: emails,
        Detector.SOCIAL_SECURITY: social_security_numbers,
        Detector.PASSPORT: passports,
        Detector.DRIVER_LICENCE: driver_licences,
        Detector.BIRTH_DATE: birth_dates,
        Detector.PHONE: phones,
        Detector.IP_ADDRESS: ip_addresses,
    }
)

_OF_LONG_NUMBERS: Final = frozenset(
    (
        Detector.CARD,
        Detector.CARD_TRACK,
        Detector.IBAN,
        Detector.SOCIAL_SECURITY,
        Detector.PHONE,
    )
)
_OF_DIGITS: Final = frozenset(Detector) - {
    Detector.EMAIL,
    Detector.URL_CREDENTIALS,
    Detector.SECRET,
}
_PASSES: Final = 4
_IN_PLACE: Final = {MaskingAction.DROP: MaskingAction.MASK}
"""What ends a chain in which each value that is gone brings another one to light."""


class Plan:
    """What is done to which kinds of value, and who has to look for them: most of what people write
    has no number in it. Made once, used for many texts."""

    __slots__ = ("_always", "_with_digits", "_with_numbers", "actions")

    def __init__(self, actions: Mapping[Detector, MaskingAction]) -> None:
        self.actions = actions
        self._with_numbers = tuple(DETECTORS[one] for one in actions)
        self._with_digits = tuple(DETECTORS[one] for one in actions if one not in _OF_LONG_NUMBERS)
        self._always = tuple(DETECTORS[one] for one in actions if one not in _OF_DIGITS)

    def __bool__(self) -> bool:
        return bool(self.actions)

    def found(self, text: str) -> list[Finding]:
        """What is found in a text, in order, where it stands in it."""
        reading = Reading(text)
        if reading.runs:
            looking = self._with_numbers
        else:
            looking = self._with_digits if reading.has_digits else self._always
        findings = [one for find in looking for one in find(reading)]
        if not findings:
            return findings
        placed = []
        for one in settled(findings, self.actions):
            start, end = reading.place(one.start, one.end)
            placed.append(one._replace(start=start, end=end))
        return placed


class Masker:
    """Masks texts that belong together, and counts. Not for several threads at once.

    ``token_key`` is of the person whose data it is. ``counts`` has what was found by detector,
    ``rejected`` those of them that may not be stored in any form: the caller refuses all.
    """

    def __init__(self, token_key: Callable[[], SecretKey]) -> None:
        self._token_key = token_key
        self.counts: dict[Detector, int] = {}
        self.rejected: dict[Detector, int] = {}

    def text(self, text: str, plan: Plan) -> str:
        """The text with what was found replaced. Masked again, it stays as it is: what only comes
        to light by a replacement is replaced too, and masked where dropping would go on and on."""
        if not plan:
            return text
        actions = plan.actions
        for attempt in range(2 * _PASSES):
            findings = plan.found(text)
            if not findings:
                break
            if attempt == _PASSES:
                actions = {one: _IN_PLACE.get(action, action) for one, action in actions.items()}
            text = self._replaced(text, findings, actions)
        return text

    def _replaced(
        self, text: str, findings: list[Finding], actions: Mapping[Detector, MaskingAction]
    ) -> str:
        parts: list[str] = []
        done = 0
        for one in findings:
            action = actions[one.detector]
            self.counts[one.detector] = self.counts.get(one.detector, 0) + 1
            if action is MaskingAction.REJECT:
                self.rejected[one.detector] = self.rejected.get(one.detector, 0) + 1
            parts += (text[done : one.start], self._instead(one, action))
            done = one.end
        return "".join((*parts, text[done:]))

    def _instead(self, one: Finding, action: MaskingAction) -> str:
        match action:
            case MaskingAction.DROP:
                return ""
            case MaskingAction.TOKENISE:
                return token(one.detector, one.value, self._token_key())
            case MaskingAction.MASK | MaskingAction.REJECT:
                return masked(one.detector, one.shown)
