"""What Prometheus reads. The only place that records: lower layers return results.

Names follow those that operators' users know (``…_reconciliations_total``, ``…_tenant_condition``),
with the unit in the name. Labels are closed sets and the names of stores. Series per tenant are in
`memtenant.controller.series`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from memtenant.controller.agenda import Agenda
from memtenant.errors import MemtenantError
from memtenant.jobs.expire import Removal
from memtenant.reconcile.outcome import Lane, Outcome
from memtenant.resources.port import Kind, ObjectKey
from memtenant.rules.frameworks import RecordClass
from memtenant.rules.sealing import SealView

__all__ = ["Metrics", "Round"]

_DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Round(StrEnum):
    """What is done for a store again and again."""

    REPAIR = "repair"
    MEASURE = "measure"
    REWRAP = "rewrap"
    ERASE = "erase"
    EXPIRE = "expire"
    AUDIT = "audit"


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._reconciliations = self._counter(
            "reconciliations", "Reconciles that ended, by kind of object.", "kind"
        )
        self._successful = self._counter(
            "reconciliations_successful", "Reconciles that brought what is declared.", "kind"
        )
        self._failed = self._counter(
            "reconciliations_failed", "Reconciles that raised an error.", "kind", "reason"
        )
        self._changed = self._counter(
            "reconciliations_changed", "Successful reconciles that wrote anything.", "kind"
        )
        self._stalled = self._counter(
            "reconciliations_stalled", "Failed ones that wait for a change, not a retry.", "kind"
        )
        self._duration = Histogram(
            "memtenant_reconcile_duration_seconds",
            "How long reconciles took.",
            ["kind"],
            buckets=_DURATIONS,
            registry=self.registry,
        )
        self._queue_depth = self._gauge(
            "queue_depth", "Objects that are ready and wait for a worker, by lane.", "lane"
        )
        self._queue_delayed = self._gauge(
            "queue_delayed", "Objects whose next reconcile has a time that is yet to come."
        )
        self._workers_busy = self._gauge("workers_busy", "Reconciles that run now.")
        self._store_away = self._gauge(
            "store_circuit_open", "1 while a store does not answer and its tenants wait.", "store"
        )
        self._rounds = self._counter(
            "store_rounds", "Rounds that ended, by what was done.", "store", "round", "result"
        )
        self._round_duration = self._gauge(
            "store_round_duration_seconds", "How long the last one took.", "store", "round"
        )
        self._round_success = self._gauge(
            "store_round_last_success_timestamp_seconds",
            "When one last ended well, in Unix time.",
            "store",
            "round",
        )
        self._repairs = self._counter(
            "acl_repairs", "Repairs that found drifted users and put them back.", "store"
        )
        self._unfinished = self._gauge(
            "erasures_unfinished", "Erasures of persons that are not finished.", "store"
        )
        self._expired_records = self._counter(
            "expired_records",
            "Records removed because they had passed their period.",
            "store",
            "class",
        )
        self._expired_conversations = self._counter(
            "expired_conversations",
            "Conversations and contexts of which nothing was left.",
            "store",
        )
        self._expired_bytes = self._counter(
            "expired_bytes", "Bytes of what was removed, as quotas count them.", "store"
        )
        self._expiry_pass = self._gauge(
            "expiry_pass_timestamp_seconds",
            "When a pass over all keys last removed what had expired, else when it began to be "
            "looked for, in Unix time.",
            "store",
        )
        self._undated = self._gauge(
            "undated_records", "Entries that tell no time and stay, at the last pass.", "store"
        )
        self._audited = self._gauge(
            "audited_tenants", "Tenants whose audit queues are to be drained.", "store"
        )
        self._audit_waiting = self._gauge(
            "audit_waiting_entries", "Entries of their queues that wait to be sealed.", "store"
        )
        self._audit_drained = self._gauge(
            "audit_drained_timestamp_seconds",
            "When the sealer last said that it drains, in Unix time.",
            "store",
        )
        self._audit_sealed = self._gauge(
            "audit_sealed_timestamp_seconds", "When it last sealed, in Unix time.", "store"
        )
        self._leader = self._gauge("lease_leader", "1 while this replica leads.")
        self._term = self._gauge("lease_term", "The term of this replica's leadership, else 0.")
        self._watch_age = self._gauge(
            "watch_heartbeat_age_seconds", "Since a watch last brought anything.", "watch"
        )
        self._corrections = self._counter(
            "resync_corrections", "Objects that a list showed and no event had.", "kind"
        )
        self._unreadable = self._counter(
            "unreadable_events", "Events whose object could not be read.", "resource"
        )

    def reconciled(self, kind: Kind, outcome: Outcome, seconds: float) -> None:
        """A reconcile ended well."""
        self._reconciliations.labels(kind.value).inc()
        self._successful.labels(kind.value).inc()
        if outcome.changed:
            self._changed.labels(kind.value).inc()
        self._duration.labels(kind.value).observe(seconds)

    def failed(self, kind: Kind, error: MemtenantError, seconds: float, *, retried: bool) -> None:
        """A reconcile raised an error."""
        self._reconciliations.labels(kind.value).inc()
        self._failed.labels(kind.value, error.reason).inc()
        if not retried:
            self._stalled.labels(kind.value).inc()
        self._duration.labels(kind.value).observe(seconds)

    def round_ended(self, store: ObjectKey, which: Round, outcome: Outcome, seconds: float) -> None:
        """A round of a store ended well."""
        self._rounds.labels(store.name, which.value, "success").inc()
        self._round_duration.labels(store.name, which.value).set(seconds)
        self._round_success.labels(store.name, which.value).set_to_current_time()
        if which is Round.REPAIR and outcome.changed:
            self._repairs.labels(store.name).inc()
        if which is Round.ERASE:
            self._unfinished.labels(store.name).set(outcome.unfinished)
        if outcome.removal is not None:
            self._expired(store, outcome.removal)
        if outcome.seals is not None:
            self._seals(store, outcome.seals)

    def _seals(self, store: ObjectKey, seen: SealView) -> None:
        self._audited.labels(store.name).set(len(seen.audited))
        waiting = sum(log.queue for log in seen.audited.values())
        self._audit_waiting.labels(store.name).set(waiting)
        if seen.sealer is not None:
            self._audit_drained.labels(store.name).set(seen.sealer.beat_at / 1000)
            self._audit_sealed.labels(store.name).set(seen.sealer.sealed_at / 1000)

    def _expired(self, store: ObjectKey, removal: Removal) -> None:
        total = removal.total
        for record_class, records in (
            (RecordClass.CONTENT, total.messages + total.values + total.checkpoints),
            (RecordClass.DERIVED, total.summaries),
        ):
            self._expired_records.labels(store.name, record_class.value).inc(records)
        ended = total.conversations + total.contexts
        self._expired_conversations.labels(store.name).inc(ended)
        self._expired_bytes.labels(store.name).inc(total.size)
        self._expiry_pass.labels(store.name).set(removal.passed_at.timestamp())
        if removal.passed:
            self._undated.labels(store.name).set(removal.undated)

    def round_failed(self, store: ObjectKey, which: Round) -> None:
        """A round of a store raised an error."""
        self._rounds.labels(store.name, which.value, "failure").inc()

    def store_away(self, store: ObjectKey, away: bool) -> None:
        """A store's circuit breaker opened or closed."""
        self._store_away.labels(store.name).set(away)

    def store_gone(self, store: ObjectKey) -> None:
        """A store is not declared any more: its series end."""
        for which in Round:
            for result in ("success", "failure"):
                _remove(self._rounds, store.name, which.value, result)
            _remove(self._round_duration, store.name, which.value)
            _remove(self._round_success, store.name, which.value)
        for record_class in (RecordClass.CONTENT, RecordClass.DERIVED):
            _remove(self._expired_records, store.name, record_class.value)
        for metric in (
            self._expired_conversations,
            self._expired_bytes,
            self._expiry_pass,
            self._undated,
            self._audited,
            self._audit_waiting,
            self._audit_drained,
            self._audit_sealed,
        ):
            _remove(metric, store.name)
        _remove(self._store_away, store.name)
        _remove(self._repairs, store.name)
        _remove(self._unfinished, store.name)

    def queue(self, agenda: Agenda[ObjectKey, ObjectKey]) -> None:
        """How the queue stands, at a scrape."""
        for lane, ready in zip(Lane, agenda.ready_by_lane(), strict=True):
            self._queue_depth.labels(lane.name.lower()).set(ready)
        self._queue_delayed.set(agenda.delayed())
        self._workers_busy.set(agenda.running())

    def lease(self, term: int | None) -> None:
        """Whether this replica leads, and in which term."""
        self._leader.set(term is not None)
        self._term.set(term or 0)

    def watches(self, ages: Mapping[str, float]) -> None:
        """How long ago each watch was heard, in seconds."""
        self._watch_age.clear()
        for name, age in ages.items():
            self._watch_age.labels(name).set(age)

    def corrected(self, kind: Kind, objects: int) -> None:
        """A list showed so many objects as no event had, or had not yet."""
        self._corrections.labels(kind.value).inc(objects)

    def unreadable(self, resource: str) -> None:
        """An event's object could not be read."""
        self._unreadable.labels(resource).inc()

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"memtenant_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"memtenant_{name}", documentation, labels, registry=self.registry)


def _remove(metric: Counter | Gauge, *labels: str) -> None:
    with contextlib.suppress(KeyError):
        metric.remove(*labels)
