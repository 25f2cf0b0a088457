"""YAML manifests read as kubectl reads them, with the place of each fault.

kubectl's reading of YAML differs from PyYAML's: times stay text, ``1:30`` is no number, and a key
that is written twice is an error. So a manifest means here what it means in a cluster. Inputs are
bounded, and an alias cannot make a small file large.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer

from memtenant.errors import InvalidResource

__all__ = ["MAX_DOCUMENTS", "MAX_FILE_BYTES", "Document", "read_manifests"]

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_DOCUMENTS = 50_000
"""Documents in all files together."""

_MAX_NODES = 500_000
"""Values in one document, those behind aliases counted each time: a List of 10,000 tenants fits."""

_MAX_DEPTH = 64

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a manifest. ``number`` counts from 1 within the file, as do lines."""

    file: Path
    number: int
    raw: Mapping[str, Any]
    node: yaml.Node = field(repr=False, compare=False)

    def where(self, dotted: str = "") -> str:
        """``tenants.yaml, document 2, line 14``: of the field ``spec.quota.memory``, or as near as
        the document has it.
        """
        node = self.node
        line = node.start_mark.line
        for part in re.findall(r"[^.\[\]]+", dotted):
            below = _child(node, part)
            if below is None:
                break
            key, node = below
            line = key.start_mark.line
        return f"{self.file}, document {self.number}, line {line + 1}"


def read_manifests(paths: Iterable[Path]) -> tuple[Document, ...]:
    """All objects of these files, and of the ``.yaml``, ``.yml`` and ``.json`` files of these
    folders (sorted, not their subfolders), a ``List`` taken apart. `InvalidResource` names the
    first fault's file and document.
    """
    documents: list[Document] = []
    for file in _files(paths):
        for document in _documents(file):
            documents.append(document)
            if len(documents) > MAX_DOCUMENTS:
                raise InvalidResource(
                    f"{document.where()}: more than {MAX_DOCUMENTS} documents; split the input"
                )
    return tuple(documents)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise InvalidResource(f"{path} does not exist: give files or folders of manifests")
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
        if not inside:
            raise InvalidResource(f"folder {path} has no .yaml, .yml or .json file")
        yield from inside


def _documents(file: Path) -> Iterator[Document]:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidResource(f"{file} cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise InvalidResource(f"{file} is larger than {MAX_FILE_BYTES >> 20} MiB: split it")
    number = 0
    try:
        loader = _Loader(content.decode("utf-8-sig"))
        while loader.check_node():
            number += 1
            yield from _objects(file, number, loader)
    except UnicodeDecodeError as error:
        raise InvalidResource(f"{file} is not UTF-8 (byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        # The text around the fault is left out: it may be a Secret's.
        raise InvalidResource(
            f"{file}, document {max(number, 1)}{line}: {error.problem or error.context}"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidResource(f"{file}, document {max(number, 1)}: not readable as YAML") from error


def _objects(file: Path, number: int, loader: _Loader) -> Iterator[Document]:
    node = loader.get_node()
    if node is None:
        return
    here = f"{file}, document {number}, line {node.start_mark.line + 1}"
    _check_size(node, here)
    raw = loader.construct_document(node)
    if raw is None:
        return  # only comments between two separators
    if not isinstance(raw, dict) or not isinstance(raw.get("kind"), str):
        raise InvalidResource(f"{here}: no Kubernetes object (it has no kind)")
    if not isinstance(raw.get("apiVersion"), str):
        raise InvalidResource(f"{here}: {raw['kind']} has no apiVersion")
    if raw["kind"] != "List":
        yield Document(file, number, raw, node)
        return
    items = _child(node, "items")
    if items is None or not isinstance(items[1], yaml.SequenceNode):
        raise InvalidResource(f"{here}: a List without items")
    for item, below in zip(raw["items"], items[1].value, strict=True):
        if not isinstance(item, dict) or not isinstance(item.get("kind"), str):
            line = below.start_mark.line + 1
            raise InvalidResource(f"{file}, document {number}, line {line}: an item has no kind")
        yield Document(file, number, item, below)


def _check_size(node: yaml.Node, here: str) -> None:
    """Count as a reader without aliases would; a document that contains itself never ends."""
    left = _MAX_NODES
    waiting = [node]
    while waiting:
        left -= 1
        if left < 0:
            raise InvalidResource(f"{here}: more than {_MAX_NODES} values in one document")
        current = waiting.pop()
        if isinstance(current, yaml.MappingNode):
            for pair in current.value:
                waiting.extend(pair)
        elif isinstance(current, yaml.SequenceNode):
            waiting.extend(current.value)


def _child(node: yaml.Node, part: str) -> tuple[yaml.Node, yaml.Node] | None:
    """The key node and value node of a mapping's entry, or a sequence's item by its index."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        return node.value[int(part)], node.value[int(part)]
    return None


_Parser: Any = getattr(yaml, "CSafeLoader", None)
_BASES: Any = (yaml.SafeLoader,) if _Parser is None else (Composer, _Parser)


class _Loader(*_BASES):  # type: ignore[misc]
    """YAML 1.1 as sigs.k8s.io/yaml resolves it.

    The composer is PyYAML's own in Python: libyaml's crashes the process at 20,000 brackets.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML's own protocol

    def __init__(self, text: str) -> None:
        _BASES[-1].__init__(self, text)
        Composer.__init__(self)
        self._depth = 0
        self._nodes = 0

    def compose_document(self) -> yaml.Node | None:
        """The next document's node."""
        self._nodes = 0
        node: yaml.Node | None = super().compose_document()
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node and those below it, within the limits."""
        self._depth += 1
        self._nodes += 1
        if self._depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            what = "nested too deeply" if self._depth > _MAX_DEPTH else "too many values"
            raise yaml.composer.ComposerError(
                None, None, f"{what} in one document", self.peek_event().start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_unique(self, node: yaml.MappingNode) -> Iterator[dict[str, Any]]:
        """A mapping whose keys are text and differ; what ``<<`` merges in may be overridden."""
        result: dict[str, Any] = {}
        yield result
        written: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value in written:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is written twice or is no text", key_node.start_mark
                )
            written.add(key_node.value)
        self.flatten_mapping(node)
        for key_node, value_node in node.value:
            result[str(key_node.value)] = self.construct_object(value_node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_unique)
for _tag, _pattern, _first in (
    ("bool", r"(?i:yes|no|true|false|on|off)", [*"yYnNtTfFoO"]),
    ("int", r"[-+]?(?:0[0-7]*|[1-9][0-9]*|0x[0-9a-fA-F]+)", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?",
        [*"-+.0123456789"],
    ),
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first
    )
