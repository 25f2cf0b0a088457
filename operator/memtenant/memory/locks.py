"""Locks for a few lines without I/O, which a fork cannot leave locked in the child."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

__all__ = ["ShortLock"]


class ShortLock:
    """Used with ``with``, around what takes microseconds; in asyncio it never waits.

    A thread of the parent may hold a lock while another one forks: nobody would ever unlock it in
    the child, so each is made anew there.
    """

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Unlocked, whoever held it."""
        self._lock = threading.Lock()


_all: WeakSet[ShortLock] = WeakSet()


def _renew_all() -> None:
    for lock in list(_all):
        lock.renew()


os.register_at_fork(after_in_child=_renew_all)
