"""How a command ends: the exit codes, which scripts rely on (docs/cli.md)."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["AuditCode", "ExitCode"]


class ExitCode(IntEnum):
    """Never renumbered."""

    DONE = 0
    """Done; of ``plan``: nothing would change."""

    FAILED = 1
    """Refused or failed: wrong usage, bad input, no answer. One line on stderr says why."""

    CHANGES = 2
    """Of ``plan``: something would change (as Terraform's ``-detailed-exitcode``); of ``report
    diff``: a control turned; of ``report run``: evidence of a control is missing."""

    UNSETTLED = 3
    """What was asked is written, but something is not Ready or not gone yet; its reason is shown.
    """

    INTERRUPTED = 130
    """Ctrl-C. What was written is whole; the same command goes on from there."""


class AuditCode(IntEnum):
    """Of ``memtenant audit`` and ``report verify``, whose answer is about the log and not about the
    command. Never renumbered."""

    GOOD = 0
    """The log (or the proof) is what was signed."""

    TAMPERED = 1
    """It is not."""

    INCOMPLETE = 2
    """Nothing wrong was found, but not everything could be looked at, or no checkpoint that was
    kept elsewhere anchors it."""

    USAGE = 3
    """The command was called with what it cannot use."""
