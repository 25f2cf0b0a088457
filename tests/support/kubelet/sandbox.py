"""Become a container's process: `python sandbox.py SPEC` inside new mount and UTS namespaces.

Builds a root from the machine's own (an overlay of / would need privilege), puts the pod's volumes
where it wants them, enters that root and executes the command. A folder that lacks a mount point
becomes a tmpfs with the same entries: nothing is ever created in the machine's own folders.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _RDONLY, _PR_SET_PDEATHSIG = 442, -100, 0x8000, 1, 1
_libc = ctypes.CDLL(None, use_errno=True)


def main(spec_file: Path) -> None:
    """Read the specification, remove it (it holds secrets), build the root and execute."""
    spec = json.loads(spec_file.read_text())
    spec_file.unlink()
    root = spec["root"]
    mounts = [(os.path.realpath(m["target"]), m["source"], m["read_only"]) for m in spec["mounts"]]
    _build_root(root, [Path(target) for target, _, _ in mounts])
    if spec["read_only"]:
        _make_read_only(root)
    for target, source, read_only in sorted(mounts):
        if Path(source).is_dir():  # what is mounted above it may have no such folder
            Path(root + target).mkdir(parents=True, exist_ok=True)
        _mount("--rbind", source, root + target)
        if read_only:
            _make_read_only(root + target)
    os.chroot(root)
    os.chdir(spec["directory"])
    socket.sethostname(spec["hostname"])
    # Set last: entering a user namespace would have reset it.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606


def _build_root(root: str, targets: list[Path]) -> None:
    """A tmpfs at `root` that looks like / and has every mount point."""
    lacking = [target for target in targets if not target.exists()]
    covered = {next(p for p in target.parents if p.is_dir()) for target in lacking}
    for original in sorted(covered | {Path("/")}):
        copy = f"{root}{original}"
        _mount("-t", "tmpfs", "tmpfs", copy)
        for entry in original.iterdir():
            point = Path(copy, entry.name)
            if entry.is_symlink():
                point.symlink_to(entry.readlink())
            else:  # recursive, as a user namespace may not take apart what is mounted below
                point.mkdir() if entry.is_dir() else point.touch()
                _mount("--rbind", str(entry), str(point))
    for target in lacking:
        Path(f"{root}{target}").mkdir(parents=True, exist_ok=True)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _make_read_only(tree: str) -> None:
    """mount_setattr(2): one call for the whole tree. struct mount_attr is four 64-bit fields."""
    attributes = (ctypes.c_uint64 * 4)(_RDONLY, 0, 0, 0)
    if _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, tree.encode(), _AT_RECURSIVE, attributes, 32) != 0:
        raise OSError(ctypes.get_errno(), f"making {tree} read-only")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
