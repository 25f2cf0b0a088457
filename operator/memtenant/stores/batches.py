"""As many at a time as one round trip, or one transaction, is to carry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

__all__ = ["batches"]

T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in their order, ``size`` at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
