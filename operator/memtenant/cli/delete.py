"""``memtenant delete``: take objects away, as their deletion policy says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from memtenant.cli import output, workspace
from memtenant.cli.exits import ExitCode
from memtenant.cli.inputs import Given, read_inputs
from memtenant.cli.intents import local_intents
from memtenant.cli.options import Namespace, OptionalFiles, Output, State
from memtenant.cli.output import Format
from memtenant.cli.workspace import DEFAULT_STATE
from memtenant.errors import ResourceNotFound, UsageError
from memtenant.reconcile.once import Happened
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import ObjectKey

__all__ = ["delete"]


def delete(
    objects: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KIND/NAME]...", help="tenant/acme, store/local."),
    ] = None,
    files: OptionalFiles = None,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
    form: Output = Format.TABLE,
) -> None:
    """Delete objects from the state folder, and what they made.

    A tenant goes the way of its deletionPolicy: Retain keeps data and keys, Delete removes the
    data, Shred destroys the keys too. A legal hold or an unexpired minimum stops the last two: the
    tenant stays, in deletion, until `memtenant apply` finds that it may go.

    Examples:

        memtenant delete tenant/acme

        memtenant delete -f tenants.yaml

    Exit code: 0 if all is gone, 3 if something is still there, 1 if nothing was done.
    """
    keys = [workspace.key_of(text, namespace) for text in objects or ()]
    if files:
        given = read_inputs(files, namespace).require_valid()
        keys += [manifest.key for manifest in given.objects]
    if not keys:
        raise UsageError("say what to delete: KIND/NAME, or manifests with -f")
    raise typer.Exit(asyncio.run(_delete(dict.fromkeys(keys), state, form)))


async def _delete(keys: Iterable[ObjectKey], state: Path, form: Format) -> ExitCode:
    if not workspace.is_made(state):
        raise UsageError(f"nothing is declared in {state}")
    with FolderResources.open(state) as resources:
        missing = [key for key in keys if await resources.get(key) is None]
        if missing:
            raise ResourceNotFound(
                f"not declared in {state}: {', '.join(map(str, missing))}. Nothing was deleted"
            )
        intents = await local_intents(Given(), resources, state, None, create=False)
        workspace.declare(resources, intents)
        for key in keys:
            resources.delete(key)
        happened = {one.key: one for one in await workspace.run(resources, "Deleting")}
    asked = [happened.get(key, Happened(key)) for key in keys]
    if form in (Format.JSON, Format.YAML):
        output.data({"objects": [_as_data(one) for one in asked]}, form)
    else:
        for one in asked:
            _show(one)
    return workspace.exit_code(asked)


def _as_data(one: Happened) -> dict[str, object]:
    problem = workspace.problem_of(one)
    return {
        "object": str(one.key),
        "gone": one.declared is None,
        "did": list(one.did),
        "problem": problem,
    }


def _show(one: Happened) -> None:
    problem = workspace.problem_of(one)
    if one.declared is None:
        output.line(f"{one.key} deleted")
    else:
        output.line(f"{one.key} is still there: {problem}", style="yellow")
    for words in one.did:
        output.line(f"    {words}", style="dim")
