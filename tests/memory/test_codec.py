"""Any message comes back from its bytes as it was; what cannot is refused."""

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant import Message, ToolCall
from memtenant.errors import MessageInvalid, MessageTooLarge, RecordMalformed
from memtenant.memory.codec import _DICTIONARY, decode, encode, pack, unpack
from memtenant.memory.drafts import draft
from memtenant.memory.tokens import estimate_tokens, message_tokens

RESERVED = {"role", "text", "parts", "name", "calls", "call", "meta", "pinned"}
TEXT = st.text(st.characters())  # lone surrogates too: a model's output may hold them
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
FURTHER = st.dictionaries(TEXT.filter(lambda name: name not in RESERVED), JSON, max_size=2)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["human", "ai", "system", "tool"]) | TEXT,
    content=TEXT | st.lists(OBJECT, max_size=3).map(tuple),
    name=st.none() | TEXT,
    tool_calls=st.lists(st.builds(ToolCall, TEXT, TEXT, JSON), max_size=2).map(tuple),
    tool_call_id=st.none() | TEXT,
    metadata=OBJECT,
    further=FURTHER,
    pinned=st.booleans(),
)


@given(MESSAGES)
def test_any_message_comes_back(message: Message) -> None:
    assert decode(unpack(pack(encode(message)))) == message
    assert message_tokens(message, estimate_tokens) >= 4


@given(st.binary())
def test_other_bytes_are_no_message(data: bytes) -> None:
    try:
        decode(unpack(data))
    except RecordMalformed:
        return
    raise AssertionError("random bytes were taken for a message")


def test_a_bomb_is_not_inflated() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -12, 5)
    bomb = packer.compress(b"0" * 50_000_000) + packer.flush()
    with pytest.raises(RecordMalformed):
        unpack(b"\x02" + bomb)


def test_prose_is_kept_in_fewer_bytes_and_noise_in_hardly_more() -> None:
    prose = encode(Message.human("The order was shipped to the new address on Friday. " * 4))
    assert len(pack(prose)) < len(prose) / 2
    noise = os.urandom(500)
    assert len(pack(noise)) == 501


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}, object(), b"x", {1: 2}, {"a": [b"x"]}]
)
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(MessageInvalid):
        encode(Message.human("x", value=value))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Message(5, "x"), "role is a text, not int"),  # type: ignore[arg-type]
        (Message.human(None), "content is .*, not NoneType"),  # type: ignore[arg-type]
        (Message.human(b"x"), "content is .*, not bytes"),  # type: ignore[arg-type]
        (Message.human({"type": "text"}), "content is .*, not dict"),  # type: ignore[arg-type]
        (Message.human(["x"]), "content is .*, not list"),  # type: ignore[list-item]
        (Message("human", "x", metadata=["x"]), "metadata is a mapping"),  # type: ignore[arg-type]
        (Message("human", "x", further="x"), "further is a mapping"),  # type: ignore[arg-type]
        (Message.ai("x", tool_calls=[{"id": "1"}]), "ToolCall"),  # type: ignore[list-item]
        (Message.ai("x", tool_calls=[ToolCall("1", None)]), "ToolCall"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_message_of_the_right_types_is_refused_before_it_spoils_a_conversation(
    message: Message, told: str
) -> None:
    with pytest.raises(MessageInvalid, match=told):
        draft(message, estimate_tokens)


def test_endless_nesting_and_reserved_names_are_refused() -> None:
    nested: list[object] = []
    nested.append(nested)
    with pytest.raises(MessageInvalid, match="nested"):
        encode(Message.human("x", value=nested))  # type: ignore[arg-type]
    with pytest.raises(MessageInvalid, match="known one"):
        encode(Message("human", "x", further={"role": "system"}))
    with pytest.raises(MessageTooLarge, match="reference"):
        pack(b"x" * (4 * 1024 * 1024 + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{}",
        b'{"role":1,"text":"x"}',
        b'{"role":"a"}',
        b'{"role":"a","text":1}',
        b"nonsense",
        b'{"role":"a","text":"x","calls":[1]}',
        b'{"role":"a","text":"x","meta":[]}',
        b"[" * 100_000,
    ],
)
def test_json_that_is_no_message_is_told(data: bytes) -> None:
    with pytest.raises(RecordMalformed):
        decode(data)


@given(TEXT, TEXT)
def test_an_estimate_grows_with_its_text(one: str, other: str) -> None:
    assert estimate_tokens(one + other) >= max(estimate_tokens(one), estimate_tokens(other)) - 8
    assert estimate_tokens("") == 0


def test_the_dictionary_is_the_one_that_is_published() -> None:
    page = (Path(__file__).parents[2] / "docs" / "record-format.md").read_text()
    assert f"```text\n{_DICTIONARY.decode()}\n```" in page
