"""An event of the audit queue: what an agent is about to do, under its own MAC, about 100 bytes.

The Function that does it appends what became of it: `Entry`. No personal data is in either
(`memtenant.audit.reference`). Big-endian:

======  =====  ========================================================================
offset  bytes  meaning
======  =====  ========================================================================
0       1      0xE1: an event of format 1
1       1      operation
2       4      version of the agent's binding: which key made the MAC
6       8      writer
14      4      counter of the writer, from 1
18      2      count: records, values or messages that the call is about
20      16     the subject's audit alias, or zeros
36      16     place, or zeros
52      16     commitment to the records, or zeros
68      1      length of the agent's name
69      n      the agent's name
69 + n  m      detail, by operation; often empty
end     16     HMAC-SHA256 under the agent's audit key, cut to 16 bytes
======  =====  ========================================================================
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from memtenant.audit.operation import Operation
from memtenant.crypto.primitives import SecretKey, equal, length_prefixed, mac
from memtenant.errors import AuditEventMalformed

__all__ = [
    "EVENT_FORMAT",
    "MAX_DETAIL_BYTES",
    "Entry",
    "Event",
    "Outcome",
    "is_authentic",
]

EVENT_FORMAT: Final = 0xE1
MAX_DETAIL_BYTES: Final = 3968
"""What is left of the 4,096 bytes that a Function takes, with the longest agent's name."""

_FIXED: Final = struct.Struct(">BBI8sIH16s16s16sB")
_TRAILER: Final = struct.Struct(">c6s5s")
_MAC_BYTES: Final = 16
_LABEL: Final = length_prefixed(b"memtenant/1/audit-event")


@dataclass(frozen=True, slots=True)
class Event:
    """What is to be done, by whom, to whose data.

    writer, counter: of an append the lane's, and ``count`` counters from there on; else of a writer
    that makes one call at a time and counts on when it left its event. So within a writer no
    counter is missing unless an event was dropped or taken away.
    """

    operation: Operation
    agent: str
    binding_version: int
    writer: bytes
    counter: int
    count: int
    subject: bytes
    place: bytes
    commitment: bytes
    detail: bytes = b""

    def to_bytes(self, audit_key: SecretKey) -> bytes:
        """The event under the agent's MAC: the same event and key give the same bytes."""
        agent = self.agent.encode()
        body = (
            _FIXED.pack(
                EVENT_FORMAT,
                self.operation,
                self.binding_version,
                self.writer,
                self.counter,
                self.count,
                self.subject,
                self.place,
                self.commitment,
                len(agent),
            )
            + agent
            + self.detail
        )
        return body + _mac(audit_key, body)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an event; needs no key. Raises `AuditEventMalformed` for bytes that are none of this
        format: any agent may push what it likes."""
        if len(data) < _FIXED.size + _MAC_BYTES or data[0] != EVENT_FORMAT:
            raise _malformed("it does not begin as one of format 1, or is cut short")
        _, operation, version, writer, counter, count, subject, place, commitment, length = (
            _FIXED.unpack_from(data)
        )
        end = _FIXED.size + length
        if end + _MAC_BYTES > len(data):
            raise _malformed("its agent's name does not end before its MAC")
        try:
            return cls(
                operation=Operation(operation),
                agent=data[_FIXED.size : end].decode("ascii"),
                binding_version=version,
                writer=writer,
                counter=counter,
                count=count,
                subject=subject,
                place=place,
                commitment=commitment,
                detail=data[end:-_MAC_BYTES],
            )
        except ValueError:
            raise _malformed("its operation is unknown, or its agent has no name") from None


def is_authentic(audit_key: SecretKey, data: bytes) -> bool:
    """Whether the MAC of an event is this key's: that of the agent and binding that it names."""
    return equal(_mac(audit_key, data[:-_MAC_BYTES]), data[-_MAC_BYTES:])


class Outcome(StrEnum):
    """What became of a call, by the Function's word."""

    DONE = "O"
    CONFLICT = "C"
    REFUSED = "R"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the queue: an agent's event, then 12 bytes of the Function's.

    ``event`` are its bytes. ``time`` is in milliseconds since 1970, by the server's clock;
    ``sequence`` that of the message or the revision of the context, 0 where there is none.
    """

    event: bytes
    outcome: Outcome
    time: int
    sequence: int

    @classmethod
    def parse(cls, entry: bytes) -> Self:
        """Raises `AuditEventMalformed`."""
        if len(entry) < _TRAILER.size:
            raise _malformed("its entry is cut short")
        outcome, time, sequence = _TRAILER.unpack(entry[-_TRAILER.size :])
        try:
            known = Outcome(outcome.decode("ascii"))
        except ValueError:
            raise _malformed("its outcome is unknown") from None
        return cls(
            entry[: -_TRAILER.size],
            known,
            int.from_bytes(time, "big"),
            int.from_bytes(sequence, "big"),
        )

    def to_bytes(self) -> bytes:
        """As it stands in the queue."""
        return self.event + _TRAILER.pack(
            self.outcome.value.encode("ascii"),
            self.time.to_bytes(6, "big"),
            self.sequence.to_bytes(5, "big"),
        )


def _mac(audit_key: SecretKey, body: bytes) -> bytes:
    return mac(audit_key, _LABEL + body)[:_MAC_BYTES]


def _malformed(why: str) -> AuditEventMalformed:
    return AuditEventMalformed(
        f"An entry of the audit queue is no event: {why}. Something else pushed it, or a newer "
        "memtenant did"
    )
