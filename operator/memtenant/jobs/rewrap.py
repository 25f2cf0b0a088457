"""Wrap the data keys of a store anew, for all tenants whose key turned, in one paced pass.

A pass is as good after an interruption as before: what was wrapped anew is recognised by the
version in its first bytes. What it found is what `memtenant.rules.keymotion` decides by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from memtenant.clock import Clock
from memtenant.crypto.datakey import kek_version, rewrap_data_key
from memtenant.errors import RecordInvalid
from memtenant.jobs.link import KeyPass, StoreLink
from memtenant.rules.keymotion import KeyScan, MovingKeys
from memtenant.stores import StoredDataKey
from memtenant.tenancy.identity import TenantId

__all__ = ["Rewrapped", "rewrap"]

_AT_A_TIME = 25
"""Data keys that are unwrapped, wrapped and written together: one piece of the pass."""

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What one pass came to: ``affected`` tenants are to be reconciled."""

    affected: tuple[TenantId, ...] = ()
    rewrapped: int = 0


async def rewrap(link: StoreLink, clock: Clock) -> Rewrapped:
    """One pass, or the rest of one that was cut off; nothing where no tenant waits for it."""
    under_way = link.key_pass = _begun(link, clock)
    if under_way is None:
        return Rewrapped()
    async for batch in link.admin.data_keys(
        lambda tenant: tenant in under_way.found, under_way.position
    ):
        for part in _parts(batch):
            await _wrap_anew(link, under_way, part)
    link.key_pass = None
    affected = [t for t, found in under_way.found.items() if _is_news(found, link.key_scan(t))]
    before = link.key_scans if link.scanned_on == under_way.run_id else {}
    passed = {**before, **under_way.found}
    link.key_scans = {tenant: scan for tenant, scan in passed.items() if tenant in link.tenants}
    link.scanned_on = under_way.run_id
    return Rewrapped(
        tuple(sorted(affected)),
        sum(found.rewrapped for found in under_way.found.values()),
    )


def _is_news(found: KeyScan, before: KeyScan | None) -> bool:
    """Whether the tenant's next step, or its status, may follow from it."""
    return found.clean or before is None or replace(before, started=found.started) != found


def _begun(link: StoreLink, clock: Clock) -> KeyPass | None:
    """The pass that was cut off, while it is about this server still, else a new one."""
    run_id = "" if link.facts is None else link.facts.run_id
    if link.key_pass is not None and link.key_pass.run_id == run_id:
        return link.key_pass
    now = clock.now()
    found = {
        tenant: KeyScan(live.keys.stage, now)
        for tenant, live in link.tenants.items()
        if live.keys is not None and live.keys.scan_from <= now
    }
    return KeyPass(now, run_id, found) if found else None


async def _wrap_anew(link: StoreLink, under_way: KeyPass, stored: Sequence[StoredDataKey]) -> None:
    """Replace those of the data keys that are under another version, and count."""
    changes: list[tuple[StoredDataKey, bytes]] = []
    found = dict(under_way.found)
    for one in stored:
        live = link.tenants.get(one.tenant)
        if live is None or live.keys is None:
            # Deleted, done, or refused for now: a pass that left keys out shows nothing.
            found.pop(one.tenant, None)
        if live is None or live.keys is None or one.tenant not in found:
            continue
        scan = found[one.tenant]
        found[one.tenant] = scan = replace(scan, total=scan.total + 1)
        if _is_current(live.keys, one.value):
            continue
        found[one.tenant] = scan = replace(scan, old=scan.old + 1)
        try:
            changes.append((one, _anew(live.keys, one)))
        except RecordInvalid:
            examples = (*scan.examples, one.alias)[:_EXAMPLES]
            found[one.tenant] = replace(scan, unreadable=scan.unreadable + 1, examples=examples)
    done = await link.admin.replace_data_keys(changes)
    for tenant, count in done.items():
        found[tenant] = replace(found[tenant], rewrapped=found[tenant].rewrapped + count)
    under_way.found = found


def _is_current(keys: MovingKeys, value: bytes) -> bool:
    """Whether it is under the active version, or a newer one that the next look knows of."""
    try:
        version = kek_version(value)
    except RecordInvalid:
        return False
    live = {kek.version for kek in keys.opened.keks}
    return version in live and version >= keys.stage.active


def _anew(keys: MovingKeys, one: StoredDataKey) -> bytes:
    keks, active = keys.opened.keks_of(one.alias), keys.opened.active_of(one.alias)
    return rewrap_data_key(keks, active, one.tenant, one.alias, one.value)


def _parts(batch: Sequence[StoredDataKey]) -> Iterator[list[StoredDataKey]]:
    rest = iter(batch)
    while part := list(islice(rest, _AT_A_TIME)):
        yield part
