"""The two versions of the library that a store holds, and the names of their Functions.

A Function's name begins with its library's version (``mt2_append``): SDK and operator may differ by
one version, in either direction.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CURRENT_VERSION", "PREVIOUS_VERSION", "function_prefix", "other_version"]

CURRENT_VERSION: Final = 2
PREVIOUS_VERSION: Final = CURRENT_VERSION - 1


def function_prefix(version: int = CURRENT_VERSION) -> str:
    """What the names of that version's Functions begin with."""
    return f"mt{version}_"


def other_version(version: int) -> int:
    """The one of the two that this is not."""
    return PREVIOUS_VERSION if version == CURRENT_VERSION else CURRENT_VERSION
