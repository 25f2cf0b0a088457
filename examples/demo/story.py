"""How a demo tells its story: chapters, commands, what they print, and what was checked.

Colour on a terminal only (and never with NO_COLOR). Every claim is checked: one that does not hold
raises `StoryBroken`, and the demo ends with another exit code than 0.
"""

import os
import shlex
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TextIO

_WIDTH = 96
_BOLD, _DIM, _RED, _GREEN, _CYAN = "1", "2", "31", "32", "36"


class StoryBroken(Exception):
    """Something did not go as the story says."""


@dataclass(slots=True)
class Story:
    """A teller that writes to ``out`` and numbers its chapters."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    _chapters: int = 0
    _began: float = field(default_factory=time.monotonic)

    def title(self, text: str, *lines: str) -> None:
        """What this is about."""
        self._line(text, _BOLD)
        for line in lines:
            self.tell(line)

    def chapter(self, text: str) -> None:
        """The next step."""
        self._chapters += 1
        self._line()
        self._line(f"{self._chapters}. {text}", f"{_BOLD};{_CYAN}")

    def tell(self, text: str) -> None:
        """A sentence: what happens and why."""
        for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
            self._line(line)

    def command(self, *words: str, note: str = "") -> None:
        """What a person would type."""
        self._line(f"  $ {as_typed(words)}" + (f"  # {note}" if note else ""), _BOLD)

    def output(self, text: str) -> None:
        """What it printed."""
        for line in text.rstrip().splitlines():
            self._line(f"    {line}", _DIM)

    def denied(self, words: str) -> None:
        """A refusal, in the server's own words."""
        self._line(f"    {words}", _RED)

    def works(self, text: str) -> None:
        """A claim that was just checked."""
        self._line(f"  ✓ {text}", _GREEN)

    def check(self, holds: bool, claim: str, found: object = "") -> None:
        """Say the claim if it holds. Raises `StoryBroken` with what was ``found`` if not."""
        if not holds:
            raise StoryBroken(f"{claim}: no" + (f", {found}" if found != "" else ""))
        self.works(claim)

    def until(self, holds: Callable[[], bool], claim: str, *, seconds: float = 180) -> None:
        """Wait until the claim holds, then say it. Patient: the machine may be busy."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise StoryBroken(f"{claim}: not after {seconds:.0f} s")
            time.sleep(0.2)
        self.works(claim)

    def broken(self, error: Exception) -> None:
        """How the story ended where it should not."""
        self._line()
        self._line(f"✗ {error}", _RED)

    def end(self, *lines: str) -> None:
        """The last words, and how long it all took."""
        self._line()
        self._line(
            f"Done: {self._chapters} steps in {time.monotonic() - self._began:.0f} s.", _BOLD
        )
        for line in lines:
            self._line(line)

    def _line(self, text: str = "", style: str = "") -> None:
        plain = not style or not self.out.isatty() or "NO_COLOR" in os.environ
        self.out.write(f"{text}\n" if plain else f"\033[{style}m{text}\033[0m\n")
        self.out.flush()


def as_typed(words: Sequence[str]) -> str:
    """A command line; what a shell would not take literally is quoted."""
    return " ".join(word if word.startswith("-") else shlex.quote(word) for word in words)


def stop_on_sigterm() -> None:
    """SIGTERM ends the demo as Ctrl-C does: everything that it started is stopped."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
