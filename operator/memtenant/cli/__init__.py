"""The command line. `main` is the ``memtenant`` program."""

from memtenant.cli.app import main

__all__ = ["main"]
