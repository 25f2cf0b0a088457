"""What a tenant's keys say without a key to open them: by their clear bytes, page by page.

Memory stays flat: of a record nothing is kept but counts, and of those that an event should tell,
runs of counters of a writer.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from memtenant.crypto.datakey import kek_version
from memtenant.crypto.header import peek_header
from memtenant.crypto.record import WRITER_LIFE, closes_at
from memtenant.errors import RecordMalformed
from memtenant.functions.passes import Passes
from memtenant.reports.bookkeeping import (
    changed_name,
    chosen_name,
    is_counter,
    is_field,
    is_head,
    is_header,
    is_link,
    is_listed,
    is_member,
    is_of_subject,
    is_subject,
    whole,
)
from memtenant.reports.erasures import ErasureTally
from memtenant.reports.evidence import CLOCKS_APART, RecordEvidence, moment
from memtenant.reports.places import alias_bytes, is_ours, shown_key
from memtenant.reports.samples import Sample
from memtenant.reports.texts import TextSearch
from memtenant.rules.policy import matters_from
from memtenant.rules.quota import QuotaState
from memtenant.rules.sealing import LogReport
from memtenant.stores.survey import Held
from memtenant.stores.usage import UsageSums
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.keys import owner_of

__all__ = ["RUN", "Expectation", "TenantRecords"]

RUN: Final = struct.Struct(">8sQII16s")
"""A run of counters of one writer: writer, time of the earliest in milliseconds, first, last, and
the alias of the conversation or context (`memtenant.reports.places`)."""

_MAGIC, _FORMATS = 0xFA, {0x10: False, 0x11: True}
_LEAST: Final = {False: 46, True: 58}
_EXAMPLES: Final = 5
_READ: Final = frozenset({"string", "list", "hash", "set", "zset"})
"""Types of keys that are read; of others, as streams, only that they are there is known."""
_CONTENT, _DERIVED = "content", "derived"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What of a tenant counts as expired (milliseconds since 1970, by class; none where it is
    held), and how many records are picked to be opened. ``erased``: by the tag of an erased person,
    the time up to which no record may bear it. ``keeps_dates``: a hold or a minimum stands.
    ``passes``: those that closed the tenant's writers."""

    cut_offs: Mapping[str, int] = field(default_factory=dict)
    sample: int = 0
    erased: Mapping[bytes, int] = field(default_factory=dict)
    keeps_dates: bool = False
    passes: Passes = field(default_factory=Passes)


@dataclass(slots=True)
class TenantRecords:
    """What was counted of one tenant so far."""

    tenant: TenantId
    expected: Expectation
    now: datetime
    runs: bytearray = field(default_factory=bytearray)
    live: int = 0
    sample: Sample = field(init=False)
    limits: dict[str, str] = field(default_factory=dict)
    owners: set[str] = field(default_factory=set)
    texts: TextSearch = field(init=False)
    _records: int = 0
    _encrypted: int = 0
    _authenticated: int = 0
    _plain: int = 0
    _undated: int = 0
    _misdated: int = 0
    _usage: UsageSums = field(default_factory=UsageSums)
    _quota: QuotaState = field(default_factory=QuotaState)
    _marks: int = 0
    _erasures: ErasureTally = field(init=False)
    _tagged: int = 0
    _dropped: int = 0
    _dropped_told: int = 0
    _matters: Mapping[str, str] = field(default_factory=dict)
    _oldest: dict[str, int] = field(default_factory=dict)
    _expired: Counter[str] = field(default_factory=Counter)
    _versions: Counter[int] = field(default_factory=Counter)
    _examples: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._erasures = ErasureTally(self.now)
        self.sample = Sample(self.expected.sample)
        self.texts = TextSearch(self._tell)

    def add(self, page: Held) -> None:
        """Count one page."""
        words = page.part.split(b":")
        if page.size:
            self._usage.add(page.part, page.size)
        match words:
            case [b"r", *_] if not is_ours(page.part):
                self._foreign(page)
            case [b"r", b"c", _] if page.kind == "hash":
                self._context(page)
            case [b"r", b"c", _, b"v"] if page.kind == "hash":
                self._versions_of(page)
            case [b"r", b"c", _, b"log"] if page.kind == "list":
                for _, entry in page.entries:
                    self._change(page, entry)
            case [b"r", scope, _, b"l"] if page.kind == "list" and scope != b"c":
                self._list(page, _CONTENT, told=True)
            case [b"r", scope, _, b"s"] if page.kind == "list" and scope != b"c":
                self._list(page, _DERIVED, told=False)
            case [b"r", scope, _, b"h"] if page.kind == "hash" and scope != b"c":
                self._head(page)
            case [b"r", scope, _, b"g"] if page.kind == "hash" and scope != b"c":
                self._checkpoints(page)
            case [b"r", *_]:
                self._foreign(page)
            case [b"k", alias] if page.kind == "hash" and is_subject(alias):
                self._data_key(alias.decode("utf-8", "replace"), page)
            case [b"i", alias] if page.kind == "list" and is_subject(alias):
                self._index(alias.decode("utf-8", "replace"), page)
            case [b"o", name]:
                self._state(name, page)
            case [b"u"] if page.kind == "hash":
                self._counters(page)
            case [b"e"] if page.kind == "list":
                for _, entry in page.entries:
                    self._erasures.request(entry)
            case [b"x"] if page.kind == "zset":
                for _, entry in page.entries:
                    if not is_member(entry):
                        self._around(page, entry)
            case _:
                self._foreign(page)

    @property
    def is_empty(self) -> bool:
        """Whether nothing about anybody was there."""
        return not (self._usage.memory or self._marks or self._versions)

    def result(self) -> RecordEvidence:
        """What all of it comes to."""
        return RecordEvidence(
            at=self.now,
            records=self._records,
            encrypted=self._encrypted,
            authenticated=self._authenticated,
            plain=self._plain,
            oldest={name: moment(time) for name, time in self._oldest.items()},
            expired=dict(self._expired),
            undated=self._undated,
            misdated=self._misdated,
            hits=dict(self.texts.hits),
            texts=self.texts.looked_through,
            usage=self._usage.result(),
            quota=self._quota,
            kek_versions=dict(self._versions),
            marks=self._marks,
            erasures=self._erasures.total,
            erasures_known=self._erasures.known,
            erasures_slowest=tuple(self._erasures.slowest),
            erasures_remaining=self._erasures.remaining + self._tagged,
            erasures_open=self._erasures.open,
            dropped=max(self._dropped - self._dropped_told, 0),
            limits=self.limits,
            matters=self._matters,
            examples={name: tuple(found) for name, found in self._examples.items()},
        )

    # --- content ---------------------------------------------------------------------------

    def _list(self, page: Held, record_class: str, *, told: bool) -> None:
        place = alias_bytes(page.part)
        run: tuple[bytes, int, int, int] | None = None
        for _, entry in page.entries:
            dated = self._dated(page, entry, record_class, message=told)
            if dated is None:
                continue
            time, record = dated
            if not self._record(page, record, "message" if told else "summary"):
                continue
            if not told:
                continue
            self.live += 1
            writer, counter = record[18:26], int.from_bytes(record[26:30], "big")
            if run is not None and run[0] == writer and run[3] + 1 == counter:
                run = (writer, min(run[1], time), run[2], counter)
                continue
            if run is not None:
                self.runs += RUN.pack(*run, place)
            run = (writer, time, counter, counter)
        if run is not None:
            self.runs += RUN.pack(*run, place)

    def _context(self, page: Held) -> None:
        place = alias_bytes(page.part)
        for name, entry in page.entries:
            self.texts.name(page.part, name)
            dated = self._dated(page, entry, _CONTENT)
            if dated is None:
                continue
            time, record = dated
            if self._record(page, record, f"context:{name.decode('utf-8', 'replace')}"):
                self.live += 1
                counter = int.from_bytes(record[26:30], "big")
                self.runs += RUN.pack(record[18:26], time, counter, counter, place)

    def _versions_of(self, page: Held) -> None:
        for name, value in page.entries:
            if not is_header(value) or not (name == b"#" or is_field(name)):
                self._around(page, name + b" " + value)
            else:
                self.texts.name(page.part, name)

    def _change(self, page: Held, entry: bytes) -> None:
        name = changed_name(entry)
        if name is None:
            self._around(page, entry)
        else:
            self.texts.name(page.part, name)

    def _head(self, page: Held) -> None:
        for name, value in page.entries:
            if name == b"meta":
                if value:
                    self._record(page, value, "conversation")
            elif not is_head(name, value):
                self._around(page, value)

    def _checkpoints(self, page: Held) -> None:
        for name, value in page.entries:
            kind = name[:1]
            if is_link(name, value):
                continue
            if kind not in (b"c", b"e", b"w"):
                self._around(page, name + b" " + value)
                continue
            dated = self._dated(page, value, _CONTENT)
            if dated is None:
                continue
            record = dated[1]
            if kind == b"c":
                record = record[2 + 17 * int.from_bytes(record[:2], "big") :]
            self._record(page, record, "")

    def _dated(
        self, page: Held, entry: bytes, record_class: str, *, message: bool = False
    ) -> tuple[int, bytes] | None:
        """Time and record of an entry; None of a tombstone and of what is no entry. A message is
        as old as its writer at least."""
        try:
            header = peek_header(entry)
        except RecordMalformed:
            self._undated += 1
            self._tell("undated", page.part)
            self._around(page, entry)
            return None
        if header.tombstone:
            if len(entry) > header.length:
                self._around(page, entry[header.length :])
            return None
        if header.subject_tag and header.time <= self.expected.erased.get(header.subject_tag, -1):
            self._tagged += 1
            self._tell("erased", page.part)
        record = entry[header.length :]
        time = self._time(page, header.time, closes_at(record) if message else None)
        self._oldest[record_class] = min(time, self._oldest.get(record_class, time))
        if time < self.expected.cut_offs.get(record_class, 0):
            self._expired[record_class] += 1
            self._tell("expired", page.part)
        return time, record

    def _time(self, page: Held, claimed: int, closes_at: int | None) -> int:
        """When an entry is of: at the latest now, and when its writer could still write it. Under a
        hold or minimum agents move no dates."""
        now = round((self.now + CLOCKS_APART).timestamp() * 1000)
        latest = now
        if closes_at is not None and claimed > closes_at and not self.expected.keeps_dates:
            latest = min(now, self.expected.passes.ended(closes_at) or now)
        # A writer that is opened in a time to come is nobody's.
        if claimed > latest or (closes_at is not None and closes_at > now + WRITER_LIFE):
            self._misdated += 1
            self._tell("misdated", page.part)
        return min(claimed, latest)

    def _record(self, page: Held, record: bytes, kind: str) -> bool:
        """Count a record by its clear bytes; whether it is one."""
        encrypted = _FORMATS.get(record[1]) if len(record) > 1 and record[0] == _MAGIC else None
        if encrypted is None or len(record) < _LEAST[encrypted]:
            self._around(page, record)
            return False
        self._records += 1
        if encrypted:
            self._encrypted += 1
        else:
            self._authenticated += 1
            self.texts.read(page.part, record[30:-16], packed=True)
        if self.expected.sample and kind:
            self.sample.offer(page.part, kind, record)
        return True

    def _foreign(self, page: Held) -> None:
        """A key that memtenant did not name, or of another type than it has: all of it is clear."""
        self._undated += bool(page.size)
        if page.size:
            self._tell("undated", page.part)
            self.texts.search(page.part, page.part.decode("utf-8", "replace"))
        for name, value in page.entries:
            self._around(page, name + b" " + value if name else value)

    def _around(self, page: Held, content: bytes) -> None:
        self._records += 1
        self._plain += 1
        self._tell("plain", page.part)
        if page.kind in _READ:
            self.texts.read(page.part, content, packed=False)

    # --- what is beside it -----------------------------------------------------------------

    def _data_key(self, alias: str, page: Held) -> None:
        self.owners.add(owner_of(alias))
        fields = dict(page.entries)
        for name, value in page.entries:
            if not is_of_subject(name, value):
                self._around(page, name + b" " + value)
        if b"erased" in fields:
            self._marks += 1
        stored = fields.get(b"dek")
        if stored is None:
            return
        try:
            self._versions[kek_version(stored)] += 1
        except RecordMalformed:
            self._versions[0] += 1
        if self.expected.sample:
            self.sample.data_keys[alias] = stored

    def _index(self, alias: str, page: Held) -> None:
        self.owners.add(owner_of(alias))
        for _, entry in page.entries:
            if not is_listed(entry):
                self._around(page, entry)
            elif name := chosen_name(entry):
                self.texts.name(page.part, name)
            if self.expected.sample:
                self.sample.owners.setdefault(entry, alias)

    def _counters(self, page: Held) -> None:
        for name, value in page.entries:
            if name == b"dropped":
                self._dropped = whole(value) or 0
            if not is_counter(name, value):
                self._around(page, name + b" " + value)

    def _state(self, name: bytes, page: Held) -> None:
        if page.kind != "hash":
            return
        if name == b"limits":
            self.limits.update(_texts(page))
        elif name == b"access":
            access = _texts(page)
            self._matters = matters_from(access.get("matters", ""))
            self._quota = QuotaState.from_fields(access)
        elif name == b"audit":
            self._dropped_told = LogReport.from_fields(_texts(page)).dropped_told
        elif name == b"erasures":
            for _, document in page.entries:
                self._erasures.receipt(document)

    def _tell(self, what: str, part: bytes) -> None:
        shown = self._examples.setdefault(what, [])
        if len(shown) < _EXAMPLES:
            named = shown_key(self.tenant, part)
            if named not in shown:
                shown.append(named)


def _texts(page: Held) -> dict[str, str]:
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in page.entries
    }
