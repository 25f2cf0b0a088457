"""What an observer is told of the SDK's calls: which, how long, how it ended; nothing of what was
said, and of nobody.

One hook for traces and metrics of any make, so that the SDK depends on none (docs/sdk.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Observation", "Observer", "observed"]

_log = logging.getLogger("memtenant.memory")


@dataclass(frozen=True, slots=True)
class Observation:
    """One call that stored, changed or showed content, when it was over.

    operation: as the audit names it, in small letters (docs/audit-format.md). started: seconds
    since 1970. seconds: until its answer, repetitions and waits included. outcome: ``ok``, or the
    name of the error that was raised. count: how many records, values or messages it was about.
    """

    operation: str
    tenant: str
    agent: str
    started: float
    seconds: float
    outcome: str
    count: int


Observer = Callable[[Observation], None]
"""Called in the task or thread of the call, after each: what takes long belongs elsewhere."""


@contextmanager
def observed(
    observer: Observer, operation: str, tenant: str, agent: str, count: int
) -> Iterator[None]:
    """Around one call. What the observer raises is logged and changes nothing for the caller."""
    started, begun, outcome = time.time(), time.monotonic(), "ok"
    try:
        yield
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        seconds = time.monotonic() - begun
        try:
            observer(Observation(operation, tenant, agent, started, seconds, outcome, count))
        except Exception:  # noqa: BLE001 - whatever it is: the call itself was done
            _log.exception("The observer failed; the call that it was told of did not")
