"""What commands about the sealed log are given: archive, key, checkpoint, proof, time."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from memtenant.archive import ArchiveReader, ConsistencyProof, InclusionProof, parse_proof
from memtenant.audit.checkpoint import MAX_NOTE_BYTES, SignedCheckpoint
from memtenant.crypto.signing import VerifyingKey
from memtenant.errors import (
    CheckpointInvalid,
    InvalidResource,
    KeyInvalid,
    ProofInvalid,
    UsageError,
)
from memtenant.tenancy.period import Period

__all__ = [
    "Archive",
    "PublicKey",
    "Trusted",
    "moment",
    "open_archive",
    "read_checkpoint",
    "read_key",
    "read_proof",
    "write",
    "writing",
]

_LARGEST_KEY = 4096
_LARGEST_PROOF = 1024 * 1024
_NAMED = 200

Archive = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        envvar="MEMTENANT_ARCHIVE",
        help="The archive; else that of --state.",
        show_default=False,
    ),
]
PublicKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="The log's public key, or a file that has it; else the one beside the log.",
        show_default=False,
    ),
]
Trusted = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A checkpoint that you kept elsewhere: the log must go on from it.",
        show_default=False,
    ),
]


def open_archive(given: Path | None, state: Path) -> ArchiveReader:
    """The one that is given, or that of the state folder."""
    if given is not None:
        return ArchiveReader.named(given)
    return ArchiveReader.open(state / "archive")


def read_key(given: str | None) -> VerifyingKey | None:
    """The public key that is given by itself or as a file's name."""
    if given is None:
        return None
    if given.count("+") >= 2:
        return VerifyingKey.parse(given)
    try:
        return VerifyingKey.parse(_read(Path(given), _LARGEST_KEY).decode("ascii", "replace"))
    except KeyInvalid as error:
        raise UsageError(f"{given} holds no public key of a log: {error}") from None


def read_checkpoint(file: Path) -> SignedCheckpoint:
    """The checkpoint in a file."""
    try:
        return SignedCheckpoint.parse(_read(file, MAX_NOTE_BYTES))
    except CheckpointInvalid as error:
        raise UsageError(f"{file} holds no checkpoint: {error}") from None


def read_proof(file: Path) -> InclusionProof | ConsistencyProof:
    """The proof in a file; `ProofInvalid` names it."""
    try:
        return parse_proof(_read(file, _LARGEST_PROOF))
    except ProofInvalid as error:
        raise ProofInvalid(f"{file}: {error}") from None


def moment(option: str, text: str, now: datetime) -> datetime:
    """A time, or how long ago."""
    try:
        return Period.parse(text).before(now)
    except InvalidResource:
        pass
    try:
        found = datetime.fromisoformat(f"{text}-01" if len(text) == len("2026-11") else text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option}: {text!r} is no time: write how long ago, as 30d, or 2026-11, 2026-11-28 or "
            "2026-11-28T09:30:00Z"
        ) from None


def write(data: bytes, out: Path) -> None:
    """A file that ends with a newline."""
    with writing(out) as file:
        file.write(data if data.endswith(b"\n") else data + b"\n")


@contextmanager
def writing(out: Path) -> Iterator[BinaryIO]:
    """A file that is there when all of it is; until then, what was there before. A pipe or a device
    is written to as it is. What cannot be written is the fault of whoever named the file.
    """
    try:
        if out.exists() and not out.is_file():
            with out.open("wb") as opened:
                yield opened
            return
        target = out.resolve()
        beside = target.with_name(f".{target.name[:_NAMED]}.{secrets.token_hex(4)}.new")
        try:
            with beside.open("wb") as opened:
                yield opened
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}") from None


def _read(file: Path, most: int) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(most + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from None
