"""How ``memtenant audit`` shows what it found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from memtenant.archive import (
    ConsistencyProof,
    InclusionProof,
    Result,
    SealedEntry,
    SealedGap,
    Verification,
    VerifiedLog,
)
from memtenant.archive.cursor import described
from memtenant.archive.export import as_data
from memtenant.audit.checkpoint import SignedCheckpoint
from memtenant.cli import output

__all__ = [
    "checkpoint_as_data",
    "proof_as_data",
    "show_events",
    "show_proof",
    "show_verification",
    "verification_as_data",
]

_COLUMNS: Final = (
    *("log", "leaf", "sealed", "verdict", "what"),
    *("outcome", "agent", "writer", "counter", "told"),
)
_PAGE: Final = 1000
_STYLES: Final = {Result.GOOD: "green", Result.TAMPERED: "bold red", Result.INCOMPLETE: "yellow"}


def checkpoint_as_data(signed: SignedCheckpoint) -> dict[str, object]:
    """A checkpoint, for JSON."""
    found = signed.checkpoint
    return {
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "note": signed.note.decode(),
    }


def verification_as_data(found: Verification) -> dict[str, object]:
    """A verification, for JSON."""
    return {
        "result": found.result.name.title(),
        "anchored": found.anchored,
        "checkpoint": None if found.checkpoint is None else checkpoint_as_data(found.checkpoint),
        "windows": found.windows,
        "logs": [
            {
                "log": one.log_id,
                "first": one.first,
                "sealed": one.sealed,
                "size": one.size,
                "letGoInWindow": one.let_go,
                "keptMonths": one.kept,
            }
            for one in found.logs
        ],
        "findings": [
            {
                "file": one.file,
                "offset": one.offset,
                "leaf": one.leaf,
                "what": one.what,
                "event": one.event,
                "tampered": one.tampered,
            }
            for one in found.findings
        ],
    }


def show_verification(found: Verification, *, is_anchored: bool) -> None:
    """What was looked at, what is wrong and where, and the verdict."""
    rows = [
        (
            one.log_id,
            str(one.sealed - one.first if one.sealed else 0),
            _let_go(one),
            str(one.size - one.sealed) if one.size > one.sealed else "",
        )
        for one in found.logs
    ]
    if rows:
        output.table(("log", "verified", "let go", "not sealed yet"), rows)
    for finding in found.findings:
        output.line(str(finding), style="red" if finding.tampered else "yellow")
    output.line(_verdict(found, is_anchored=is_anchored), style=_STYLES[found.result])


def _let_go(one: VerifiedLog) -> str:
    if not one.first:
        return ""
    kept = f", kept for {one.kept} months" if one.kept else ""
    return f"before leaf {one.first}, in window {one.let_go}{kept}"


def _verdict(found: Verification, *, is_anchored: bool) -> str:
    if found.result is Result.TAMPERED:
        return "tampered: the log is not what was signed"
    if found.checkpoint is None:
        return "incomplete: nothing was sealed yet"
    checkpoint = found.checkpoint.checkpoint
    what = f"{found.windows} windows up to the checkpoint of {checkpoint.size} leaves"
    if found.result is Result.GOOD:
        return f"good: {what} are what was signed, and go on from the trusted checkpoint"
    if not is_anchored and not found.findings:
        return (
            f"not anchored: {what} fit together. Whoever has the log's key could have written all "
            "of it anew: give a checkpoint that you kept by --trusted-checkpoint"
        )
    return f"incomplete: {what} fit together, as far as they are there"


def show_events(found: Iterable[SealedEntry | SealedGap]) -> None:
    """A table, some lines at a time: memory does not grow with the period."""
    page: list[Sequence[str]] = []
    is_empty = True
    try:
        for row in map(_row, found):
            page.append(row)
            is_empty = False
            if len(page) == _PAGE:
                output.table(_COLUMNS, page)
                page = []
    finally:  # also where a leaf is damaged: those before it are shown
        if page:
            output.table(_COLUMNS, page)
    if is_empty:
        output.note("Nothing was sealed in this period")


def _row(one: SealedEntry | SealedGap) -> Sequence[str]:
    return tuple(_cells(as_data(one)))


def _cells(data: dict[str, object]) -> Iterator[str]:
    yield from (str(data["log"]), str(data["leaf"]), str(data["sealedAt"]))
    gap = data.get("gap")
    if isinstance(gap, dict):
        counters = f"{gap['first']} to {gap['last']}"
        yield from ("", "Gap", "", str(gap["agent"]), str(gap["writer"]), counters, "")
        return
    names = ("verdict", "operation", "outcome", "agent", "writer", "counter")
    yield from (str(data.get(name, "")) for name in names)
    yield json.dumps(data["told"]) if "told" in data else ""


def proof_as_data(
    proof: InclusionProof | ConsistencyProof, problem: str, is_anchored: bool
) -> dict[str, object]:
    """What a proof says, for JSON."""
    shown: dict[str, object] = {"good": not problem, "problem": problem, "anchored": is_anchored}
    if isinstance(proof, InclusionProof):
        return shown | {
            "log": proof.root.log_id,
            "leaf": proof.index,
            "what": described(proof.leaf),
            "checkpoint": checkpoint_as_data(proof.checkpoint),
        }
    return shown | {"old": checkpoint_as_data(proof.old), "new": checkpoint_as_data(proof.new)}


def show_proof(proof: InclusionProof | ConsistencyProof, problem: str, is_anchored: bool) -> None:
    """What a proof says, and whether it does."""
    if problem:
        output.line(f"The proof does not hold: {problem}", style="bold red")
        return
    if isinstance(proof, InclusionProof):
        size = proof.checkpoint.checkpoint.size
        output.line(f"Leaf {proof.index} of log {proof.root.log_id}: {described(proof.leaf)}")
        words = f"good: it is under the checkpoint of {size} leaves"
    else:
        old, new = proof.old.checkpoint.size, proof.new.checkpoint.size
        words = f"good: the log of {new} leaves goes on from that of {old}"
    output.line(words, style="green")
    if not is_anchored:
        output.line(
            "not anchored: the proof is under another checkpoint than the trusted one. "
            "`memtenant audit consistency` proves that one goes on from the other",
            style="yellow",
        )
