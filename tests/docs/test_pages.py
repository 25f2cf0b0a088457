"""The documentation is true where a program can tell: links, commands, manifests, file names."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
import yaml

from memtenant.api.resource import API_VERSION
from memtenant.api.validate import validate
from memtenant.cli.app import app
from tests.docs.pages import (
    DOCS,
    PAGES,
    ROOT,
    anchors,
    blocks,
    code_lines,
    links,
    spans,
    yaml_texts,
)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

_TOP = frozenset({"charts", "crds", "docker", "docs", "examples", "operator", "tests"})
_PACKAGE = ROOT / "operator" / "memtenant"


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = [link for link in links(page) if not _leads_somewhere(page, link)]

    assert dead == []


@pages
def test_every_command_is_one_that_the_program_understands(page: Path) -> None:
    wrong = []
    for words in _commands(page):
        try:
            _parse(words)
        except Exception as error:  # noqa: BLE001 - whatever the parser says against it
            wrong.append((shlex.join(["memtenant", *words]), str(error)))

    assert wrong == []


@pages
def test_every_manifest_is_valid(page: Path) -> None:
    wrong = [
        (document["kind"], document["metadata"]["name"], str(violation))
        for document in _documents(page)
        if document.get("apiVersion") == API_VERSION
        for violation in validate(_placed(document))
    ]

    assert wrong == []


@pages
def test_every_python_example_can_be_read_and_imports_what_is_there(page: Path) -> None:
    wrong = []
    for text in (block.text for block in blocks(page) if block.language == "python"):
        compile(text, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        wrong += [
            f"{node.module}.{name.name}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("memtenant")
            for name in node.names
            if not hasattr(import_module(str(node.module)), name.name)
        ]

    assert wrong == []


@pages
def test_every_file_that_is_named_exists(page: Path) -> None:
    missing = [span for span in spans(page) if _looks_like_a_path(span) and not _exists(span)]

    assert missing == []


def test_the_index_names_every_page() -> None:
    named = {link.partition("#")[0] for link in links(DOCS / "index.md")}
    there = {page.name for page in DOCS.glob("*.md")} - {"index.md"}

    assert there - named == set()


def test_manifests_and_commands_are_found_where_they_are() -> None:
    kinds = {document["kind"] for page in PAGES for document in _documents(page)}
    commands = {words[0] for page in PAGES for words in _commands(page)}

    assert {"MemoryStore", "RetentionPolicy", "MemoryTenant"} <= kinds
    assert {"apply", "detach", "plan", "store"} <= commands


def _leads_somewhere(page: Path, link: str) -> bool:
    if re.match(r"[a-z][a-z0-9+.-]*:", link):
        return link.startswith(("https://", "mailto:"))
    path, _, fragment = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not fragment or (target.suffix == ".md" and fragment in anchors(target))


def _commands(page: Path) -> list[list[str]]:
    """The arguments of every ``memtenant …`` in code. A span with an ellipsis is no command."""
    found = []
    whole_lines = [line.removeprefix("$ ").strip() for line in code_lines(page)]
    for line in [*whole_lines, *(span for span in spans(page) if "…" not in span)]:
        call = re.search(r"(?:^|\()memtenant ([a-z-][^)]*)", line)
        if call is None:
            continue
        words = shlex.split(call[1], comments=True)
        end = next(
            (n for n, word in enumerate(words) if re.fullmatch(r"&&|\|\|?|\d?>>?", word)), None
        )
        found.append(words[:end])
    return found


def _parse(words: list[str]) -> None:
    """Let the program's own parser read the words, without running anything."""
    command: Any = typer.main.get_command(app)
    name, parent = "memtenant", None
    while True:
        context = command.make_context(name, list(words), parent=parent, resilient_parsing=False)
        if not hasattr(command, "resolve_command"):
            return
        name, command, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        parent = context


def _documents(page: Path) -> list[dict[str, Any]]:
    return [
        document
        for text in yaml_texts(page)
        for document in yaml.safe_load_all(text)
        if isinstance(document, dict) and "kind" in document
    ]


def _placed(document: dict[str, Any]) -> dict[str, Any]:
    """In a namespace, where the command around it names one (`kubectl -n support apply`)."""
    if document["kind"] != "MemoryTenant" or "namespace" in document["metadata"]:
        return document
    return {**document, "metadata": {**document["metadata"], "namespace": "default"}}


def _looks_like_a_path(span: str) -> bool:
    return re.fullmatch(r"[a-z_]+(/[A-Za-z0-9_.*-]+)+/?", span) is not None and (
        span.split("/")[0] in _TOP or (_PACKAGE / span.split("/")[0]).is_dir()
    )


def _exists(span: str) -> bool:
    return any(any(folder.glob(span.rstrip("/"))) for folder in (ROOT, _PACKAGE))
