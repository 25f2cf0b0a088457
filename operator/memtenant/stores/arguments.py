"""Well-formed calls of any command, built from what the server says about its own commands.

A denial proves something only if the server understood the call: an argument error is no denial.
So calls are made from COMMAND DOCS (arguments) and COMMAND INFO (arity, flags), and what the server
takes for keys is asked back with COMMAND GETKEYS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from memtenant.stores.connection import Command, NodeClient, Reply
from memtenant.stores.refusals import required

__all__ = ["CallForm", "CommandDescription", "describe_commands"]

_VALUES: Final = {"integer": "1", "double": "1", "unix-time": "1", "pattern": "x*"}


class _Key:
    """Where a key belongs in a form."""


_KEY: Final = _Key()
_Word = str | _Key


@dataclass(frozen=True, slots=True)
class CallForm:
    """A command's words with open places for keys."""

    words: tuple[_Word, ...]

    @property
    def places(self) -> int:
        """How many keys the form takes."""
        return sum(1 for word in self.words if isinstance(word, _Key))

    def call(self, keys: Sequence[str]) -> tuple[str, ...]:
        """The words with the keys in their places."""
        remaining = iter(keys)
        return tuple(next(remaining) if isinstance(word, _Key) else word for word in self.words)


@dataclass(frozen=True, slots=True)
class CommandDescription:
    """A command (``client|kill`` for a subcommand) and the ways to call it.

    keyed: whether it may name keys at all; writes: whether the server flags it as a write.
    """

    name: str
    forms: tuple[CallForm, ...]
    keyed: bool
    writes: bool


async def describe_commands(
    node: NodeClient, commands: Iterable[str]
) -> dict[str, CommandDescription]:
    """What the node says about each command that it knows."""
    names = sorted(commands)
    infos = await node.run([("COMMAND", "INFO", name) for name in names])
    documents = await _documents(node, names)
    described: dict[str, CommandDescription] = {}
    for name, reply in zip(names, infos, strict=True):
        required(reply, node.address)
        if not isinstance(reply, list) or not reply or not isinstance(reply[0], list):
            continue
        info = reply[0]
        flags = {_text(flag) for flag in info[2]}
        described[name] = CommandDescription(
            name=name,
            forms=_forms(name, documents.get(name, ()), int(info[1])),
            keyed=bool(info[8]) or "movablekeys" in flags or int(info[3]) > 0,
            writes="write" in flags,
        )
    return described


async def _documents(
    node: NodeClient, names: Sequence[str]
) -> Mapping[str, Sequence[Mapping[str, object]]]:
    """The arguments of each command, as COMMAND DOCS tells them."""
    requests: list[Command] = [("COMMAND", "DOCS", name) for name in names]
    documents: dict[str, Sequence[Mapping[str, object]]] = {}
    for name, reply in zip(names, await node.run(requests), strict=True):
        if isinstance(reply, list) and len(reply) == 2:
            arguments = _map(reply[1]).get("arguments", [])
            documents[name] = _maps(arguments)
    return documents


def _forms(
    name: str, arguments: Sequence[Mapping[str, object]], arity: int
) -> tuple[CallForm, ...]:
    """The shortest call, one with each optional key, and one with every repeatable key twice."""
    start = tuple(name.split("|"))
    variants = [_words(arguments, optional=None, repeats=1)]
    variants += [
        _words(arguments, optional=argument, repeats=1)
        for argument in arguments
        if _is_optional(argument) and _holds_key(argument)
    ]
    variants.append(_words(arguments, optional=None, repeats=2))
    forms = (CallForm(_fitted((*start, *words), arity)) for words in variants)
    return tuple(dict.fromkeys(forms))


def _fitted(words: tuple[_Word, ...], arity: int) -> tuple[_Word, ...]:
    """Padded where documentation and arity disagree; GETKEYS tells whether that went well."""
    return (*words, *("1" for _ in range(abs(arity) - len(words))))


def _words(
    arguments: Sequence[Mapping[str, object]],
    *,
    optional: Mapping[str, object] | None,
    repeats: int,
) -> tuple[_Word, ...]:
    words: list[_Word] = []
    for argument in arguments:
        bare_key = argument.get("type") == "key" and "token" not in argument
        if _is_optional(argument) and argument is not optional and not bare_key:
            continue
        words += _expanded(argument, repeats)
    return tuple(words)


def _expanded(argument: Mapping[str, object], repeats: int) -> list[_Word]:
    kind = str(argument.get("type"))
    token: list[_Word] = [str(argument["token"])] if "token" in argument else []
    if kind == "pure-token":
        return token
    children = _maps(argument.get("arguments", []))
    times = repeats if _is_repeatable(argument) and _holds_key(argument) else 1
    if kind == "oneof":
        chosen = next(filter(_holds_key, children), children[0])
        return [*token, *_expanded(chosen, repeats)]
    if kind == "block":
        return [*token, *(_words(children, optional=None, repeats=repeats) * times)]
    if kind == "key":
        return [*token, *([_KEY] * times)]
    if argument.get("name") == "numkeys":
        return [*token, str(repeats)]
    return [*token, _VALUES.get(kind, "x")]


def _holds_key(argument: Mapping[str, object]) -> bool:
    return argument.get("type") == "key" or any(
        _holds_key(child) for child in _maps(argument.get("arguments", []))
    )


def _is_optional(argument: Mapping[str, object]) -> bool:
    return "optional" in str(argument.get("flags", ""))


def _is_repeatable(argument: Mapping[str, object]) -> bool:
    return "multiple" in str(argument.get("flags", ""))


def _maps(value: object) -> list[dict[str, object]]:
    return [_map(item) for item in value] if isinstance(value, list) else []


def _map(reply: Reply) -> dict[str, object]:
    """A RESP2 list of names and values; bytes become text, nested lists stay."""
    if not isinstance(reply, list):
        return {}
    return {
        _text(name): _text(value) if isinstance(value, bytes) else value
        for name, value in zip(reply[::2], reply[1::2], strict=False)
    }


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
