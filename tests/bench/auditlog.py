"""The audit log's engine by itself: taking entries, sealing, verifying. No Redis: the drain from a
real queue is measured beside it.

Each step runs in a process of its own, so that its memory can be told; verifying is done over logs
of two sizes, to show that memory does not grow with them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from memtenant.archive import ArchiveFolder, ArchiveReader, FolderSigner, LogWriter, Result, verify
from memtenant.audit import NOBODY, Event, Operation
from memtenant.crypto.audit_keys import audit_mac_key
from memtenant.crypto.primitives import SecretKey
from tests.bench.processes import peak_mb
from tests.bench.report import Row

__all__ = ["LogCost", "measure", "rows"]

_LOG = "support.acme"
_WRITERS = 64
_PAGE = 10_000
_LIMIT = 100_000
_TRAILER = b"O" + bytes(11)
_KEY = audit_mac_key(SecretKey(bytes(range(32))), _LOG, "triage", 1)


@dataclass(frozen=True, slots=True)
class LogCost:
    """Events a second, seconds, MB. ``again``: entries that were sealed before."""

    events: int
    take: float
    seal: float
    verify: float
    again: float
    start: float
    memory: float
    memory_of_a_fifth: float


def measure(events: int = 1_000_000) -> LogCost:
    """A log of so many events, and one of a fifth."""
    with tempfile.TemporaryDirectory(prefix="memtenant-bench-") as folder:
        root = Path(folder)
        few, many = root / "few", root / "many"
        _step("write", few, events // 5)
        written = _step("write", many, events)
        again = _step("again", many, events)
        small, large = _step("verify", few, events // 5), _step("verify", many, events)
    return LogCost(
        events,
        written["rate"],
        written["seal"],
        large["rate"],
        again["rate"],
        again["start"],
        large["memory"],
        small["memory"],
    )


def rows(cost: LogCost) -> list[Row]:
    """As lines of the report."""
    limit = "≥ 100k events/s"
    growth = cost.memory - cost.memory_of_a_fifth
    return [
        Row(
            "take entries of a queue: MAC, duplicates, gaps, tree, fsync each 10,000",
            limit,
            f"{cost.take / 1000:.0f}k/s",
            cost.take >= _LIMIT,
        ),
        Row("the same entries again, after a restart", "", f"{cost.again / 1000:.0f}k/s", None),
        Row(f"seal a window with {cost.events:,} events", "", f"{cost.seal * 1000:.0f} ms", None),
        Row("verify a log", limit, f"{cost.verify / 1000:.0f}k/s", cost.verify >= _LIMIT),
        Row(
            f"memory to verify {cost.events:,} events, beyond that for a fifth",
            "constant",
            f"{growth:.1f} of {cost.memory:.0f} MB",
            growth < cost.memory / 10,
        ),
        Row(
            f"start of the sealer over a log of {cost.events:,} events",
            "",
            f"{cost.start * 1000:.0f} ms",
            None,
        ),
    ]


def _step(name: str, root: Path, events: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", __name__, name, str(root), str(events)],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _pages(events: int) -> Iterator[list[bytes]]:
    """Entries of writers that take turns; made before the clock runs."""
    page = []
    for number in range(events):
        counter, writer = divmod(number, _WRITERS)
        event = Event(
            Operation.READ,
            "triage",
            1,
            (1769851800).to_bytes(4, "big") + writer.to_bytes(4, "big"),
            counter + 1,
            1,
            NOBODY.subject,
            NOBODY.place,
            bytes(16),
        )
        page.append(event.to_bytes(_KEY) + _TRAILER)
        if len(page) == _PAGE:
            yield page
            page = []
    yield page


def _keys(_agent: str, _version: int) -> SecretKey:
    return _KEY


def _opened(root: Path) -> LogWriter:
    signer = FolderSigner(root / "audit")
    archive = ArchiveFolder.open(root / "archive", writable=True)
    return LogWriter.open(archive, signer.key("memtenant.dev/bench"), signer)


def _take(writer: LogWriter, events: int) -> float:
    """Events a second."""
    taken = spent = 0.0
    for page in _pages(events):
        started = time.perf_counter()
        found = writer.take(_LOG, page, _keys, datetime.now(UTC))
        spent += time.perf_counter() - started
        taken += found.events + found.duplicates
    assert taken == events
    return taken / spent


def _write(root: Path, events: int) -> dict[str, float]:
    writer = _opened(root)
    rate = _take(writer, events)
    started = time.perf_counter()
    writer.seal(datetime.now(UTC))
    seal = time.perf_counter() - started
    writer.close()
    return {"rate": rate, "seal": seal}


def _again(root: Path, events: int) -> dict[str, float]:
    started = time.perf_counter()
    writer = _opened(root)
    start = time.perf_counter() - started
    return {"start": start, "rate": _take(writer, min(events, 5 * _PAGE))}


def _verify(root: Path, events: int) -> dict[str, float]:
    reader = ArchiveReader.open(root / "archive")
    started = time.perf_counter()
    found = verify(reader, trusted=reader.latest())
    spent = time.perf_counter() - started
    assert found.result is Result.GOOD
    return {"rate": events / spent, "memory": peak_mb(os.getpid())}


if __name__ == "__main__":
    step, folder, count = sys.argv[1:]
    steps = {"write": _write, "again": _again, "verify": _verify}
    print(json.dumps(steps[step](Path(folder), int(count))))
