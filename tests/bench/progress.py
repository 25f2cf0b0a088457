"""What is being measured, on stderr: a bar on a terminal, a line a step elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

_WIDTH = 24


class Progress:
    """One step after the other, each of so many parts."""

    def __init__(self) -> None:
        self._bar = sys.stderr.isatty()
        self._name, self._parts, self._done = "", 0, 0
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def step(self, name: str, parts: int) -> None:
        """Begin a step; the one before has ended."""
        self._end()
        self._name, self._parts, self._done = name, parts, 0
        self._started = time.monotonic()
        self._draw() if self._bar else self._write(f"{name} … ")

    def advance(self) -> None:
        """A part of the step is done."""
        self._done += 1
        if self._bar:
            self._draw()

    def _draw(self) -> None:
        filled = _WIDTH * self._done // max(self._parts, 1)
        self._write(f"\r\x1b[K[{'#' * filled}{' ' * (_WIDTH - filled)}] {self._name}")

    def _end(self) -> None:
        if self._name:
            taken = f"{time.monotonic() - self._started:.0f} s\n"
            self._write(f"\r\x1b[K{self._name} … {taken}" if self._bar else taken)
            self._name = ""

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
