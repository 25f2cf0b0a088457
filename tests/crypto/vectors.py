"""The test vectors of docs/record-format.md: ``python -m tests.crypto.vectors`` writes them there.

Random bytes are counted up from 0, so the vectors are the same each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from memtenant.crypto.audit_keys import audit_mac_key, audit_root
from memtenant.crypto.datakey import rewrap_data_key, wrap_data_key
from memtenant.crypto.erasure import (
    ErasureRequest,
    Tombstone,
    consent_proof,
    operator_mark_key,
)
from memtenant.crypto.header import Header
from memtenant.crypto.keyring import activate, add_version, agent_keyring, destroy, new_keyring
from memtenant.crypto.names import context_alias, session_alias, subject_tag, user_alias
from memtenant.crypto.primitives import SecretKey, commitment
from memtenant.crypto.record import MESSAGE, Place, RecordKeys
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.policy import EncryptionMode

DOCUMENT = Path(__file__).parents[2] / "docs" / "record-format.md"
_BEGIN = "<!-- vectors: written by python -m tests.crypto.vectors -->\n```json\n"
_END = "\n```\n"

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def counting(position: int = 0) -> Callable[[int], bytes]:
    """A source of bytes 00 01 02 …, going on where it stopped."""

    def take(length: int) -> bytes:
        nonlocal position
        position += length
        return bytes(n % 256 for n in range(position - length, position))

    return take


def build() -> dict[str, object]:
    random = counting()
    tenant = TenantId("support", "acme")
    root = SecretKey(bytes([0xA5, *range(31)]))
    opened = new_keyring(tenant, root, now=NOW, random=random)
    installation = SecretKey(bytes([0x5A, *range(31)]))
    audit_key = audit_mac_key(audit_root(installation), str(tenant), "triage", 1)
    agent = agent_keyring(opened, "triage", audit_key)
    data_key = SecretKey(random(32))
    subject = user_alias(opened.name_key, "ada@example.org")
    session = session_alias(opened.name_key, "ticket-4711", "ada@example.org")
    place = Place(tenant, "_", session)
    writer = int(NOW.timestamp()).to_bytes(4, "big") + b"\0\0\0\1"
    content = b'{"role":"human","text":"Hello"}'
    tag = subject_tag(opened.name_key, "ada@example.org")

    stored = wrap_data_key(opened.active, tenant, subject, data_key)
    added = add_version(opened, root, now=NOW, random=counting(0x80))
    turned = activate(added, root)
    rewrapped = rewrap_data_key(turned.keks, turned.active, tenant, subject, stored)

    request_id = bytes(range(0xC0, 0xD0))
    proof = consent_proof(audit_key, request_id, "mail of 1 March")
    request = ErasureRequest(request_id, 1769851800003, subject, tag, "triage", 1, proof)
    mark = Tombstone(request_id, "triage", 1)
    operator_key = operator_mark_key(installation, tenant)

    def sealed(mode: EncryptionMode) -> bytes:
        return RecordKeys(data_key, place, mode).seal(MESSAGE, writer, 7, content, random=random)

    return {
        "tenant": str(tenant),
        "root": root.secret.hex(),
        "rootId": commitment(root).hex(),
        "keyring.json of the home namespace": opened.keyring.to_json().decode(),
        "keyring.json of the binding": agent.to_json().decode(),
        "kek": opened.active.key.secret.hex(),
        "nameKey": opened.name_key.secret.hex(),
        "user": "ada@example.org",
        "userAlias": subject,
        "subjectTag": tag.hex(),
        "session": "ticket-4711",
        "sessionAlias": session,
        "context": "case-4711",
        "contextAlias": context_alias(opened.name_key, "case-4711"),
        "dataKey": data_key.secret.hex(),
        "storedDataKey": stored.hex(),
        "scope": place.scope,
        "kind": MESSAGE,
        "writer": writer.hex(),
        "counter": 7,
        "content": content.decode(),
        "header": Header(1, 1769851800000, 5).to_bytes().hex(),
        "headerWithTag": Header(2, 1769851800001, 5, tag).to_bytes().hex(),
        "tombstone": Header(3, 1769851800002, 0, tombstone=True).to_bytes().hex(),
        "record": sealed(EncryptionMode.ENABLED).hex(),
        "recordSuite0": sealed(EncryptionMode.DISABLED).hex(),
        "keyring.json with version 2 pending": added.keyring.to_json().decode(),
        "keyring.json of the binding, 2 pending": agent_keyring(added, "triage", audit_key)
        .to_json()
        .decode(),
        "kek 2": turned.active.key.secret.hex(),
        "storedDataKey under 2": rewrapped.hex(),
        "consentReference": "mail of 1 March",
        "erasureRequest": request.sealed(audit_key, tenant).to_bytes().hex(),
        "erased": mark.sealed(audit_key, tenant, subject).to_bytes().hex(),
        "erasedByOperator": Tombstone.by_operator(request_id, operator_key, tenant, subject)
        .to_bytes()
        .hex(),
        "installationRoot": installation.secret.hex(),
        "auditRoot": audit_root(installation).secret.hex(),
        "keyring.json after version 1": destroy(turned, 1, root).keyring.to_json().decode(),
    }


def documented() -> dict[str, object]:
    """The vectors as the document has them."""
    text = DOCUMENT.read_text()
    start = text.index(_BEGIN) + len(_BEGIN)
    found: dict[str, object] = json.loads(text[start : text.index(_END, start)])
    return found


def main() -> None:
    text = DOCUMENT.read_text()
    start = text.index(_BEGIN) + len(_BEGIN)
    vectors = json.dumps(build(), indent=2)
    DOCUMENT.write_text(text[:start] + vectors + text[text.index(_END, start) :])


if __name__ == "__main__":
    main()
