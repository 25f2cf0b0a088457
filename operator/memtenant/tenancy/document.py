"""Versioned JSON documents inside Secrets, read strictly and written canonically.

``keyring.json`` and ``policy.json`` travel between an operator and an SDK that may differ by one
version, and are read from folders that anybody may have filled. So a reader checks size, syntax,
duplicate names and every type before it uses a value, and no error ever shows a value.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from memtenant.clock import rfc3339, utc_from_rfc3339

__all__ = ["DocumentInvalid", "Fields", "canonical_json", "from_base64", "read_json", "to_base64"]

_MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps exact (RFC 8259, section 6)."""

E = TypeVar("E", bound=StrEnum)


class DocumentInvalid(ValueError):
    """A document that cannot be read. The message names the field and never shows a value."""


def canonical_json(value: Mapping[str, object]) -> bytes:
    """Sorted names, no spaces, ASCII: equal documents are equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def to_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """The bytes that `to_base64` wrote; ``ValueError`` on any other spelling of them."""
    data = base64.b64decode(text.encode("ascii"), validate=True)
    if to_base64(data) != text:
        raise ValueError("not canonical base64")
    return data


def read_json(data: bytes, *, limit: int) -> Fields:
    """The fields of one JSON object of at most ``limit`` bytes; `DocumentInvalid` otherwise."""
    if len(data) > limit:
        raise DocumentInvalid(f"it is larger than {limit} bytes")
    try:
        value = json.loads(data, object_pairs_hook=_without_duplicates, parse_constant=_refuse)
    except DocumentInvalid:
        raise
    except (ValueError, RecursionError):
        # json's own message quotes the document, which may hold keys.
        raise DocumentInvalid("it is not JSON") from None
    if not isinstance(value, dict):
        raise DocumentInvalid("it is not a JSON object")
    return Fields(value)


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DocumentInvalid("it has the same field twice")
    return found


def _refuse(constant: str) -> object:
    raise DocumentInvalid(f"it holds {constant}, which is not JSON")


class Fields:
    """Typed access to one object of a document; each error names the path of the field."""

    def __init__(self, values: Mapping[str, object], path: str = "") -> None:
        self._values = values
        self._path = path
        self._read: set[str] = set()

    def __repr__(self) -> str:
        return f"<fields of {self._path or 'the document'}>"

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def path(self, name: str) -> str:
        """Where a field stands in the document: ``keks[0].version``."""
        return f"{self._path}.{name}" if self._path else name

    def wrong(self, name: str, expected: str) -> DocumentInvalid:
        """The error that says what the field should have been."""
        return DocumentInvalid(f"{self.path(name)} is not {expected}")

    def text(self, name: str, longest: int = 1024) -> str:
        """A string of at most ``longest`` characters."""
        value = self._take(name)
        if not isinstance(value, str) or len(value) > longest:
            raise self.wrong(name, f"a text of at most {longest} characters")
        return value

    def texts(self, name: str, most: int, longest: int) -> tuple[str, ...]:
        """A list of at most ``most`` strings, each of at most ``longest`` characters."""
        value = self._take(name)
        if (
            not isinstance(value, list)
            or len(value) > most
            or not all(isinstance(one, str) and len(one) <= longest for one in value)
        ):
            raise self.wrong(name, f"a list of at most {most} texts")
        return tuple(value)

    def integer(self, name: str, least: int = 0, most: int = _MAX_INTEGER) -> int:
        """An integer between the bounds; ``true`` and ``1.0`` are none."""
        value = self._take(name)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(name, f"a whole number from {least} to {most}")
        return value

    def optional_integer(self, name: str, least: int = 0, most: int = _MAX_INTEGER) -> int | None:
        """As `integer`, or None where the field is absent."""
        return self.integer(name, least, most) if name in self else None

    def choice(self, name: str, among: type[E]) -> E:
        """One member of a closed set, by its value."""
        text = self.text(name)
        try:
            return among(text)
        except ValueError:
            raise self.wrong(name, f"one of {', '.join(among)}") from None

    def choices(self, name: str, among: type[E]) -> tuple[E, ...]:
        """Members of a closed set, by their values, each once."""
        known = {one.value: one for one in among}
        found = self.texts(name, len(known), 64)
        if not set(found) <= known.keys():
            raise self.wrong(name, f"a list of {', '.join(known)}")
        return tuple(known[one] for one in found)

    def flag(self, name: str) -> bool:
        """``true`` or ``false``; 0 and 1 are neither."""
        value = self._take(name)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def moment(self, name: str) -> datetime:
        """A time as RFC 3339 with its offset."""
        text = self.text(name, 40)
        try:
            moment = utc_from_rfc3339(text)
        except (ValueError, OverflowError):
            moment = None
        if moment is None or rfc3339(moment) != text:
            raise self.wrong(name, "a time as 2026-01-31T09:30:00Z")
        return moment

    def octets(self, name: str, length: int) -> bytes:
        """Exactly ``length`` bytes, written as base64."""
        text = self.text(name)
        try:
            data = from_base64(text)
        except ValueError:
            raise self.wrong(name, "base64") from None
        if len(data) != length:
            raise self.wrong(name, f"base64 of {length} bytes")
        return data

    def inner(self, name: str) -> Fields:
        """A nested object."""
        value = self._take(name)
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(value, self.path(name))

    def row(self, name: str) -> Mapping[str, object]:
        """A nested object as it stands: what is shown and not acted upon."""
        value = self._take(name)
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return value

    def optional_row(self, name: str) -> Mapping[str, object] | None:
        """As `row`, or None where the field is null."""
        return None if self._values.get(name) is None else self.row(name)

    def rows(self, name: str) -> tuple[Mapping[str, object], ...]:
        """A list of objects as they stand."""
        value = self._take(name)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.wrong(name, "a list of objects")
        return tuple(value)

    def each(self, name: str, most: int) -> Iterator[Fields]:
        """The objects of a list of at most ``most``."""
        value = self._take(name)
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(name, f"a list of at most {most}")
        for place, entry in enumerate(value):
            if not isinstance(entry, dict):
                raise self.wrong(f"{name}[{place}]", "an object")
            yield Fields(entry, self.path(f"{name}[{place}]"))

    def no_more(self) -> None:
        """Refuse a field that was not read."""
        unread = self._values.keys() - self._read
        if unread:
            # A count, not the names: in a hand-made document even a name may be a secret.
            raise DocumentInvalid(
                f"{self._path or 'the document'} has {len(unread)} field(s) that this version of "
                "memtenant does not know"
            )

    def _take(self, name: str) -> object:
        self._read.add(name)
        if name not in self._values:
            raise DocumentInvalid(f"{self.path(name)} is missing")
        return self._values[name]
