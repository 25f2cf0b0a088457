"""What ``-f`` gives: memtenant's objects and Secrets, judged before anything is done with them.

Other kinds are left alone, so that a team's whole folder of manifests can be given.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memtenant.api.validate import Violation, validate
from memtenant.errors import InvalidResource
from memtenant.resources.manifests import Document, read_manifests
from memtenant.resources.port import API_VERSION, Declared, Kind, ObjectKey

__all__ = ["Fault", "Given", "GivenSecret", "Manifest", "as_stored", "judge", "read_inputs"]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SECRET_KEY = re.compile(r"(?!\.\.)(?!\.$)[-._a-zA-Z0-9]{1,253}")
_LARGEST_SECRET = 1024 * 1024

Before = Callable[[ObjectKey], Declared | None]
"""The object as it is now, for the rules about updates."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One valid object of ours; ``raw`` has its namespace filled in."""

    document: Document
    key: ObjectKey
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GivenSecret:
    """One Secret of a manifest, decoded. No value of it is ever shown."""

    document: Document
    namespace: str
    name: str
    type: str
    data: Mapping[str, bytes] = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong and where: a place in a file and a field."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Given:
    """All of the input. ``faults`` is empty or nothing of it may be used."""

    objects: tuple[Manifest, ...] = ()
    secrets: tuple[GivenSecret, ...] = ()
    skipped: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    def require_valid(self) -> Given:
        """Itself; `InvalidResource` with every fault where there is one."""
        if self.faults:
            raise InvalidResource("\n".join(str(fault) for fault in self.faults))
        return self


def read_inputs(paths: Iterable[Path], namespace: str) -> Given:
    """Read files and folders; ``-`` is the standard input. ``namespace`` is for objects that name
    none. Each object is judged as a new one; `judge` does so for updates.

    Raises `InvalidResource` where a file cannot be read as manifests at all.
    """
    if not _NAMESPACE.fullmatch(namespace):
        raise InvalidResource(
            f"namespace {namespace!r} is not a DNS label: use lower-case letters, digits, hyphens"
        )
    objects: dict[ObjectKey, Manifest] = {}
    secrets: dict[tuple[str, str], GivenSecret] = {}
    skipped: list[str] = []
    faults: list[Fault] = []
    for document in read_manifests(_paths(paths)):
        api_version = document.raw.get("apiVersion")
        kind = document.raw.get("kind")
        if api_version == "v1" and kind == "Secret":
            secret = _secret(document, namespace, faults)
            if secret is not None and not _twice(
                secrets.get((secret.namespace, secret.name)), document, faults
            ):
                secrets[secret.namespace, secret.name] = secret
        elif _is_ours(api_version):
            manifest = _manifest(document, namespace, faults)
            if manifest is not None and not _twice(objects.get(manifest.key), document, faults):
                objects[manifest.key] = manifest
        else:
            skipped.append(f"{kind} ({document.where()})")
    return Given(tuple(objects.values()), tuple(secrets.values()), tuple(skipped), tuple(faults))


def judge(given: Given, before: Before) -> Given:
    """The input with the faults that it has as updates of what is there now."""
    faults = [
        fault
        for manifest in given.objects
        if (now := before(manifest.key)) is not None
        for fault in _faults(manifest.document, validate(manifest.raw, as_stored(now)))
    ]
    return Given(given.objects, given.secrets, given.skipped, (*given.faults, *faults))


def as_stored(declared: Declared) -> dict[str, Any]:
    """The accepted object in the JSON of Kubernetes, with what a manifest may hold."""
    key = declared.key
    return {
        "apiVersion": API_VERSION,
        "kind": key.kind.value,
        "metadata": {
            "name": key.name,
            **({"namespace": key.namespace} if key.namespace else {}),
            "labels": dict(declared.labels),
            "annotations": dict(declared.annotations),
        },
        "spec": dict(declared.spec),
        "status": dict(declared.status),
    }


def _paths(paths: Iterable[Path]) -> list[Path]:
    return [Path("/dev/stdin") if str(path) == "-" else path for path in paths]


def _is_ours(api_version: object) -> bool:
    group = API_VERSION.partition("/")[0]
    return isinstance(api_version, str) and api_version.partition("/")[0] == group


def _manifest(document: Document, namespace: str, faults: list[Fault]) -> Manifest | None:
    raw = dict(document.raw)
    metadata = raw.get("metadata")
    namespaced = any(raw.get("kind") == kind.value for kind in Kind if kind.namespaced)
    if namespaced and isinstance(metadata, dict) and not metadata.get("namespace"):
        raw["metadata"] = {**metadata, "namespace": namespace}
    found = validate(raw)
    if found:
        faults += _faults(document, found)
        return None
    placed = raw["metadata"]
    key = ObjectKey(Kind(raw["kind"]), placed.get("namespace") or "", placed["name"])
    return Manifest(document, key, raw)


def _faults(document: Document, found: Sequence[Violation]) -> list[Fault]:
    what = f"{document.raw.get('kind')} {_name_of(document)}"
    return [Fault(document.where(one.field), f"{what}: {one}") for one in found]


def _name_of(document: Document) -> str:
    metadata = document.raw.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return repr(name) if isinstance(name, str) else "without a name"


def _twice(known: Manifest | GivenSecret | None, document: Document, faults: list[Fault]) -> bool:
    if known is None:
        return False
    faults.append(
        Fault(
            document.where("metadata.name"),
            f"{document.raw['kind']} {_name_of(document)} is given twice, first in "
            f"{known.document.where()}: remove one of them",
        )
    )
    return True


def _secret(document: Document, namespace: str, faults: list[Fault]) -> GivenSecret | None:
    """The Secret; None where it has a fault. No message shows a value."""
    try:
        return _read_secret(document, namespace)
    except InvalidResource as error:
        what = f"Secret {_name_of(document)}: {error.field}: {error}"
        faults.append(Fault(document.where(error.field), what))
        return None


def _read_secret(document: Document, namespace: str) -> GivenSecret:
    raw = document.raw
    metadata = _texts(raw, "metadata", of="values of any kind")
    name, where = metadata.get("name"), metadata.get("namespace") or namespace
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidResource(
            "must be a DNS name: lower-case letters, digits, hyphens, dots", field="metadata.name"
        )
    if not isinstance(where, str) or not _NAMESPACE.fullmatch(where):
        raise InvalidResource("must be a DNS label", field="metadata.namespace")
    values: dict[str, bytes] = {}
    for key, encoded in _texts(raw, "data").items():
        try:
            values[key] = b64decode(encoded, validate=True)
        except ValueError:
            raise InvalidResource(
                "is not base64: encode it, or move it to stringData", field=f"data.{key}"
            ) from None
    for key, text in _texts(raw, "stringData").items():
        try:
            values[key] = text.encode()
        except UnicodeEncodeError:
            raise InvalidResource("is not Unicode text", field=f"stringData.{key}") from None
    for key in values:
        if not _SECRET_KEY.fullmatch(key):
            raise InvalidResource(
                "a key has letters, digits, hyphens, underscores and dots", field=f"data.{key}"
            )
    if sum(map(len, values.values())) > _LARGEST_SECRET:
        raise InvalidResource("is larger than 1 MiB", field="data")
    secret_type = raw.get("type") or "Opaque"
    if not isinstance(secret_type, str):
        raise InvalidResource("must be a string", field="type")
    return GivenSecret(
        document,
        where,
        name,
        secret_type,
        values,
        labels=_texts(metadata, "labels", prefix="metadata."),
        annotations=_texts(metadata, "annotations", prefix="metadata."),
    )


def _texts(
    raw: Mapping[str, Any], name: str, *, prefix: str = "", of: str = "strings"
) -> dict[str, Any]:
    found = raw.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict) or (
        of == "strings" and not all(isinstance(value, str) for value in found.values())
    ):
        raise InvalidResource(f"must be an object of {of}", field=f"{prefix}{name}")
    return found
