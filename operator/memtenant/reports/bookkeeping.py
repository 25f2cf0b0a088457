"""What memtenant itself writes beside records, by its form: data keys, indexes, counters.

Agents may write there too, around the SDK. What has none of these forms may be anything in clear.
Names of shared contexts' values are the agents' own choice and stand in clear: in the context, its
versions and changes, and in indexes.
"""

from __future__ import annotations

import re
from typing import Final

from memtenant.crypto.datakey import DATA_KEY_BYTES
from memtenant.crypto.erasure import Tombstone
from memtenant.errors import RecordMalformed

__all__ = ["chosen_name", "is_counter", "is_listed", "is_member", "is_of_subject", "is_subject"]

_AGENT: Final = rb"[a-z0-9-]{1,40}"
_ALIAS: Final = rb"[A-Za-z0-9_-]{22}"
_SUBJECT: Final = re.compile(rb"_|(?:(?:%b)?_)?%b" % (_AGENT, _ALIAS))
_MEMBER: Final = re.compile(rb"(?:(?:%b)?_|c):%b" % (_AGENT, _ALIAS))
_LISTED: Final = re.compile(rb"(?:(?:%b)?_|c):%b|c:%b:([\w-]{1,64})" % (_AGENT, _ALIAS, _ALIAS))
_NUMBERS: Final = frozenset((b"bytes", b"messages", b"conversations", b"dropped"))
_NUMBER: Final = re.compile(rb"-?[0-9]{1,18}")
_OF_AGENT: Final = re.compile(rb"a:%b" % _AGENT)
_RATE_BYTES, _AGENT_BYTES = 11, 12


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
