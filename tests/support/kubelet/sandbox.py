"""Become a container's process: `python sandbox.py SPEC` inside new mount and UTS namespaces.

Builds a root from the machine's own (every entry of / bound into a tmpfs), puts the pod's volumes
where it wants them, enters that root and executes the command. An overlay of / would be simpler
and needs privilege; bind mounts work in a user namespace too. A folder that lacks a mount point is
replaced by a tmpfs with the same entries, so nothing is ever created in the machine's own folders.
Imports nothing of the tests: it runs as a plain script.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 32, 4096, 16384
_PR_SET_PDEATHSIG = 1
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_libc = ctypes.CDLL(None, use_errno=True)


def main(spec_file: Path) -> None:
    """Read the specification, remove it (it holds secrets), build the root and execute."""
    spec = json.loads(spec_file.read_text())
    spec_file.unlink()
    root = Path(spec["root"])
    mounts = [(Path(m["source"]), Path(os.path.realpath(m["target"])), m) for m in spec["mounts"]]
    _build_root(root, [(source, target) for source, target, _ in mounts])
    if spec["read_only"]:
        _set_read_only(root)
    for source, target, mount in sorted(mounts, key=lambda m: len(m[1].parts)):
        _make_point(source, _inside(root, target))  # what is mounted above it may have none
        _bind(source, _inside(root, target))
        if mount["read_only"]:
            _mount(None, _inside(root, target), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
    os.chroot(root)
    os.chdir(spec["directory"])
    socket.sethostname(spec["hostname"])
    # Set last: entering a user namespace would have reset it.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606


def _build_root(root: Path, mounts: list[tuple[Path, Path]]) -> None:
    """A tmpfs at `root` that looks like / and has every mount point."""
    lacking = {_deepest_existing(target) for _, target in mounts if not target.exists()}
    for shadow in sorted(lacking | {Path("/")}, key=lambda folder: len(folder.parts)):
        _shadow(shadow, _inside(root, shadow))
    for source, target in mounts:
        _make_point(source, _inside(root, target))


def _make_point(source: Path, point: Path) -> None:
    if source.is_dir():
        point.mkdir(parents=True, exist_ok=True)
    elif not point.exists():
        point.parent.mkdir(parents=True, exist_ok=True)
        point.touch()


def _deepest_existing(target: Path) -> Path:
    return next(folder for folder in target.parents if folder.is_dir())


def _shadow(original: Path, copy: Path) -> None:
    """Cover `copy` with a tmpfs that has the entries of `original`, bound or linked."""
    _mount("tmpfs", copy, "tmpfs", 0)
    for entry in original.iterdir():
        point = copy / entry.name
        if entry.is_symlink():
            point.symlink_to(entry.readlink())
        elif entry.is_dir():
            point.mkdir()
            _bind(entry, point)
        else:
            point.touch()
            _bind(entry, point)


def _inside(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _bind(source: Path, target: Path) -> None:
    # Recursive: a user namespace may not take a mount apart from what is mounted below it.
    _mount(str(source), target, None, _MS_BIND | _MS_REC)


def _mount(source: str | None, target: Path, kind: str | None, flags: int) -> None:
    encoded = [None if text is None else text.encode() for text in (source, str(target), kind)]
    if _libc.mount(*encoded, flags, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mounting {source} on {target}: {os.strerror(number)}")


def _set_read_only(root: Path) -> None:
    """mount_setattr(2): one call for the whole tree. struct mount_attr is four 64-bit fields."""
    attributes = (ctypes.c_uint64 * 4)(_MS_RDONLY, 0, 0, 0)
    arguments = (_AT_FDCWD, str(root).encode(), _AT_RECURSIVE, attributes, 32)
    if _libc.syscall(_SYS_MOUNT_SETATTR, *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"making {root} read-only: {os.strerror(number)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
