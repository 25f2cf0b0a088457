"""What the log asks of the place where it is kept: few files that grow, few that are replaced.

Names have slashes (``logs/support.acme/2026-11.log``). Every failure is `ArchiveUnavailable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

__all__ = ["Archive", "Part", "Space"]


class Part(NamedTuple):
    """What is to be written at the end of a file, which is at ``offset``; ``before`` is a file that
    has to say something first."""

    name: str
    offset: int
    data: bytes
    before: tuple[str, bytes] | None = None


class Space(NamedTuple):
    """Of the disk that the archive is on: its bytes, and those that are left."""

    size: int
    free: int


class Archive(Protocol):
    """One writer, any number of readers."""

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted; nothing where there is none."""

    def size(self, name: str) -> int | None:
        """How many bytes a file has; None for one that does not exist."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """A part of a file; empty for one that does not exist or ends before."""

    def append(self, parts: Sequence[Part]) -> None:
        """Write to several files, of each once. Durable when it returns. When it fails, anything of
        any of them may be there, and is cut off by the next that opens the log."""

    def settle(self, offsets: Mapping[str, int]) -> None:
        """Make durable what stands in files from a byte on, whoever wrote it. It may be read and
        not be on the disk: of a process that was killed, or of a flush that failed."""

    def cut(self, name: str, size: int) -> None:
        """Take what is behind ``size`` away. Durable."""

    def replace(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Make the whole file say this, or leave it as it was."""

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""

    def space(self) -> Space:
        """How much room there is."""
