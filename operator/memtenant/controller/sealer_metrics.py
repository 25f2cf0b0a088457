"""What Prometheus reads of the sealer's process: a registry of its own, beside the operator's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from memtenant.archive import Sealed, Space
from memtenant.errors import MemtenantError
from memtenant.jobs.turn import Drained

__all__ = ["SealerMetrics"]


class SealerMetrics:
    """`memtenant.jobs.sealing.Observer`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._entries = self._counter(
            "entries", "Entries that were taken from the queues, by what they came to.", "result"
        )
        self._waiting = self._gauge(
            "waiting_entries", "Entries that the last round left in the queues.", "store"
        )
        self._drained = self._gauge(
            "drained_timestamp_seconds", "When a round last ended well, in Unix time.", "store"
        )
        self._refused = self._gauge(
            "refused_logs", "Logs that are not what was sealed: nothing is added to them.", "store"
        )
        self._shrunk = self._counter(
            "shrunk_queues", "Queues that lost entries which nobody had sealed.", "store"
        )
        self._stopped = self._gauge(
            "stopped_logs",
            "Logs that had their share of the archive for today: nothing is added to them.",
            "store",
        )
        self._flooded = self._gauge(
            "flooded_queues", "Queues that grow faster than the sealer may take them.", "store"
        )
        self._archive = self._gauge("archive_bytes", "Size of the disk that the archive is on.")
        self._free = self._gauge("archive_free_bytes", "What is left of it.")
        self._failures = self._counter(
            "failures", "Rounds and seals that failed, by reason.", "reason"
        )
        self._sealed = self._gauge("sealed_timestamp_seconds", "When it last sealed, in Unix time.")
        self._size = self._gauge("checkpoint_size", "Leaves of the tree at the last checkpoint.")
        self._window = self._gauge("window", "The number of the last window.")
        for result in ("good", "bad", "duplicate"):
            self._entries.labels(result)
        self._gaps = self._counter("gaps", "Places in the logs where events are missing.")

    def drained(self, store: str, drained: Drained) -> None:
        """A round over a store came to its end."""
        self._entries.labels("good").inc(drained.events)
        self._entries.labels("bad").inc(drained.bad)
        self._entries.labels("duplicate").inc(drained.duplicates)
        self._gaps.inc(drained.gaps)
        self._waiting.labels(store).set(drained.waiting)
        self._refused.labels(store).set(len(drained.refused))
        self._shrunk.labels(store).inc(len(drained.shrunk))
        self._stopped.labels(store).set(len(drained.stopped))
        self._flooded.labels(store).set(len(drained.flooded))
        self._drained.labels(store).set_to_current_time()

    def room(self, space: Space) -> None:
        """How much room the archive has."""
        self._archive.set(space.size)
        self._free.set(space.free)

    def sealed(self, sealed: Sealed) -> None:
        """A window was sealed."""
        self._sealed.set(sealed.time / 1000)
        self._size.set(sealed.checkpoint.checkpoint.size)
        self._window.set(sealed.window)

    def failed(self, store: str, error: MemtenantError) -> None:
        """Something failed: of one store, or of the archive or the signer."""
        self._failures.labels(error.reason).inc()

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"memtenant_sealer_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"memtenant_sealer_{name}", documentation, labels, registry=self.registry)
