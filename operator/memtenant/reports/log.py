"""The archive of the audit log, as a report reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from typing import Final

from memtenant.archive import ArchiveReader, SealedEntry, SealedGap
from memtenant.archive.verify import Verification, verify
from memtenant.audit.checkpoint import SignedCheckpoint
from memtenant.crypto.signing import VerifyingKey
from memtenant.errors import CheckpointInvalid, MemtenantError
from memtenant.reports.evidence import LogEvidence, Missing

__all__ = ["ArchiveLog"]

_MOST_PROBLEMS: Final = 20
_LATELY: Final = timedelta(days=1)


class ArchiveLog:
    """`memtenant.reports.sources.Log` over an archive. ``key`` is the log's public key, from
    elsewhere than the archive: without it nothing is proven."""

    def __init__(self, reader: ArchiveReader, key: VerifyingKey | None) -> None:
        self._reader = reader
        self._key = key

    def verify(self, but: Collection[str], trusted: str, now: datetime) -> LogEvidence | Missing:
        """Whether the tree and all logs but these are what was signed."""
        try:
            held = SignedCheckpoint.parse(trusted.encode()) if trusted else None
        except CheckpointInvalid:
            held = None
        try:
            found = verify(
                self._reader,
                public_key=self._key,
                trusted=held,
                but=but,
            )
            return LogEvidence(
                at=now,
                verified=self._key is not None and not found.findings,
                problems=tuple(str(one) for one in found.findings if one.tampered)[:_MOST_PROBLEMS],
                unverified=self._why_not(found),
                anchored=found.anchored,
                size=found.checkpoint.checkpoint.size if found.checkpoint else 0,
                checkpoint=found.checkpoint.note.decode() if found.checkpoint else "",
                sealed_at=self._last_seal(now),
                pruned=dict(self._pruned(found)),
            )
        except MemtenantError as error:
            return Missing("archive", str(error))

    def leaves(self, log_id: str) -> Iterator[SealedEntry | SealedGap]:
        """Every leaf that is kept of a log, in order; none of a log that is not there."""
        return self._reader.leaves(log_id)

    def _why_not(self, found: Verification) -> str:
        incomplete = [str(one) for one in found.findings if not one.tampered]
        if incomplete:
            return incomplete[0]
        if self._key is None:
            return "the log's public key is not at hand, and the one in the archive proves nothing"
        return ""

    def _last_seal(self, now: datetime) -> datetime | None:
        for since in (now - _LATELY, None):
            last = None
            for window in self._reader.seals(since):
                last = window.time
            if last is not None:
                return last
        return None

    def _pruned(self, found: Verification) -> Iterator[tuple[str, datetime]]:
        for log in found.logs:
            if log.first:
                first = next(iter(self._reader.leaves(log.log_id)), None)
                if first is not None:
                    yield log.log_id, first.sealed_at
