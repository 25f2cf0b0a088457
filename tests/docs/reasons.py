"""Every reason that the operator can write into a condition or an Event, read from its source.

A reason is born in one of these ways, and is passed on from there:

- as the class attribute ``reason`` of a `MemtenantError` that is raised without another;
- as the argument of a parameter (or dataclass field) that is called ``reason``;
- as the reason of the condition that the API server fills in at first sight.

An argument that is neither a word nor passed on is an error here, so that no reason escapes. What
only the command line or an agent's program can meet is left out.
"""

import ast
import importlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import memtenant
from memtenant.api.conditions import PRESENT_ONLY_WHILE_TRUE
from memtenant.api.schema import crds
from memtenant.errors import (
    BindingInvalid,
    DataError,
    MemtenantError,
    RecordInvalid,
    UsageError,
)

_PACKAGE = Path(memtenant.__file__).parent
_LAYERS = ("api", "controller", "crypto", "jobs", "reconcile", "resources", "rules", "stores")

_NOT_THE_OPERATORS = (BindingInvalid, DataError, RecordInvalid, UsageError)
"""Raised to agents and at the command line, or caught where the operator reads records."""

_WITHOUT_OPERATOR = frozenset(
    {
        "EmbeddedStoreMissing",  # `memtenant local`
        "LeadershipLost",  # ends a replica's work, not an object's
        "NotSettled",  # `memtenant apply`
        "Port",
        "StateLocked",  # the state folder's
    }
)

_EVENT_CALLS = frozenset({"emit", "emit_event"})

_COMPOSED: Mapping[str, tuple[str, ...]] = {
    "{policy}Completed": ("RetainCompleted", "DeleteCompleted", "ShredCompleted"),
    "Users{words}": ("UsersRestored", "UsersRemoved"),
}
"""Reasons that are put together, by their f-string, and what they come to."""


class UnknownReason(Exception):
    """A place in the source whose reason cannot be read."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """What can stand in a condition, and what is said of an Event beside those."""

    conditions: frozenset[str]
    events: frozenset[str]


@cache
def reasons() -> Reasons:
    """All of them."""
    trees = list(_trees())
    conditions = _of_errors(trees) | _at_first_sight()
    events: set[str] = set()
    constants = dict(_constants(trees))
    positions = _positions(trees)
    for path, tree in trees:
        for call, argument in _arguments(tree, positions):
            try:
                found = set(_words(argument, constants))
            except UnknownReason as unknown:
                raise UnknownReason(f"{path}:{call.lineno}: {unknown}") from None
            (events if _name(call.func) in _EVENT_CALLS else conditions).update(found)
    return Reasons(frozenset(conditions - _WITHOUT_OPERATOR), frozenset(events))


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for layer in _LAYERS:
        for path in sorted((_PACKAGE / layer).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def _of_errors(trees: Iterable[tuple[Path, ast.Module]]) -> set[str]:
    raised = set()
    for path, tree in trees:
        importlib.import_module(".".join(path.relative_to(_PACKAGE.parent).parts)[: -len(".py")])
        raised |= {
            _name(node.func)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and "reason" not in {one.arg for one in node.keywords}
        }
    return {
        kind.reason
        for kind in _kinds(MemtenantError)
        if "reason" in vars(kind)
        and kind.__name__ in raised
        and kind is not MemtenantError
        and not issubclass(kind, _NOT_THE_OPERATORS)
    }


def _kinds(kind: type[MemtenantError]) -> Iterator[type[MemtenantError]]:
    """The class and all below it that belong to the operator's layers."""
    yield kind
    for below in kind.__subclasses__():
        if below.__module__.split(".")[:2] in (
            ["memtenant", name] for name in ("errors", *_LAYERS)
        ):
            yield from _kinds(below)


def _at_first_sight() -> set[str]:
    return {
        condition["reason"]
        for crd in crds()
        for version in crd["spec"]["versions"]
        for condition in version["schema"]["openAPIV3Schema"]["properties"]["status"]["default"][
            "conditions"
        ]
    }


def _constants(trees: Iterable[tuple[Path, ast.Module]]) -> Iterator[tuple[str, str]]:
    """The text constants of all modules: SECRET_ACCESS_MISSING and its like."""
    for _, tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                for target in node.targets:
                    if isinstance(target, ast.Name) and isinstance(node.value.value, str):
                        yield target.id, node.value.value


def _positions(trees: Iterable[tuple[Path, ast.Module]]) -> dict[str, set[int]]:
    """Where in a call of this name the reason stands. ``self`` is not counted."""
    found: dict[str, set[int]] = defaultdict(set)
    for _, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [one.arg for one in node.args.args]
                if "reason" in names:
                    found[node.name].add(names.index("reason") - (names[0] == "self"))
            elif isinstance(node, ast.ClassDef):
                fields = [
                    one.target.id
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                ]
                if "reason" in fields:
                    found[node.name].add(fields.index("reason"))
    found["emit"] = found["emit_event"]
    return found


def _arguments(
    tree: ast.Module, positions: Mapping[str, set[int]]
) -> Iterator[tuple[ast.Call, ast.expr]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _is_removed(node):
            continue
        for keyword in node.keywords:
            if keyword.arg == "reason":
                yield node, keyword.value
        for position in positions.get(_name(node.func), ()):
            if position < len(node.args):
                yield node, node.args[position]


def _is_removed(call: ast.Call) -> bool:
    """Whether it is a finding that takes its condition away, so that nobody reads its reason."""
    if _name(call.func) != "Finding" or len(call.args) < 2:
        return False
    types = {f"ConditionType.{one.name}" for one in PRESENT_ONLY_WHILE_TRUE}
    type_, status = (ast.unparse(one) for one in call.args[:2])
    return type_ in types and status in {"_FALSE", "ConditionStatus.FALSE"}


def _name(called: ast.expr) -> str:
    if isinstance(called, ast.Attribute):
        return called.attr
    return called.id if isinstance(called, ast.Name) else ""


def _words(argument: ast.expr, constants: Mapping[str, str]) -> Iterator[str]:
    match argument:
        case ast.Constant(value=str(word)):
            yield word
        case ast.IfExp(body=body, orelse=orelse):
            yield from _words(body, constants)
            yield from _words(orelse, constants)
        case ast.JoinedStr() if (text := ast.unparse(argument)[2:-1]) in _COMPOSED:
            yield from _COMPOSED[text]
        case ast.Name(id=name) if name in constants:
            yield constants[name]
        case ast.Name(id="reason") | ast.Attribute(attr="reason"):
            return  # passed on: its source is another place
        case _:
            raise UnknownReason(f"{ast.unparse(argument)} is no reason that can be read")
