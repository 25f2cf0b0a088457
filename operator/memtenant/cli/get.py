"""``memtenant get``: what is declared in the state folder, in the columns of ``kubectl get``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from memtenant.api.parse import KINDS
from memtenant.api.resource import Column
from memtenant.cli import output, workspace
from memtenant.cli.options import Output, State
from memtenant.cli.output import Format
from memtenant.cli.workspace import DEFAULT_STATE
from memtenant.clock import system_clock, utc_from_rfc3339
from memtenant.errors import ResourceNotFound
from memtenant.resources.port import Declared, Kind

__all__ = ["get"]

_FILTER = re.compile(r'\[\?\(@\.(\w+)=="([^"]*)"\)\]')
_STEP = re.compile(r'\.(\w+)|(\[\?\(@\.\w+=="[^"]*"\)\])|(\[\*\])')


def get(
    kind: Annotated[
        str | None, typer.Argument(help="tenants, stores, policies, reports; all if left out.")
    ] = None,
    name: Annotated[str | None, typer.Argument(help="One object.")] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", metavar="NAME", help="Only what is in this one."),
    ] = None,
    state: State = DEFAULT_STATE,
    form: Output = Format.TABLE,
) -> None:
    """Show what is declared in the state folder, and how it is.

    Examples:

        memtenant get

        memtenant get tenant acme -o yaml
    """
    kinds = list(Kind) if kind in (None, "all") else [workspace.kind_of(str(kind))]
    found = [
        declared
        for key, declared in sorted(workspace.objects_of(state).items())
        if key.kind in kinds
        and name in (None, key.name)
        and (namespace is None or not key.kind.namespaced or key.namespace == namespace)
    ]
    if name is not None and not found:
        raise ResourceNotFound(f"there is no {kinds[0].value} {name!r} in {state}")
    if form in (Format.JSON, Format.YAML):
        items = [workspace.as_shown(declared) for declared in found]
        whole = {"apiVersion": "v1", "kind": "List", "items": items}
        output.data(items[0] if name is not None and len(items) == 1 else whole, form)
        return
    if not found:
        output.note(f"Nothing is declared in {state}")
    shown = [one for one in kinds if any(d.key.kind is one for d in found)]
    for index, one in enumerate(shown):
        if index:
            output.line()
        _show(one, [d for d in found if d.key.kind is one], wide=form is Format.WIDE)


def _show(kind: Kind, found: Iterable[Declared], *, wide: bool) -> None:
    columns = [column for column in KINDS[kind.value].COLUMNS if wide or not column.wide]
    place = ["Namespace"] if kind.namespaced else []
    rows = [
        [
            *([declared.key.namespace] if kind.namespaced else []),
            declared.key.name,
            *(_cell(workspace.as_shown(declared), column) for column in columns),
        ]
        for declared in found
    ]
    output.table([*place, kind.value, *(column.name for column in columns)], rows)


def _cell(raw: Mapping[str, Any], column: Column) -> str:
    values = _values(raw, column.path)
    if not values:
        return ""
    if column.type == "date":
        return _age(utc_from_rfc3339(values[0]), system_clock.now())
    return ",".join(_text(value) for value in values)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _values(raw: Any, path: str) -> list[Any]:
    """The JSONPath of a printer column: names, ``[*]``, and ``[?(@.type=="Ready")]``."""
    found = [raw]
    for name, condition, every in _STEP.findall(path):
        if name:
            found = [one[name] for one in found if isinstance(one, Mapping) and name in one]
        elif every:
            found = [item for one in found if isinstance(one, list) for item in one]
        elif (wanted := _FILTER.fullmatch(condition)) is not None:
            key, value = wanted.groups()
            found = [
                item
                for one in found
                if isinstance(one, list)
                for item in one
                if isinstance(item, Mapping) and item.get(key) == value
            ]
    return found


def _age(since: datetime, now: datetime) -> str:
    seconds = max(0, int((now - since.astimezone(UTC)).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
