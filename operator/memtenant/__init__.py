"""memtenant: isolated, encrypted, quota-bound, auditable memory for AI agents.

What an agent needs is here by name, and imported when it is first used:

    from memtenant import Message, Tenant
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memtenant.functions.replies import Head
    from memtenant.memory._async.context import SharedContext
    from memtenant.memory._async.conversation import Conversation
    from memtenant.memory._async.tenant import Tenant
    from memtenant.memory.budget import ContextBudget
    from memtenant.memory.importance import Category
    from memtenant.memory.masking import Masking
    from memtenant.memory.messages import Message, Receipt, StoredMessage, ToolCall
    from memtenant.memory.observing import Observation
    from memtenant.memory.options import Options
    from memtenant.memory.prompt import PromptContext
    from memtenant.memory.summaries import Summary, SummaryRequest
    from memtenant.tenancy.masking import Detector, MaskingAction

__all__ = [
    "Category",
    "ContextBudget",
    "Conversation",
    "Detector",
    "Head",
    "Masking",
    "MaskingAction",
    "Message",
    "Observation",
    "Options",
    "PromptContext",
    "Receipt",
    "SharedContext",
    "StoredMessage",
    "Summary",
    "SummaryRequest",
    "Tenant",
    "ToolCall",
]

_WHERE = {
    "Category": "memory.importance",
    "ContextBudget": "memory.budget",
    "Conversation": "memory._async.conversation",
    "Detector": "tenancy.masking",
    "Head": "functions.replies",
    "Masking": "memory.masking",
    "MaskingAction": "tenancy.masking",
    "Message": "memory.messages",
    "Observation": "memory.observing",
    "Options": "memory.options",
    "PromptContext": "memory.prompt",
    "Receipt": "memory.messages",
    "SharedContext": "memory._async.context",
    "StoredMessage": "memory.messages",
    "Summary": "memory.summaries",
    "SummaryRequest": "memory.summaries",
    "Tenant": "memory._async.tenant",
    "ToolCall": "memory.messages",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
