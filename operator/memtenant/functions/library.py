"""The library of Functions as the server gets it: the Lua files of this folder, joined in order.

Beside it the one before, byte for byte as its release loaded it (``previous/``): agents of that
release go on under a newer operator, and an operator that is rolled back finds its own library.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from memtenant.functions.versions import CURRENT_VERSION, PREVIOUS_VERSION, function_prefix

__all__ = ["LIBRARY_PREFIX", "Library", "libraries", "version_of"]

LIBRARY_PREFIX = "memtenant_"
"""Every library that memtenant loads is called so and by its version; no other is touched."""

_HEADING = f"#!lua name={LIBRARY_PREFIX}{CURRENT_VERSION}\nlocal PREFIX = '{function_prefix()}'"
_PARTS = (
    "values",
    "names",
    "limits",
    "offer",
    "head",
    "append",
    "read",
    "checkpoint",
    "change",
    "clear",
    "summary",
    "context",
    "index",
    "expiry",
    "usage",
    "lead",
)


@dataclass(frozen=True, slots=True)
class Library:
    """One version of the library: its name on the server and its code."""

    version: int
    code: str

    @property
    def name(self) -> str:
        """What FUNCTION LIST calls it."""
        return f"{LIBRARY_PREFIX}{self.version}"

    @property
    def digest(self) -> str:
        """SHA-256 of the code, in hex."""
        return hashlib.sha256(self.code.encode()).hexdigest()


@cache
def libraries() -> tuple[Library, ...]:
    """The versions that a store should hold, the current one first."""
    folder = files(__package__)
    before = folder.joinpath("previous", f"{LIBRARY_PREFIX}{PREVIOUS_VERSION}.lua")
    parts = (folder.joinpath(f"{part}.lua").read_text("utf-8").strip() for part in _PARTS)
    code = "\n\n".join((_HEADING, *parts)) + "\n"
    return Library(CURRENT_VERSION, code), Library(PREVIOUS_VERSION, before.read_text("utf-8"))


def version_of(name: str) -> int | None:
    """The version of a library of memtenant's, or None for a library of somebody else."""
    version = name.removeprefix(LIBRARY_PREFIX)
    if version == name or not version.isdecimal() or not version.isascii():
        return None
    return int(version)
