"""What both halves say about masking: the detectors' names, the actions, and what a policy asks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Detector", "MaskingAction", "MaskingPolicy"]


class Detector(StrEnum):
    """A kind of value that can be found in text. Where two findings are of one length, the one
    that is named first here decides."""

    CARD_VERIFICATION = "CardVerification"
    CARD_TRACK = "CardTrack"
    CARD = "Card"
    SECRET = "Secret"  # noqa: S105 - the detector's name
    URL_CREDENTIALS = "URLCredentials"
    IBAN = "IBAN"
    EMAIL = "Email"
    SOCIAL_SECURITY = "SocialSecurity"
    PASSPORT = "Passport"
    DRIVER_LICENCE = "DriverLicence"
    BIRTH_DATE = "BirthDate"
    PHONE = "Phone"
    IP_ADDRESS = "IPAddress"


class MaskingAction(StrEnum):
    """What becomes of a value that is found."""

    MASK = "Mask"
    TOKENISE = "Tokenise"
    DROP = "Drop"
    REJECT = "Reject"


@dataclass(frozen=True, slots=True)
class MaskingPolicy:
    """What a tenant's policy says. ``required``: agents mask whatever their code says; otherwise
    this is what an agent gets that switches masking on and names nothing else.

    tools: arguments and results of tools are masked too. refused: what is never stored, wherever
    it stands in a message.
    """

    required: bool = False
    action: MaskingAction = MaskingAction.MASK
    detectors: tuple[Detector, ...] = tuple(Detector)
    tools: bool = False
    refused: tuple[Detector, ...] = ()
