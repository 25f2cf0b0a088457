"""``memtenant rotate``: new credentials for a tenant's agents, or a new key."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from memtenant.cli import output, workspace
from memtenant.cli.exits import ExitCode
from memtenant.cli.inputs import Given
from memtenant.cli.intents import local_intents
from memtenant.cli.options import Namespace, Output, State
from memtenant.cli.output import Format
from memtenant.cli.workspace import DEFAULT_STATE
from memtenant.clock import rfc3339, system_clock
from memtenant.errors import ResourceNotFound
from memtenant.reconcile.once import Happened
from memtenant.reconcile.prepare import ROTATE_ANNOTATION, ROTATE_KEYS_ANNOTATION
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import Declared, ObjectKey

__all__ = ["rotate"]


def rotate(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="NAME or NAMESPACE/NAME.")],
    namespace: Namespace = "default",
    keys: Annotated[
        bool, typer.Option("--keys", help="A new version of the tenant's key, not credentials.")
    ] = False,
    state: State = DEFAULT_STATE,
    form: Output = Format.TABLE,
) -> None:
    """Give all agents of a tenant new credentials, or the tenant a new key; agents go on.

    Bindings show the new username at once. The earlier one works for at least
    spec.credentials.minOverlap and while it is connected, at most a day; the `memtenant apply`
    after that revokes it.

    With --keys all data keys are wrapped under a new version of the tenant's key. The earlier
    version is kept for five minutes after nothing is left under it; the `memtenant apply` after
    that destroys it.

    In a cluster: `kubectl annotate mtenant NAME memtenant.dev/rotate=$(date -Is) --overwrite`, or
    `memtenant.dev/rotate-keys`

    Example: `memtenant rotate support/acme`
    """
    key = workspace.tenant_key(tenant, namespace)
    annotation = ROTATE_KEYS_ANNOTATION if keys else ROTATE_ANNOTATION
    raise typer.Exit(asyncio.run(_rotate(key, annotation, state, form)))


async def _rotate(key: ObjectKey, annotation: str, state: Path, form: Format) -> ExitCode:
    if not workspace.is_made(state):
        raise ResourceNotFound(f"there is no {key} in {state}")
    with FolderResources.open(state) as resources:
        before = await resources.get(key)
        if before is None:
            raise ResourceNotFound(f"there is no {key} in {state}")
        workspace.declare(
            resources, await local_intents(Given(), resources, state, None, create=False)
        )
        token = f"{rfc3339(system_clock.now())}-{secrets.token_hex(3)}"
        annotations = {**before.annotations, annotation: token}
        resources.declare(key, before.spec, labels=before.labels, annotations=annotations)
        happened = {one.key: one for one in await workspace.run(resources, "Rotating")}
    found = happened.get(key, Happened(key))
    if annotation == ROTATE_KEYS_ANNOTATION:
        _show_keys(found, form)
        return workspace.exit_code([found])
    _show(found, _versions(before), state, form)
    return workspace.exit_code([found])


def _versions(declared: Declared | None) -> Mapping[str, object]:
    bindings = declared.status.get("bindings", ()) if declared else ()
    return {one["agent"]: one.get("version") for one in bindings}


def _show(found: Happened, before: Mapping[str, object], state: Path, form: Format) -> None:
    after = _versions(found.declared)
    rotated = sorted(agent for agent in after if before.get(agent) != after[agent])
    problem = workspace.problem_of(found)
    if form in (Format.JSON, Format.YAML):
        bindings = workspace.bindings_of([found], state)
        shown = {"object": str(found.key), "rotated": rotated, "problem": problem}
        output.data(shown | {"bindings": bindings}, form)
        return
    for words in found.did:
        output.line(f"    {words}", style="dim")
    if problem:
        output.line(f"{found.key} is not Ready: {problem}", style="red")
    elif rotated:
        output.line(f"{found.key} rotated: {', '.join(rotated)}", style="green")
        workspace.show_bindings(workspace.bindings_of([found], state))
    else:
        output.line(
            f"{found.key}: an earlier rotation is not over yet. This one is noted and begins with "
            "the `memtenant apply` after it",
            style="yellow",
        )


def _show_keys(found: Happened, form: Format) -> None:
    status = found.declared.status if found.declared else {}
    problem = workspace.problem_of(found)
    version, turning = status.get("keyVersion"), status.get("keys")
    if form in (Format.JSON, Format.YAML):
        shown = {"object": str(found.key), "keyVersion": version, "problem": problem}
        output.data(shown | ({"keys": turning} if turning else {}), form)
        return
    for words in found.did:
        output.line(f"    {words}", style="dim")
    if problem:
        output.line(f"{found.key} is not Ready: {problem}", style="red")
        return
    output.line(f"{found.key}: key version {version} is active", style="green")
    if turning:
        retiring = ", ".join(str(number) for number in turning.get("retiring", ()))
        left = turning.get("remaining", 0)
        output.line(f"version {retiring} retires: {left} data keys under it")
