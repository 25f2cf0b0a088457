"""One good call of each Function, on a tenant that holds something for it to work on.

The tests that poison, deny, fuzz and cross tenants take their calls from here, and compare the
names with what the library registers: none is left out.
"""

import re
from dataclasses import dataclass, replace

from memtenant.functions import (
    Append,
    Clear,
    ContextKeys,
    ConversationKeys,
    Delta,
    NewRecord,
    Pop,
    Reader,
    ReadRange,
    ReadUsage,
    Remove,
    SubjectKeys,
    Tail,
    TenantKeys,
    Update,
)
from memtenant.functions.checkpoint_calls import (
    DeleteCheckpoints,
    GetCheckpoint,
    ListCheckpoints,
    NewList,
    NewWrite,
    PutCheckpoint,
    PutWrites,
    Saving,
)
from memtenant.functions.checkpoint_replies import Reference
from memtenant.functions.context_calls import (
    ContextUpdate,
    DeleteContext,
    FieldUpdate,
    ReadChanges,
    ReadContext,
)
from memtenant.functions.expiry_calls import (
    CompactIndex,
    Expire,
    ExpireContext,
    Expiring,
    ExpiringContext,
)
from memtenant.functions.fcall import Words
from memtenant.functions.index_calls import LeaveEvent, ReadIndex
from memtenant.functions.library import libraries
from memtenant.functions.summary_calls import ReadSummaries, Summarise, TakeLease
from memtenant.functions.versions import function_prefix
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.functions.tenants import (
    AGENT,
    DATA_KEY,
    Agent,
    mark,
    record,
    writer,
)

HOLDER = b"h" * 16
EVENT = b"an event, sealed by the agent"
ROOT = b"root-ns."
IDS = tuple(bytes((number,)) * 16 for number in range(16))
OPERATORS = {"lead", "passed"}
"""No agent reaches their keys (`tests/stores/test_fence.py`)."""

LANES: dict[TenantId, bytes] = {}
"""The writer of each tenant's messages, as `fill` opened it: a server refuses one of long ago."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the calls work: one tenant's keys."""

    tenant: TenantId

    @property
    def conversation(self) -> ConversationKeys:
        return ConversationKeys.of(self.tenant, "_", "conversation")

    @property
    def context(self) -> ContextKeys:
        return ContextKeys.of(self.tenant, "context")

    @property
    def subject(self) -> SubjectKeys:
        return SubjectKeys.of(self.tenant, "subject")

    @property
    def context_key(self) -> bytes:
        return keys.dek(self.tenant, "context").encode()

    @property
    def once(self) -> TenantKeys:
        return TenantKeys.of(self.tenant)


def saving(place: Place, checkpoint: str, event: bytes = b"", **options: object) -> Saving:
    """What both calls that write a thread's checkpoints say."""
    made = Saving(
        thread=place.conversation,
        subject=place.subject,
        namespace=ROOT,
        checkpoint=checkpoint,
        data_key=DATA_KEY,
        agent=AGENT,
        root=True,
        event=event,
    )
    return replace(made, **options)  # type: ignore[arg-type]


def checkpoints(place: Place, event: bytes = b"") -> tuple[PutCheckpoint, PutCheckpoint, PutWrites]:
    """Two checkpoints of a list that grows and a value, and a write beside the second."""
    whole, grown = NewList(IDS[10], IDS[1:4]), NewList(IDS[11], IDS[4:6], IDS[10], 3)
    value = Reference(IDS[0], is_list=False)
    return (
        PutCheckpoint(
            saving(place, "1", event, new_data_key=True),
            record(),
            (Reference(IDS[10], is_list=True), value),
            (whole,),
            tuple((one, record()) for one in IDS[:4]),
        ),
        PutCheckpoint(
            saving(place, "2", event),
            record(),
            (Reference(IDS[11], is_list=True), value),
            (grown,),
            tuple((one, record()) for one in IDS[4:6]),
            relies_on="1",
        ),
        PutWrites(saving(place, "2", event), (NewWrite(b"task 1   0", record()),)),
    )


def fill(agent: Agent, place: Place, event: bytes = b"") -> None:
    """Five messages, a summary of two of them under a lease, a context with two fields, two
    checkpoints of a graph."""
    records = tuple(NewRecord(record(), 10) for _ in range(5))
    LANES[place.tenant] = writer()
    append = Append(
        place.conversation,
        place.subject,
        LANES[place.tenant],
        1,
        records,
        DATA_KEY,
        AGENT,
        event,
        new_data_key=True,
    )
    epoch = agent.append(append).epoch
    agent.call(TakeLease(place.conversation, HOLDER, 600_000))
    agent.call(
        Summarise(
            place.conversation,
            place.subject,
            HOLDER,
            epoch,
            0,
            2,
            record(),
            DATA_KEY,
            AGENT,
            event=event,
        )
    )
    updates = (FieldUpdate("one", record()), FieldUpdate("two", record()))
    agent.call(
        ContextUpdate(
            place.context,
            updates,
            mark(),
            place.context_key,
            DATA_KEY,
            AGENT,
            event=event,
            new_data_key=True,
        )
    )
    for call in checkpoints(place, event):
        agent.send(call.words)


def epoch_of(agent: Agent, place: Place) -> int:
    return agent.call(TakeLease(place.conversation, HOLDER, 600_000)).epoch


def writing_calls(place: Place, epoch: int, event: bytes = b"") -> dict[str, Words]:
    """The words of a good call of each Function that writes, in a tenant that `fill` filled."""
    talk, context, subject = place.conversation, place.context, place.subject
    lane = LANES.get(place.tenant) or writer()
    updates = (FieldUpdate("one", record(), 1), FieldUpdate("two", None), FieldUpdate("n", b"x"))
    records = (NewRecord(record(), 1, mark(), mark()), NewRecord(record(), 2))
    calls = (
        Append(talk, subject, lane, 6, records, DATA_KEY, AGENT, event, meta=b"title", index=True),
        Update(talk, subject, 3, record(), DATA_KEY, AGENT, 5, event=event),
        Summarise(talk, subject, HOLDER, epoch, 2, 4, record(), DATA_KEY, AGENT, event=event),
        TakeLease(talk, HOLDER, 60_000),
        ContextUpdate(
            context,
            updates,
            mark(),
            place.context_key,
            DATA_KEY,
            AGENT,
            event=event,
            about=(subject.index,),
        ),
        DeleteContext(context, AGENT, event=event),
        PutCheckpoint(
            saving(place, "3", event),
            record(),
            (Reference(IDS[12], is_list=True), Reference(IDS[7], is_list=False)),
            (NewList(IDS[12], (IDS[6],), IDS[11], 4),),
            ((IDS[6], record()), (IDS[7], record())),
            "2",
        ),
        PutWrites(
            saving(place, "2", event, index=True),
            (NewWrite(b"task 2   0", record()), NewWrite(b"task 1   0", record(), True)),
        ),
        DeleteCheckpoints(talk, AGENT, ((ROOT, "1"),), event),
        Pop(talk, AGENT, mark(), event=event),
        Remove(talk, (2, 4), AGENT, mark(), event),
        Clear(talk, AGENT, False, mark(), event=event),
        Clear(talk, AGENT, True, mark(), event=event),
        LeaveEvent(place.once, AGENT, event),
    )
    return _by_name(calls)


def reading_calls(place: Place) -> dict[str, Words]:
    """The words of a good call of each Function that reads, by FCALL_RO."""
    talk = place.conversation
    return _by_name(
        (
            ReadRange(talk),
            Delta(talk, 1, 0),
            Tail(talk),
            ReadContext(place.context),
            ReadChanges(place.context, 0),
            GetCheckpoint(talk, ROOT),
            ListCheckpoints(talk),
            ReadSummaries(talk),
            ReadIndex(place.once, place.subject.index),
            ReadUsage(place.once),
        )
    )


def audited_calls(place: Place, event: bytes = EVENT) -> dict[str, Words]:
    """The words of a good call of each read that leaves an event."""
    talk, reader = place.conversation, Reader(AGENT, event)
    return _by_name(
        (
            ReadRange(talk, reader=reader),
            Delta(talk, 1, 0, reader=reader),
            Tail(talk, reader=reader),
            ReadContext(place.context, reader=reader),
            ReadChanges(place.context, 0, reader=reader),
            ReadSummaries(talk, reader=reader),
            ReadIndex(place.once, place.subject.index, reader=reader),
            GetCheckpoint(talk, ROOT, reader=reader),
            ListCheckpoints(talk, reader=reader),
        )
    )


def expiring_calls(place: Place) -> dict[str, Words]:
    """The words of a good call of each Function that tells or removes what has expired; without a
    cut-off that is nothing."""
    once = place.once
    return _by_name(
        (
            Expiring(place.conversation),
            ExpiringContext(place.context),
            Expire(place.conversation),
            ExpireContext(place.context),
            CompactIndex(place.subject.index, once.limits, ((b"_:gone", 0), (b"c:gone:one", 1))),
        )
    )


def every_call(place: Place, epoch: int, event: bytes = b"") -> dict[str, Words]:
    """One call of each Function of the library."""
    calls = {
        **writing_calls(place, epoch, event),
        **expiring_calls(place),
        **reading_calls(place),
        **audited_calls(place),
    }
    assert calls.keys() == registered()
    return calls


def registered() -> set[str]:
    """The Functions that the library offers to agents, told by its own code."""
    code = libraries()[0].code
    readings = re.findall(r"^offer_reading\('(\w+)'", code, re.MULTILINE)
    names = {*re.findall(r"^offer\('(\w+)'", code, re.MULTILINE), *readings}
    return {*names, *(f"{name}_audited" for name in readings)} - OPERATORS


def name_of(words: Words) -> str:
    """The Function that a call calls, without its version."""
    return str(words[1]).removeprefix(function_prefix())


def declared(words: Words) -> list[bytes]:
    """The keys among a call's words."""
    count = words[2]
    assert isinstance(count, int)
    return [word for word in words[3 : 3 + count] if isinstance(word, bytes)]


def with_key(words: Words, place: int, key: bytes) -> Words:
    """The call with another key in one place (from 0)."""
    return (*words[: 3 + place], key, *words[4 + place :])


def _by_name(calls: tuple[object, ...]) -> dict[str, Words]:
    words = [call.words for call in calls]  # type: ignore[attr-defined]
    return {name_of(one): one for one in words}
