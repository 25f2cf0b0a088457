"""The session under the real Runner, and its items as they went in."""

import json
from typing import Any

import pytest
from agents import Agent, ModelResponse, RunConfig, Runner, Usage, function_tool
from agents.memory import Session as Protocol
from agents.memory import SessionSettings
from agents.models.interface import Model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

from memtenant import Masking, Message, Tenant, ToolCall
from memtenant.openai_agents import Session
from tests.memory.bindings import PATIENT, Provisioned

OFFLINE = RunConfig(tracing_disabled=True)

ITEMS: list[dict[str, Any]] = [
    {"content": "Where is my parcel?", "role": "user"},
    {"role": "user", "content": [{"type": "input_text", "text": "and"}, {"type": "input_image"}]},
    {"type": "reasoning", "id": "r1", "summary": [{"text": "hm", "type": "summary_text"}]},
    {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": []},
    {"arguments": '{"id": 4711 }', "call_id": "c1", "name": "find", "type": "function_call"},
    {"call_id": "c1", "output": "in Linz", "type": "function_call_output"},
    {"call_id": "c2", "output": [{"type": "input_text", "text": "x"}], "type": "shell_call_output"},
    {"type": "of_next_year", "nested": [[None, True, 1.5, {"ä": "\U0001f4e6"}]], "role": 7},
    {"role": "developer", "content": "Be brief."},
    {"role": "critic", "content": "unknown"},
    {"role": "assistant", "content": None},
    {},
]


@pytest.fixture
def session(tenant: Tenant) -> Session:
    return Session(tenant, "ticket-4711", user="ada")


async def test_items_come_back_byte_for_byte(session: Session) -> None:
    await session.add_items(ITEMS)
    assert json.dumps(await session.get_items()) == json.dumps(ITEMS)
    assert await session.get_items(3) == ITEMS[-3:]
    assert await session.get_items(0) == []
    for item in reversed(ITEMS):
        assert json.dumps(await session.pop_item()) == json.dumps(item)
    assert await session.pop_item() is None
    await session.add_items(ITEMS)
    await session.add_items([])
    await session.clear_session()
    assert await session.get_items() == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
_KINDS = st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "x", 1])
_ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": _KINDS,
        "role": st.sampled_from(["user", "assistant", "tool", None, 3]),
        **dict.fromkeys(("content", "output", "summary", "arguments", "call_id"), _JSON),
        "name": st.text(max_size=5),
    },
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(items=st.lists(_ITEM, max_size=6))
async def test_any_item_comes_back_byte_for_byte(
    session: Session, items: list[dict[str, Any]]
) -> None:
    await session.clear_session()
    await session.add_items(items)
    assert json.dumps(await session.get_items()) == json.dumps(items)


class Scripted(Model):
    """Calls the tool that it has, then says what it was given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def get_response(  # type: ignore[override]
        self, *_: Any, **request: Any
    ) -> ModelResponse:
        given = request["input"]
        self.seen.append(given)
        last = given[-1]
        if last.get("type") == "function_call_output":
            text = ResponseOutputText(
                annotations=[], text=f"It is {last['output']}", type="output_text"
            )
            output: Any = ResponseOutputMessage(
                id="m", content=[text], role="assistant", status="completed", type="message"
            )
        else:
            output = ResponseFunctionToolCall(
                arguments='{"number": 4711}', call_id="c1", name="find", type="function_call"
            )
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


@function_tool
def find(number: int) -> str:
    """Where a parcel is."""
    return f"in Linz, number {number}"


async def test_an_agent_remembers_over_runs_and_processes(tenant: Tenant, session: Session) -> None:
    assert isinstance(session, Protocol)
    model = Scripted()
    agent = Agent(name="helpdesk", model=model, tools=[find])
    first = await Runner.run(agent, "Where is it?", session=session, run_config=OFFLINE)
    assert first.final_output == "It is in Linz, number 4711"
    again = Session(tenant, "ticket-4711", user="ada")
    await Runner.run(agent, "And now?", session=again, run_config=OFFLINE)
    kinds = [item.get("type", item.get("role")) for item in model.seen[2]]
    assert kinds == ["user", "function_call", "function_call_output", "message", "user"]
    stored = await tenant.conversation("ticket-4711", user="ada").messages()
    assert [one.role for one in stored] == ["human", "ai", "tool", "ai"] * 2
    assert stored[0].text == "Where is it?"
    assert stored[1].message.tool_calls == (ToolCall("c1", "find", '{"number": 4711}'),)
    assert await Session(tenant, "ticket-4711", user="bo").get_items() == []


async def test_the_sdks_limit_reads_the_newest(tenant: Tenant) -> None:
    limited = Session(tenant, "s", user="ada", session_settings=SessionSettings(limit=2))
    await limited.add_items([{"role": "user", "content": str(number)} for number in range(1500)])
    assert [item["content"] for item in await limited.get_items()] == ["1498", "1499"]
    assert len(await limited.get_items(1100)) == 1100


async def test_what_other_code_appended_is_part_of_the_history(
    tenant: Tenant, session: Session
) -> None:
    chat = tenant.conversation("ticket-4711", user="ada")
    call = ToolCall("c1", "find", {"number": 1})
    await chat.extend(
        [
            Message.system("Be kind."),
            Message.human("Where?"),
            Message.ai("One moment", tool_calls=[call]),
            Message.tool("Linz", call="c1"),
        ]
    )
    assert await session.get_items() == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "One moment"},
        {"type": "function_call", "call_id": "c1", "name": "find", "arguments": '{"number": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "Linz"},
    ]


MAIL = "write to ada@example.org"
HEARD: list[dict[str, Any]] = [
    {"type": "mcp_call", "id": "mcp_1", "name": "mail", "arguments": MAIL, "output": MAIL},
    {"type": "custom_tool_call", "call_id": "c1", "name": "note", "input": MAIL},
    {"type": "of_last_year", "id": "4111111111111111"},
    {"type": "local_shell_call_output", "id": "s1", "output": MAIL, "status": "completed"},
    {"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": MAIL}
    | {"content": [{"type": "reasoning_text", "text": MAIL}]},
    {"type": "of_next_year", "name": MAIL, "nested": [{"deep": [MAIL, 4111111111111111]}]},
]


async def test_no_kind_of_item_keeps_what_is_masked(acme: Provisioned) -> None:
    async with Tenant(acme.source(), options=PATIENT, masking=Masking()) as tenant:
        session = Session(tenant, "ticket-4711", user="ada")
        await session.add_items([*ITEMS, *HEARD])
        items = await session.get_items()
    assert json.dumps(items[: len(ITEMS)]) == json.dumps(ITEMS)
    sent, noted, old, shell, thought, new = items[len(ITEMS) :]
    told = "write to <EMAIL>"
    assert sent == {**HEARD[0], "arguments": told, "output": told}
    assert noted == {**HEARD[1], "input": told}
    assert old == {**HEARD[2], "id": "<CARD 411111******1111>"}
    assert shell == {**HEARD[3], "output": told}
    assert thought == {**HEARD[4], "content": [{"type": "reasoning_text", "text": told}]}
    assert new == {
        "type": "of_next_year",
        "name": told,
        "nested": [{"deep": [told, "<CARD 411111******1111>"]}],
    }
