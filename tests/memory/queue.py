"""The audit queue as the sealer will read it: every event under its agent's own MAC."""

from collections import Counter
from dataclasses import dataclass

from memtenant.audit import Entry, Event, Operation, Outcome, is_authentic
from memtenant.crypto.primitives import SecretKey
from memtenant.tenancy import keys
from tests.functions.tenants import in_ms, set_limits
from tests.memory.bindings import AUDIT_KEY
from tests.stores.operators import ACME
from tests.support.servers import Server

MESSAGE_HEADER = 15


def audit(server: Server, **further: object) -> None:
    """Audit ACME from now on, as a live sealer does, for an hour."""
    heartbeat = in_ms() + 3_600_000
    set_limits(server, audit=1, audit_heartbeat=heartbeat, on_failure="Closed", **further)


@dataclass(frozen=True, slots=True)
class Left:
    """One entry of the queue, whose MAC was right."""

    entry: Entry
    event: Event

    @property
    def told(self) -> tuple[Operation, str]:
        return self.event.operation, self.entry.outcome.value

    @property
    def turn(self) -> tuple[bytes, int]:
        return self.event.writer, self.event.counter


def drained(server: Server) -> list[Left]:
    """Everything in the queue, which is empty afterwards."""
    with server.admin() as admin:
        raw = [bytes(one) for one in admin.lrange(keys.audit_queue(ACME), 0, -1)]
        admin.delete(keys.audit_queue(ACME))
    found = []
    for one in raw:
        entry = Entry.parse(one)
        assert is_authentic(SecretKey(AUDIT_KEY), entry.event)
        found.append(Left(entry, Event.parse(entry.event)))
    return found


def check_writers(left: list[Left]) -> None:
    """What was done was told once, and no counter of a writer is missing."""
    done: dict[bytes, list[int]] = {}
    tried: dict[bytes, set[int]] = {}
    once = {(one.entry.event, one.entry.outcome): one for one in left}
    for one in once.values():
        event = one.event
        many = event.count if event.operation is Operation.APPEND else 1
        counters = range(event.counter, event.counter + many)
        tried.setdefault(event.writer, set()).update(counters)
        if one.entry.outcome is Outcome.DONE:
            done.setdefault(event.writer, []).extend(counters)
    for found in done.values():
        assert len(found) == len(set(found))
    for seen in tried.values():
        assert seen == set(range(1, max(seen) + 1))


def covered(left: list[Left]) -> set[tuple[bytes, int]]:
    """The writers and counters of the records that the events tell."""
    return {
        (one.event.writer, counter)
        for one in left
        if one.entry.outcome is Outcome.DONE
        for counter in range(one.event.counter, one.event.counter + one.event.count)
    }


def stored(server: Server) -> set[tuple[bytes, int]]:
    """Writer and counter of every live message, read without a key."""
    found = Counter[tuple[bytes, int]]()
    with server.admin() as admin:
        for name in admin.scan_iter(f"{keys.records(ACME)}*:l"):
            for entry in admin.lrange(name, 0, -1):
                record = entry[MESSAGE_HEADER:]
                if record:
                    found[record[18:26], int.from_bytes(record[26:30], "big")] += 1
    assert all(times == 1 for times in found.values())
    return set(found)
