"""The audit log, as far as it is pure: what an event of the queue says, byte for byte.

docs/audit-format.md has the bytes, and vectors that the tests recompute.
"""

from memtenant.audit.deed import (
    OPERATOR,
    Deed,
    SpecSeen,
    Telling,
    Turn,
    Voice,
    new_writer,
    spec_seen,
)
from memtenant.audit.event import (
    EVENT_FORMAT,
    MAX_DETAIL_BYTES,
    Entry,
    Event,
    Outcome,
    is_authentic,
)
from memtenant.audit.operation import Failure, Operation
from memtenant.audit.reference import NOBODY, Reference
from memtenant.audit.sequences import parse_sequences, sequences_to_bytes

__all__ = [
    "EVENT_FORMAT",
    "MAX_DETAIL_BYTES",
    "NOBODY",
    "OPERATOR",
    "Deed",
    "Entry",
    "Event",
    "Failure",
    "Operation",
    "Outcome",
    "Reference",
    "SpecSeen",
    "Telling",
    "Turn",
    "Voice",
    "is_authentic",
    "new_writer",
    "parse_sequences",
    "sequences_to_bytes",
    "spec_seen",
]
