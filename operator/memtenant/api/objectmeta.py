"""What an API server asks of ``metadata``, offline (k8s.io/apimachinery, ObjectMeta)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from memtenant.api.fields import (
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    MOMENT_PATTERN,
    SUBDOMAIN_PATTERN,
)
from memtenant.api.structural import Violation
from memtenant.clock import utc_from_rfc3339

__all__ = ["metadata_violations", "stored_metadata"]

_STRINGS = ("name", "generateName", "namespace", "selfLink", "uid", "resourceVersion")
_KNOWN = frozenset(
    {
        *_STRINGS,
        *("generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
        *("labels", "annotations", "ownerReferences", "finalizers", "managedFields"),
    }
)
_OWNER = frozenset({"apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"})
_MAX_ANNOTATIONS = 256 * 1024
_SUBDOMAIN = re.compile(SUBDOMAIN_PATTERN[:-1] + r"\Z")
_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_MOMENT = re.compile(MOMENT_PATTERN[:-1] + r"\Z")
_LABEL_KEY = re.compile(LABEL_KEY_PATTERN[:-1] + r"\Z")
_LABEL_VALUE = re.compile(LABEL_VALUE_PATTERN[:-1] + r"\Z")


def metadata_violations(metadata: Any, *, namespaced: bool) -> Iterator[Violation]:
    """Where ``metadata`` is not what the API server takes.

    A namespace on a kind that has none is taken, as the server does; whether a namespace exists is
    not known here. The entries of ``managedFields`` are the server's own and not looked into.
    """
    if not isinstance(metadata, dict):
        yield Violation("metadata", "must be an object: give it at least a name")
        return
    for key in metadata.keys() - _KNOWN:
        yield Violation(f"metadata.{key}", "unknown field: correct or remove it")
    for key in _STRINGS:
        if not isinstance(metadata.get(key), str | None):
            yield Violation(f"metadata.{key}", "must be a string")
            return
    yield from _names(metadata, namespaced=namespaced)
    yield from _servers_own(metadata)
    yield from _owners(metadata.get("ownerReferences"))
    yield from _texts(metadata, "labels", _label)
    yield from _texts(metadata, "annotations", _annotation)
    yield from _finalizers(metadata.get("finalizers"))


def stored_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Valid metadata as the API server stores it: no nulls, the text of a null label is empty."""
    return {
        field: {key: text or "" for key, text in value.items()}
        if field in ("labels", "annotations")
        else value
        for field, value in metadata.items()
        if value is not None
    }


def _names(metadata: Mapping[str, Any], *, namespaced: bool) -> Iterator[Violation]:
    name = metadata.get("name") or ""
    if not name:
        yield Violation("metadata.name", "is required: give the object a name")
    elif len(name) > 253 or not _SUBDOMAIN.search(name):
        yield Violation(
            "metadata.name",
            "must be a DNS label: use lower-case letters, digits and inner hyphens",
        )
    # A prefix may end in a hyphen: what the server appends ends in none.
    prefix = re.sub("-$", "a", metadata.get("generateName") or "")
    if prefix and (len(prefix) > 253 or not _SUBDOMAIN.search(prefix)):
        yield Violation("metadata.generateName", "must be the beginning of a DNS label")
    namespace = metadata.get("namespace") or ""
    if namespaced and namespace and (len(namespace) > 63 or not _LABEL.search(namespace)):
        yield Violation(
            "metadata.namespace",
            "must be a DNS label: use lower-case letters, digits and inner hyphens",
        )


def _servers_own(metadata: Mapping[str, Any]) -> Iterator[Violation]:
    for field in ("creationTimestamp", "deletionTimestamp"):
        moment = metadata.get(field)
        if moment is not None and not _is_moment(moment):
            yield Violation(f"metadata.{field}", "is the server's to write: remove it")
    for field in ("generation", "deletionGracePeriodSeconds"):
        number = metadata.get(field)
        if not _is_whole(number):
            yield Violation(f"metadata.{field}", "is the server's to write: remove it")
    if not isinstance(metadata.get("managedFields"), list | None):
        yield Violation("metadata.managedFields", "is the server's to write: remove it")


def _is_whole(number: Any) -> bool:
    """None, or a number that JSON may write as 5 or as 5.0."""
    match number:
        case None:
            return True
        case bool():
            return False
        case float():
            return number.is_integer()
        case _:
            return isinstance(number, int)


def _is_moment(text: Any) -> bool:
    if not isinstance(text, str) or not _MOMENT.search(text):
        return False
    try:
        utc_from_rfc3339(text)
    except (ValueError, OverflowError):
        return False
    return True


def _owners(owners: Any) -> Iterator[Violation]:
    if owners is None:
        return
    if not isinstance(owners, list) or not all(isinstance(one, dict) for one in owners):
        yield Violation("metadata.ownerReferences", "must be a list of objects")
        return
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        for field in ("apiVersion", "kind", "name", "uid"):
            if not isinstance(owner.get(field), str) or not owner[field]:
                yield Violation(f"{path}.{field}", "is required: name the owner, or remove it")
        for field in ("controller", "blockOwnerDeletion"):
            if not isinstance(owner.get(field), bool | None):
                yield Violation(f"{path}.{field}", "must be true or false")
        for field in owner.keys() - _OWNER:
            yield Violation(f"{path}.{field}", "unknown field: correct or remove it")
    if sum(owner.get("controller") is True for owner in owners) > 1:
        yield Violation("metadata.ownerReferences", "only one owner can be the controller")


def _texts(metadata: Mapping[str, Any], field: str, check: Any) -> Iterator[Violation]:
    texts = metadata.get(field)
    if texts is None:
        return
    if not isinstance(texts, dict):
        yield Violation(f"metadata.{field}", "must be an object of strings")
        return
    for key, value in texts.items():
        if not isinstance(value, str | None):
            yield Violation(f"metadata.{field}.{key}", "must be a string: put it in quotes")
        else:
            yield from check(f"metadata.{field}.{key}", key, value or "")
    size = sum(len(key.encode()) + len(str(value).encode()) for key, value in texts.items())
    if field == "annotations" and size > _MAX_ANNOTATIONS:
        yield Violation("metadata.annotations", "are more than 256 KiB: shorten them")


def _label(path: str, key: str, value: str) -> Iterator[Violation]:
    if not _is_qualified(key):
        yield Violation(path, "is no label key: write team or example.com/team")
    if len(value) > 63 or not _LABEL_VALUE.search(value):
        yield Violation(path, "is no label value: at most 63 letters, digits and inner - _ .")


def _annotation(path: str, key: str, value: str) -> Iterator[Violation]:
    if not _is_qualified(key.lower()):
        yield Violation(path, "is no annotation key: write note or example.com/note")


def _finalizers(finalizers: Any) -> Iterator[Violation]:
    if finalizers is None:
        return
    if not isinstance(finalizers, list) or not all(isinstance(one, str) for one in finalizers):
        yield Violation("metadata.finalizers", "must be a list of strings")
        return
    for one in finalizers:
        if not _is_qualified(one):
            yield Violation("metadata.finalizers", f"{one!r} is no qualified name")


def _is_qualified(key: str) -> bool:
    prefix, slash, _ = key.rpartition("/")
    return _LABEL_KEY.search(key) is not None and len(prefix) <= 253 and (bool(prefix) or not slash)
