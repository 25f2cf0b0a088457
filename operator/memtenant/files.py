"""Files as memtenant reads and makes them: plain ones, and folders whose names a crash leaves.

Who may write into a folder can put a pipe in the place of a file, and whoever opens that waits for
ever.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["NO_PLAIN_FILE", "make_folder", "open_plain", "read_plain", "sync_folder"]

NO_PLAIN_FILE: Final = "it is no plain file: remove it"


def open_plain(file: Path, flags: int, mode: int = 0o640) -> int:
    """A regular file, opened. Raises `OSError`, with `NO_PLAIN_FILE` for a pipe, a socket, a device
    or a folder."""
    try:
        opened = os.open(file, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EISDIR):
            raise OSError(error.errno, NO_PLAIN_FILE, str(file)) from None
        raise
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    raise OSError(errno.EINVAL, NO_PLAIN_FILE, str(file))


def read_plain(file: Path) -> bytes:
    """All of a regular file. Raises as `open_plain`."""
    with os.fdopen(open_plain(file, os.O_RDONLY), "rb") as opened:
        return opened.read()


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Like ``mkdir -p``, and on the disk when it returns; ``mode`` for all that are made."""
    if folder.is_dir():
        return
    if folder.exists():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    make_folder(folder.parent, mode)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in it are on the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
