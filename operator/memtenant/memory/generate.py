"""Writes ``_sync`` from ``_async``: one source for both, so that they cannot drift apart.

    python -m memtenant.memory.generate [--check]

Only words are replaced: what differs beyond words is in ``link.py``, which each package has of its
own. ``--check`` writes nothing and ends with 1 where a file is not what the source says.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

__all__ = ["main", "translated"]

_HERE = Path(__file__).parent
_SOURCE, _TWIN = _HERE / "_async", _HERE / "_sync"
_BY_HAND = {"__init__.py", "link.py"}
_WORDS = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"memtenant\.memory\._async", "memtenant.memory._sync"),
)
_NOTE = "# Generated from _async/{name} by `make generate`: change it there.\n"


def translated(source: str) -> str:
    """The source without asyncio."""
    for pattern, replacement in _WORDS:
        source = re.sub(pattern, replacement, source)
    return source


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    check = arguments == ["--check"]
    stale = []
    for path in sorted(_SOURCE.glob("*.py")):
        if path.name in _BY_HAND:
            continue
        twin = _TWIN / path.name
        text = _formatted(_NOTE.format(name=path.name) + translated(path.read_text("utf-8")), twin)
        if not twin.exists() or twin.read_text("utf-8") != text:
            stale.append(twin)
            if not check:
                twin.write_text(text, "utf-8")
    for twin in sorted(_TWIN.glob("*.py")):
        if twin.name not in _BY_HAND and not (_SOURCE / twin.name).exists():
            stale.append(twin)
            if not check:
                twin.unlink()
    verb = "is not what its source says: run `make generate`" if check else "written"
    sys.stdout.writelines(f"{twin.relative_to(_HERE)} {verb}\n" for twin in stale)
    return 1 if check and stale else 0


def _formatted(text: str, path: Path) -> str:
    """As ruff, of this environment, formats it: lines became shorter, imports moved."""
    for command in (("check", "--fix-only", "--quiet", "--select", "I"), ("format", "--quiet")):
        ruff = (sys.executable, "-m", "ruff", *command, "--stdin-filename", str(path), "-")
        text = subprocess.run(  # noqa: S603 - our own tool
            ruff, input=text, capture_output=True, text=True, check=True
        ).stdout
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
