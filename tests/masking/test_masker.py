"""Actions, tokens, and that masking ends: nothing is found twice, and no text takes long."""

import hmac
import re
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pkgutil import iter_modules
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memtenant.masking
from memtenant.crypto.primitives import SecretKey
from memtenant.masking.masker import Masker, Plan
from memtenant.tenancy.masking import Detector, MaskingAction

KEY = SecretKey(b"k" * 32)
TEXT = "ada@example.org paid 4111 1111 1111 1111, cvv 123"


def every(action: MaskingAction) -> Plan:
    return Plan(dict.fromkeys(Detector, action))


def masked(text: str, action: MaskingAction, key: SecretKey = KEY) -> str:
    return Masker(lambda: key).text(text, every(action))


def test_a_mask_tells_the_kind_and_of_a_card_its_ends() -> None:
    assert masked(TEXT, MaskingAction.MASK) == "<EMAIL> paid <CARD 411111******1111>, cvv <CVV>"
    # Fourteen digits: with ten shown, four would be hidden.
    assert masked("30569309025904", MaskingAction.MASK) == "<CARD ******5904>"


def test_dropped_values_leave_nothing() -> None:
    assert masked(TEXT, MaskingAction.DROP) == " paid , cvv "


def test_dropping_ends_where_each_value_brings_another_to_light() -> None:
    once = masked(f"cvv {'1234 ' * 50}", MaskingAction.DROP)
    assert "cvv" in once
    assert masked(once, MaskingAction.DROP) == once
    assert once.count("1234") > 40


def test_a_token_is_the_same_for_the_same_value_however_it_is_written() -> None:
    one = masked("4111 1111 1111 1111", MaskingAction.TOKENISE)
    assert re.fullmatch("<CARD:[a-p]{20}>", one)
    assert masked("4111-1111-1111-1111", MaskingAction.TOKENISE) == one
    assert masked("\uff14111111111111111", MaskingAction.TOKENISE) == one
    assert masked("5555 5555 5555 4444", MaskingAction.TOKENISE) != one
    email = masked("Ada@Example.org", MaskingAction.TOKENISE)
    assert masked("ada@example.org", MaskingAction.TOKENISE) == email
    digest = hmac.digest(KEY.secret, b"Email:ada@example.org", "sha256")[:10].hex()
    assert email == f"<EMAIL:{''.join('abcdefghijklmnop'[int(one, 16)] for one in digest)}>"


def test_another_key_makes_other_tokens() -> None:
    one, other = KEY, SecretKey(b"o" * 32)
    text = "ada@example.org"
    assert masked(text, MaskingAction.TOKENISE, one) != masked(text, MaskingAction.TOKENISE, other)


def test_what_is_found_is_counted_and_what_is_rejected_too() -> None:
    masker = Masker(lambda: KEY)
    kinds = dict.fromkeys(Detector, MaskingAction.MASK)
    actions = Plan(kinds | {Detector.CARD_VERIFICATION: MaskingAction.REJECT})
    masker.text(TEXT, actions)
    masker.text("and ada@example.org", actions)
    assert masker.counts == {Detector.EMAIL: 2, Detector.CARD: 1, Detector.CARD_VERIFICATION: 1}
    assert masker.rejected == {Detector.CARD_VERIFICATION: 1}


def test_a_placeholder_has_no_room_for_a_value() -> None:
    """What somebody dresses up as masked is looked at all the same."""
    for text in ("<CARD 4111111111111111>", "<CARD:4111111111111111>", "<EMAIL:ada@example.org>"):
        assert every(MaskingAction.MASK).found(text)


PIECES = st.one_of(
    st.sampled_from(
        [
            *("ada@example.org", "4111 1111 1111 1111", "4111111111111111", "cvv ", "123", "1234"),
            *(
                " ",
                "",
                "\n",
                "-",
                ".",
                "<",
                ">",
                "@",
                "+",
                "+49 30 901820",
                "DE89370400440532013000",
            ),
            *("ssn ", "123-45-6789", "dob ", "1985-03-12", "passport ", "X1234567", "://", "u:p@"),
            *("<EMAIL>", "<CVV>", "<CARD 411111******1111>", "AKIAIOSFODNN7EXAMPLE", "card "),
            *("203.0.113.9", "2001:db8::1", "call ", "555 123 4567", "\u200b", "\uff11", "12/27"),
            *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "a", "Bearer "),
        ]
    ),
    st.text(max_size=4),
)


@settings(deadline=None)  # the first telephone number loads the numbering plans
@given(st.lists(PIECES, max_size=12).map("".join), st.sampled_from(sorted(MaskingAction)))
def test_masking_what_was_masked_changes_nothing(text: str, action: MaskingAction) -> None:
    once = masked(text, action)
    again = Masker(lambda: KEY)
    assert again.text(once, every(action)) == once
    assert not again.counts


@settings(deadline=None)  # the first telephone number loads the numbering plans
@given(st.lists(PIECES, max_size=12).map("".join))
def test_findings_stand_in_order_and_apart(text: str) -> None:
    findings = every(MaskingAction.MASK).found(text)
    for before, after in pairwise(findings):
        assert before.end <= after.start
    assert all(0 <= one.start < one.end <= len(text) for one in findings)


# --- linear ------------------------------------------------------------------------------------

UNBOUNDED = {
    "[0-9]+",
    r"[0-9][0-9 ().\-/_]{5,}[0-9]",
    "[A-Za-z0-9]+",
    r"[ ().\-/]+[0-9]+$",  # these two of a candidate of at most 26 characters
    r"\+[0-9]+\.[0-9]+",
}
"""Patterns without a longest match: one class again and again, so that no place is read often."""


def patterns() -> list[re.Pattern[str]]:
    return [
        value
        for info in iter_modules(memtenant.masking.__path__)
        for value in vars(import_module(f"memtenant.masking.{info.name}")).values()
        if isinstance(value, re.Pattern)
    ]


def test_every_pattern_looks_at_a_bounded_part_of_the_text() -> None:
    parser = import_module("re._parser")
    longest = {
        one.pattern: parser.parse(one.pattern, one.flags).getwidth()[1] for one in patterns()
    }
    assert len(longest) > 25
    assert {pattern for pattern, width in longest.items() if width > 20_000} == UNBOUNDED


HOSTILE = [
    *("1", "4", "4 ", "41", "a", " ", "@", "a@", "a@a.", "cvv ", "cvv 123 ", "://", "://a:", "<"),
    *("-----BEGIN PRIVATE KEY-----", "eyJ", "eyJaaaaaaaa.", "4111111111111111 ", "DE89 ", "dob "),
    *("+1 555 123 4567 ", "ssn 1", "passport ", "call 1", "1.1.1.1", "::1", "<CVV>", "\u200b1"),
    *("cvv 4111111111111111 ", "(0", "00 1 ", "12/27 ", "aws secret key=", "Bearer a ", "^4="),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_twice_the_text_takes_twice_the_steps(piece: str) -> None:
    """Calls are counted, not time: with patterns that look at a bounded part, they are the work."""

    def steps(size: int) -> int:
        text = (piece * (size // len(piece) + 1))[:size] + " 1"
        return _calls(lambda: masked(text, MaskingAction.MASK))

    steps(100)  # what is imported or compiled at first
    assert steps(16_000) < 2.2 * steps(8_000) + 2_000


def _calls(work: Callable[[], object]) -> int:
    count = 0

    def counted(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count
