"""A session for the OpenAI Agents SDK: ``from memtenant.openai_agents import Session``.

It is the SDK's ``Session`` protocol over a conversation of a tenant, and imports nothing of it.
What a person or a model says is kept as a message's text, so that masking, token counts and
summaries see it; the rest of an item is kept beside it, and comes back as it was, in its order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from memtenant.functions.calls import MAX_BATCH
from memtenant.memory._async.conversation import Conversation
from memtenant.memory._async.tenant import Tenant
from memtenant.memory.messages import AI, HUMAN, SYSTEM, TOOL, Message, ToolCall

__all__ = ["Session"]

Item = Any
"""The SDK's item: a mapping of one of its many kinds, or of one that is not known here."""

_FIELD: Final = "openai"
"""The further field of a message that holds where the text of the item was, and the rest of it."""

_ROLES: Final = {"user": HUMAN, "assistant": AI, "system": SYSTEM, "developer": SYSTEM}
_ITEM_ROLES: Final = {HUMAN: "user", AI: "assistant", SYSTEM: "system"}


class Session:
    """``Runner.run(agent, "Hello", session=Session(tenant, "ticket-4711", user="ada"))``.

    user: whose data it is. The conversation is `Tenant.conversation` of the same session and user;
    what other code appended to it is part of the history. Where the tenant masks, masked text comes
    back. session_settings: the SDK's own, such as a limit.
    """

    def __init__(
        self, tenant: Tenant, session_id: str, *, user: str, session_settings: Any = None
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings
        self.conversation: Conversation = tenant.conversation(session_id, user=user)

    async def get_items(self, limit: int | None = None) -> list[Item]:
        """The history, oldest first; with a limit, its newest items."""
        if limit is None:
            limit = getattr(self.session_settings, "limit", None)
        if limit is None:
            stored = await self.conversation.messages()
        else:
            stored = await self.conversation.latest(limit)
        items = [item for one in stored for item in _items(one.message)]
        return items if limit is None else items[max(len(items) - limit, 0) :]

    async def add_items(self, items: Sequence[Item]) -> None:
        """Store items at the end: up to 1,000 at once or not at all. Raises what
        `Conversation.extend` raises."""
        messages = [_message(item) for item in items]
        for start in range(0, len(messages), MAX_BATCH):
            await self.conversation.extend(messages[start : start + MAX_BATCH])

    async def pop_item(self) -> Item:
        """Take the last item away and return it; None where there is none."""
        popped = await self.conversation.pop()
        return None if popped is None else _items(popped.message)[-1]

    async def clear_session(self) -> None:
        """Take every item away."""
        await self.conversation.clear()


def _message(item: Mapping[str, Any]) -> Message:
    """The item as a message: its text in the message's place, and a gap where it was."""
    kind, role = item.get("type", "message"), item.get("role")
    if kind == "message" and role in _ROLES and _is_content(item.get("content")):
        return _made(_ROLES[role], item, "content")
    if kind == "function_call" and isinstance(item.get("arguments"), str):
        call = ToolCall(str(item.get("call_id")), str(item.get("name")), item["arguments"])
        return Message(AI, tool_calls=(call,), further=_gap(item, "arguments"))
    if kind == "function_call_output" and _is_content(item.get("output")):
        return _made(TOOL, item, "output", call=str(item.get("call_id")))
    if kind == "reasoning" and _is_content(item.get("summary")):
        return _made("reasoning", item, "summary")
    return Message(str(kind), further={_FIELD: ["", dict(item)]})


def _made(role: str, item: Mapping[str, Any], place: str, call: str | None = None) -> Message:
    return Message(role, item[place], tool_call_id=call, further=_gap(item, place))


def _gap(item: Mapping[str, Any], place: str) -> dict[str, Any]:
    return {_FIELD: [place, {**item, place: None}]}


def _is_content(value: object) -> bool:
    """Text, or parts: what a message's content can be."""
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(part, Mapping) for part in value)
    )


def _items(message: Message) -> list[Item]:
    """Undo `_message`; of a message that other code appended, items that say the same."""
    kept = message.further.get(_FIELD)
    if not isinstance(kept, list):
        return _said(message)
    place, item = kept[0], dict(kept[1])
    if place == "arguments":
        item[place] = message.tool_calls[0].arguments
    elif place:
        item[place] = _plain(message)
    return [item]


def _said(message: Message) -> list[Item]:
    if message.role == TOOL:
        output = {"type": "function_call_output", "call_id": message.tool_call_id or ""}
        return [{**output, "output": message.text}]
    said: list[Item] = []
    if message.text or not message.tool_calls:
        role = _ITEM_ROLES.get(message.role, "user")
        said.append({"role": role, "content": message.text})
    for call in message.tool_calls:
        arguments = call.arguments
        said.append(
            {
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
            }
        )
    return said


def _plain(message: Message) -> Any:
    return message.content if isinstance(message.content, str) else list(message.content)
