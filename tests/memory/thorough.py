"""How much is tried where more finds more: state machines, and many processes on one thing."""

import os

__all__ = ["thoroughness"]


def thoroughness() -> int:
    """1 in every run; a run with ``MEMTENANT_THOROUGH=10`` tries ten times as much."""
    return int(os.environ.get("MEMTENANT_THOROUGH", "1"))
