"""The test vectors of docs/audit-format.md: ``python -m tests.audit.vectors`` writes them there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from memtenant.archive import (
    ArchiveFolder,
    ArchiveReader,
    FolderSigner,
    LogWriter,
    prove,
    prove_consistency,
)
from memtenant.archive.reads import SEALER
from memtenant.audit import (
    OPERATOR,
    Deed,
    Entry,
    Event,
    Failure,
    Operation,
    Outcome,
    Reference,
    Voice,
    sequences_to_bytes,
)
from memtenant.audit.deed import Turn
from memtenant.crypto.audit_keys import INSTALLATION_LOG, audit_mac_key
from memtenant.crypto.primitives import SecretKey
from memtenant.crypto.record import Place
from memtenant.crypto.signing import SigningKey
from memtenant.tenancy.document import from_base64
from memtenant.tenancy.identity import TenantId
from tests.crypto import vectors as records

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit-format.md"
_BEGIN = "<!-- vectors: written by python -m tests.audit.vectors -->\n```json\n"
_END = "\n```\n"

ORIGIN = "memtenant.dev/0d9a4a3c-6f0e-4c1c-8a55-5d7e7b1e0c11"
SPEC_SEEN = {"kind": "RetentionPolicy", "name": "gdpr", "generation": 4, "uid": "7c9e", "by": "ada"}

LOSSES_SEEN = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
LOSSES = (
    Deed(Operation.NOT_DRAINED, {"since": 1769900000000, "until": 1769900300000}),
    Deed(Operation.EVENTS_DROPPED, {"counted": 7, "was": 0}),
)

OPERATIONS = {
    "APPEND": 0x01,
    "UPDATE": 0x02,
    "POP": 0x03,
    "REMOVE": 0x04,
    "CLEAR": 0x05,
    "DELETE": 0x06,
    "READ": 0x07,
    "SUMMARISE": 0x08,
    "READ_SUMMARIES": 0x09,
    "LIST": 0x0A,
    "CONTEXT_CREATE": 0x11,
    "CONTEXT_UPDATE": 0x12,
    "CONTEXT_DELETE": 0x13,
    "CONTEXT_READ": 0x14,
    "CONTEXT_CHANGES": 0x15,
    "CHECKPOINT_WRITE": 0x21,
    "CHECKPOINT_READ": 0x22,
    "CHECKPOINT_DELETE": 0x23,
    "EXPORT": 0x31,
    "FORGET": 0x32,
    "DECRYPTION_FAILED": 0x41,
    "PROVISIONED": 0x51,
    "DEPROVISIONED": 0x52,
    "CREDENTIALS_ROTATED": 0x53,
    "KEY_MADE": 0x54,
    "KEY_DESTROYED": 0x55,
    "ACCESS_CHANGED": 0x56,
    "HOLD_SET": 0x57,
    "HOLD_RELEASED": 0x58,
    "OVERRIDE": 0x59,
    "EXPIRED": 0x5A,
    "PURGED": 0x5B,
    "SPEC_SEEN": 0x5C,
    "AUDIT_STARTED": 0x5E,
    "AUDIT_STOPPED": 0x5F,
    "REPORT": 0x5D,
    "LOG_READ": 0x61,
    "NOT_DRAINED": 0x62,
    "EVENTS_DROPPED": 0x63,
    "MALFORMED": 1,
    "PLAINTEXT": 2,
    "OTHER_KEY": 3,
    "TAMPERED": 4,
    "REPLAYED": 5,
    "REORDERED": 6,
    "MISSING": 7,
    "KEY_UNAVAILABLE": 8,
}
"""As the document has them."""


def build() -> dict[str, str]:
    given = records.build()
    keyring = json.loads(str(given["keyring.json of the binding"]))
    audit_key = SecretKey(from_base64(keyring["auditKey"]))
    root = SecretKey(bytes.fromhex(str(given["auditRoot"])))
    data_key = SecretKey(bytes.fromhex(str(given["dataKey"])))
    operator_key = audit_mac_key(root, INSTALLATION_LOG, OPERATOR, 0)
    place = Place(TenantId("support", "acme"), str(given["scope"]), str(given["sessionAlias"]))
    tag = bytes.fromhex(str(given["subjectTag"]))
    writer = bytes.fromhex(str(given["writer"]))
    stored = [bytes.fromhex(str(given[name])) for name in ("record", "recordSuite0")]
    here = Reference.of(data_key, place)
    minimal = Reference.of(data_key, place, tag)

    def event(
        operation: Operation,
        reference: Reference,
        count: int = 1,
        detail: bytes = b"",
        counter: int = 7,
    ) -> str:
        commitment = reference.commit(stored if operation is Operation.APPEND else ())
        made = Event(
            operation=operation,
            agent="triage",
            binding_version=1,
            writer=writer,
            counter=counter,
            count=count,
            subject=reference.subject,
            place=reference.place,
            commitment=commitment,
            detail=detail,
        )
        return made.to_bytes(audit_key).hex()

    sealer_key = audit_mac_key(root, "support.acme", SEALER, 0)
    seconds = int(LOSSES_SEEN.timestamp())
    losses = [
        Entry(
            deed.event(Turn(seconds.to_bytes(4, "big") + bytes(4), counter), sealer_key, SEALER),
            Outcome.DONE,
            seconds * 1000,
            0,
        ).to_bytes()
        for counter, deed in enumerate(LOSSES, start=1)
    ]
    append = event(Operation.APPEND, here, count=2)
    entry = append + "4f" + "019c136349c0" + "0000000002"
    later = event(Operation.POP, here, counter=12) + "4f" + "019c136349d0" + "0000000003"
    return {
        "auditKey": audit_key.secret.hex(),
        "auditKey of the operator, installation": operator_key.secret.hex(),
        "auditAlias": here.subject.hex(),
        "auditAliasWithTag": minimal.subject.hex(),
        "place": here.place.hex(),
        "commitment to record and recordSuite0": here.commit(stored).hex(),
        "append of both": append,
        "entry of that append": entry,
        "remove of 2, 3 and 300": event(
            Operation.REMOVE, here, count=3, detail=sequences_to_bytes((300, 2, 3))
        ),
        "decryption failed: tampered": event(
            Operation.DECRYPTION_FAILED, minimal, detail=bytes((Failure.TAMPERED,))
        ),
        "entry of the operator: generation 4 of a policy was seen": Voice(
            operator_key, lambda length: bytes(length)
        )
        .tell([Deed(Operation.SPEC_SEEN, SPEC_SEEN)], records.NOW)
        .entries[0]
        .hex(),
        "list, of a user": event(Operation.LIST, Reference.of(data_key, None)),
        "auditKey of the sealer": sealer_key.secret.hex(),
        "entry of the sealer: nobody drained the queue": losses[0].hex(),
        "entry of the sealer: events were dropped": losses[1].hex(),
        **_sealed(bytes.fromhex(entry), bytes.fromhex(later), audit_key, losses, sealer_key),
    }


def _sealed(
    entry: bytes,
    later: bytes,
    audit_key: SecretKey,
    losses: Sequence[bytes],
    sealer_key: SecretKey,
) -> dict[str, str]:
    """An archive of three windows: the entry; a later one after a gap, and what is no event; in the
    next month what the sealer tells."""
    key = SigningKey(ORIGIN, bytes(range(32)))
    with TemporaryDirectory() as folder:
        root = Path(folder)
        with ArchiveFolder.open(root / "archive", writable=True) as archive:
            writer = LogWriter.open(archive, key, FolderSigner(root))
            for number, entries in enumerate(([entry], [later, b"nonsense"])):
                moment = datetime(2026, 1, 31, 9, 30, number, tzinfo=UTC)
                writer.take("support.acme", entries, lambda _agent, _version: audit_key, moment)
                writer.seal(moment)
            moment = datetime(2026, 2, 1, tzinfo=UTC)
            writer.take("support.acme", losses, lambda _agent, _version: sealer_key, moment)
            writer.seal(moment)
        reader = ArchiveReader.open(root / "archive")
        first = next(iter(reader.checkpoints()))
        files = [one for one in sorted((root / "archive").rglob("*")) if one.is_file()]
        return {
            "private key of the log": key.secret.hex(),
            "inclusion of leaf 3": prove(reader, "support.acme", 3).to_json().decode(),
            "consistency": prove_consistency(reader, first).to_json().decode(),
            **{
                f"archive {name}": one.read_bytes().hex()
                for one in files
                if not (name := str(one.relative_to(root / "archive"))).startswith("state")
                and name != "lock"
            },
        }


def documented() -> dict[str, str]:
    """The vectors as the document has them."""
    text = DOCUMENT.read_text()
    start = text.index(_BEGIN) + len(_BEGIN)
    found: dict[str, str] = json.loads(text[start : text.index(_END, start)])
    return found


def main() -> None:
    text = DOCUMENT.read_text()
    start = text.index(_BEGIN) + len(_BEGIN)
    vectors = json.dumps(build(), indent=2)
    DOCUMENT.write_text(text[:start] + vectors + text[text.index(_END, start) :])


if __name__ == "__main__":
    main()
