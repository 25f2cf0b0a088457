"""The library of Functions as the server gets it: the Lua files of this folder, joined in order.

A library's version is the prefix of its Functions' names (``mt1_append``). The operator loads the
current one and the one before, so that SDK and operator may differ by one; the first version has
none before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["CURRENT_VERSION", "LIBRARY_PREFIX", "Library", "libraries", "version_of"]

LIBRARY_PREFIX = "memtenant_"
"""Every library that memtenant loads is called so and by its version; no other is touched."""

CURRENT_VERSION = 1

_PARTS = (
    "values",
    "names",
    "limits",
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
    "register",
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
    name = f"{LIBRARY_PREFIX}{CURRENT_VERSION}"
    folder = files(__package__)
    parts = (folder.joinpath(f"{part}.lua").read_text("utf-8").strip() for part in _PARTS)
    code = "\n\n".join((f"#!lua name={name}", *parts)) + "\n"
    return (Library(CURRENT_VERSION, code),)


def version_of(name: str) -> int | None:
    """The version of a library of memtenant's, or None for a library of somebody else."""
    version = name.removeprefix(LIBRARY_PREFIX)
    if version == name or not version.isdecimal() or not version.isascii():
        return None
    return int(version)
