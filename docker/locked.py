"""The part of a lock file that an installation needs: `locked.py LOCK REPORT > part`.

REPORT is what `pip install --dry-run --report REPORT …` wrote: the packages that pip would install.
The lock file holds those of the tests as well; an image has no use for them. Standard library only.
"""

import json
import re
import sys
from pathlib import Path


def part(lock: str, names: set[str]) -> str:
    """The entries of ``lock``, hashes included, whose package is one of ``names``.

    Raises KeyError with the names that are not locked: pip would have to trust whatever it gets.
    """
    entries = {}
    for entry in re.split(r"(?m)^(?=[A-Za-z0-9])", lock):
        name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", entry)
        if name:
            entries[canonical(name[0])] = entry
    missing = names - entries.keys()
    if missing:
        raise KeyError(f"not in the lock file: {', '.join(sorted(missing))}")
    return "".join(entries[name] for name in sorted(names))


def canonical(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(lock: str, report: str) -> None:
    """Print the part; the package that is built here comes from a path and is left out."""
    planned = json.loads(Path(report).read_text())["install"]
    names = {
        canonical(each["metadata"]["name"])
        for each in planned
        if not each["download_info"]["url"].startswith("file:")
    }
    sys.stdout.write(part(Path(lock).read_text(), names))


if __name__ == "__main__":
    main(*sys.argv[1:])
