"""What matters in a message, told without a model, whatever stands in it; and that it pays."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtenant import Category, Message
from memtenant.errors import UsageError
from memtenant.memory.importance import importance, weight_of
from tests.bench import context
from tests.bench.conversations import conversations

MATTERS = (
    "We decided to go with the blue one.",
    "The build failed with exit code 3.",
    "Please send it no later than Friday.",
    "It costs 49.90 EUR.",
    "See you on 2026-12-01 at 10:30.",
    "My daughter is allergic to nuts.",
    "Write to ada@example.org about INV-2291.",
)
DOES_NOT = ("Thanks, that makes sense.", "Good morning!", "Sure.", "Let me think about that a bit.")


@pytest.mark.parametrize("text", MATTERS)
def test_what_matters_weighs_more_than_small_talk(text: str) -> None:
    assert weight_of(text) > 2 * max(weight_of(one) for one in DOES_NOT)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Message,
            st.sampled_from(["human", "ai", "system", "tool", "other"]),
            st.text(max_size=200) | st.lists(st.fixed_dictionaries({"text": st.text()})).map(tuple),
        ),
        max_size=10,
    ),
    st.floats(-1, 1),
)
def test_each_message_gets_a_weight_from_0_to_1(messages: list[Message], weight: float) -> None:
    weights = importance(messages, [Category("x", weight, words=("a",), pattern="b")])
    assert len(weights) == len(messages)
    assert all(0 <= one <= 1 for one in weights)


def test_the_newer_of_two_alike_weighs_more() -> None:
    weights = importance([Message.human("The same words twice, more or less")] * 12, ())
    assert weights == sorted(weights)
    assert weights[0] < weights[-1]


def test_an_answer_weighs_more_than_the_same_words_unasked() -> None:
    answer = Message.ai("In the drawer under the window in the hall.")
    asked = importance([Message.human("Where is it?"), answer], ())
    unasked = importance([Message.human("I wonder."), answer], ())
    assert asked[1] > unasked[1]


def test_an_instruction_weighs_most() -> None:
    assert importance([Message.system("Be kind."), *[Message.human("x")] * 99], ())[0] == 1.0


@pytest.mark.parametrize("unit", ["a", "1", "A-", "a ", "0123456789abcdef", "Jan", "1 ", "@", "$"])
def test_no_more_of_a_message_is_looked_at_than_so_much(unit: str) -> None:
    # Each of these is long enough for a quadratic search to be felt for minutes.
    flood = unit * (2_000_000 // len(unit))
    assert 0 <= weight_of(flood) <= 1
    assert weight_of(flood + " We decided on 2026-12-01.") == weight_of(flood)


def test_a_pattern_is_given_a_piece_at_a_time() -> None:
    pattern = Category("slow", 1.0, pattern=r"^(\w+\s?)*!$")
    assert pattern.found_in("fine!")
    assert Category("long", 1.0, pattern="x{257}").found_in("x" * 9999) is False
    assert Category("lines", 1.0, pattern="a\nb").found_in("a\nb") is False


@pytest.mark.parametrize(
    "wrong",
    [{"weight": 2}, {"weight": 1, "pattern": "("}, {"weight": 1, "words": "abc"}],
)
def test_a_category_that_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="category x"):
        Category("x", **wrong)  # type: ignore[arg-type]


def test_words_are_whole_words_in_any_case_and_in_any_script() -> None:
    found = Category("x", 1.0, words=("cat", "c++", "花生", "straße"))
    for text in ("A CAT!", "I like C++.", "我不能吃花生。", "Auf der STRASSE? Straße."):
        assert found.found_in(text), text
    for text in ("concatenate", "cats", "c+", "花"):
        assert not found.found_in(text), text


def test_more_of_the_facts_that_matter_survive_than_of_truncation() -> None:
    labelled = conversations(seed=7, each=2)
    assert context.share(labelled, context.budgeted) > 2 * context.share(
        labelled, context.truncated
    )
