"""``memtenant local``: the embedded Valkey of a state folder."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Annotated

import typer

from memtenant.cli import output, server, workspace
from memtenant.cli.options import Output, State
from memtenant.cli.output import Format
from memtenant.cli.workspace import DEFAULT_STATE
from memtenant.errors import ResourceUnavailable, UsageError
from memtenant.resources.folder import FolderResources
from memtenant.stores import embedded

__all__ = ["local"]

local = typer.Typer(
    help="The embedded Valkey: start, stop, look, forget.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@local.command()
def start(
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Where to listen; else the last port, or a free one."),
    ] = None,
    state: State = DEFAULT_STATE,
    form: Output = Format.TABLE,
) -> None:
    """Start the server of the state folder, or find it running. It listens on 127.0.0.1 only.

    `memtenant apply` starts it by itself.
    """
    with output.progress("Starting Valkey"):
        found = asyncio.run(embedded.start(server.server_folder(state), port=port))
    _show(found, state, form)


@local.command()
def status(state: State = DEFAULT_STATE, form: Output = Format.TABLE) -> None:
    """Say whether the server runs, and where."""
    _show(asyncio.run(embedded.running(server.server_folder(state))), state, form)


@local.command()
def stop(state: State = DEFAULT_STATE) -> None:
    """Stop the server, and the instances of Strict tenants; data and users stay in the folder."""
    with output.progress("Stopping Valkey"):
        stopped, instances = asyncio.run(_stop(state))
    output.line("Stopped" if stopped else "It was not running")
    if instances:
        output.line(
            f"Stopped {instances} instances of Strict tenants: `memtenant apply` starts them"
        )


@local.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Stop the server and remove the state folder: tenants, keys and memory are gone for ever.

    What tenants have on a server of --redis stays there, without its keys.
    """
    folder = server.server_folder(state)
    if not workspace.is_made(state) and not (folder / "valkey.conf").exists():
        raise UsageError(f"{state} is no state folder: nothing was removed")
    if not yes:
        typer.confirm(f"Remove {state} with all tenants, keys and memory in it?", abort=True)
    with FolderResources.open(state):  # no other command is at work in it
        asyncio.run(_stop(state))
        try:
            shutil.rmtree(state)
        except OSError as error:
            raise ResourceUnavailable(f"{state} cannot be removed: {error.strerror}") from None
    output.line(f"Removed {state}")


async def _stop(state: Path) -> tuple[bool, int]:
    instances = await server.instances_of(state).stop()
    return await embedded.stop(server.server_folder(state)), instances


def _show(found: embedded.EmbeddedStore | None, state: Path, form: Format) -> None:
    if form in (Format.JSON, Format.YAML):
        shown: dict[str, object] = {"running": found is not None, "state": str(state.resolve())}
        if found is not None:
            shown |= {"host": found.address.host, "port": found.address.port, "pid": found.pid}
        output.data(shown, form)
    elif found is None:
        output.line(f"Not running; its folder is {server.server_folder(state)}")
    else:
        output.line(f"Valkey on {found.address} (process {found.pid})", style="green")
        output.line(f"State folder: {state.resolve()}")
