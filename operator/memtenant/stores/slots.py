"""The slots of a Cluster, and in which of them the leader's term is written down."""

from __future__ import annotations

from binascii import crc_hqx
from functools import cache

from memtenant.tenancy.keys import STORE_EPOCH

__all__ = ["SLOTS", "epoch_keys", "slot_of"]

SLOTS = 16_384

_SLOTS_PER_EPOCH = 64


def slot_of(key: bytes | str) -> int:
    """The slot of a key: the CRC16 of its hash tag, or of all of it."""
    data = key if isinstance(key, bytes) else key.encode()
    begin = data.find(b"{")
    end = data.find(b"}", begin + 1)
    if begin >= 0 and end > begin + 1:
        data = data[begin + 1 : end]
    return crc_hqx(data, 0) % SLOTS


@cache
def epoch_keys() -> dict[int, str]:
    """The keys that hold the term in a Cluster, by slot: one in every 64 slots.

    A leader raises all of them. So each node that has some slots has one, whatever slots move
    where, and a former leader finds the later term wherever it looks.
    """
    found: dict[int, str] = {}
    number = 0
    while len(found) < SLOTS // _SLOTS_PER_EPOCH:
        key = f"{STORE_EPOCH}:{{{number}}}"
        slot = slot_of(key)
        if slot % _SLOTS_PER_EPOCH == 0:
            found.setdefault(slot, key)
        number += 1
    return dict(sorted(found.items()))
