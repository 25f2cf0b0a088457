"""What is summarised next, what an answer may be, and what stands in its place."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from memtenant import ContextBudget, Message, ToolCall
from memtenant.memory.folding import is_due, request_of
from memtenant.memory.selection import costs_of
from memtenant.memory.summaries import (
    Answer,
    Fallback,
    Lineage,
    SummaryRequest,
    answer_of,
    extract,
    summary_fields,
    summary_of,
)
from memtenant.memory.tokens import message_tokens
from memtenant.memory.units import units_of
from tests.memory.test_budget import COUNTERS, NOW, messages, stored, summary

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["summary", "facts", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    history=st.lists(messages, max_size=25),
    calm=st.integers(1, 400),
    most=st.integers(1, 400),
    covered=st.integers(0, 25),
)
def test_the_oldest_goes_first_and_no_call_without_its_results(
    history: list[Message], calm: int, most: int, covered: int
) -> None:
    before = stored(*history)
    budget = ContextBudget(1000, trigger_tokens=calm, summary_input=most)
    costs = costs_of(before, len)
    request = request_of(before, costs, budget, len, None, covered)
    if request is None:
        return
    taken = [one.sequence for one in request.messages]
    assert taken == [one.sequence for one in before if one.sequence > covered][: len(taken)]
    rest = [one for one in before if one.sequence > taken[-1]]
    # As much as the half stays as it is.
    assert sum(costs_of(rest, len)) + costs[taken[-1] - 1] > calm // 2
    if len(taken) > 1:
        assert sum(costs[place - 1] for place in taken) <= most
    for unit in units_of(before[covered:], costs[covered:]):
        places = {before[covered:][place].sequence for place in unit.places}
        assert places <= set(taken) or not places & set(taken)


def test_it_is_due_by_what_no_summary_covers() -> None:
    history = stored(*[Message.human("x" * 16)] * 10)  # 20 each
    budget = ContextBudget(150, counter=len)
    assert is_due(history, costs_of(history, len), budget, len, None)
    assert not is_due(history, costs_of(history, len), budget, len, summary(5))
    assert is_due(history, costs_of(history, len), budget, len, summary(2))


def test_one_message_that_is_too_large_is_taken_alone() -> None:
    history = stored(Message.human("x" * 500), *[Message.human("y" * 16)] * 10)
    budget = ContextBudget(100, summary_input=50)
    request = request_of(history, costs_of(history, len), budget, len, None, 0)
    assert request is not None
    assert len(request.messages) == 1


def test_a_call_that_waits_for_its_result_is_not_parted_from_it() -> None:
    call = Message.ai("", tool_calls=(ToolCall("1", "look", {}),))
    history = stored(call, *[Message.human("y" * 16)] * 9, Message.tool("found", call="1"))
    budget = ContextBudget(100)
    assert request_of(history, costs_of(history, len), budget, len, None, 0) is None


@settings(deadline=None)
@given(JSON | st.text(max_size=30) | JSON.map(json.dumps))
def test_whatever_is_answered_is_an_answer_or_a_reason(answer: Any) -> None:
    found = answer_of(answer, 200, len)
    if isinstance(found, Answer):
        fields = json.loads(answer) if isinstance(answer, str) else answer
        assert found.text == fields["summary"].strip()
        assert found.text
    else:
        assert found in Fallback


def test_an_answer_may_stand_in_a_fence() -> None:
    said = '```json\n{"summary": "Yes.", "facts": ["A", "B"]}\n```'
    assert answer_of(said, 200, len) == Answer("Yes.", ("A", "B"))
    assert answer_of(f"Here:\n{said}", 200, len) is Fallback.MALFORMED


@settings(deadline=None)
@given(
    history=st.lists(messages, min_size=1, max_size=12),
    most=st.integers(1, 400),
    counter=st.sampled_from(sorted(COUNTERS)),
    before=st.none() | st.text(max_size=100),
)
def test_sentences_of_the_messages_never_are_longer_than_a_summary_may_be(
    history: list[Message], most: int, counter: str, before: str | None
) -> None:
    previous = None if before is None else summary(1, before)
    request = SummaryRequest(tuple(stored(*history, first=2)), previous, most)
    made = extract(request, COUNTERS[counter])
    if made is None:
        return
    back = summary_of(
        json.loads(json.dumps(summary_fields(made, Lineage(1, 9, 3), Fallback.EMPTY))),
        "1-1",
        9,
        NOW,
        5,
    )
    assert (back.text, back.fallback) == (made.text, Fallback.EMPTY)
    assert message_tokens(back.as_message(), COUNTERS[counter]) <= most
    said = "\n".join([before or "", *(one.text for one in request.messages)])
    for sentence in made.text.split("\n"):
        assert sentence in said or sentence.partition(": ")[2] in said


def test_what_the_summary_before_said_is_gone_on_with() -> None:
    previous = summary(1, "The budget is 4,000 EUR. They like jazz.")
    request = SummaryRequest(
        tuple(stored(*[Message.human(f"Nothing of note {n}, really.") for n in range(20)])),
        previous,
        200,
    )
    made = extract(request, len)
    assert made is not None
    assert made.text.startswith("The budget is 4,000 EUR.")
