"""The commands, put together; how each failure becomes one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import cast

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]

from memtenant.cli import output
from memtenant.cli.apply import apply
from memtenant.cli.audit import audit
from memtenant.cli.controller import controller
from memtenant.cli.delete import delete
from memtenant.cli.detach import detach
from memtenant.cli.exits import AuditCode, ExitCode
from memtenant.cli.get import get
from memtenant.cli.local import local
from memtenant.cli.plan import plan
from memtenant.cli.program import COMPLETE_ENV, completion, version
from memtenant.cli.report import report
from memtenant.cli.retention import retention
from memtenant.cli.rotate import rotate
from memtenant.cli.seal import seal
from memtenant.cli.store import store
from memtenant.cli.validate import validate
from memtenant.errors import MemtenantError

__all__ = ["app", "main"]

_DEBUG_ENV = "MEMTENANT_DEBUG"

_OF_THE_MACHINE = frozenset(
    {errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EROFS}
)
"""What a write or an open may come to without telling of which file, and is nobody's defect."""

# The base of what the parser raises. It is public only through this subclass, and of another
# module in each generation of Typer.
_ParserError = cast(type[Exception], typer.BadParameter.__mro__[2])

app = typer.Typer(
    name="memtenant",
    help="""Isolated, encrypted, quota-bound memory for AI agents in Redis or Valkey.

    Without a cluster, everything lives in a state folder (--state, default ./.memtenant) and the
    commands do what the operator does:

        memtenant apply -f examples/resources/1-minimal.yaml
        memtenant get

    In a cluster, `memtenant controller` is the operator; validate, plan and detach help there too.
    """,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_DECLARING, _RUNNING = "Declare", "Run and maintain"
app.command(rich_help_panel=_DECLARING)(validate)
app.command(rich_help_panel=_DECLARING)(plan)
app.command(rich_help_panel=_DECLARING)(apply)
app.command(rich_help_panel=_DECLARING)(get)
app.command(rich_help_panel=_DECLARING)(delete)
app.command(rich_help_panel=_DECLARING)(rotate)
app.add_typer(audit, name="audit", rich_help_panel=_RUNNING)
app.add_typer(local, name="local", rich_help_panel=_RUNNING)
app.add_typer(report, name="report", rich_help_panel=_RUNNING)
app.add_typer(retention, name="retention", rich_help_panel=_RUNNING)
app.add_typer(store, name="store", rich_help_panel=_RUNNING)
app.command(rich_help_panel=_RUNNING)(seal)
app.command(rich_help_panel=_RUNNING)(controller)
app.command(rich_help_panel=_RUNNING)(detach)
app.command(rich_help_panel=_RUNNING)(completion)
app.command(rich_help_panel=_RUNNING)(version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (`ExitCode`); never a traceback."""
    if COMPLETE_ENV in os.environ:
        completion_init()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(given, prog_name="memtenant", standalone_mode=False)
    except MemtenantError as error:
        output.fail(str(error))
        return ExitCode.FAILED
    except _ParserError as error:
        output.fail(_usage(error))
        return _usage_code(error)
    except (KeyboardInterrupt, typer.Abort):
        output.note("interrupted")
        return ExitCode.INTERRUPTED
    except (BrokenPipeError, SystemExit):
        if COMPLETE_ENV in os.environ:
            raise  # so the parser ends where it completed something
        # Whoever read stdout has enough, which the parser notices too, and ends the program.
        _drop_output()
        return _unfinished_code(given)
    except OSError as error:
        if error.filename is None and error.errno not in _OF_THE_MACHINE:
            return _defect(error, given)
        if error.filename is None:
            _drop_output()  # it may be what cannot be written
        output.fail(_refused(error))
        return _unfinished_code(given)
    except Exception as error:  # noqa: BLE001 - the last resort: a defect is told in one line too
        return _defect(error, given)
    return int(code or ExitCode.DONE)


def _defect(error: Exception, given: Sequence[str]) -> int:
    if os.environ.get(_DEBUG_ENV):
        raise error
    output.fail(
        f"unexpected {type(error).__name__}: {error}. This is a defect of memtenant: run again "
        f"with {_DEBUG_ENV}=1 and report what it prints"
    )
    return _unfinished_code(given)


def _drop_output() -> None:
    """Nothing may be flushed to it at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refused(error: OSError) -> str:
    """What the machine does not let anybody do."""
    if error.filename is None:
        return f"not everything could be written: {error.strerror}. Mend that, then run this again"
    return f"{os.fsdecode(error.filename)} cannot be used: {error.strerror or error}"


def _unfinished_code(given: Sequence[str]) -> int:
    return AuditCode.INCOMPLETE if _verifies(given) else ExitCode.FAILED


def _usage_code(error: BaseException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path.split() if context is not None else []
    return AuditCode.USAGE if _verifies(path[1:]) else ExitCode.FAILED


def _verifies(words: Sequence[str]) -> bool:
    """Whether 1 would say of the command that something was tampered with."""
    return [*words[:1]] == ["audit"] or [*words[:2]] == ["report", "verify"]


def _usage(error: BaseException) -> str:
    """The parser's words, in one line and without pydantic's own, and where help is."""
    message = " ".join(getattr(error, "format_message", lambda: str(error))().split())
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "memtenant"
    message = message.replace(": Value error, ", ": ")
    return f"{message.rstrip('.')}. See `{command} --help`"
