"""The Functions that every read and write of the data plane goes through, and their typed calls.

``*.lua`` are the server's half, joined by `library`; `calls` are the arguments of each Function as
frozen dataclasses, `replies` what they answer, `refusals` what an error reply means. Nothing here
does I/O: a call gives the words of one command and reads its reply.
"""

from memtenant.functions.calls import (
    Append,
    Audited,
    Call,
    Clear,
    Delta,
    NewRecord,
    Pop,
    Reader,
    ReadRange,
    ReadSummaries,
    ReadUsage,
    Remove,
    Summarise,
    Tail,
    TakeLease,
    Update,
)
from memtenant.functions.context_calls import (
    ContextUpdate,
    DeleteContext,
    FieldUpdate,
    ReadChanges,
    ReadContext,
)
from memtenant.functions.context_replies import (
    Change,
    Changes,
    ContextConflict,
    ContextFields,
    ContextUpdated,
    Field,
)
from memtenant.functions.head import HEAD_STATE, HeadState
from memtenant.functions.index_calls import LeaveEvent, ReadIndex
from memtenant.functions.keyspace import ContextKeys, ConversationKeys, SubjectKeys, TenantKeys
from memtenant.functions.library import CURRENT_VERSION, Library, libraries
from memtenant.functions.refusals import refusal
from memtenant.functions.replies import (
    AgentUsage,
    Appended,
    Changed,
    Entries,
    Entry,
    Head,
    Lease,
    Marked,
    Popped,
    Status,
    Summarised,
    TenantUsage,
)

__all__ = [
    "CURRENT_VERSION",
    "HEAD_STATE",
    "AgentUsage",
    "Append",
    "Appended",
    "Audited",
    "Call",
    "Change",
    "Changed",
    "Changes",
    "Clear",
    "ContextConflict",
    "ContextFields",
    "ContextKeys",
    "ContextUpdate",
    "ContextUpdated",
    "ConversationKeys",
    "DeleteContext",
    "Delta",
    "Entries",
    "Entry",
    "Field",
    "FieldUpdate",
    "Head",
    "HeadState",
    "Lease",
    "LeaveEvent",
    "Library",
    "Marked",
    "NewRecord",
    "Pop",
    "Popped",
    "ReadChanges",
    "ReadContext",
    "ReadIndex",
    "ReadRange",
    "ReadSummaries",
    "ReadUsage",
    "Reader",
    "Remove",
    "Status",
    "SubjectKeys",
    "Summarise",
    "Summarised",
    "Tail",
    "TakeLease",
    "TenantKeys",
    "TenantUsage",
    "Update",
    "libraries",
    "refusal",
]
