"""What memtenant itself writes beside records, by its form: data keys, indexes, counters, links.

Agents may write there too, around the SDK. What has none of these forms may be anything in clear.
Names of shared contexts' values are the agents' own choice and stand in clear: in the context, its
versions and changes, and in indexes.
"""

from __future__ import annotations

import re
from typing import Final

from memtenant.crypto.datakey import DATA_KEY_BYTES
from memtenant.crypto.erasure import Tombstone
from memtenant.crypto.header import peek_header
from memtenant.errors import RecordMalformed

__all__ = [
    "changed_name",
    "chosen_name",
    "is_counter",
    "is_field",
    "is_head",
    "is_header",
    "is_link",
    "is_listed",
    "is_member",
    "is_of_subject",
    "is_subject",
    "whole",
]

_AGENT: Final = rb"[a-z0-9-]{1,40}"
_ALIAS: Final = rb"[A-Za-z0-9_-]{22}"
_SUBJECT: Final = re.compile(rb"_|(?:(?:%b)?_)?%b" % (_AGENT, _ALIAS))
_MEMBER: Final = re.compile(rb"(?:(?:%b)?_|c):%b" % (_AGENT, _ALIAS))
_LISTED: Final = re.compile(rb"(?:(?:%b)?_|c):%b|c:%b:([\w-]{1,64})" % (_AGENT, _ALIAS, _ALIAS))
_NUMBERS: Final = frozenset((b"bytes", b"messages", b"conversations", b"dropped"))
_NUMBER: Final = re.compile(rb"-?[0-9]{1,18}")
_OF_AGENT: Final = re.compile(rb"a:%b" % _AGENT)
_RATE_BYTES, _AGENT_BYTES = 11, 12
_FIELD: Final = re.compile(rb"[\w-]{1,64}")
_CHANGED_BY: Final = re.compile(_AGENT)
_LONGEST_NUMBER: Final = 18
_ID, _NAMESPACE, _PLACE, _COUNT = 16, 8, 10, 3
_WRITER, _MARK, _MOST_SAVED = 25, 43, 128
_HEAD_BYTES: Final = {b"state": 46, b"tag": 8, b"lease": 22}
_MARKS: Final = re.compile(rb"m[0-8]")


def is_subject(alias: bytes) -> bool:
    """Whether it can be the last part of the name of a data key or of an index."""
    return _SUBJECT.fullmatch(alias) is not None


def is_of_subject(name: bytes, value: bytes) -> bool:
    """Whether it is a field beside a person's data key: the wrapped key, or a tombstone. Wrapped
    keys are noise, and a text is none."""
    if name == b"dek":
        return len(value) == DATA_KEY_BYTES and not value.isascii()
    try:
        return name == b"erased" and bool(Tombstone.parse(value))
    except RecordMalformed:
        return False


def is_listed(entry: bytes) -> bool:
    """Whether it is an entry of a person's index: a conversation, or a context's value."""
    return _LISTED.fullmatch(entry) is not None


def chosen_name(entry: bytes) -> bytes:
    """The name of a context's value in an entry of an index; empty where it names none."""
    found = _LISTED.fullmatch(entry)
    return (found[1] or b"") if found else b""


def is_member(entry: bytes) -> bool:
    """Whether it is one of a tenant's conversations and contexts, as their set lists them."""
    return _MEMBER.fullmatch(entry) is not None


def is_counter(name: bytes, value: bytes) -> bool:
    """Whether it is one of a tenant's counters: a number, or packed ones by their size."""
    if name in _NUMBERS:
        return _NUMBER.fullmatch(value) is not None
    if name == b"rate":
        return len(value) == _RATE_BYTES
    return len(value) == _AGENT_BYTES and _OF_AGENT.fullmatch(name) is not None


def is_field(name: bytes) -> bool:
    """Whether agents may give such a name to a value of a shared context."""
    return _FIELD.fullmatch(name) is not None


def is_head(name: bytes, value: bytes) -> bool:
    """Whether it is a field of a conversation's head, other than its sealed title, by the size of
    what the Functions pack into it."""
    if name in _HEAD_BYTES:
        return len(value) == _HEAD_BYTES[name]
    if name == b"writers":
        return len(value) % _WRITER == 0
    if name == b"saved":
        return len(value) <= _MOST_SAVED
    return _MARKS.fullmatch(name) is not None and len(value) % _MARK == 0


def is_header(value: bytes) -> bool:
    """Whether it is the header of a record and nothing else."""
    try:
        return peek_header(value).length == len(value)
    except RecordMalformed:
        return False


def changed_name(entry: bytes) -> bytes | None:
    """Whose value a change of a shared context is about, as the Function tells it: header, mark
    (16), operation, length of the agent's name, that name, the field's. None for what is no
    change."""
    try:
        change = entry[peek_header(entry).length + 16 :]
    except RecordMalformed:
        return None
    if len(change) < 2 or change[:1] not in (b"S", b"D"):
        return None
    end = 2 + change[1]
    name = change[end:]
    return name if _CHANGED_BY.fullmatch(change[2:end]) and is_field(name) else None


def is_link(name: bytes, value: bytes) -> bool:
    """Whether a field of a conversation's checkpoints only says what belongs together, by ids:
    ``n`` the parts of a list, ``d`` the places of the writes beside a checkpoint."""
    if name[:1] == b"n":
        return len(name) == 1 + _ID and len(value) % _ID == _COUNT
    return name[:1] == b"d" and len(name) > 1 + _NAMESPACE and len(value) % _PLACE == 0


def whole(text: str | bytes) -> int | None:
    """A whole number that somebody wrote into a store; None for what is none."""
    try:
        return int(text) if len(text) <= _LONGEST_NUMBER and text.isdigit() else None
    except ValueError:
        return None
