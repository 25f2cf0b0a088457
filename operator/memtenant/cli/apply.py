"""``memtenant apply``: declare, and make it so, without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import typer

from memtenant.cli import options, output, workspace
from memtenant.cli.exits import ExitCode
from memtenant.cli.inputs import Given, judge, read_inputs
from memtenant.cli.intents import local_intents
from memtenant.cli.options import Namespace, OptionalFiles, Output, State
from memtenant.cli.output import Format
from memtenant.cli.seal import seal_once
from memtenant.cli.server import Server
from memtenant.cli.workspace import DEFAULT_STATE
from memtenant.errors import ArchiveBusy, UsageError
from memtenant.reconcile.once import Happened
from memtenant.resources.folder import FolderResources, Outcome
from memtenant.resources.port import Kind, ObjectKey

__all__ = ["apply"]


def apply(
    context: typer.Context,
    files: OptionalFiles = None,
    namespace: Namespace = "default",
    redis: options.Redis = None,
    redis_password_file: options.RedisPasswordFile = None,
    redis_ca: options.RedisCa = None,
    state: State = DEFAULT_STATE,
    form: Output = Format.TABLE,
) -> None:
    """Make stores, policies and tenants what the manifests say, without a cluster.

    Does what the operator does, once, for everything in the state folder: users, keys, quotas and
    bindings; what drifted is put back. Without -f nothing new is declared. The server is an
    embedded Valkey, or that of --redis.

    Examples:

        memtenant apply -f tenants.yaml

        memtenant apply -f tenants/ --redis redis://memtenant@10.0.0.5:6379 \\
            --redis-password-file ~/.redis-password

    Exit code: 0 if all is Ready, 3 if something is not, 1 if nothing was done.
    """
    server = options.redis_server(context, redis, redis_password_file, redis_ca)
    given = read_inputs(files, namespace).require_valid() if files else Given()
    code = asyncio.run(_apply(given, server, state, form))
    raise typer.Exit(code)


async def _apply(given: Given, server: Server | None, state: Path, form: Format) -> ExitCode:
    if not given.objects and not workspace.is_made(state):
        raise UsageError(f"nothing is declared in {state}: give manifests with -f")
    for skipped in given.skipped:
        output.note(f"Skipped {skipped}: not memtenant's")
    with FolderResources.open(state) as resources:
        before = await workspace.declared_in(resources)
        judge(given, before.get).require_valid()
        intents = await local_intents(given, resources, state, server)
        outcomes = workspace.declare(resources, intents)
        happened = await workspace.run(resources, "Reconciling")
    if any(workspace.is_audited(one) for one in happened):
        happened = await _sealed(state, happened)
    if form in (Format.JSON, Format.YAML):
        output.data(_as_data(outcomes, happened, state), form)
    else:
        _show(outcomes, happened, state)
    return workspace.exit_code(happened)


async def _sealed(state: Path, happened: list[Happened]) -> list[Happened]:
    """As the sealer beside an operator does, once; then the conditions tell of it."""
    try:
        await seal_once(state)
    except ArchiveBusy:
        return happened  # `memtenant seal --watch` does it
    output.note(
        "A tenant is audited: keep `memtenant seal --watch` running. A minute after nobody drained "
        "its queue, its agents are refused"
    )
    with FolderResources.open(state) as resources:
        again = await workspace.run(resources, "Looking at the seal")
    now = {one.key: one for one in again}
    return [
        replace(one, declared=now[one.key].declared, error=now[one.key].error)
        if one.key in now
        else one
        for one in happened
    ]


def _as_data(
    outcomes: Mapping[ObjectKey, Outcome], happened: list[Happened], state: Path
) -> dict[str, object]:
    return {
        "objects": [
            {
                "object": str(one.key),
                "outcome": outcomes.get(one.key, Outcome.UNCHANGED).value,
                "did": list(one.did),
                "problem": workspace.problem_of(one),
            }
            for one in happened
            if one.declared is not None or one.did
        ],
        "bindings": workspace.bindings_of(happened, state),
    }


def _show(outcomes: Mapping[ObjectKey, Outcome], happened: list[Happened], state: Path) -> None:
    for one in happened:
        outcome = outcomes.get(one.key, Outcome.UNCHANGED)
        problem = workspace.problem_of(one)
        if one.declared is None and not one.did:
            continue
        style = {Outcome.CREATED: "green", Outcome.CONFIGURED: "yellow"}.get(outcome, "")
        output.line(f"{one.key} {outcome.value}", style="red" if problem else style)
        for words in one.did:
            output.line(f"    {words}", style="dim")
        if problem:
            output.line(f"    not Ready: {problem}", style="red")
    bindings = workspace.bindings_of(happened, state)
    if bindings:
        output.line()
        output.line("Bindings:")
        workspace.show_bindings(bindings)
    elif not any(one.key.kind is Kind.TENANT for one in happened):
        output.note("No tenant is declared yet: add a MemoryTenant")
