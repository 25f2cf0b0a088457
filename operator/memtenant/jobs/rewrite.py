"""An instance's append-only file, written anew after it was cut off.

A server without room on its disk takes back what it wrote by half, and goes on behind it when there
is room again: zeros are between, and the next start refuses the file (measured: Valkey 9.1, Redis
7.0 and 8.2, where the file had been written anew since the start). Nothing shows that until then,
so the file is written anew once more as soon as the server writes again.
"""

from __future__ import annotations

from memtenant.clock import Clock
from memtenant.jobs.link import CutOff, StoreLink
from memtenant.resources.port import Kind

__all__ = ["notice_cut_off", "rewrite_cut_off"]

_AGAIN, _LATEST = 60.0, 3600.0
"""Seconds after which one that failed is begun again, twice as many each time: it takes a fork, and
the room that the server lacks."""


def notice_cut_off(link: StoreLink) -> None:
    """Enter what the last look at an instance tells; a store has admins of its own. A rewrite that
    failed tells of a disk that was full for a moment: it took the room, and gave it back."""
    if link.facts is None or link.key.kind is not Kind.TENANT:
        return
    node = link.facts.primary
    if link.cut_off is not None and link.cut_off.run_id != node.run_id:
        link.cut_off = None  # it read the file at its start
    if not node.append_only or (node.file.writable and node.file.rewritten):
        return
    link.cut_off = link.cut_off or CutOff(node.run_id)
    if not node.file.writable:
        link.cut_off.since = None


async def rewrite_cut_off(link: StoreLink, clock: Clock) -> bool:
    """Have the file that was cut off written anew, once the server can; whether it is, since the
    last look."""
    cut_off = link.cut_off
    if cut_off is None or link.facts is None:
        return False
    file, now = link.facts.primary.file, clock.monotonic()
    if not file.writable or file.rewriting:
        return False
    if cut_off.since is not None and file.rewrites > cut_off.since and file.rewritten:
        link.cut_off = None
        return True
    if now < cut_off.again_at:
        return False
    cut_off.again_at = now + min(_LATEST, _AGAIN * 2**cut_off.tries)
    cut_off.tries += 1
    cut_off.since = file.rewrites
    await link.admin.rewrite_append_only_file()
    return False
