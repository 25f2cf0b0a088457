"""Manifests mean here what they mean to kubectl, and a fault is found by file, document, line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.errors import InvalidResource
from memtenant.resources import manifests
from memtenant.resources.manifests import Document, read_manifests

HEAD = "apiVersion: v1\nkind: Thing\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tenants.yaml"


def read(file: Path, text: str) -> tuple[Document, ...]:
    file.write_text(text)
    return read_manifests([file])


def test_documents_are_counted_and_found_by_line(file: Path) -> None:
    text = (
        f"# first\n{HEAD}---\n---\n# only a comment\n---\n{HEAD}spec:\n  quota:\n    memory: 1Gi\n"
    )
    first, second = read(file, text)
    assert (first.number, second.number) == (1, 4)
    assert first.where() == f"{file}, document 1, line 2"
    assert second.where("spec.quota.memory") == f"{file}, document 4, line 12"
    assert second.where("spec.quota.conversations") == f"{file}, document 4, line 11"


def test_an_item_of_a_list_is_an_object_of_its_own(file: Path) -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n- kind: A\n  spec:\n    agents: [{name: x}]\n"
    (item,) = read(file, text)
    assert item.raw == {"kind": "A", "spec": {"agents": [{"name": "x"}]}}
    assert item.where("spec.agents[0].name") == f"{file}, document 1, line 6"


def test_folders_are_read_in_order_without_their_subfolders(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.yaml").write_text("not: read")
    for name in ("b.yml", "a.yaml", "c.json"):
        (tmp_path / name).write_text('{"apiVersion": "v1", "kind": "Thing"}')
    (tmp_path / "README.md").write_text("no: [manifest")
    assert [document.file.name for document in read_manifests([tmp_path])] == [
        "a.yaml",
        "b.yml",
        "c.json",
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00Z"),
        ("1:30", "1:30"),
        ("1e3", 1000.0),
        ("on", True),
        ("No", False),
        ("010", 8),
        ("0x1F", 31),
        ("-5", -5),
        ("'5'", "5"),
        ("~", None),
        ("", None),
        ("512Mi", "512Mi"),
        (".5", 0.5),
        ("1.2.3", "1.2.3"),
    ],
)
def test_values_mean_what_kubectl_makes_of_them(file: Path, written: str, meant: object) -> None:
    (document,) = read(file, f"{HEAD}value: {written}\n")
    assert document.raw["value"] == meant
    assert type(document.raw["value"]) is type(meant)


def test_what_is_merged_in_may_be_overridden(file: Path) -> None:
    (document,) = read(file, f"{HEAD}a: &a {{x: 1, y: 1}}\nb: {{<<: *a, y: 2}}\n")
    assert document.raw["b"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEAD + "a: {x: 1, x: 2}", "document 1, line 3: a key is written twice"),
        (HEAD + "? [x]\n: 1", "document 1, line 3: a key is written twice or is no text"),
        (HEAD + "---\nfoo: bar", "document 2, line 4: no Kubernetes object"),
        ("kind: Thing", "line 1: Thing has no apiVersion"),
        (HEAD + "a: b: c", "document 1, line 3: mapping values"),
        (HEAD + f"---\n{HEAD}a: [", "document 2, line"),
        (HEAD + "a: !!python/object/apply:os.getcwd []", "line 3: could not determine"),
        (HEAD + "a: *gone", "line 3: found undefined alias"),
        (HEAD + "a: &a [*a]", "more than 500000 values"),
        (HEAD + "a: " + "[" * 100_000, "line 3: nested too deeply"),
        (HEAD + "a: " + "[" * 20_000 + "]" * 20_000, "line 3: nested too deeply"),
        ("- kind: A", "line 1: no Kubernetes object"),
        ("apiVersion: v1\nkind: List\nitems: 5", "a List without items"),
        ("apiVersion: v1\nkind: List\nitems:\n- 1", "line 4: an item has no kind"),
        (HEAD + "a: " + "9" * 5000, "not readable as YAML"),
        (HEAD + "a: \x01", "not readable as YAML"),
    ],
)
def test_a_fault_is_found(file: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidResource) as found:
        read(file, text)
    assert complaint in str(found.value)
    assert str(file) in str(found.value)


def test_aliases_do_not_make_a_small_file_large(file: Path) -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    for name, below in zip("bcdefgh", "abcdefg", strict=True):
        lines.append(f"{name}: &{name} [{','.join([f'*{below}'] * 10)}]")
    with pytest.raises(InvalidResource, match="more than 500000 values"):
        read(file, HEAD + "\n".join(lines))


def test_no_error_shows_what_a_secret_says(file: Path) -> None:
    text = "apiVersion: v1\nkind: Secret\nstringData:\n  password: 'hunter2\n"
    with pytest.raises(InvalidResource) as found:
        read(file, text)
    assert "hunter2" not in str(found.value)


def test_inputs_are_bounded(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_FILE_BYTES", 1024 * 1024)
    monkeypatch.setattr(manifests, "MAX_DOCUMENTS", 3)
    with pytest.raises(InvalidResource, match="larger than 1 MiB"):
        read(file, "#" * (1024 * 1024 + 1))
    with pytest.raises(InvalidResource, match="more than 3 documents"):
        read(file, "---\n".join([HEAD] * 4))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InvalidResource, match=str(path)):
            read_manifests([path])
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidResource, match="not UTF-8"):
        read_manifests([binary])


@given(st.text(alphabet="ab:-[]{}&*<>|'\"#!%? \n\t\r0123.,~", max_size=60) | st.text(max_size=40))
def test_any_text_is_read_or_refused_with_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(HEAD + text, encoding="utf-8", errors="surrogateescape")
    try:
        documents = read_manifests([file])
    except InvalidResource as refused:
        assert str(file) in str(refused)  # noqa: PT017 -- either outcome is right
    else:
        assert str(documents[0].raw["kind"]).startswith("Thing")
