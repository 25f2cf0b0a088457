"""How much a message matters, told from its words alone: no model, no I/O.

What was decided, promised or went wrong, and what has a figure (an amount, a date, an id), is what
a later answer needs; greetings are not. The words are English; figures are the same everywhere, and
a `Category` adds another language's words or a trade's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Final, Protocol

from memtenant.errors import UsageError
from memtenant.memory.messages import AI, SYSTEM, TOOL, Message

__all__ = ["Category", "Scorer", "importance", "weight_of"]

_SCANNED: Final = 16_384
"""Characters of a message that are looked at: the time for one is bounded, whatever it holds."""

_PIECE: Final = 256
"""Characters at a time that a user's pattern is given: its cost grows with a message's length and
no faster, whatever the pattern does."""

_FOUND: Final = 0.05
"""The weight of a message without any sign of importance."""


@dataclass(frozen=True, slots=True)
class Category:
    """What matters to this agent beside what matters to all.

    ``weight`` is from -1 (what it finds does not matter) to 1 (it always does). ``words`` are
    found as whole words, in any case; ``pattern`` is a regular expression, given at most 256
    characters at a time.
    """

    name: str
    weight: float
    words: Collection[str] = ()
    pattern: str = ""
    _words: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not -1 <= self.weight <= 1:
            raise UsageError(f"The weight of category {self.name} is not from -1 to 1")
        if isinstance(self.words, str) or not all(self.words):
            raise UsageError(f"The words of category {self.name} are not a list of texts")
        if self.words:
            any_of = "|".join(_whole(word) for word in sorted(self.words, key=len, reverse=True))
            object.__setattr__(self, "_words", re.compile(any_of, re.IGNORECASE))
        if self.pattern:
            try:
                compiled = re.compile(self.pattern)
            except re.error as error:
                raise UsageError(
                    f"The pattern of category {self.name} is no regular expression: {error}"
                ) from None
            object.__setattr__(self, "_pattern", compiled)

    def found_in(self, text: str) -> bool:
        """Whether a text is of this category."""
        if self._words is not None and self._words.search(text):
            return True
        found = self._pattern
        return found is not None and any(found.search(piece) for piece in _pieces(text))


class Scorer(Protocol):
    """How important each of the messages is, from 0 to 1; called with all of a conversation."""

    def __call__(
        self, messages: Sequence[Message], categories: Sequence[Category]
    ) -> Sequence[float]:
        """As many numbers as messages."""
        ...


def _words(words: str, *pairs: str) -> tuple[str, ...]:
    return (*words.split(), *pairs)


# Words, and pairs of words that follow one another.
_SIGNS: Final = (
    # What was settled.
    (
        0.5,
        _words(
            "decide decided decision agree agreed approve approved approval chose chosen confirm "
            "confirmed confirms rejected declined booked reserved cancel canceled cancelled signed "
            "final finally finalised finalized concluded conclusion resolved assigned promised",
            *("settled on", "ruled out", "instead of", "move to", "moved to", "switch to"),
            *(f"{go} {how}" for go in ("go", "going", "went", "goes") for how in ("with", "for")),
            *(f"{will} {do}" for will in ("will", "we'll", "let's") for do in ("use", "take")),
        ),
    ),
    # What has to be done.
    (
        0.4,
        _words(
            "todo must deadline due owner owns responsible reminder remind remember blocker "
            "blocked",
            *("to do", "action item", "action items", "need to", "needs to", "have to", "has to"),
            *("later than", "the latest", "follow up", "make sure", "next step", "next steps"),
            *("will send", "will call", "will check", "will fix", "will write", "will review"),
            *("will prepare", "will deliver", "will pay"),
        ),
    ),
    # What went wrong.
    (
        0.4,
        _words(
            "error errors exception traceback fail fails failed failing failure failures crash "
            "crashed crashes timeout refused denied broke broken bug outage incident corrupt "
            "corrupted leak leaked invalid missing lost wrong regression overdue",
            *("timed out", "root cause", "caused by", "because of", "turned out"),
        ),
    ),
    # What holds for the person or the task.
    (
        0.4,
        _words(
            "never always only except allergic allergy prefer prefers preferred cannot can't "
            "don't require requires required budget password limit limited",
            *("must not", "may not", "do not", "at most", "at least", "i live", "lives in"),
            *("live in", "call me", "i'm from", "my name", "my address", "my number"),
            *("my account", "my birthday", "my wife", "my husband", "my son", "my daughter"),
        ),
    ),
    (0.25, _words("monday tuesday wednesday thursday friday saturday sunday tomorrow tonight")),
)

# Looked for in a number and what stands beside it.
_FIGURES: Final = (
    # An amount, a share, a measure.
    (
        0.4,
        re.compile(
            r"[$€£¥₹] ?\d|\d ?(?:[$€£¥₹%]|(?:USD|EUR|GBP|CHF|JPY|CNY|INR|dollars|euros|pounds"
            r"|francs|percent|[kKMG]i?B|GHz|MHz|kg|km|mg|ml|ms|requests|seconds|minutes|hours|days"
            r"|weeks|months|years|people|guests|nights|seats|rooms|users|million|thousand)\b)"
        ),
    ),
    # A date or a time.
    (
        0.35,
        re.compile(
            r"\d{4}-\d\d-\d\d|\d[./]\d{1,2}[./]\d\d|\d:\d\d|\d ?[ap]\.?m\b|\d\s?[年月日]"
            r"|\d(?:st|nd|rd|th)? (?:of )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
            r"|\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.? \d"
        ),
    ),
    # What names one thing among many: an id, an address, a version.
    (
        0.4,
        re.compile(
            r"[A-Z]-\d|#\d\d|[A-Z]\d\d|[a-z]-\d|\d\.\d{1,5}\.\d|\d{5}|\d[a-f]{1,4}\d[0-9a-f]{4}"
        ),
    ),
    (0.15, re.compile(r"\d")),
)
_ADDRESS: Final = 0.35
_NAME: Final = 0.15
_NAME_IN_MID_SENTENCE: Final = re.compile(r"[a-z,] [A-Z][a-z]{2}")
_WORD: Final = re.compile(r"[a-z']+")
_DIGITS: Final = re.compile(r"\d+")
_FIGURES_SEEN: Final = 32
_BESIDE: Final = 12
"""Characters before and behind a number that say what it is."""

_BY_WORD: Final = {
    word: sign for sign, (_, words) in enumerate(_SIGNS) for word in words if " " not in word
}
_BY_PAIR: Final = {
    (word.partition(" ")[0], word.partition(" ")[2]): sign
    for sign, (_, words) in enumerate(_SIGNS)
    for word in words
    if " " in word
}

_QUESTION: Final = 0.1
_ANSWER: Final = 0.15
_SMALL_TALK_WORDS: Final = 6
_RECENCY: Final = 0.3
_HALF_LIFE: Final = 8
_BY_ROLE: Final = {AI: 0.95, TOOL: 0.8}


def importance(messages: Sequence[Message], categories: Sequence[Category]) -> list[float]:
    """The local `Scorer`: signs in the text, the role, whether it answers a question, and how new
    it is."""
    weights = []
    asked = False
    for message in messages:
        weight = weight_of(message.text, categories)
        if asked and message.role == AI:
            weight = _both(weight, _ANSWER)
        asked = message.text.rstrip().endswith(("?", "\N{FULLWIDTH QUESTION MARK}"))
        if asked:
            weight = _both(weight, _QUESTION)
        weight *= _BY_ROLE.get(message.role, 1.0)
        weights.append(1.0 if message.role == SYSTEM else weight)
    newest = len(messages) - 1
    return [
        _both(weight, _RECENCY * 0.5 ** ((newest - place) / _HALF_LIFE))
        for place, weight in enumerate(weights)
    ]


def weight_of(text: str, categories: Sequence[Category] = ()) -> float:
    """From 0 to 1, by the text alone."""
    text = text[:_SCANNED]
    weight = _FOUND
    words = _WORD.findall(text.lower())
    told = {_BY_WORD[word] for word in _BY_WORD.keys() & words}
    told |= {_BY_PAIR[pair] for pair in _BY_PAIR.keys() & pairwise(words)}
    for sign in told:
        weight = _both(weight, _SIGNS[sign][0])
    if figures := _figures(text):
        for strength, pattern in _FIGURES:
            if pattern.search(figures):
                weight = _both(weight, strength)
    if "://" in text or "@" in text:
        weight = _both(weight, _ADDRESS)
    if _NAME_IN_MID_SENTENCE.search(text):
        weight = _both(weight, _NAME)
    if weight == _FOUND and text.count(" ") < _SMALL_TALK_WORDS:
        weight = 0.0
    for category in categories:
        if category.found_in(text):
            less = category.weight < 0
            weight = weight * (1 + category.weight) if less else _both(weight, category.weight)
    return weight


def _both(one: float, other: float) -> float:
    """Two signs together say more than each, and never more than 1."""
    return 1 - (1 - one) * (1 - other)


def _figures(text: str) -> str:
    """The numbers, each with what stands beside it; the first so many."""
    return "\n".join(
        text[max(found.start() - _BESIDE, 0) : min(found.end(), found.start() + _PIECE) + _BESIDE]
        for found in islice(_DIGITS.finditer(text), _FIGURES_SEEN)
    )


def _whole(word: str) -> str:
    before = r"(?<![A-Za-z0-9_])" if word[0].isascii() and word[0].isalnum() else ""
    after = r"(?![A-Za-z0-9_])" if word[-1].isascii() and word[-1].isalnum() else ""
    return f"{before}{re.escape(word)}{after}"


def _pieces(text: str) -> Iterator[str]:
    for line in text.splitlines():
        for start in range(0, len(line), _PIECE):
            yield line[start : start + _PIECE]
