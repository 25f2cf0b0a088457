"""The Functions that every read and write of the data plane goes through, and their typed calls.

``*.lua`` are the server's half, joined by `library`; `fcall` says what a call is, `calls` and
`…_calls` are the arguments of each Function as frozen dataclasses, `replies` what they answer,
`refusals` what an error reply means. Nothing here does I/O: a call gives the words of one command
and reads its reply.

By name here is what every agent uses. Summaries, contexts, checkpoints, indexes and the
library are imported from their own modules by those who need them: an import costs an agent's
start.
"""

from memtenant.functions.calls import (
    Append,
    Clear,
    Delta,
    NewRecord,
    Pop,
    ReadRange,
    ReadUsage,
    Remove,
    Tail,
    Update,
)
from memtenant.functions.fcall import Audited, Call, Reader
from memtenant.functions.head import HEAD_STATE, HeadState
from memtenant.functions.keyspace import ContextKeys, ConversationKeys, SubjectKeys, TenantKeys
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
    "HEAD_STATE",
    "AgentUsage",
    "Append",
    "Appended",
    "Audited",
    "Call",
    "Changed",
    "Clear",
    "ContextKeys",
    "ConversationKeys",
    "Delta",
    "Entries",
    "Entry",
    "Head",
    "HeadState",
    "Lease",
    "Marked",
    "NewRecord",
    "Pop",
    "Popped",
    "ReadRange",
    "ReadUsage",
    "Reader",
    "Remove",
    "Status",
    "SubjectKeys",
    "Summarised",
    "Tail",
    "TenantKeys",
    "TenantUsage",
    "Update",
    "refusal",
]
