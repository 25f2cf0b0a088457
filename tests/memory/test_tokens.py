"""The default token counter beside what tokenizers said: cl100k, o200k."""

import pytest

from memtenant import Message, ToolCall
from memtenant.memory.tokens import ESTIMATE_MARGIN, estimate_tokens, message_tokens

# Counted with gpt-tokenizer 4.0.0.
COUNTED = {
    "English": (
        (
            "The parcel left the warehouse on Tuesday and should arrive in Lisbon by Friday "
            "morning, unless customs asks for the invoice again."
        ),
        24,
        24,
    ),
    "Chinese": (
        "我们决定把服务器迁移到法兰克福，预算是每月三千欧元，负责人是李娜，最迟在下周五之前完成。",  # noqa: RUF001
        52,
        35,
    ),
    "code": (
        (
            "def parse(reply: object) -> Changed:\n"
            '    """The reply of remove, update, clear and delete."""\n'
            "    status, rest = status_of(reply)\n"
            "    if status in (Status.OK, Status.DUPLICATE):\n"
            "        return Changed(*rest)\n"
            "    raise _conflict(status, rest)\n"
        ),
        59,
        60,
    ),
    "JSON": (
        (
            '{"order": "A-4711", "items": [{"sku": "88-1203", "count": 2, "price": 19.95}, {"sku": '
            '"17-0044", "count": 1, "price": 249.0}], "currency": "EUR", "paid": true}'
        ),
        69,
        69,
    ),
    "base64": (
        (
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYI"
            "I="
        ),
        52,
        51,
    ),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_the_estimate_is_near_what_tokenizers_count(kind: str) -> None:
    text, *counts = COUNTED[kind]
    for count in counts:
        assert estimate_tokens(text) * (1 + ESTIMATE_MARGIN) >= count
        assert estimate_tokens(text) <= 1.4 * count


EACH = [1, 2, 1, 3, 1, 1, 1]


def test_nothing_has_no_tokens_and_one_character_has() -> None:
    assert estimate_tokens("") == 0
    assert [estimate_tokens(one) for one in ("a", "7", "?", "é", "я", "好", "\ud800")] == EACH


def test_a_long_run_without_spaces_weighs_by_its_length() -> None:
    run = "deadbeef" * 100
    assert 0.7 * len(run) <= estimate_tokens(f"see {run} there") <= 0.8 * len(run)


def test_the_script_of_a_tools_arguments_does_not_matter() -> None:
    one, other = (
        Message.ai("", tool_calls=(ToolCall("1", "search", {"q": text}),))
        for text in ("法兰克福", "Frankfurt am Main")
    )
    assert message_tokens(one, estimate_tokens) <= message_tokens(other, estimate_tokens) + 4
