"""JSON as RFC 8785 (JCS) writes it, of what reports are made of: equal documents are equal bytes.

A report has objects, lists, texts, whole numbers, true, false and null; its names are ASCII. For
these the standard library's writer gives the same bytes as the RFC (the tests compare it with
another implementation). Fractions, whose form is the hard part of the RFC, are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

__all__ = ["canonical"]

_MOST: Final = 2**53 - 1


def canonical(document: Mapping[str, object]) -> bytes:
    """The bytes. ``ValueError`` for what a report may not hold."""
    _check(document)
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _check(value: object) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str) or not name.isascii():
                raise ValueError("a report has only ASCII names")
            _check(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check(inner)
    elif isinstance(value, float) or (type(value) is int and abs(value) > _MOST):
        raise ValueError("a report has only whole numbers that every reader keeps exact")
