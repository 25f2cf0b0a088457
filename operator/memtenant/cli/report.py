"""``memtenant report``: compliance reports over a state folder, shown, compared and verified."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from memtenant.archive import ArchiveReader
from memtenant.archive.verify import Result
from memtenant.cli import output, workspace
from memtenant.cli.exits import ExitCode
from memtenant.cli.inputs import Given
from memtenant.cli.intents import local_intents
from memtenant.cli.options import Output, State
from memtenant.cli.output import Format
from memtenant.cli.report_output import show_difference, show_report
from memtenant.cli.reportjob import report_in_cluster
from memtenant.cli.sealedlog import (
    Archive,
    PublicKey,
    Trusted,
    moment,
    read_checkpoint,
    read_key,
)
from memtenant.cli.workspace import DEFAULT_STATE
from memtenant.clock import system_clock
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import (
    MemtenantError,
    ResourceNotFound,
    UsageError,
)
from memtenant.reports.artefacts import MANIFEST, PAGE, REPORT, read_report
from memtenant.reports.checks import Status
from memtenant.reports.difference import difference
from memtenant.reports.evidence import Period as Span
from memtenant.reports.folder import FolderSources
from memtenant.reports.making import Made, make_and_keep
from memtenant.reports.proof import prove
from memtenant.reports.report import Report
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import Kind
from memtenant.resources.reportobjects import reports_in_folder
from memtenant.rules.systemusers import SystemRole, SystemSecret

__all__ = ["report"]

report = typer.Typer(
    help="Compliance reports: run, show, compare, verify.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_FILES = (REPORT, PAGE, MANIFEST)

_USAGE = 3
"""Of ``verify`` and ``audit``: the command was not understood."""


class FailOn(StrEnum):
    """From which status on a run ends with 1."""

    NEVER = "never"
    FAIL = "fail"
    ERROR = "error"
    WARN = "warn"


_FAILING = {
    FailOn.NEVER: frozenset[Status](),
    FailOn.FAIL: frozenset({Status.FAIL}),
    FailOn.ERROR: frozenset({Status.FAIL, Status.ERROR}),
    FailOn.WARN: frozenset({Status.FAIL, Status.ERROR, Status.WARN}),
}

_Folder = Annotated[
    Path, typer.Argument(metavar="REPORT", help="A report's folder, or its report.json.")
]


@report.callback()
def _group() -> None:
    """Compliance reports: run, show, compare, verify."""


@report.command()
def run(
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", "-p", metavar="NAME", help="The RetentionPolicy; else the only one."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Events from then on: 2026-11-28T09:30:00Z, 2026-11, or 30d (so long ago).",
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Events up to then.")] = None,
    archive: Archive = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="MEMTENANT_REPORTS",
            help="Where reports are kept, as POLICY/RUN; else reports/ of --state.",
        ),
    ] = None,
    public_key: PublicKey = None,
    decrypt: Annotated[
        bool,
        typer.Option(
            "--decrypt",
            help="Open a sample of records with the keys of --state.",
            show_default=False,
        ),
    ] = False,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            "--fail-on",
            help="End with 1 where a control has this status or worse; never: always with 0.",
        ),
    ] = None,
    state: State = DEFAULT_STATE,
    form: Output = Format.TABLE,
    in_cluster: Annotated[
        bool,
        typer.Option(
            "--in-cluster", help="Be the job of a cluster: see the chart.", show_default=False
        ),
    ] = False,
) -> None:
    """Look at everything under a policy, judge each control, and write a report.

    Reads the stores as the reporter's user and the archive as it is. Writes report.json,
    report.html and manifest.json, and tells the audit log the manifest's hash. Without --since,
    from the report before.

    Examples:

        memtenant report run --policy gdpr

        memtenant report run --decrypt --fail-on error -o json

    Exit code: 1 where --fail-on says so, or nothing could be judged; else 2 where evidence of a
    control is missing.
    """
    if in_cluster:
        if policy is None or archive is None or out is None:
            raise UsageError("--in-cluster needs --policy, --archive and --out")
        report_in_cluster(policy, archive, out)
        return
    if not workspace.is_made(state):
        raise UsageError(f"nothing is declared in {state}: declare something with `apply`")
    now = system_clock.now()
    span = None
    if since is not None or until is not None:
        end = now if until is None else moment("--until", until, now)
        span = Span(moment("--since", "30d" if since is None else since, now), end)
        if span.since >= span.until:
            raise UsageError("--since is not before --until")
    if archive is not None:
        ArchiveReader.named(archive)
    made = asyncio.run(
        _run(
            state,
            policy,
            span,
            archive or state / "archive",
            out or state / "reports",
            public_key,
            decrypt,
        )
    )
    if form in (Format.JSON, Format.YAML):
        output.data(made.report.to_document(), form)
    else:
        show_report(made.report)
        output.line()
        output.line(f"{made.folder / REPORT}")
        if (made.folder / PAGE).exists():
            output.line(f"{made.folder / PAGE}")
    if not made.in_log:
        output.warn("the audit log does not know of this report: no store takes its event")
    raise typer.Exit(_exit_code({one.judgement.status for one in made.report.results()}, fail_on))


def _exit_code(found: set[Status], fail_on: FailOn | None) -> int:
    """A report that lacks evidence is incomplete, as a log is for ``audit verify``; ``never`` is
    for those who look into the report anyway."""
    if fail_on is not None and found & _FAILING[fail_on]:
        return ExitCode.FAILED
    if Status.ERROR in found and fail_on is not FailOn.NEVER:
        return Result.INCOMPLETE
    return ExitCode.DONE


async def _run(
    state: Path,
    policy: str | None,
    span: Span | None,
    archive: Path,
    out: Path,
    public_key: str | None,
    decrypt: bool,
) -> Made:
    with FolderResources.open(state) as resources:
        # Starts the embedded server where it does not run.
        await local_intents(Given(), resources, state, None, create=False)
        sources = FolderSources(
            resources,
            archive=archive,
            signer=state / "audit",
            key=read_key(public_key),
            decrypt=decrypt,
        )
        stored = await resources.get_secret(resources.home, SystemRole.REPORTER.secret_name)
        secret = SystemSecret() if stored is None else SystemSecret.from_data(stored.data)
        home = await resources.get_namespace(resources.home)
        with output.progress("Looking") as told:
            return await make_and_keep(
                sources,
                reports_in_folder(resources),
                policy or await _only_policy(resources),
                out,
                audit_key=SecretKey(secret.audit_key) if secret.audit_key else None,
                period=span,
                installation=home.uid if home else "",
                progress=told,
            )


async def _only_policy(resources: FolderResources) -> str:
    names = sorted(one.key.name for one in await resources.list(Kind.POLICY))
    if len(names) != 1:
        known = ", ".join(names) or "none"
        raise UsageError(f"say which RetentionPolicy by --policy: there is {known}")
    return names[0]


@report.command()
def show(folder: _Folder, form: Output = Format.TABLE) -> None:
    """Show a report that was written, if its files are as the manifest knows them.

    Example: `memtenant report show .memtenant/reports/gdpr/20261128t220000z`
    """
    found = _read(folder)
    if form in (Format.JSON, Format.YAML):
        output.data(found.to_document(), form)
    else:
        show_report(found)


@report.command()
def diff(
    before: _Folder,
    after: Annotated[Path, typer.Argument(metavar="REPORT", help="The later one.")],
    form: Output = Format.TABLE,
) -> None:
    """Show what changed between two reports: which control turned, what came and went.

    Exit code: 2 where a control turned, 0 where none did.
    """
    earlier, later = _read(before), _read(after)
    if earlier.policy != later.policy:
        raise UsageError(
            f"these are reports about the tenants of two policies, {earlier.policy} and "
            f"{later.policy}: name two reports of one"
        )
    row = difference(earlier, later)
    if form in (Format.JSON, Format.YAML):
        output.data(dict(row), form)
    else:
        show_difference(row)
    raise typer.Exit(ExitCode.CHANGES if row["turned"] else ExitCode.DONE)


@report.command()
def verify(
    folder: _Folder,
    archive: Archive = None,
    public_key: PublicKey = None,
    trusted_checkpoint: Trusted = None,
    state: State = DEFAULT_STATE,
    form: Output = Format.TABLE,
) -> None:
    """Verify a report: its files by the manifest, the manifest by its leaf in the sealed log, the
    log by its checkpoint. Needs no server and no secret.

    Example: `memtenant report verify .memtenant/reports/gdpr/20261128t220000z`

    Exit code: 0 good, 1 changed, 2 incomplete (not sealed yet) or not anchored (no
    --trusted-checkpoint), 3 wrong usage.
    """
    try:
        found = _folder_of(folder)
        key = read_key(public_key)
        trusted = None if trusted_checkpoint is None else read_checkpoint(trusted_checkpoint)
        log = archive or state / "archive"
        if archive is not None:
            ArchiveReader.named(archive)
        proof = prove(found, log, public_key=key, trusted=trusted)
    except MemtenantError as error:
        output.fail(str(error))
        raise typer.Exit(_USAGE) from None
    if form in (Format.JSON, Format.YAML):
        output.data(
            {"result": proof.result.name, "leaf": proof.leaf, "said": list(proof.said)}, form
        )
    else:
        words = {Result.GOOD: "good", Result.TAMPERED: "changed", Result.INCOMPLETE: "incomplete"}
        style = {Result.GOOD: "green", Result.TAMPERED: "red"}.get(proof.result, "yellow")
        output.line(words[proof.result], style=style)
        if proof.leaf:
            output.line(f"    in the log: {proof.leaf}")
        for said in proof.said:
            output.line(f"    {said}")
    raise typer.Exit(int(proof.result))


def _read(folder: Path) -> Report:
    return read_report(_folder_of(folder))[0]


def _folder_of(named: Path) -> Path:
    """The folder of a report that is named by itself, or by one of its files."""
    found = named.parent if named.name in _FILES else named
    if not found.is_dir():
        what = "is a file" if found.exists() else "does not exist"
        raise ResourceNotFound(
            f"{found} is no folder of a report: it {what}. Name the folder that `memtenant report "
            "run` wrote, or a file in it"
        )
    if not any((found / name).exists() for name in _FILES):
        raise ResourceNotFound(
            f"{found} is no folder of a report: it has no {', no '.join(_FILES)}"
        )
    return found
