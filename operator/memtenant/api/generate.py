"""Writes the CRDs: ``python -m memtenant.api.generate [--check] [ROOT]``.

``crds/`` holds one plain file a kind, for ``kubectl apply -f crds/``;
``charts/memtenant/templates/crds/`` the same for Helm, kept on uninstall and left out with
``crds.install: false``. Both are committed; ``--check`` exits 1 where they differ from the models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from memtenant.api.schema import crds

__all__ = ["files", "main"]

_HEADER = (
    "# Generated from operator/memtenant/api by `make generate`: edit the models, not this file.\n"
)


class _Dumper(yaml.SafeDumper):
    """YAML without anchors, lists indented below their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def files() -> dict[str, str]:
    """Every generated file: its path below the repository's root, and its text."""
    texts: dict[str, str] = {}
    for definition in crds():
        name = f"{definition['metadata']['name']}.yaml"
        texts[f"crds/{name}"] = _HEADER + _dump(definition)
        texts[f"charts/memtenant/templates/crds/{name}"] = _templated(definition)
    return texts


def _dump(definition: dict[str, Any]) -> str:
    return yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def _templated(definition: dict[str, Any]) -> str:
    kept = {"helm.sh/resource-policy": "keep"}
    metadata = {"name": definition["metadata"]["name"], "annotations": kept}
    text = _dump({**definition, "metadata": metadata})
    if "{{" in text:
        raise ValueError(f"{metadata['name']}: a template would read the braces in its text")
    return f"{_HEADER}{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files below ROOT, or with ``--check`` say which differ. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m memtenant.api.generate")
    parser.add_argument("root", nargs="?", type=Path, default=Path.cwd(), metavar="ROOT")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    options = parser.parse_args(arguments)
    differing = [path for path, text in files().items() if _text(options.root / path) != text]
    if options.check:
        for path in differing:
            sys.stderr.write(f"{path} differs from the models: run `make generate`\n")
        return 1 if differing else 0
    for path in differing:
        target = options.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(files()[path], encoding="utf-8")
    return 0


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
