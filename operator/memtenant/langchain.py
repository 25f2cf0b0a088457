"""Memory for LangChain's agents: ``from memtenant.langchain import Memory``.

A middleware. What is said goes into a conversation of the tenant as it is said, and of that
conversation the model is given what a budget takes. Needs ``pip install memtenant[langchain]``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, cast
from uuid import uuid4

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.runtime import Runtime

from memtenant.errors import UsageError
from memtenant.functions.calls import MAX_BATCH
from memtenant.memory._async.conversation import Conversation as AsyncConversation
from memtenant.memory._async.tenant import Tenant as AsyncTenant
from memtenant.memory._sync.conversation import Conversation
from memtenant.memory._sync.tenant import Tenant
from memtenant.memory.budget import ContextBudget
from memtenant.memory.messages import AI, HUMAN, SYSTEM, TOOL, Message, StoredMessage, ToolCall
from memtenant.memory.prompt import PromptContext
from memtenant.memory.tokens import message_tokens
from memtenant.sync.either import Either

__all__ = ["Memory"]

_FIELD: Final = "langchain"
"""The further field of a message that holds what LangChain keeps beside its text."""

_MOST_OPEN: Final = 64
_ROLES: Final = {"human": HUMAN, "ai": AI, "system": SYSTEM, "tool": TOOL}
"""By LangChain's type of a message."""

_BESIDE: Final = ("id", "additional_kwargs", "invalid_tool_calls", "status")

C = TypeVar("C", Conversation, AsyncConversation)


@dataclass(slots=True)
class _Thread:
    """A conversation with the ids of LangChain's messages that are in it (None: not read yet)."""

    chat: Any
    ids: set[str] | None = None

    def new(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """What is not stored yet. A system message is an instruction of now, not memory."""
        known = self.ids or set()
        return [one for one in messages if one.type != "system" and one.id not in known]

    def stored(self, messages: Sequence[BaseMessage]) -> None:
        """These are stored now."""
        ids = (one.id for one in messages)
        self.ids = (self.ids or set()) | {identity for identity in ids if identity is not None}


class Memory(AgentMiddleware[AgentState[Any], Any, Any]):
    """``create_agent(model, tools, middleware=[Memory(tenant, subject="ada", budget=budget)])``.

    The conversation is `Tenant.conversation` of the run's ``thread_id`` and ``subject``: whose data
    it is, or a function that tells it from the config. Every message is stored, whatever the model
    is given. The budget holds the system prompt, the messages and a summary, not the tools'
    descriptions; what fits is chosen as `ContextBudget` says, a tool's result with its call.

    tenant: either kind of Tenant; ``invoke`` and ``ainvoke`` work with both.
    """

    def __init__(
        self,
        tenant: AsyncTenant | Tenant,
        *,
        subject: str | Callable[[RunnableConfig], str],
        budget: ContextBudget,
    ) -> None:
        super().__init__()
        self._tenant = Either(tenant)
        self._subject = subject
        self._budget = budget
        self._counter = budget.counter or tenant.token_counter
        self._threads: OrderedDict[tuple[str, str, bool], _Thread] = OrderedDict()

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Store what is new, call the model with what the budget takes, store what it says."""
        thread = self._thread()
        self._store(thread, request.messages)
        chat: Conversation = thread.chat
        response = handler(self._given(request, chat.context(self._left(request))))
        self._store(thread, _named(response.result))
        return response

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        if self._tenant.asynchronous is None:
            thread = self._thread()
            await asyncio.to_thread(self._store, thread, request.messages)
            context = await asyncio.to_thread(thread.chat.context, self._left(request))
            response = await handler(self._given(request, context))
            await asyncio.to_thread(self._store, thread, _named(response.result))
            return response
        thread = self._athread(self._tenant.asynchronous)
        await self._astore(thread, request.messages)
        chat: AsyncConversation = thread.chat
        response = await handler(self._given(request, await chat.context(self._left(request))))
        await self._astore(thread, _named(response.result))
        return response

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Store what no model saw any more, such as the result of a tool that ends the run."""
        self._store(self._thread(), state["messages"])

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """As `after_agent`."""
        if self._tenant.asynchronous is None:
            await asyncio.to_thread(self._store, self._thread(), state["messages"])
        else:
            await self._astore(self._athread(self._tenant.asynchronous), state["messages"])

    def close(self) -> None:
        """Close what this middleware opened itself: the connections of the other kind of Tenant."""
        self._tenant.close()

    def _store(self, thread: _Thread, messages: Sequence[BaseMessage]) -> None:
        chat: Conversation = thread.chat
        if thread.ids is None:
            thread.ids = _ids(chat.messages())
        new = thread.new(messages)
        for start in range(0, len(new), MAX_BATCH):
            batch = new[start : start + MAX_BATCH]
            chat.extend([_kept(one) for one in batch])
            thread.stored(batch)

    async def _astore(self, thread: _Thread, messages: Sequence[BaseMessage]) -> None:
        chat: AsyncConversation = thread.chat
        if thread.ids is None:
            thread.ids = _ids(await chat.messages())
        new = thread.new(messages)
        for start in range(0, len(new), MAX_BATCH):
            batch = new[start : start + MAX_BATCH]
            await chat.extend([_kept(one) for one in batch])
            thread.stored(batch)

    def _left(self, request: ModelRequest[Any]) -> ContextBudget:
        """The budget less the system prompt."""
        prompt = request.system_message
        if prompt is None:
            return self._budget
        spent = message_tokens(_kept(prompt), self._counter)
        left = self._budget.max_tokens - spent
        if left < 1:
            raise UsageError(
                f"The agent's system prompt alone has {spent} tokens, and the budget "
                f"{self._budget.max_tokens}: raise max_tokens"
            )
        trigger = self._budget.trigger_tokens
        return replace(
            self._budget,
            max_tokens=left,
            trigger_tokens=None if trigger is None else min(trigger, left),
        )

    def _given(self, request: ModelRequest[Any], context: PromptContext) -> ModelRequest[Any]:
        newest = _newest(request.messages)
        given = [_shown(message) for message in context.as_messages()]
        if newest is not None and all(one.id != newest for one in given):
            raise UsageError(
                "The newest message does not fit into the context budget: raise max_tokens, or "
                f"shorten it (the budget takes {context.statistics.allowed} tokens)"
            )
        return request.override(messages=cast("list[AnyMessage]", given))

    def _thread(self) -> _Thread:
        tenant = self._tenant.plain()
        return self._open(True, lambda thread, user: tenant.conversation(thread, user=user))

    def _athread(self, tenant: AsyncTenant) -> _Thread:
        return self._open(False, lambda thread, user: tenant.conversation(thread, user=user))

    def _open(self, plain: bool, conversation: Callable[[str, str], C]) -> _Thread:
        config = get_config()
        name = config.get("configurable", {}).get("thread_id")
        if name in (None, ""):
            raise UsageError(
                "An agent with memory needs a thread: config={'configurable': {'thread_id': '…'}}"
            )
        user = self._subject(config) if callable(self._subject) else self._subject
        key = (str(name), user, plain)
        thread = self._threads.get(key)
        if thread is None:
            thread = self._threads[key] = _Thread(conversation(str(name), user))
            while len(self._threads) > _MOST_OPEN:
                self._threads.popitem(last=False)
        return thread


def _ids(stored: Sequence[StoredMessage]) -> set[str]:
    fields = (one.message.further.get(_FIELD) for one in stored)
    ids = (field.get("id") for field in fields if isinstance(field, dict))
    return {identity for identity in ids if isinstance(identity, str)}


def _named(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """With ids, by which the agent's state and the conversation know them."""
    for message in messages:
        if message.id is None:
            message.id = str(uuid4())
    return messages


def _newest(messages: Sequence[BaseMessage]) -> str | None:
    return messages[-1].id if messages else None


def _kept(message: BaseMessage) -> Message:
    """A message of LangChain's as the conversation keeps it."""
    content = message.content
    beside = {
        name: value
        for name in _BESIDE
        if (value := getattr(message, name, None)) not in (None, {}, [])
    }
    role = getattr(message, "role", None) if message.type == "chat" else _ROLES.get(message.type)
    return Message(
        role=role or message.type,
        content=content if isinstance(content, str) else [_part(part) for part in content],
        name=message.name,
        tool_calls=tuple(
            ToolCall(str(call["id"]), call["name"], call["args"])
            for call in getattr(message, "tool_calls", ())
        ),
        tool_call_id=getattr(message, "tool_call_id", None),
        further={_FIELD: beside},
    )


def _part(part: str | dict[Any, Any]) -> dict[str, Any]:
    return {"type": "text", "text": part} if isinstance(part, str) else part


def _shown(message: Message) -> BaseMessage:
    """A message of the conversation as LangChain's, also one that other code appended."""
    kept = message.further.get(_FIELD)
    beside: dict[str, Any] = dict(kept) if isinstance(kept, dict) else {}
    content: Any = message.content if isinstance(message.content, str) else list(message.content)
    if message.name is not None:
        beside["name"] = message.name
    if message.role == AI:
        calls = [
            {"id": one.id, "name": one.name, "args": one.arguments, "type": "tool_call"}
            for one in message.tool_calls
        ]
        return AIMessage(content, tool_calls=calls, **beside)
    if message.role == TOOL:
        return ToolMessage(content, tool_call_id=message.tool_call_id or "", **beside)
    if message.role == SYSTEM:
        return SystemMessage(content, **beside)
    if message.role == HUMAN:
        return HumanMessage(content, **beside)
    return ChatMessage(content=content, role=message.role, **beside)
