"""What each detector finds, what it leaves alone, and disguises that do not help."""

import pytest

from memtenant.masking.masker import Plan
from memtenant.tenancy.masking import Detector, MaskingAction

ALL = Plan(dict.fromkeys(Detector, MaskingAction.MASK))
CARD = "4111111111111111"


def kinds(text: str) -> list[tuple[str, str]]:
    return [(one.detector.value, text[one.start : one.end]) for one in ALL.found(text)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("mail <Ada.L+x@example.co.uk>!", "Email", "Ada.L+x@example.co.uk"),
        ("to=ada@m\u00fcller.de.", "Email", "ada@m\u00fcller.de"),
        ("pay 4111-1111-1111-1111.", "Card", "4111-1111-1111-1111"),
        ("pay 3782 822463 10005", "Card", "3782 822463 10005"),
        ("pay 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "Card", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"),
        ("order 12 5555555555554444 ok", "Card", "5555555555554444"),
        ("30569309025904", "Card", "30569309025904"),
        ("CVV: 123", "CardVerification", "123"),
        ("my cvc2 number is 4 5 6", "CardVerification", "4 5 6"),
        ('"cvv": "0123"', "CardVerification", "0123"),
        ("987 is my CVV", "CardVerification", "987"),
        ("the security code of the card: 321", "CardVerification", "321"),
        (f"%B{CARD}^DOE/JO^2512101123456789?", "CardTrack", f"%B{CARD}^DOE/JO^2512101123456789?"),
        (f";{CARD}=25121011234567890000?", "CardTrack", f";{CARD}=25121011234567890000?"),
        ("IBAN de89 3704 0044 0532 0130 00", "IBAN", "de89 3704 0044 0532 0130 00"),
        ("GB82WEST12345698765432", "IBAN", "GB82WEST12345698765432"),
        ("it is 123-45-6789", "SocialSecurity", "123-45-6789"),
        ("social security: 000 00 0000", "SocialSecurity", "000 00 0000"),
        ("(212) 555-0123", "Phone", "(212) 555-0123"),
        ("+1 212 555 0123 2026", "Phone", "+1 212 555 0123"),
        ("020 7946 0958", "Phone", "020 7946 0958"),
        ("call 030 901 820 99", "Phone", "030 901 820 99"),
        ("from 203.0.113.9:443", "IPAddress", "203.0.113.9"),
        ("from 2001:db8::8a2e:370:7334", "IPAddress", "2001:db8::8a2e:370:7334"),
        ("DOB 03/12/1985", "BirthDate", "03/12/1985"),
        ("born on March 12th, 1985", "BirthDate", "March 12th, 1985"),
        ("passport no: X1234567", "Passport", "X1234567"),
        ("driver's license D123-4567-8901", "DriverLicence", "D123-4567-8901"),
        ("AKIAIOSFODNN7EXAMPLE", "Secret", "AKIAIOSFODNN7EXAMPLE"),
        ("Authorization: Bearer abcdefghijklmnopqrstuvwx", "Secret", "abcdefghijklmnopqrstuvwx"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHc", "Secret", "-----BEGIN EC PRIVATE KEY-----\nMHc"),
        ("redis://u:p4ss@db.example.com", "URLCredentials", "u:p4ss"),
    ],
)  # fmt: skip
def test_a_value_is_found_with_its_bounds(text: str, kind: str, value: str) -> None:
    assert kinds(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",  # the check digit is wrong
        "a4111111111111111 4111111111111111b 0.4111111111111111",  # parts of words and decimals
        "1234567890123456789012345",
        "550e8400-e29b-41d4-a716-446655440000",
        "react@18.2.0 logo@2x.png git@github.com:a/b.git @app.route a @ b user@localhost",
        "DE89370400440532013001",
        "2026-11-28T19:05:32Z 1764356732123 12:34:56 00:1a:2b:3c:4d:5e",
        "127.0.0.1 0.0.0.0 ::1 version 10.0.0.1 999.1.1.1 std::vector fe::set",
        "000-12-3456 666-12-3456 900-12-3456 123-45-67890",
        "room 123, error code 4567, 12,345.50 EUR, $1,234",
        "my cvv is secret. The year is 2026",
        "born to run; passport office; driver's license costs 50",
        "call ticket 1234567; text me 3 ideas; tel",
        "clause 252.227-7013, Decimal('+35236450.6')",
        "sk-short AKIA1234 eyJhbGciOi ghp_short",
        "<EMAIL> <CARD 411111******1111> <PHONE:abcdefghijklmnopabcd>",
    ],
)
def test_what_only_looks_like_a_value_is_left_alone(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "\uff14\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11",
        "4111\u200b1111\u200b1111\u20601111",
        "4111\u00a01111\u202f1111\u20071111",
        "4111\u20131111\u20111111\u22121111",
        "\u0664\u0661\u0661\u0661 1111 1111 1111",
        "\U0001d7d2\U0001d7cf\U0001d7cf\U0001d7cf111111111111",
        "4\ufe0f\u20e3111111111111111",
    ],
)
def test_disguised_digits_are_digits(text: str) -> None:
    assert kinds(f"\u00e9 pay {text} \u00e9") == [("Card", text)]


def test_a_code_behind_a_card_needs_no_word() -> None:
    assert ("CardVerification", "123") in kinds(f"{CARD} 12/27 123")
    assert ("CardVerification", "123") in kinds(f"{CARD}, 123, thanks")
    assert ("CardVerification", "1234") in kinds("378282246310005 1234")
    assert kinds(f"{CARD} for 50 nights") == [("Card", CARD)]


def test_a_word_for_the_code_reaches_over_the_card() -> None:
    assert [kind for kind, _ in kinds(f"the CVV for {CARD} is 123")] == ["Card", "CardVerification"]


def test_a_password_in_a_url_is_no_address() -> None:
    assert kinds("https://me:pw@host.example.com/ ada@example.org") == [
        ("URLCredentials", "me:pw"),
        ("Email", "ada@example.org"),
    ]


def test_one_decides_where_several_overlap() -> None:
    """The track, not the card in it; the strongest action first, whatever is longer."""
    text = f";{CARD}=25121011234567890000?"
    assert kinds(text) == [("CardTrack", text)]
    strict = {Detector.CARD_TRACK: MaskingAction.MASK, Detector.CARD: MaskingAction.REJECT}
    (one,) = Plan(strict).found(text)
    assert (one.detector, text[one.start : one.end]) == (Detector.CARD, text)


def test_only_the_detectors_that_are_asked_for_look() -> None:
    asked = {Detector.EMAIL: MaskingAction.MASK}
    assert [one.detector for one in Plan(asked).found(f"ada@example.org {CARD}")] == [
        Detector.EMAIL
    ]
