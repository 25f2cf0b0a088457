"""The middleware in a real agent of LangChain's: what is stored, and what the model is given."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from memtenant import ContextBudget, Masking, Message, Tenant, ToolCall
from memtenant.errors import UsageError
from memtenant.langchain import Memory
from memtenant.langgraph import Saver
from memtenant.memory.tokens import message_tokens
from memtenant.sync import Tenant as SyncTenant
from tests.adapters.graphs import config, text
from tests.memory.bindings import PATIENT, Provisioned

PROMPT = "You are the helpdesk. Be brief."


@tool
def find(number: int) -> str:
    """Where a parcel is."""
    return f"in Linz, number {number} {text(200)}"


class Scripted(BaseChatModel):
    """Calls its tool at each question, then answers; keeps what it was given."""

    seen: list[list[BaseMessage]]

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.seen.append(messages)
        if isinstance(messages[-1], ToolMessage):
            answer = AIMessage(f"It is {messages[-1].content}")
        else:
            call = {"id": f"c{len(self.seen)}", "name": "find", "args": {"number": 4711}}
            answer = AIMessage("", tool_calls=[{**call, "type": "tool_call"}])
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> "Scripted":  # type: ignore[override]
        return self

    @property
    def _llm_type(self) -> str:
        return "scripted"


def words(text: str) -> int:
    return len(text.split())


def spent(messages: Sequence[BaseMessage]) -> int:
    """By a counter of the test's: text, names and arguments, and something for each message."""
    calls = [str(call) for one in messages for call in getattr(one, "tool_calls", ())]
    return sum(words(str(one.content)) for one in messages) + sum(map(words, calls))


@pytest.mark.parametrize("checkpointed", [False, True], ids=["memory alone", "with a saver"])
async def test_a_model_is_given_what_the_budget_takes_and_everything_is_stored(
    tenant: Tenant, checkpointed: bool
) -> None:
    model = Scripted(seen=[])
    budget = ContextBudget(400, counter=words)
    agent = create_agent(
        model,
        [find],
        system_prompt=PROMPT,
        middleware=[Memory(tenant, subject="ada", budget=budget)],
        checkpointer=Saver(tenant, subject="ada") if checkpointed else None,
    )
    for number in range(12):
        question = HumanMessage(f"Question {number}: {text(200)}")
        await agent.ainvoke({"messages": [question]}, config())
    stored = await tenant.conversation("ticket-4711", user="ada").messages()
    assert [one.role for one in stored] == ["human", "ai", "tool", "ai"] * 12
    assert len(model.seen) == 24
    for given in model.seen:
        assert spent(given) <= 400
        assert given[0].content == PROMPT
        called = {call["id"] for one in given for call in getattr(one, "tool_calls", ())}
        answered = {one.tool_call_id for one in given if isinstance(one, ToolMessage)}
        assert called == answered or isinstance(given[-1], HumanMessage)
        assert answered <= called
    assert len(model.seen[-1]) > 8
    last = model.seen[-1]
    assert [one.type for one in last[-3:]] == ["human", "ai", "tool"]
    assert str(last[-3].content).startswith("Question 11")


def test_without_asyncio_and_over_processes(sync_tenant: SyncTenant) -> None:
    """A second agent knows what the first one heard; what it heard is stored once."""
    for number in range(2):
        model = Scripted(seen=[])
        memory = Memory(
            sync_tenant,
            subject=lambda config: config["configurable"]["user_id"],
            budget=ContextBudget(4000),
        )
        agent = create_agent(model, [find], middleware=[memory])
        agent.invoke({"messages": [HumanMessage(f"Number {number}")]}, config(user_id="ada"))
    heard = [one.content for one in model.seen[0] if isinstance(one, HumanMessage)]
    assert heard == ["Number 0", "Number 1"]
    assert len(sync_tenant.conversation("ticket-4711", user="ada").messages()) == 8
    assert sync_tenant.conversation("ticket-4711", user="bo").count() == 0


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_either_kind_of_tenant_serves_both_kinds_of_calls(
    tenant: Tenant, sync_tenant: SyncTenant, asynchronous: bool
) -> None:
    given: Tenant | SyncTenant = tenant if asynchronous else sync_tenant
    memory = Memory(given, subject="ada", budget=ContextBudget(4000))
    agent = create_agent(Scripted(seen=[]), [find], middleware=[memory])
    await agent.ainvoke({"messages": [HumanMessage("one")]}, config())
    agent.invoke({"messages": [HumanMessage("two")]}, config("another"))
    for thread in ("ticket-4711", "another"):
        assert await tenant.conversation(thread, user="ada").count() == 4
    memory.close()


async def test_messages_come_back_as_they_were_and_other_codes_too(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket-4711", user="ada")
    call = ToolCall("c0", "find", {"number": 1})
    await chat.extend(
        [
            Message.system("Ada is a friend of the house."),
            Message.human("Hello"),
            Message.ai("", tool_calls=[call]),
            Message.tool("Linz", call="c0"),
        ]
    )
    model = Scripted(seen=[])
    memory = Memory(tenant, subject="ada", budget=ContextBudget(4000))
    agent = create_agent(model, [find], middleware=[memory])
    parts: list[str | dict[Any, Any]] = ["see", {"type": "image", "url": "https://example.org/1"}]
    question = HumanMessage(parts, name="ada", additional_kwargs={"source": "mail"})
    await agent.ainvoke({"messages": [question]}, config())
    await agent.ainvoke({"messages": [HumanMessage("more")]}, config())
    seen = model.seen[-1]
    assert [one.type for one in seen[:4]] == ["system", "human", "ai", "tool"]
    assert seen[2].tool_calls[0]["args"] == {"number": 1}  # type: ignore[attr-defined]
    again = seen[4]
    assert again.content == [{"type": "text", "text": "see"}, parts[1]]
    assert (again.name, again.additional_kwargs) == ("ada", {"source": "mail"})
    assert len({one.id for one in seen[4:]}) == len(seen[4:])


async def test_what_cannot_fit_is_said_before_the_model_is_asked(tenant: Tenant) -> None:
    def agent(budget: ContextBudget) -> Callable[[str], Any]:
        memory = Memory(tenant, subject="ada", budget=budget)
        made = create_agent(Scripted(seen=[]), [find], system_prompt=PROMPT, middleware=[memory])
        return lambda said: made.ainvoke({"messages": [HumanMessage(said)]}, config())

    with pytest.raises(UsageError, match="system prompt alone"):
        await agent(ContextBudget(5, counter=words))("Hello")
    with pytest.raises(UsageError, match="newest message does not fit"):
        await agent(ContextBudget(60, counter=words))("long " * 100)
    memory = Memory(tenant, subject="ada", budget=ContextBudget(400))
    nowhere = create_agent(Scripted(seen=[]), [], middleware=[memory])
    with pytest.raises(UsageError, match="needs a thread"):
        await nowhere.ainvoke({"messages": []})
    assert message_tokens(Message.system(PROMPT), words) > 5


async def test_what_langchain_keeps_beside_the_text_is_masked_too(acme: Provisioned) -> None:
    mail = "write to ada@example.org"
    raw = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": mail}}
    invalid = {
        "name": "find",
        "args": mail,
        "id": "call_2",
        "error": mail,
        "type": "invalid_tool_call",
    }
    said = AIMessage(
        "Hello",
        id="lc_run--5f1",
        additional_kwargs={"reasoning_content": mail, "tool_calls": [raw]},
        invalid_tool_calls=[invalid],
    )
    async with Tenant(acme.source(), options=PATIENT, masking=Masking()) as tenant:
        memory = Memory(tenant, subject="ada", budget=ContextBudget(400, counter=words))
        agent = create_agent(Scripted(seen=[]), [find], middleware=[memory])
        await agent.ainvoke({"messages": [said, HumanMessage("Where?")]}, config("t"))
        kept = (await tenant.conversation("t", user="ada").messages())[0].message.further[
            "langchain"
        ]
    told = "write to <EMAIL>"
    assert kept == {
        "id": "lc_run--5f1",
        "additional_kwargs": {
            "reasoning_content": told,
            "tool_calls": [{**raw, "function": {"name": "find", "arguments": told}}],
        },
        "invalid_tool_calls": [{**invalid, "args": told, "error": told}],
    }
