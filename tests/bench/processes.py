"""What a process cost so far, as the kernel counts it."""

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of the process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def rss_mb(pid: int) -> float:
    """Resident memory now, in MB (10^6 bytes)."""
    return _megabytes(pid, "VmRSS:")


def peak_mb(pid: int) -> float:
    """The most that was resident so far, in MB, of this program alone.

    `getrusage` will not do: its maximum is inherited from whoever started the program.
    """
    return _megabytes(pid, "VmHWM:")


def _megabytes(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(f"process {pid} tells no {name}")
