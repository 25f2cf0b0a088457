"""Somebody outside the team verifies an archive, with docs/audit-format.md and nothing else.

As a program: ``python -m tests.audit.auditor ARCHIVE KEY-FILE [TRUSTED-NOTE-FILE]``. Ends with 0,
with 1 where the archive was touched, with 2 where not all could be told.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.audit.independent import Grown, Key, Note, Touched, entry, event, leaf_of_log, need

MacKeys = Callable[[str, str, int], bytes | None]
"""The audit key of a log, an agent and a binding, where it is given."""

_GOOD, _BAD, _MALFORMED, _UNKNOWN, _FORGED, _OVERSIZED = range(1, 7)


@dataclass
class Audit:
    """What came out. ``contradicted`` is what the sealer signed of itself and is not so."""

    touched: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)
    sealed: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    unsealed: dict[str, int] = field(default_factory=dict)
    told: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def verdict(self) -> int:
        return 1 if self.touched else 2 if self.incomplete else 0


def audit(root: Path, key: str, trusted: bytes | None, mac_keys: MacKeys | None = None) -> Audit:
    """Verify an archive. ``key`` and ``trusted`` were kept elsewhere."""
    found = Audit()
    try:
        _Auditor(root, Key.parse(key), found, mac_keys).audit(trusted)
    except (Touched, OSError) as error:
        found.touched.append(str(error))
    return found


@dataclass
class _Log:
    """The leaves that there are of a log (or the tree), each with the month of its file, and the
    tree after each; ``trees[0]`` is that of what is before them."""

    first: int
    trees: list[bytes]
    leaves: list[bytes] = field(default_factory=list)
    months: list[str] = field(default_factory=list)
    torn: str = ""

    @property
    def size(self) -> int:
        return self.first + len(self.leaves)

    def at(self, size: int) -> bytes:
        need(self.first <= size <= self.size, "it has no", size, "leaves")
        return self.trees[size - self.first]


class _Auditor:
    def __init__(self, root: Path, key: Key, found: Audit, mac_keys: MacKeys | None) -> None:
        self._root, self._key, self._found, self._mac_keys = root, key, found, mac_keys

    def audit(self, trusted: bytes | None) -> None:
        notes = self._notes()
        last = notes[-1][1].size
        tree = self._read(self._root / "tree", last)
        seals, pruned, roots = self._tree(tree, notes)
        need(tree.size == last, "tree ends before the last note")
        self._anchor(tree, trusted, last)
        self._begins("tree", tree, pruned)
        folder = self._root / "logs"
        there = {one.name for one in folder.iterdir()} if folder.is_dir() else set()
        logs = {name: self._log(name, roots[name], pruned) for name in sorted({*there, *roots})}
        self._found.contradicted += _miscounted(tree.first, seals, logs)

    def _notes(self) -> list[tuple[str, Note]]:
        """With the month of the file; `latest` and the key fit them."""
        folder, notes = self._root / "checkpoints", []
        if (folder / "key").exists():
            need((folder / "key").read_bytes() in (self._key.text, b""), "another key")
        heads = sorted(one.stem for one in (self._root / "tree").glob("*.head"))
        begin = next((one for one in heads if _MONTH.fullmatch(one)), "")
        files = [one for one in sorted(folder.glob("*.notes")) if one.stem >= begin]
        for file in files:
            some, left = self._key.notes(file.read_bytes())
            need(not left or file == files[-1], file.name, "has bytes that are no note")
            notes += [(file.stem, note) for note in some]
        need(notes, "there is no note")
        latest = (folder / "latest").read_bytes()
        need(latest in [note.text for _, note in notes[-2:]], "latest is none of the last two")
        return notes

    def _anchor(self, tree: _Log, trusted: bytes | None, last: int) -> None:
        if trusted is None:
            self._found.incomplete.append("no trusted checkpoint")
            return
        note = self._key.note(trusted)
        need(note.size <= last, "the archive is older than the trusted checkpoint")
        if note.size < tree.first:
            self._found.incomplete.append("the trusted checkpoint is older than what is kept")
        else:
            need(tree.at(note.size) == note.root, "it does not go on from the trusted checkpoint")

    def _tree(
        self, tree: _Log, notes: list[tuple[str, Note]]
    ) -> tuple[list[_Window], dict[str, int], dict[str, list[tuple[int, bytes]]]]:
        windows: list[_Window] = []
        pruned: dict[str, int] = {}
        roots: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        begin, before = 0, hashlib.sha256()
        for place, leaf in enumerate(tree.leaves):
            kind, name = leaf[:2], leaf[42:].decode("ascii", "replace")
            number = int.from_bytes(leaf[2:10], "big")
            if kind == b"\xe3\x01" and len(leaf) > 42:
                roots[name].append((number, leaf[10:42]))
            elif kind == b"\xe3\x03" and len(leaf) > 42:
                pruned[name] = max(number, pruned.get(name, 0))
            elif kind == b"\xe3\x04" and len(leaf) > 6:
                self._found.kept[leaf[6:].decode("ascii", "replace")] = int.from_bytes(leaf[2:6])
            else:
                need(kind == b"\xe3\x02" and len(leaf) == 72, "no leaf of the tree:", leaf[:9])
                need(len(windows) < len(notes), "a seal without a note")
                month, note = notes[len(windows)]
                size = tree.first + place + 1
                need((note.size, note.root) == (size, tree.at(size)), "a note that is not the tree")
                if windows:
                    need(number == windows[-1].number + 1, "a window is missing before", number)
                    need(leaf[16:48] == before.digest(), "a seal that names another note")
                elif not tree.first:
                    need(number == 1 and leaf[16:48] == bytes(32), "the first window is missing")
                months = {month, *tree.months[begin : place + 1]}
                need(months == {_month(leaf, 10)}, "window", number, "stands in another month")
                windows.append(_Window(number, leaf, tree.leaves[begin:place]))
                begin, before = place + 1, hashlib.sha256(note.text)
        need(len(windows) == len(notes), "a note that no window ended with")
        return windows, pruned, roots

    def _log(self, name: str, roots: list[tuple[int, bytes]], pruned: dict[str, int]) -> _Log:
        log = self._read(self._root / "logs" / name)
        if log.torn:
            self._found.incomplete.append(log.torn)
        sealed = 0
        for size, root in roots:
            need(size >= sealed, name, "was larger before")
            if size >= log.first:
                need(log.size >= size, name, "ends before", size)
                need(log.at(size) == root, name, "is not what was sealed at", size)
            sealed = size
        self._begins(name, log, pruned)
        for leaf, month in zip(log.leaves, log.months, strict=True):
            need(_month(leaf, 2) == month, name, "has a leaf of another month in", month)
        if roots:
            self._found.sealed[name] = sealed
        self._found.unsealed |= {name: log.size - sealed} if log.size > sealed else {}
        told = self._found.told[name] = [leaf_of_log(leaf) for leaf in log.leaves]
        self._found.contradicted += _contradictions(name, told, log.first, self._mac_keys)
        return log

    def _begins(self, name: str, log: _Log, pruned: dict[str, int]) -> None:
        need(log.first <= pruned.get(name, 0), name, "has lost the leaves before", log.first)

    def _read(self, folder: Path, until: int | None = None) -> _Log:
        """As far as it is signed, where that is known."""
        heads = sorted(one for one in folder.glob("*.head") if _MONTH.fullmatch(one.stem))
        log, grown = _Log(0, [Grown().root]), Grown()
        for file in heads:
            if until is not None and log.size >= until and log.trees[1:]:
                break
            head = _head(file)
            if file == heads[0]:
                log, grown = _Log(head.size, [head.root]), head
            need(head == grown, file.name, "is not what is before it")
            leaves, log.torn = _frames(file.with_suffix(".log"), until and until - log.size)
            need(not log.torn or (until is None and file == heads[-1]), log.torn)
            for leaf in leaves:
                grown.add(leaf)
                log.leaves.append(leaf)
                log.months.append(file.stem)
                log.trees.append(grown.root)
        return log


_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


def _month(leaf: bytes, at: int) -> str:
    seconds = int.from_bytes(leaf[at : at + 6], "big") // 1000
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m")
    except (ValueError, OverflowError):
        return "no month"


def _head(file: Path) -> Grown:
    data = file.read_bytes()
    try:
        stated = json.loads(data)
        peaks = [bytes.fromhex(one) for one in stated["frontier"]]
        again = {"first": int(stated["first"]), "frontier": [one.hex() for one in peaks]}
    except (ValueError, KeyError, TypeError):
        raise Touched(f"{file.name} is no head") from None
    written = json.dumps(again, sort_keys=True, separators=(",", ":")).encode()
    need(data == written and all(len(one) == 32 for one in peaks), file.name, "is no head")
    need(again["first"] >= 0, file.name, "is no head")
    return Grown(again["first"], peaks)


def _frames(file: Path, most: int | None) -> tuple[list[bytes], str]:
    """The leaves of a month (at most so many), and what is behind them that is no whole frame."""
    data = file.read_bytes() if file.exists() else b""
    at, found = 0, []
    while at < len(data) and (most is None or len(found) < most):
        length, checksum = (int.from_bytes(data[at + n : at + n + 4], "big") for n in (0, 4))
        if len(data) - at < 8:
            return found, f"{file.name} has a frame that is cut off"
        need(2 <= length <= 16_384, file.name, "has no frame at byte", at)
        leaf = data[at + 8 : at + 8 + length]
        if len(leaf) < length:
            return found, f"{file.name} has a frame that is cut off"
        need(zlib.crc32(leaf) == checksum, file.name, "has a damaged leaf at byte", at)
        found.append(leaf)
        at += 8 + length
    return found, ""


@dataclass
class _Window:
    number: int
    seal: bytes
    leaves: list[bytes]


def _miscounted(first: int, windows: Iterable[_Window], logs: dict[str, _Log]) -> list[str]:
    """Seals whose counts are not those of the leaves that came in their window, where all of these
    are there."""
    sealed: dict[str, int] = {}
    wrong = []
    for window in windows:
        counts, whole = [0, 0, 0, 0], True
        for leaf in (one for one in window.leaves if one[1] == 1):
            name, size = leaf[42:].decode(), int.from_bytes(leaf[2:10], "big")
            log, before = logs[name], sealed.get(name, -1 if first else 0)
            sealed[name] = size
            if size == before:
                continue  # it stands once more
            whole = whole and before >= log.first
            counts[1] += 1
            for one in log.leaves[before - log.first : size - log.first] if whole else ():
                counts[3 if one[1] == 2 else 0 if one[8] == _GOOD else 2] += 1
        said = [int.from_bytes(window.seal[at : at + n], "big") for at, n in _COUNTS]
        if whole and counts != said:
            wrong.append(f"window {window.number} had {counts}, and says {said}")
    return wrong


_NUMBERS = ((14, 18), (18, 20))
_COUNTS = ((48, 8), (56, 4), (60, 4), (64, 4))


def _contradictions(
    log: str, leaves: list[dict[str, Any]], first_leaf: int, mac_keys: MacKeys | None
) -> list[str]:
    """Verdicts and gaps that are not those of the entries, as far as it can be known."""
    ends: dict[object, int] = {}
    seen: set[bytes] = set()
    wrong = []
    for place, leaf in enumerate(leaves, first_leaf):
        if "missing" in leaf:
            first, last = leaf["missing"]
            fits = (
                first <= last
                and first == ends.get(leaf["writer"], first - 1 if first_leaf else 0) + 1
            )
            ends[leaf["writer"]] = last
        else:
            fits = _verdict_fits(log, leaf, mac_keys)
        if leaf.get("verdict") == _GOOD:
            made, outcome, _, _ = entry(leaf["entry"]) or (bytes(85), "", 0, 0)
            counter, count = (int.from_bytes(made[at:end], "big") for at, end in _NUMBERS)
            writer = (made[6:14], made[69 : 69 + made[68]].decode("ascii", "replace"))
            last = counter + count - 1 if made[1] == 1 and count > 1 else counter
            before = ends.get(writer, counter if first_leaf else 0)
            fits = fits and counter <= before + 1 and made + outcome.encode() not in seen
            seen.add(made + outcome.encode())
            ends[writer] = max(before, last if outcome == "O" else counter - 1)
        wrong += [] if fits else [f"{log}: leaf {place} is not what it says"]
    return wrong


def _verdict_fits(log: str, leaf: dict[str, Any], mac_keys: MacKeys | None) -> bool:
    verdict, data = leaf["verdict"], leaf["entry"]
    if verdict == _OVERSIZED:
        return len(data) == 40 and int.from_bytes(data[32:], "big") > 8192
    parsed = entry(data)
    if verdict == _MALFORMED or parsed is None:
        return verdict == _MALFORMED and parsed is None
    return verdict == _UNKNOWN or _is_right(log, parsed[0], verdict, mac_keys)


def _is_right(log: str, made: bytes, verdict: int, mac_keys: MacKeys | None) -> bool:
    agent = made[69 : 69 + made[68]].decode("ascii", "replace")
    key = mac_keys(log, agent, int.from_bytes(made[2:6], "big")) if mac_keys else None
    if key is None:
        return True
    try:
        event(key, made)
    except AssertionError:
        return verdict == _BAD
    return verdict in (_GOOD, _FORGED)


def main() -> None:
    """See the module."""
    archive, key, *trusted = (Path(one) for one in sys.argv[1:])
    found = audit(archive, key.read_text(), trusted[0].read_bytes() if trusted else None)
    for what in (*found.touched, *found.incomplete, *found.contradicted):
        print(what)
    sys.exit(found.verdict)


if __name__ == "__main__":
    main()
