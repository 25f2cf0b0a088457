"""The table of values in the chart's README, from values.yaml: `python -m tests.chart.readme`.

A comment that begins with `# --` describes the value below it; the schema describes the rest.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.chart.rendered import CHART

WHOLE = frozenset(
    {
        "resources",
        "sealer.resources",
        "reports.resources",
        "podSecurityContext",
        "securityContext",
        "metrics.dashboard.labels",
    }
)
"""Values that are shown, and replaced, as a whole."""

_BEGIN = "<!-- values: begin -->\n"
_END = "<!-- values: end -->\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One value: its dotted name, its default as JSON, and what it does."""

    name: str
    default: str
    description: str


def rows() -> list[Row]:
    """One row a value, in the order of values.yaml."""
    text = (CHART / "values.yaml").read_text()
    comments = dict(_comments(text))
    schema = json.loads((CHART / "values.schema.json").read_text())
    return [
        Row(name, json.dumps(default), comments.get(name) or _described(schema, name))
        for name, default in _leaves(yaml.safe_load(text))
    ]


def table() -> str:
    """The rows as Markdown."""
    lines = ["| value | default | what it does |", "|---|---|---|"]
    lines += [f"| `{row.name}` | `{row.default}` | {row.description} |" for row in rows()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Put the table into the README, between its two marks."""
    path = CHART / "README.md"
    before, _, rest = path.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    path.write_text(f"{before}{_BEGIN}{table()}{_END}{after}")


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and value and name not in WHOLE:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _comments(text: str) -> Iterator[tuple[str, str]]:
    path: list[str] = []
    words: list[str] = []
    for line in text.splitlines():
        comment = re.match(r"\s*# ?(-- )?(.*)", line)
        if comment:
            words = [comment[2]] if comment[1] else [*words, comment[2]] if words else []
            continue
        key = re.match(r"( *)([A-Za-z]+):", line)
        if key:
            path = [*path[: len(key[1]) // 2], key[2]]
            if words:
                yield ".".join(path), " ".join(words)
        words = []


def _described(schema: Mapping[str, Any], name: str) -> str:
    for part in name.split("."):
        schema = schema["properties"][part]
    return str(schema["description"])


if __name__ == "__main__":
    main()
