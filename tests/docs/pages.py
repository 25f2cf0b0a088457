"""The product's documentation as Markdown: pages, their code blocks, links and headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

PAGES = sorted(
    [
        *DOCS.glob("*.md"),
        *ROOT.glob("*.md"),
        ROOT / "charts/memtenant/README.md",
    ]
)

_FENCE = re.compile(r"^( *)(```+|~~~+)\s*([\w-]*)[^\n]*\n(.*?)^\1\2\s*$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4}|\t)[^\n]*\n?)+", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?[^\n]*\n(.*?)^\s*\1\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block: its language (empty where none is given) and its text, outdented."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The page's fenced blocks in order."""
    return [
        Block(found[3], _outdented(found[4], len(found[1])))
        for found in _FENCE.finditer(page.read_text())
    ]


def yaml_texts(page: Path) -> Iterator[str]:
    """Every YAML text of the page: fenced as such, or handed to a command as a here-document."""
    for block in blocks(page):
        if block.language in ("yaml", "yml"):
            yield block.text
        for document in _HEREDOC.finditer(block.text):
            if document[1].upper() in ("YAML", "EOF"):
                yield document[2]


def code_lines(page: Path) -> Iterator[str]:
    """Every line of code: of fenced and of indented blocks."""
    for block in blocks(page):
        yield from block.text.splitlines()
    for block_text in _INDENTED.findall(_FENCE.sub("", page.read_text())):
        yield from (line.strip() for line in block_text.splitlines())


def spans(page: Path) -> list[str]:
    """The code spans of the page's text."""
    return _SPAN.findall(_FENCE.sub("", page.read_text()))


def links(page: Path) -> list[str]:
    """Where the page's links point to, as written."""
    return _LINK.findall(_FENCE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The fragments that the page's headings answer to, as GitHub makes them."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return {anchor(heading) for heading in headings}


def anchor(heading: str) -> str:
    """The fragment of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    kept = re.sub(r"[^\w\- ]", "", text.lower())
    return kept.replace(" ", "-")


def section(page: Path, heading: str) -> str:
    """The text from a heading to the next one of its level or above."""
    text = page.read_text()
    start = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    if start is None:
        raise LookupError(f"{page.name} has no heading {heading!r}")
    rest = text[start.end() :]
    end = re.search(rf"^#{{1,{len(start[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def first_column(text: str) -> list[str]:
    """The code spans in the first column of the tables in a text."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [span for row in rows for span in _SPAN.findall(row.split("|")[1])]


def _outdented(text: str, columns: int) -> str:
    return "".join(
        line[min(columns, len(line) - len(line.lstrip(" "))) :]
        for line in text.splitlines(keepends=True)
    )
