"""A message as the bytes that a record seals, and back.

The first byte says how the JSON behind it is kept: 1 as it is, 2 deflated with a preset dictionary,
whichever is shorter. Compression makes a record's length depend on its text; length was visible to
whoever holds the server before (docs/record-format.md, Limits), and 220 characters of prose cost
250 instead of 330 bytes in Redis.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from json.decoder import scanstring as _unquoted  # type: ignore[attr-defined]
from json.encoder import encode_basestring as _quoted
from typing import Any, Final

from memtenant.errors import MessageInvalid, MessageTooLarge, RecordMalformed
from memtenant.memory.messages import Json, Message, ToolCall

__all__ = ["MAX_JSON_BYTES", "decode", "decode_value", "encode", "encode_value", "pack", "unpack"]

MAX_JSON_BYTES: Final = 4 * 1024 * 1024
"""Of one message before compression: what a reader is ready to inflate a record of 256 KiB to."""

_PLAIN, _DEFLATED = 1, 2
_WINDOW, _MEMORY = -12, 5  # small: setting up a larger window takes longer than the message itself
_WORTH_TRYING = 48
_MAX_DEPTH = 64

# Never changed: what is stored was made with it.
_DICTIONARY = (
    b"the and ing tion that for you with this have not are was can will from your "
    b'","call":"","meta":{"calls":[{"id":"call_","name":"","args":{"'
    b'{"role":"system","text":"{"role":"tool","text":"{"role":"ai","text":"{"role":"human","text":"'
)

_BARE_START, _BARE_MIDDLE = '{"role":"', ',"text":"'
_TEXT, _PARTS = "text", "parts"
_KNOWN = {"role", _TEXT, _PARTS, "name", "calls", "call", "meta", "pinned"}


def encode(message: Message) -> bytes:
    """The message's JSON. Raises `MessageInvalid` for what would not come back as it is."""
    if isinstance(message.content, str):
        if isinstance(message.role, str) and _is_bare(message):
            # What most messages are: the same bytes as below, in a quarter of the time.
            text = f'{{"role":{_quoted(message.role)},"text":{_quoted(message.content)}}}'
            return text.encode("utf-8", "surrogatepass")
        fields: dict[str, Any] = {"role": message.role, _TEXT: message.content}
    else:
        fields = {"role": message.role, _PARTS: [_checked(part) for part in message.content]}
    if message.name is not None:
        fields["name"] = message.name
    if message.tool_calls:
        fields["calls"] = [
            {"id": call.id, "name": call.name, "args": _checked(call.arguments)}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["call"] = message.tool_call_id
    if message.metadata:
        fields["meta"] = _checked(message.metadata)
    if message.pinned:
        fields["pinned"] = True
    for name, value in message.further.items():
        if name in _KNOWN:
            raise MessageInvalid(f"A message's further field has the name of a known one: {name}")
        fields[name] = _checked(value)
    return _dumped(fields)


def decode(data: bytes) -> Message:
    """Undo `encode`; `RecordMalformed` for JSON that is no message."""
    text = _text(data)
    bare = _bare(text)
    if bare is not None:
        return bare
    fields = _loaded(text)
    if not isinstance(fields, dict) or not isinstance(fields.get("role"), str):
        raise _malformed()
    if len(fields) == 2 and isinstance(fields.get(_TEXT), str):
        return Message(fields["role"], fields[_TEXT])
    content = fields.get(_TEXT, fields.get(_PARTS))
    calls, metadata = fields.get("calls", []), fields.get("meta", {})
    if (
        not isinstance(content, (str, list))
        or not isinstance(calls, list)
        or not isinstance(metadata, dict)
    ):
        raise _malformed()
    return Message(
        role=fields["role"],
        content=content if isinstance(content, str) else tuple(content),
        name=fields.get("name"),
        tool_calls=tuple(_call(call) for call in calls),
        tool_call_id=fields.get("call"),
        metadata=metadata,
        further={name: value for name, value in fields.items() if name not in _KNOWN},
        pinned=fields.get("pinned") is True,
    )


def encode_value(value: Json) -> bytes:
    """The JSON of a shared context's value."""
    return _dumped(_checked(value))


def decode_value(data: bytes) -> Any:
    """Undo `encode_value`."""
    return _loaded(_text(data))


def pack(data: bytes) -> bytes:
    """JSON as a record holds it. Raises `MessageTooLarge` above 4 MiB."""
    if len(data) > MAX_JSON_BYTES:
        raise MessageTooLarge(
            f"A message of {len(data)} bytes is more than the {MAX_JSON_BYTES} that one may have: "
            "keep the content elsewhere and store a reference",
            size=len(data),
            allowed=MAX_JSON_BYTES,
        )
    if len(data) >= _WORTH_TRYING:
        deflater = zlib.compressobj(
            6, zlib.DEFLATED, _WINDOW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY
        )
        deflated = deflater.compress(data) + deflater.flush()
        if len(deflated) < len(data):
            return bytes((_DEFLATED,)) + deflated
    return bytes((_PLAIN,)) + data


def unpack(content: bytes) -> bytes:
    """Undo `pack`. Raises `RecordMalformed`, also for what inflates to more than a message may."""
    if content[:1] == bytes((_PLAIN,)):
        return content[1:]
    if content[:1] != bytes((_DEFLATED,)):
        raise RecordMalformed(
            "A record holds content of a form that this memtenant does not know: update it"
        )
    inflater = zlib.decompressobj(_WINDOW, _DICTIONARY)
    try:
        data = inflater.decompress(content[1:], MAX_JSON_BYTES)
    except zlib.error:
        raise _malformed() from None
    if not inflater.eof or inflater.unused_data:
        raise _malformed()
    return data


def _is_bare(message: Message) -> bool:
    """Whether there is nothing but role and content."""
    return (
        not (message.tool_calls or message.metadata or message.further or message.pinned)
        and message.name is None
        and message.tool_call_id is None
    )


def _dumped(value: object) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise MessageInvalid(
            "A message holds what JSON cannot: use text, numbers, booleans, None, lists and "
            "mappings (bytes as base64 text, or better a reference)"
        ) from None
    return text.encode("utf-8", "surrogatepass")


def _bare(text: str) -> Message | None:
    """The message, if its JSON is of that kind; None leaves it to the parser."""
    if not text.startswith(_BARE_START):
        return None
    try:
        role, end = _unquoted(text, len(_BARE_START))
        if not text.startswith(_BARE_MIDDLE, end):
            return None
        content, end = _unquoted(text, end + len(_BARE_MIDDLE))
    except ValueError:
        return None
    return Message(role, content) if text[end:] == "}" else None


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except ValueError:
        raise _malformed() from None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _malformed() from None


def _checked(value: Json, depth: int = 0) -> Json:
    """The value, if JSON gives it back as it is: json turns other keys than text into text."""
    if depth > _MAX_DEPTH:
        raise MessageInvalid(f"A message is nested deeper than {_MAX_DEPTH} levels: flatten it")
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise MessageInvalid("A mapping in a message has a key that is no text: make it one")
        return {name: _checked(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return [_checked(inner, depth + 1) for inner in value]
    return value


def _call(call: object) -> ToolCall:
    if not isinstance(call, dict):
        raise _malformed()
    return ToolCall(str(call.get("id", "")), str(call.get("name", "")), call.get("args"))


def _malformed() -> RecordMalformed:
    return RecordMalformed(
        "A record opens and holds no message: something else wrote it with the tenant's keys. It "
        "is not shown; delete it"
    )
