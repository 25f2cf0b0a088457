"""The sequences that a removal took away, as an event's detail: what explains a missing record.

Ascending; each as its distance from the one before (the first from 0), in LEB128: 7 bits a byte,
the least first, the high bit set where another byte follows.
"""

from __future__ import annotations

from collections.abc import Iterable

from memtenant.errors import AuditEventMalformed

__all__ = ["parse_sequences", "sequences_to_bytes"]


def sequences_to_bytes(sequences: Iterable[int]) -> bytes:
    """The sequences, each once, in ascending order."""
    written, before = bytearray(), 0
    for sequence in sorted(set(sequences)):
        distance, before = sequence - before, sequence
        while distance > 0x7F:
            written.append(0x80 | distance & 0x7F)
            distance >>= 7
        written.append(distance)
    return bytes(written)


def parse_sequences(detail: bytes) -> tuple[int, ...]:
    """What `sequences_to_bytes` wrote; `AuditEventMalformed` for anything else."""
    found, sequence, distance, shift = [], 0, 0, 0
    for byte in detail:
        distance |= (byte & 0x7F) << shift
        shift += 7
        if byte & 0x80:
            continue
        sequence += distance
        found.append(sequence)
        distance = shift = 0
    if shift or sequences_to_bytes(found) != detail:
        raise AuditEventMalformed("The detail of an audit event is no list of sequences")
    return tuple(found)
