"""``memtenant seal``: drain the audit queues into the archive and seal it; the sealer itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from memtenant.archive import ArchiveFolder, FolderSigner, LogWriter, Sealed, Space
from memtenant.cli import output, workspace
from memtenant.cli.cluster import needs_operator
from memtenant.cli.exits import ExitCode
from memtenant.cli.options import Output, State, is_typed
from memtenant.cli.output import Format
from memtenant.cli.workspace import DEFAULT_STATE
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import KeyUnavailable, MemtenantError, UsageError
from memtenant.jobs.engine import Engine
from memtenant.jobs.sealing import Sealing, Step
from memtenant.jobs.turn import Drained
from memtenant.resources.folder import FolderResources
from memtenant.rules.systemusers import SystemRole, SystemSecret
from memtenant.tenancy.storesfile import StoresFile

__all__ = ["seal", "seal_once"]


def seal(
    context: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until interrupted.", show_default=False)
    ] = False,
    state: State = DEFAULT_STATE,
    form: Output = Format.TABLE,
    in_cluster: Annotated[
        bool,
        typer.Option(
            "--in-cluster", help="Be the sealer of a cluster: see the chart.", show_default=False
        ),
    ] = False,
    archive: Annotated[
        Path | None,
        typer.Option(metavar="DIR", envvar="MEMTENANT_ARCHIVE", help="With --in-cluster."),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="MEMTENANT_SEALER_FILES",
            help="With --in-cluster: where Secret memtenant-sealer is mounted.",
        ),
    ] = None,
    audit_namespace: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="MEMTENANT_AUDIT_NAMESPACE",
            help="With --in-cluster: where the log's key is.",
        ),
    ] = None,
    tenant_share: Annotated[
        int,
        typer.Option(
            metavar="PERCENT",
            envvar="MEMTENANT_TENANT_SHARE",
            help="With --in-cluster: of the archive's room, what one tenant may fill in a day.",
        ),
    ] = 10,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --in-cluster: else the pod's ServiceAccount."),
    ] = None,
    health_host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", envvar="MEMTENANT_HEALTH_HOST", help="With --in-cluster."),
    ] = "0.0.0.0",  # noqa: S104 -- probes and Prometheus come from outside the pod
    health_port: Annotated[
        int, typer.Option(metavar="PORT", envvar="MEMTENANT_HEALTH_PORT", help="With --in-cluster.")
    ] = 8080,
    log_format: Annotated[
        str,
        typer.Option(
            metavar="json|text|auto", envvar="MEMTENANT_LOG_FORMAT", help="With --in-cluster."
        ),
    ] = "auto",
    log_level: Annotated[
        str,
        typer.Option(
            metavar="DEBUG|INFO|WARNING|ERROR",
            envvar="MEMTENANT_LOG_LEVEL",
            help="With --in-cluster.",
        ),
    ] = "INFO",
) -> None:
    """Bring what is in the audit queues into the archive, and seal it.

    Without a cluster: once, or with --watch again and again, for the tenants of the state folder.
    An audited tenant's agents are refused where nobody drained its queue for a minute.

    Examples:

        memtenant seal

        memtenant seal --watch

    Exit code: 0 if all was drained and sealed, 1 if not.
    """
    given = {
        "archive": archive,
        "files": files,
        "audit_namespace": audit_namespace,
        "tenant_share": tenant_share,
        "kubeconfig": kubeconfig,
        "health_host": health_host,
        "health_port": health_port,
        "log_format": log_format,
        "log_level": log_level,
    }
    if in_cluster:
        raise typer.Exit(_in_cluster(given))
    for name in given:
        if is_typed(context, name):
            raise UsageError(f"{_option(name)} goes with --in-cluster: else all is in --state")
    if not workspace.is_made(state):
        raise UsageError(f"{state} is no state folder: `memtenant apply -f FILES` makes one")
    raise typer.Exit(asyncio.run(_local(state, form, watch)))


def _in_cluster(given: Mapping[str, object]) -> int:
    missing = [name for name in ("archive", "files", "audit_namespace") if given[name] is None]
    if missing:
        names = ", ".join(_option(name) for name in missing)
        raise UsageError(f"--in-cluster needs {names} too")
    try:
        from memtenant.controller.sealer import run, settings_from
    except ImportError as error:
        raise needs_operator(error) from None
    return run(settings_from(given))


def _option(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


async def _local(state: Path, form: Format, watch: bool) -> int:
    if not watch:
        step = await seal_once(state)
        _show(step, form)
        return ExitCode.DONE if step.is_whole else ExitCode.FAILED
    async with _sealing_of(state) as sealing:
        output.note("Sealing every minute, or as policies ask; Ctrl-C ends it")
        await sealing.run(_interrupted())
    return ExitCode.DONE


async def seal_once(state: Path) -> Step:
    """One step over a state folder. `ArchiveBusy` where another process seals it, `KeyUnavailable`
    before the first store was made."""
    async with _sealing_of(state) as sealing:
        return await sealing.step()


@asynccontextmanager
async def _sealing_of(state: Path) -> AsyncIterator[Sealing]:
    secret = await _secret(state)
    with ArchiveFolder.open(state / "archive", writable=True) as archive:
        sealing = _made(state, archive, secret)
        try:
            yield sealing
        finally:
            await sealing.close()


def _made(state: Path, archive: ArchiveFolder, secret: SystemSecret) -> Sealing:
    signer = FolderSigner(state / "audit")

    def open_writer() -> LogWriter:
        key = signer.key(f"memtenant.dev/{secret.installation}")
        return LogWriter.open(archive, key, signer)

    async def stores() -> StoresFile:
        return (await _secret(state)).stores

    engine = Engine(archive, open_writer, SecretKey(secret.audit_key))
    return Sealing(engine, stores, _Telling())


async def _secret(state: Path) -> SystemSecret:
    with FolderResources.open(state, writable=False) as resources:
        stored = await resources.get_secret(resources.home, SystemRole.SEALER.secret_name)
    if stored is None:
        raise KeyUnavailable(
            f"{state} has no store yet that a sealer could drain: run `memtenant apply`"
        )
    return SystemSecret.from_data(stored.data)


def _interrupted() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


class _Telling:
    """What happens, for whoever looks on."""

    def drained(self, store: str, drained: Drained) -> None:
        for log in drained.refused:
            output.warn(f"the log of {log} is not what was sealed: see `memtenant audit verify`")
        for log in drained.shrunk:
            output.warn(f"the queue of {log} on store {store} lost entries")
        for log in drained.flooded:
            output.warn(f"the queue of {log} on store {store} grows faster than it may: a flood")
        for log in drained.stopped:
            output.warn(f"the log of {log} had its share of the archive for today: make room")

    def room(self, space: Space) -> None:
        """Who is stopped for it is told."""

    def sealed(self, sealed: Sealed) -> None:
        """Each window is in the archive."""

    def failed(self, store: str, error: MemtenantError) -> None:
        output.warn(f"{store or 'archive'}: {error}")


def _show(step: Step, form: Format) -> None:
    if form in (Format.JSON, Format.YAML):
        output.data(_as_data(step), form)
        return
    for name, drained in sorted(step.drained.items()):
        words = [f"{drained.events} events"]
        words += [f"{drained.bad} bad entries"] if drained.bad else []
        words += [f"{drained.gaps} gaps"] if drained.gaps else []
        words += [f"{drained.duplicates} sealed before"] if drained.duplicates else []
        output.line(f"{name}: {', '.join(words)}")
    if step.sealed is not None:
        checkpoint = step.sealed.checkpoint.checkpoint
        at = datetime.fromtimestamp(step.sealed.time / 1000, UTC)
        output.line(
            f"Sealed window {step.sealed.window} at {at:%Y-%m-%dT%H:%M:%SZ}: {checkpoint.size} "
            f"leaves, root {checkpoint.root.hex()}",
            style="green",
        )


def _as_data(step: Step) -> dict[str, object]:
    sealed: dict[str, object] | None = None
    if step.sealed is not None:
        checkpoint = step.sealed.checkpoint.checkpoint
        sealed = {
            "window": step.sealed.window,
            "time": step.sealed.time,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "origin": checkpoint.origin,
        }
    return {
        "stores": {
            name: {
                "events": one.events,
                "bad": one.bad,
                "gaps": one.gaps,
                "duplicates": one.duplicates,
                "refused": list(one.refused),
                "shrunk": list(one.shrunk),
                "flooded": list(one.flooded),
                "stopped": list(one.stopped),
            }
            for name, one in sorted(step.drained.items())
        },
        "sealed": sealed,
        "failures": {name or "archive": str(error) for name, error in step.failures.items()},
    }
