"""A file system of one server's own, which can be full. Needs a mount namespace of one's own
(`tests.chaos.__main__` makes it), so that nothing stays mounted behind a run that was killed."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.processes import Unavailable

__all__ = ["Disk"]

_ROOM = 1 << 29
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Disk:
    """Where it is mounted."""

    root: Path

    @classmethod
    def mounted(cls, root: Path) -> Self:
        """An empty one. Raises Unavailable where this process may not mount."""
        root.mkdir(parents=True)
        disk = cls(root)
        done = disk._mount(f"size={_ROOM}", "tmpfs")
        if done.returncode:
            raise Unavailable(f"no file system can be mounted here ({done.stderr.strip()})")
        return disk

    def fill(self) -> None:
        """Leave no room: every further write of a block is refused (ENOSPC)."""
        for _ in range(_TRIES):  # it may grow between the two
            there = os.statvfs(self.root)
            used = (there.f_blocks - there.f_bfree) * there.f_frsize
            if self._mount(f"remount,size={used}").returncode == 0:
                return
        raise OSError(f"{self.root} grows faster than it can be filled")

    def free(self) -> None:
        """Undo `fill`."""
        done = self._mount(f"remount,size={_ROOM}")
        if done.returncode:
            raise OSError(f"{self.root} cannot be given room: {done.stderr.strip()}")

    def _mount(self, options: str, *kind: str) -> "subprocess.CompletedProcess[str]":
        type_and_source = ("-t", *kind, *kind) if kind else ()
        return subprocess.run(
            ["mount", *type_and_source, "-o", options, str(self.root)],
            capture_output=True,
            text=True,
            check=False,
        )
