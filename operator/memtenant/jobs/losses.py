"""What was done and left no event, told in the tenant's own log with the time at which it was seen.

A store counts what it drops (``onFailure: Open``) in a hash that the tenant's agents may write: the
count alone could be put back. That nobody drained is known by the heartbeat, which they may not.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from memtenant.archive.reads import SEALER
from memtenant.audit import Deed, Entry, Operation, Outcome
from memtenant.audit.deed import Turn, new_writer
from memtenant.crypto.primitives import SecretKey
from memtenant.rules.sealing import SEALER_PATIENCE

__all__ = ["PATIENCE", "count_changed", "loss_entries", "not_drained"]

PATIENCE = int(SEALER_PATIENCE.total_seconds() * 1000)
"""Milliseconds after a heartbeat in which nothing is dropped."""


def count_changed(was: int, counted: int) -> Deed:
    """The store counts another number of dropped events than the log was told last."""
    return Deed(Operation.EVENTS_DROPPED, {"counted": counted, "was": was})


def not_drained(beat_at: int, now: int) -> Deed | None:
    """From a minute after a heartbeat on events were to be dropped; None where there was none yet,
    or it was lately."""
    if not beat_at or now - beat_at <= PATIENCE:
        return None
    return Deed(Operation.NOT_DRAINED, {"since": beat_at + PATIENCE, "until": now})


def loss_entries(deeds: Iterable[Deed], key: SecretKey, now: datetime) -> list[bytes]:
    """The deeds as the sealer's entries in the log whose audit key of it is ``key``."""
    writer, time = new_writer(now), int(now.timestamp() * 1000)
    return [
        Entry(deed.event(Turn(writer, counter), key, SEALER), Outcome.DONE, time, 0).to_bytes()
        for counter, deed in enumerate(deeds, start=1)
    ]
