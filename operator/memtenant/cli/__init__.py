"""The command line. `main` is the ``memtenant`` program."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_INTERRUPTED = 130
"""`exits.ExitCode`, which is not read yet then."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (`exits.ExitCode`)."""
    try:
        from memtenant.cli.app import main as run
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "memtenant":
            raise
        # Who installed the SDK alone has this program on the path all the same.
        sys.exit(
            f"error: the command line needs {error.name}, which the SDK does not: "
            "pip install 'memtenant[cli]' (or 'memtenant[dev]', with an embedded Valkey)"
        )
    except KeyboardInterrupt:
        # Whatever the commands are made of takes a second to be read.
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    return run(arguments)
