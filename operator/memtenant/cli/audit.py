"""``memtenant audit``: read, verify and prove the sealed log. No server is asked, no key needed but
the public one.

Exit codes are their own (`AuditCode`): scripts tell a log that was tampered with from a command
that was mistyped.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from memtenant.archive import (
    ArchiveReader,
    ConsistencyProof,
    InclusionProof,
    SealedEntry,
    SealedGap,
    is_sealed_now,
    note_read,
    prove,
    prove_consistency,
)
from memtenant.archive import verify as verify_archive
from memtenant.archive.export import as_data, as_ocsf
from memtenant.audit.leaf import is_log_id
from memtenant.cli import audit_output, output
from memtenant.cli.exits import AuditCode
from memtenant.cli.options import State
from memtenant.cli.sealedlog import (
    Archive,
    PublicKey,
    Trusted,
    moment,
    open_archive,
    read_checkpoint,
    read_key,
    read_proof,
    write,
    writing,
)
from memtenant.cli.workspace import DEFAULT_STATE
from memtenant.errors import (
    ArchiveUnavailable,
    KeyInvalid,
    MemtenantError,
    UsageError,
)

__all__ = ["audit"]

audit = typer.Typer(
    help="Read, verify and prove the sealed audit log. Needs no server.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class _Form(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"


_Output = Annotated[_Form, typer.Option("--output", "-o", help="table for people, or json.")]
_Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Sealed from then on: 2026-11-28T09:30:00Z, 2026-11, or 30d (so long ago).",
        show_default=False,
    ),
]
_Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Sealed before then.", show_default=False)
]
_LogId = Annotated[
    str, typer.Argument(metavar="LOG", help="A tenant's id (support.acme), or installation.")
]
_Logs = Annotated[
    list[str] | None, typer.Argument(metavar="LOG…", help="Tenants' ids; all logs if left out.")
]
_Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write it there, not to stdout.", show_default=False),
]

P = ParamSpec("P")


@audit.callback()
def _group() -> None:
    """Read, verify and prove the sealed audit log. Needs no server."""


def _judged(command: Callable[P, AuditCode]) -> Callable[P, None]:
    """A command whose failures are told by the codes of this group."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except (UsageError, KeyInvalid) as error:
            output.fail(str(error))
            code = AuditCode.USAGE
        except ArchiveUnavailable as error:
            output.fail(str(error))
            code = AuditCode.INCOMPLETE
        except MemtenantError as error:
            output.fail(str(error))
            code = AuditCode.TAMPERED
        raise typer.Exit(code)

    return run


@audit.command()
@_judged
def verify(
    log: Annotated[
        list[str] | None,
        typer.Option(metavar="LOG", help="Only these logs; may be repeated.", show_default=False),
    ] = None,
    trusted_checkpoint: Trusted = None,
    public_key: PublicKey = None,
    archive: Archive = None,
    state: State = DEFAULT_STATE,
    form: _Output = _Form.TABLE,
) -> AuditCode:
    """Say whether the log is what was signed, and if not, where it was changed.

    Example: `memtenant audit verify --trusted-checkpoint kept.checkpoint`

    Exit code: 0 good, 1 tampered, 2 incomplete or not anchored by --trusted-checkpoint, 3 wrong
    usage.
    """
    reader = open_archive(archive, state)
    _note(reader, archive, "verify", logs=log)
    trusted = None if trusted_checkpoint is None else read_checkpoint(trusted_checkpoint)
    with output.progress("verifying") as told:
        found = verify_archive(
            reader,
            public_key=read_key(public_key),
            trusted=trusted,
            log_ids=None if log is None else [_known(reader, one) for one in log],
            progress=told,
        )
    if form is _Form.JSON:
        output.raw(json.dumps(audit_output.verification_as_data(found), indent=2))
    else:
        audit_output.show_verification(found, is_anchored=trusted is not None)
    return AuditCode(found.result)


@audit.command()
@_judged
def events(
    log: _Logs = None,
    since: _Since = None,
    until: _Until = None,
    archive: Archive = None,
    state: State = DEFAULT_STATE,
    form: _Output = _Form.TABLE,
) -> AuditCode:
    """Show what was sealed in a period: events, what is no event, gaps. Nothing is verified.

    JSON is one object a line.

    Example: `memtenant audit events support.acme --since 2026-11`
    """
    reader = open_archive(archive, state)
    found = _sealed(reader, log, since, until)
    _note(reader, archive, "events", logs=log, since=since, until=until)
    if form is _Form.JSON:
        for one in found:
            output.raw(json.dumps(as_data(one)))
    else:
        audit_output.show_events(found)
    return AuditCode.GOOD


@audit.command()
@_judged
def export(
    log: _Logs = None,
    since: _Since = None,
    until: _Until = None,
    out: _Out = None,
    archive: Archive = None,
    state: State = DEFAULT_STATE,
) -> AuditCode:
    """Write what was sealed in a period for a collector of security events: OCSF 6005 (Datastore
    Activity), one JSON object a line. Nothing is verified.

    Example: `memtenant audit export --since 2026-11 --until 2026-12 --out november.jsonl`
    """
    reader = open_archive(archive, state)
    found = _sealed(reader, log, since, until)
    _note(reader, archive, "export", logs=log, since=since, until=until)
    lines = (json.dumps(as_ocsf(one), separators=(",", ":")) for one in found)
    if out is None:
        for line in lines:
            output.raw(line)
        return AuditCode.GOOD
    with writing(out) as file, output.progress("exporting"):
        file.writelines(f"{line}\n".encode() for line in lines)
    return AuditCode.GOOD


@audit.command(name="prove")
@_judged
def prove_leaf(
    log: _LogId,
    leaf: Annotated[int, typer.Argument(min=0, help="Its number, as `events` shows it.")],
    out: _Out = None,
    archive: Archive = None,
    state: State = DEFAULT_STATE,
) -> AuditCode:
    """Make a proof that an event is in the log: it is checked without the archive.

    Example: `memtenant audit prove support.acme 41 --out event.proof`
    """
    reader = open_archive(archive, state)
    _note(reader, archive, "prove", logs=[log])
    proof = prove(reader, _known(reader, log), leaf)
    _give(proof.to_json(), out)
    return AuditCode.GOOD


@audit.command()
@_judged
def verify_proof(
    file: Annotated[Path, typer.Argument(help="What `prove` or `consistency` wrote.")],
    public_key: PublicKey = None,
    trusted_checkpoint: Trusted = None,
    form: _Output = _Form.TABLE,
) -> AuditCode:
    """Check a proof. Needs nothing but the log's public key, or a checkpoint that you kept.

    With --trusted-checkpoint, the proof must be under that very checkpoint.

    Example: `memtenant audit verify-proof event.proof --public-key log.key`
    """
    key = read_key(public_key)
    if key is None:
        raise UsageError("--public-key: whose signature is good? Give the log's public key")
    trusted = None if trusted_checkpoint is None else read_checkpoint(trusted_checkpoint)
    proof = read_proof(file)
    problem = proof.problem(key)
    anchored = trusted is None or trusted.checkpoint in _checkpoints_of(proof)
    if trusted is not None and not trusted.is_signed_by(key):
        problem = f"the trusted checkpoint is not signed by the key {key.name}"
    if form is _Form.JSON:
        output.raw(json.dumps(audit_output.proof_as_data(proof, problem, anchored), indent=2))
    else:
        audit_output.show_proof(proof, problem, anchored)
    if problem:
        return AuditCode.TAMPERED
    return AuditCode.GOOD if anchored else AuditCode.INCOMPLETE


@audit.command()
@_judged
def consistency(
    old: Annotated[Path, typer.Argument(help="An earlier checkpoint.")],
    new: Annotated[
        Path | None, typer.Argument(help="A later one; the last, if left out.", show_default=False)
    ] = None,
    out: _Out = None,
    public_key: PublicKey = None,
    archive: Archive = None,
    state: State = DEFAULT_STATE,
) -> AuditCode:
    """Say whether the log of one checkpoint went on as that of another, and make the proof.

    Example: `memtenant audit consistency kept.checkpoint --out consistency.proof`
    """
    reader = open_archive(archive, state)
    _note(reader, archive, "consistency")
    key = read_key(public_key) or reader.key()
    if key is None:
        raise UsageError("--public-key: the archive has none: give the log's public key")
    later = None if new is None else read_checkpoint(new)
    proof = prove_consistency(reader, read_checkpoint(old), later)
    problem = proof.problem(key)
    audit_output.show_proof(proof, problem, is_anchored=True)
    if problem:
        return AuditCode.TAMPERED
    if out is not None:
        _give(proof.to_json(), out)
    return AuditCode.GOOD


@audit.command()
@_judged
def checkpoint(
    key: Annotated[bool, typer.Option("--key", help="Print the log's public key instead.")] = False,
    out: _Out = None,
    archive: Archive = None,
    state: State = DEFAULT_STATE,
    form: _Output = _Form.TABLE,
) -> AuditCode:
    """Print the last checkpoint. Keep it where nobody who can change the archive can change it:
    later it is the --trusted-checkpoint of `verify`.

    Example: `memtenant audit checkpoint --out kept.checkpoint`
    """
    reader = open_archive(archive, state)
    if key:
        public = reader.key()
        if public is None:
            raise UsageError("The archive has no public key yet: nothing was sealed")
        _give(f"{public}\n".encode(), out)
        return AuditCode.GOOD
    latest = reader.latest()
    if latest is None:
        output.fail("Nothing was sealed yet: there is no checkpoint")
        return AuditCode.INCOMPLETE
    if form is _Form.JSON:
        output.raw(json.dumps(audit_output.checkpoint_as_data(latest), indent=2))
    else:
        _give(latest.note, out)
    return AuditCode.GOOD


def _note(
    reader: ArchiveReader,
    given: Path | None,
    command: str,
    *,
    logs: list[str] | None = None,
    since: str | None = None,
    until: str | None = None,
) -> None:
    """That the log was read stands in the log, where somebody seals it. Of a copy it cannot."""
    now = datetime.now(UTC)
    said = {"command": command, "since": since, "until": until}
    what: dict[str, object] = {name: text for name, text in said.items() if text}
    is_the_log = given is None or is_sealed_now(reader.archive, now)
    if not is_the_log or not note_read(reader.archive, what, sorted(logs or ()), now):
        output.note("That this was read is told nowhere: it is a copy, or is not to be written to")


def _sealed(
    reader: ArchiveReader, logs: list[str] | None, since: str | None, until: str | None
) -> Iterator[SealedEntry | SealedGap]:
    now = datetime.now(UTC)
    begin = None if since is None else moment("--since", since, now)
    end = None if until is None else moment("--until", until, now)
    if begin is not None and end is not None and begin >= end:
        raise UsageError("--since is not before --until")
    chosen = [_known(reader, one) for one in logs] if logs else reader.logs()
    return (one for log_id in chosen for one in reader.leaves(log_id, begin, end))


def _known(reader: ArchiveReader, log_id: str) -> str:
    name = log_id.replace("/", ".")
    if not is_log_id(name):
        raise UsageError(f"{log_id!r} names no log: write a tenant's id as support.acme")
    if name not in reader.logs():
        raise UsageError(f"There is no log {name} in the archive")
    return name


def _checkpoints_of(proof: InclusionProof | ConsistencyProof) -> list[object]:
    if isinstance(proof, InclusionProof):
        return [proof.checkpoint.checkpoint]
    return [proof.old.checkpoint, proof.new.checkpoint]


def _give(data: bytes, out: Path | None) -> None:
    if out is None:
        output.raw(data.decode())
    else:
        write(data, out)
