"""Requests to erase a person, and marks of persons who were: what is authentic and what is not."""

import base64
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.crypto.erasure import (
    ErasureRequest,
    Tombstone,
    consent_proof,
    new_request_id,
    operator_mark_key,
)
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import RecordMalformed
from memtenant.tenancy.identity import TenantId
from tests.crypto import independent, vectors

ACME, GLOBEX = TenantId("support", "acme"), TenantId("sales", "globex")
KEY, OTHER = SecretKey(b"k" * 32), SecretKey(b"o" * 32)
ID = bytes(range(16))
SUBJECT = "a1h9eXLMdTGsS6PDnIGrxw"
REQUEST = ErasureRequest(ID, 1_700_000_000_000, SUBJECT, b"t" * 8, "triage", 7)
MARK = Tombstone(ID, "triage", 7)


@pytest.mark.parametrize("consent", [b"", consent_proof(KEY, ID, "a mail")])
def test_a_request_reads_back(consent: bytes) -> None:
    request = ErasureRequest(ID, 1, SUBJECT, b"t" * 8, "triage", 7, consent).sealed(KEY, ACME)
    assert ErasureRequest.parse(request.to_bytes()) == request
    assert request.is_sealed_by(KEY, ACME)


def test_a_request_is_one_agents_for_one_tenant() -> None:
    request = REQUEST.sealed(KEY, ACME)
    assert not request.is_sealed_by(OTHER, ACME)
    assert not request.is_sealed_by(KEY, GLOBEX)


def test_every_flipped_bit_of_a_request_is_seen() -> None:
    data = REQUEST.sealed(KEY, ACME).to_bytes()
    for place in range(len(data) * 8):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        try:
            read = ErasureRequest.parse(bytes(changed))
        except RecordMalformed:
            continue
        assert not read.is_sealed_by(KEY, ACME)


def test_a_tombstone_is_set_by_one_agent_for_one_person_of_one_tenant() -> None:
    mark = MARK.sealed(KEY, ACME, SUBJECT)
    assert Tombstone.parse(mark.to_bytes()) == mark
    assert mark.is_sealed_by(KEY, ACME, SUBJECT)
    assert not mark.is_sealed_by(KEY, ACME, "another")
    assert not mark.is_sealed_by(KEY, GLOBEX, SUBJECT)
    assert not mark.is_sealed_by(OTHER, ACME, SUBJECT)


def test_the_operators_tombstone_is_under_a_key_that_no_binding_holds() -> None:
    key = operator_mark_key(KEY, ACME)
    mark = Tombstone.by_operator(ID, key, ACME, SUBJECT)
    assert Tombstone.parse(mark.to_bytes()) == mark
    assert mark.is_sealed_by(key, ACME, SUBJECT)
    assert not mark.is_sealed_by(operator_mark_key(KEY, GLOBEX), ACME, SUBJECT)
    assert not mark.is_sealed_by(KEY, ACME, SUBJECT)


def test_a_tombstone_is_no_request() -> None:
    with pytest.raises(RecordMalformed):
        ErasureRequest.parse(MARK.sealed(KEY, ACME, SUBJECT).to_bytes())
    with pytest.raises(RecordMalformed):
        Tombstone.parse(REQUEST.sealed(KEY, ACME).to_bytes())


@given(st.binary(max_size=250))
def test_no_bytes_make_reading_crash(data: bytes) -> None:
    for kind in (ErasureRequest, Tombstone):
        try:
            kind.parse(data)  # type: ignore[attr-defined]
        except RecordMalformed:
            continue


def test_a_proof_of_consent_is_for_one_reference_and_one_request() -> None:
    proof = consent_proof(KEY, ID, "a mail of 2026-03-01")
    assert proof != consent_proof(KEY, ID, "a mail of 2026-03-02")
    assert proof != consent_proof(KEY, new_request_id(), "a mail of 2026-03-01")


def test_a_second_implementation_reads_the_documented_request_and_tombstones() -> None:
    found = {name: value for name, value in vectors.documented().items() if isinstance(value, str)}
    tenant, subject = found["tenant"], found["userAlias"]
    audit_key = base64.b64decode(json.loads(found["keyring.json of the binding"])["auditKey"])
    data = bytes.fromhex(found["erasureRequest"])
    read = independent.erasure_request(audit_key, tenant, data)
    identity = read["id"]
    assert isinstance(identity, bytes)
    label = independent.lp(b"memtenant/1/consent", identity)
    reference = found["consentReference"].encode()
    assert read == {
        "id": bytes(range(0xC0, 0xD0)),
        "time": 1769851800003,
        "alias": subject,
        "tag": bytes.fromhex(found["subjectTag"]),
        "consent": hmac.digest(audit_key, label + reference, "sha256")[:16],
        "version": 1,
        "agent": "triage",
    }
    mark = bytes.fromhex(found["erased"])
    assert (mark[0], independent.erased(audit_key, tenant, subject, mark)) == (1, identity)
    own = independent.lp(b"memtenant/1/tombstone", tenant.encode())
    key = independent.hkdf(bytes.fromhex(found["installationRoot"]), own)
    mark = bytes.fromhex(found["erasedByOperator"])
    assert (mark[0], independent.erased(key, tenant, subject, mark)) == (2, identity)
