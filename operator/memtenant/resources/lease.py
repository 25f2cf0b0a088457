"""One leader among replicas: election on a Lease of the API server, with a term that fences.

The rules, and why they hold:

- A Lease is created, or replaced with the resourceVersion that was read: of two candidates one
  loses. Clocks are not compared. A candidate takes over when it has watched the same record, on its
  own monotonic clock, for as long as the holder promised; the holder stops earlier by its own.
- A leader that cannot renew within ``renew_deadline`` cancels its work and raises. Between the two
  times lies the margin for the work to end.
- A frozen leader cannot notice anything until it is thawed. So each leadership has a **term**, a
  number greater than all before, that the stores compare (see `FencedOut`); and a thawed leader
  finds its deadline passed and gives up without asking the API server.

- A Lease that somebody deletes is made again by its holder's next renewal, in the same term (a PUT
  creates it: measured on 1.36), or taken by a candidate that is faster: again one of them loses.

The term is kept in the annotation `TERM_ANNOTATION`: ``leaseTransitions`` is 32 bits wide and
starts again when somebody deletes the Lease. A new term is one more than the greatest that this
candidate ever saw, but at least the time in milliseconds. Terms thus grow also after a deletion,
unless the next leader both never saw the old Lease and has a clock that lags by more than the time
since the last election. Then the stores refuse it (`FencedOut`), which is safe, and it is elected
rightly once its clock has passed the old term.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from memtenant.clock import Clock, system_clock
from memtenant.errors import MemtenantError, ResourceConflict, ResourceUnavailable
from memtenant.resources.collection import APIKind, Collection
from memtenant.resources.connection import Connection

__all__ = ["TERM_ANNOTATION", "Elector", "LeadershipLost", "LeaseTimes"]

TERM_ANNOTATION = "memtenant.dev/term"
"""On the Lease: the term of the present (or, if released, the last) leadership."""

_LEASE = APIKind("Lease", "coordination.k8s.io/v1", "leases")
_USUAL_DURATION = 15.0  # seconds, as in client-go's leader election
_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class LeadershipLost(MemtenantError):
    """This replica no longer leads: its work was cancelled. Start again as a candidate."""

    reason = "LeadershipLost"
    retryable = True


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds; ``retry`` < ``renew_deadline`` < ``duration``."""

    duration: float = _USUAL_DURATION
    """How long others wait after the last renewal that they saw. Whole seconds."""

    renew_deadline: float = 10.0
    """How long a leader goes on without a renewal."""

    retry: float = 2.0
    """Between two looks at the Lease, and two renewals."""

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew_deadline < self.duration:
            raise ValueError(f"{self}: retry < renew_deadline < duration is needed")
        if self.duration != int(self.duration):
            raise ValueError(f"a Lease lasts whole seconds, not {self.duration}")


@dataclass(frozen=True, slots=True)
class _Record:
    """A Lease as it was read; equal records were not renewed in between."""

    holder: str
    term: int
    transitions: int
    duration: float
    renewed: str
    resource_version: str


class Elector:
    """One candidate for one Lease. ``identity`` must differ from process to process.

    Give it a `Connection` of its own (two requests at once, one attempt, a timeout below
    ``retry``), so that renewals never queue behind the work that they allow.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self._leases = Collection(connection, _LEASE, namespace)
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times or LeaseTimes()
        self._clock = clock
        self._seen: _Record | None = None
        self._seen_at = clock.monotonic()
        self._greatest_term = 0
        self._term: int | None = None
        self._renewed_at = 0.0

    @property
    def term(self) -> int | None:
        """The term of this replica's leadership, or None: it does not lead.

        Also None once the deadline passed, even if nothing had time to notice yet.
        """
        return None if self._expired() else self._term

    @property
    def holder(self) -> str | None:
        """The identity that was last seen to lead, or None."""
        return self._seen.holder or None if self._seen else None

    async def run(self, leading: Callable[[int], Awaitable[Result]]) -> Result:
        """Wait to be elected, then ``await leading(term)`` and return what it returns.

        On loss ``leading`` is cancelled and `LeadershipLost` raised: the process should exit, since
        work that does not heed the cancellation may still run. When ``leading`` ends, or this call
        is cancelled (``leading`` is then cancelled too and may take its time: renewals go on), the
        Lease is released, so that another replica leads at once.
        """
        term = await self._elected()
        work = asyncio.ensure_future(leading(term))
        renewing = asyncio.create_task(self._renew_until_lost())
        try:
            await _first_of(work, renewing)
        except asyncio.CancelledError:
            work.cancel()
            await _first_of(work, renewing)
            if not work.done():
                await self._abandon(work)
            raise
        finally:
            if not renewing.done():
                renewing.cancel()
                await asyncio.wait({renewing})
                if work.done():
                    await self._release()
            self._term = None
        if not work.done():
            await self._abandon(work)
            raise LeadershipLost(
                f"{self._identity} lost Lease {self._namespace}/{self._name} (term {term}): "
                "another replica leads, or the API server could not be reached in time"
            )
        return await work

    async def _elected(self) -> int:
        while True:
            try:
                term = await self._try_to_lead()
            except ResourceConflict:
                _log.debug("another candidate was faster")
            except MemtenantError as error:
                _log.warning("Lease %s/%s: %s", self._namespace, self._name, error)
            else:
                if term is not None:
                    return term
            await asyncio.sleep(self._times.retry)

    async def _try_to_lead(self) -> int | None:
        """The new term if the Lease was free and is ours now. Raises on conflict and no answer."""
        record = await self._read()
        # Its own identity is there if the answer to an earlier attempt was lost.
        others = record is not None and record.holder not in {"", self._identity}
        if record is not None and others and not self._lapsed(record):
            return None
        term = max(
            int(self._clock.now().timestamp() * 1000),
            self._greatest_term + 1,
        )
        started = self._clock.monotonic()
        transitions = 0 if record is None else record.transitions + 1
        version = None if record is None else record.resource_version
        self._observe(await self._write(self._identity, term, transitions, version))
        self._renewed_at = started
        self._term = term
        _log.info("%s leads, term %d", self._identity, term)
        return term

    async def _renew_until_lost(self) -> None:
        """Returns when leadership is over."""
        while True:
            await asyncio.sleep(self._times.retry)
            if self._expired():
                return
            started = self._clock.monotonic()
            left = self._renewed_at + self._times.renew_deadline - started
            try:
                async with asyncio.timeout(left):
                    renewed = await self._renew()
            except (ResourceUnavailable, TimeoutError) as error:
                _log.warning("Lease not renewed: %s", error)
                continue
            except MemtenantError as error:
                _log.warning("Lease lost: %s", error)
                return
            if not renewed:
                return
            self._renewed_at = started

    async def _renew(self) -> bool:
        """Whether the Lease is still ours, and renewed."""
        record = self._seen
        assert record is not None  # noqa: S101 -- a leader has written it
        try:
            written = await self._write(
                self._identity, record.term, record.transitions, record.resource_version
            )
        except ResourceConflict:
            now = await self._read()
            if now is None or (now.holder, now.term) != (self._identity, record.term):
                return False
            # Somebody edited it, or an answer was lost: it is ours and the next try will do.
            written = await self._write(
                self._identity, now.term, now.transitions, now.resource_version
            )
        self._observe(written)
        return True

    async def _release(self) -> None:
        """Leave at once to others what they would get after ``duration``: best effort, while the
        Lease is ours. A renewal that was cut short may have changed it, so it is read again.
        """
        record, trouble = self._seen, ""
        while record is not None and not self._expired() and record.holder == self._identity:
            try:
                async with asyncio.timeout(self._times.retry):
                    await self._write("", record.term, record.transitions, record.resource_version)
                    return
            except (MemtenantError, TimeoutError) as error:
                trouble = str(error) or "no answer"
            try:
                async with asyncio.timeout(self._times.retry):
                    record = await self._read()
            except (MemtenantError, TimeoutError):
                await asyncio.sleep(self._times.retry / 4)
        if trouble:
            _log.warning("Lease not released, others wait for it to lapse: %s", trouble)

    async def _abandon(self, work: asyncio.Future[Any]) -> None:
        """Cancel work that may not go on, and wait for it until others may begin."""
        work.cancel()
        margin = self._renewed_at + self._times.duration - self._clock.monotonic()
        await asyncio.wait({work}, timeout=max(margin, 0.0))
        if not work.done():
            _log.error("cancelled work has not ended and others may lead: exit now")

    def _expired(self) -> bool:
        return self._clock.monotonic() - self._renewed_at >= self._times.renew_deadline

    def _lapsed(self, record: _Record) -> bool:
        return self._clock.monotonic() - self._seen_at >= record.duration

    def _observe(self, record: _Record) -> None:
        if record != self._seen:
            self._seen = record
            self._seen_at = self._clock.monotonic()
        self._greatest_term = max(self._greatest_term, record.term)

    async def _read(self) -> _Record | None:
        raw = await self._leases.get(self._name)
        if raw is None:
            return None
        record = _record(raw)
        self._observe(record)
        return record

    async def _write(
        self, holder: str, term: int, transitions: int, version: str | None
    ) -> _Record:
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lease = {
            "apiVersion": _LEASE.version,
            "kind": _LEASE.name,
            "metadata": {
                "name": self._name,
                "annotations": {TERM_ANNOTATION: str(term)},
                **({"resourceVersion": version} if version else {}),
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": int(self._times.duration),
                "leaseTransitions": transitions,
                "renewTime": now,
            },
        }
        written = await (self._leases.replace if version else self._leases.create)(lease)
        return _record(written)


async def _first_of(work: asyncio.Future[Any], renewing: asyncio.Future[Any]) -> None:
    await asyncio.wait({work, renewing}, return_when=asyncio.FIRST_COMPLETED)


def _record(raw: Mapping[str, Any]) -> _Record:
    metadata, spec = raw["metadata"], raw.get("spec") or {}
    transitions = spec.get("leaseTransitions") or 0
    term = (metadata.get("annotations") or {}).get(TERM_ANNOTATION, "")
    return _Record(
        holder=spec.get("holderIdentity") or "",
        # An annotation that somebody took away leaves the lower bound that is still known.
        term=int(term) if term.isdigit() else transitions,
        transitions=transitions,
        duration=float(spec.get("leaseDurationSeconds") or _USUAL_DURATION),
        renewed=spec.get("renewTime") or "",
        resource_version=metadata["resourceVersion"],
    )
