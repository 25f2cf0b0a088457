"""The test vectors of docs/audit-format.md: ``python -m tests.audit.vectors`` writes them there."""

from __future__ import annotations

import json
from pathlib import Path

from memtenant.audit import Event, Failure, Operation, Reference, sequences_to_bytes
from memtenant.crypto.audit_keys import INSTALLATION_LOG, audit_mac_key
from memtenant.crypto.primitives import SecretKey
from memtenant.crypto.record import Place
from memtenant.tenancy.document import from_base64
from memtenant.tenancy.identity import TenantId
from tests.crypto import vectors as records

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit-format.md"
_BEGIN = "<!-- vectors: written by python -m tests.audit.vectors -->\n```json\n"
_END = "\n```\n"

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
    place = Place(TenantId("support", "acme"), str(given["scope"]), str(given["sessionAlias"]))
    tag = bytes.fromhex(str(given["subjectTag"]))
    writer = bytes.fromhex(str(given["writer"]))
    stored = [bytes.fromhex(str(given[name])) for name in ("record", "recordSuite0")]
    here = Reference.of(data_key, place)
    minimal = Reference.of(data_key, place, tag)

    def event(
        operation: Operation, reference: Reference, count: int = 1, detail: bytes = b""
    ) -> str:
        commitment = reference.commit(stored if operation is Operation.APPEND else ())
        made = Event(
            operation=operation,
            agent="triage",
            binding_version=1,
            writer=writer,
            counter=7,
            count=count,
            subject=reference.subject,
            place=reference.place,
            commitment=commitment,
            detail=detail,
        )
        return made.to_bytes(audit_key).hex()

    append = event(Operation.APPEND, here, count=2)
    return {
        "auditKey": audit_key.secret.hex(),
        "auditKey of the operator, installation": audit_mac_key(
            root, INSTALLATION_LOG, "operator", 0
        ).secret.hex(),
        "auditAlias": here.subject.hex(),
        "auditAliasWithTag": minimal.subject.hex(),
        "place": here.place.hex(),
        "commitment to record and recordSuite0": here.commit(stored).hex(),
        "append of both": append,
        "entry of that append": append + "4f" + "019c136349c0" + "0000000002",
        "remove of 2, 3 and 300": event(
            Operation.REMOVE, here, count=3, detail=sequences_to_bytes((300, 2, 3))
        ),
        "decryption failed: tampered": event(
            Operation.DECRYPTION_FAILED, minimal, detail=bytes((Failure.TAMPERED,))
        ),
        "list, of a user": event(Operation.LIST, Reference.of(data_key, None)),
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
