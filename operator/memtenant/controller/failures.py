"""What follows from a failure: pure."""

from __future__ import annotations

from dataclasses import dataclass

from memtenant.errors import (
    FencedOut,
    MemtenantError,
    ResourceConflict,
    ResourceUnavailable,
    StoreUnavailable,
)
from memtenant.resources.port import Kind, ObjectKey

__all__ = ["PATIENCE", "ReconcileTimedOut", "UnexpectedError", "Verdict", "judge"]

PATIENCE = 3
"""Failures in a row of one object before its status tells of a failure that may pass by itself,
and of one store or of the API server before it counts as away."""


class UnexpectedError(MemtenantError):
    """A defect of memtenant: it is logged with its traceback, and tried again."""

    reason = "InternalError"
    retryable = True


class ReconcileTimedOut(MemtenantError):
    """A reconcile took longer than it may; it is idempotent, so it is tried again."""

    reason = "ReconcileTimedOut"
    retryable = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """``retry``: again after a backoff, else only when something changes. ``tell``: say so in the
    object's status.
    """

    retry: bool
    tell: bool


def judge(key: ObjectKey, error: MemtenantError, failures: int) -> Verdict:
    """What to do about the ``failures``-th failure in a row of an object.

    What cannot pass by itself is told at once and waits for a change. Of what can, people hear
    when it lasts: a lost race or an API server that is away is nothing that a status should tell.
    A store that does not answer is told once, by the store, and not by each of its tenants.

    A store that fences this operator out changed nothing. Either this replica's Lease is lost too,
    and the elector ends everything at its next look; or the store holds a term that it should
    not, which is that store's trouble and no reason to give up the others.
    """
    if isinstance(error, FencedOut):
        return Verdict(retry=True, tell=failures >= PATIENCE)
    if not error.retryable:
        return Verdict(retry=False, tell=True)
    lost_race = isinstance(error, ResourceConflict) and error.reason == ResourceConflict.reason
    if lost_race or isinstance(error, ResourceUnavailable):
        return Verdict(retry=True, tell=False)
    if isinstance(error, StoreUnavailable) and key.kind is Kind.STORE:
        return Verdict(retry=True, tell=True)
    return Verdict(retry=True, tell=failures >= PATIENCE)
