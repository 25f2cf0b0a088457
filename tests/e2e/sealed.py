"""What must hold of the sealed log, whatever happened while it was written."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from memtenant.archive import ArchiveReader, SealedEntry, verify
from memtenant.archive.verify import Result
from memtenant.audit import Operation, Outcome
from memtenant.audit.checkpoint import SignedCheckpoint
from memtenant.audit.leaf import Verdict

__all__ = ["wrong_with"]


def wrong_with(
    archive: Path,
    kept: Sequence[SignedCheckpoint],
    acknowledged: Mapping[tuple[str, str], int],
    may_lack: Collection[str] = (),
) -> list[str]:
    """In words. The log has to go on from each checkpoint that was kept, to hold nothing that no
    agent said, and to tell at least as many appends of each (log, agent) as were acknowledged; the
    logs of these have no gap but of those who ``may_lack`` events."""
    reader = ArchiveReader.open(archive)
    found = [wrong for one in (*kept[:1], *kept[-1:]) for wrong in _not_continued(reader, one)]
    history = list(reader.checkpoints())
    found += [
        f"the checkpoint of {one.checkpoint.size} leaves is gone"
        for one in kept
        if one not in history
    ]
    for log_id in reader.logs():
        found += _unsaid(reader, log_id)
    for log_id in sorted({log_id for log_id, _ in acknowledged}):
        found += [
            f"{gap.place}: {gap.agent} told nothing of {gap.first} to {gap.last}"
            for gap in reader.gaps(log_id)
            if gap.agent not in may_lack
        ]
    for (log_id, agent), least in acknowledged.items():
        told = _appends(reader, log_id)[agent]
        if told < least:
            found.append(f"{log_id} tells {told} appends of {agent}, acknowledged were {least}")
    return found


def _not_continued(reader: ArchiveReader, trusted: SignedCheckpoint) -> Iterator[str]:
    seen = verify(reader, trusted=trusted)
    if seen.result is not Result.GOOD:
        yield f"{seen.result.name}: {'; '.join(map(str, seen.findings))}"


def _unsaid(reader: ArchiveReader, log_id: str) -> Iterator[str]:
    for one in reader.events(log_id):
        if one.verdict is not Verdict.GOOD:
            yield f"{one.place} is {one.verdict.name}"


def _appends(reader: ArchiveReader, log_id: str) -> Counter[str]:
    """Of each agent, how many messages it is told to have stored. An event that is told twice is
    one."""
    told = {
        (event.agent, event.writer, event.counter): event.count
        for event in map(SealedEntry.event, _done(reader, log_id))
        if event.operation is Operation.APPEND
    }
    counted: Counter[str] = Counter()
    for (agent, _, _), count in told.items():
        counted[agent] += count
    return counted


def _done(reader: ArchiveReader, log_id: str) -> Iterator[SealedEntry]:
    for one in reader.events(log_id):
        if one.verdict is Verdict.GOOD and one.entry().outcome is Outcome.DONE:
            yield one
