"""The one place that prints: results on stdout, everything else on stderr.

Colour and progress only on a terminal, and never with ``NO_COLOR``. What comes from files, servers
or users is printed as text: no markup, no control characters.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

__all__ = ["Format", "data", "fail", "line", "note", "progress", "raw", "table", "warn"]

_PATIENCE = 1.0
"""Seconds after which a wait is shown."""

_WIDE = 100_000


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def _console(*, stderr: bool, wide: bool = False) -> Console:
    """Made at each use: tests and shells replace the streams. ``wide``: nothing is cut to fit; a
    terminal wraps."""
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream.isatty()
    return Console(
        file=stream,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        width=None if terminal and not wide else _WIDE,
        no_color=None if terminal else True,
    )


def line(text: str = "", style: str = "") -> None:
    """One line of the result."""
    _console(stderr=False).print(Text(_clean(text), style=style))


def raw(text: str) -> None:
    """Text for another program, exactly so."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def data(value: Any, form: Format) -> None:
    """A value for a program, as JSON or YAML."""
    if form is Format.JSON:
        raw(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        raw(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns under their names, as kubectl prints them."""
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        shown.add_column(column.upper(), no_wrap=True, overflow="ignore")
    for row in rows:
        shown.add_row(*(Text(_clean(cell), style=_STYLES.get(cell, "")) for cell in row))
    _console(stderr=False, wide=True).print(shown)


_STYLES = {"True": "green", "False": "red", "Unknown": "yellow"}


def note(text: str) -> None:
    """What a person may want to know."""
    _console(stderr=True).print(Text(_clean(text), style="dim"))


def warn(text: str) -> None:
    """What a person should know."""
    _console(stderr=True).print(Text.assemble(("warning: ", "yellow"), _clean(text)))


def fail(text: str) -> None:
    """Why the command did not do what was asked."""
    _console(stderr=True).print(Text.assemble(("error: ", "bold red"), _clean(text)))


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show ``what`` and how far it is once it takes longer than a second, on a terminal.

    The function that it gives is told how much is done and how much is known to be due.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _due: None
        return
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        console=_console(stderr=True),
        transient=True,
    )
    task = shown.add_task(what, total=None)
    patience = threading.Timer(_PATIENCE, shown.start)
    patience.daemon = True
    patience.start()
    try:
        yield lambda done, due: shown.update(task, completed=done, total=due)
    finally:
        patience.cancel()
        patience.join()
        shown.stop()


def _clean(text: str) -> str:
    """No escape sequence of somebody's making reaches the terminal."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)
