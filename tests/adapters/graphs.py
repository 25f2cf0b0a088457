"""Graphs with scripted models, for the tests: no network, no model."""

import itertools
from typing import Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

_WORDS = ("parcel", "late", "refund", "order", "street", "number", "Friday", "courier", "box")
_numbers = itertools.count(1)


def config(thread: str = "ticket-4711", **further: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, **further}}


def text(size: int = 330) -> str:
    """Words that never repeat as a whole."""
    words, number = [], next(_numbers)
    while sum(len(word) + 1 for word in words) < size:
        words.append(f"{_WORDS[number * 7 % len(_WORDS)]}{number * 2654435761 % 99991}")
        number += len(words)
    return " ".join(words)[:size]


def talker(saver: BaseCheckpointSaver[Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Answers every message with one."""

    def talk(state: MessagesState) -> dict[str, list[AnyMessage]]:
        return {"messages": [AIMessage(text())]}

    builder = StateGraph(MessagesState)
    builder.add_node("talk", talk)
    builder.add_edge(START, "talk")
    builder.add_edge("talk", END)
    return builder.compile(checkpointer=saver)


class Refund(TypedDict, total=False):
    amount: int
    approved: str
    log: list[str]


def approval(saver: BaseCheckpointSaver[Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Asks a person before it pays, twice: first who, then why."""

    def ask(state: Refund) -> Refund:
        who = interrupt({"question": "who?", "amount": state["amount"]})
        why = interrupt({"question": "why?"})
        return {"approved": f"{who}: {why}", "log": [*state.get("log", []), "asked"]}

    def pay(state: Refund) -> Refund:
        return {"log": [*state["log"], f"paid {state['amount']}"]}

    builder = StateGraph(Refund)
    builder.add_node("ask", ask)
    builder.add_node("pay", pay)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "pay")
    builder.add_edge("pay", END)
    return builder.compile(checkpointer=saver)
