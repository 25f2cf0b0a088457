"""memtenant with a clock that runs wrong by as many seconds as a file says.

    python -P clocked.py FILE controller …

Only the wall clock: no step of it moves a machine's monotonic one.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from memtenant import clock

_WRONG_BY = Path(sys.argv.pop(1))


def _now() -> datetime:
    try:
        seconds = float(_WRONG_BY.read_text())
    except (OSError, ValueError):
        seconds = 0.0
    return datetime.now(UTC) + timedelta(seconds=seconds)


clock.system_clock = clock.Clock(now=_now)

if __name__ == "__main__":
    # Not earlier: modules take the clock when they are imported.
    from memtenant.cli import main

    sys.exit(main())
