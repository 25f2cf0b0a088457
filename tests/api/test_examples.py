"""Every example applies, and says what it seems to say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from memtenant.api import parse
from memtenant.api.validate import validate
from tests.support.controlplane.cluster import Cluster

_FOLDER = Path(__file__).parents[2] / "examples" / "resources"
_EXAMPLES = sorted(_FOLDER.glob("*.yaml"))

examples = pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.name)


def _documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def test_there_are_examples() -> None:
    kinds = {document["kind"] for path in _EXAMPLES for document in _documents(path)}

    assert kinds == {"MemoryStore", "RetentionPolicy", "MemoryTenant"}


@examples
def test_an_example_is_valid_offline(path: Path) -> None:
    for document in _documents(path):
        assert validate(document) == ()
        parse(document)


@examples
def test_an_example_applies(path: Path, installed: Cluster) -> None:
    for document in _documents(path):
        if "namespace" in document["metadata"]:
            installed.create_namespace(document["metadata"]["namespace"])

    applied = installed.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(path)
    )

    assert applied.count("serverside-applied") == len(_documents(path))
