"""Which requests to erase a person are honoured, which marks are true, which receipts go."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.api.tenant import AgentAccess
from memtenant.audit import OPERATOR, Event, is_authentic
from memtenant.crypto.audit_keys import audit_mac_key, audit_root
from memtenant.crypto.erasure import ErasureRequest, Tombstone
from memtenant.errors import RecordMalformed
from memtenant.rules.erasure import (
    Ground,
    OperatorEvents,
    is_true_mark,
    judge_request,
    operator_mark,
    outdated,
)
from memtenant.tenancy.erasure import MAX_RECEIPTS, ErasurePhase, ErasureReceipt
from memtenant.tenancy.policy import Isolation, SubjectRights
from tests.rules.builders import INSTALLATION_ROOT, NEIGHBOUR, NOW, TENANT

SUBJECT = "a1h9eXLMdTGsS6PDnIGrxw"
GROUND = Ground(
    tenant=TENANT,
    isolation=Isolation.MODERATE,
    rights=SubjectRights(erasure=True, portability=True),
    accesses={"steward": AgentAccess.STEWARD, "other": AgentAccess.READ_WRITE},
    versions={"steward": frozenset({3, 4}), "other": frozenset({5})},
    installation_root=INSTALLATION_ROOT,
)


def key(agent: str, version: int, **of: Any) -> Any:
    tenant = str(of.get("tenant", TENANT))
    return audit_mac_key(audit_root(INSTALLATION_ROOT), tenant, agent, version)


def request(agent: str = "steward", version: int = 3, consent: bytes = b"") -> ErasureRequest:
    asked = ErasureRequest(b"i" * 16, 1, SUBJECT, b"t" * 8, agent, version, consent)
    return asked.sealed(key(agent, version), TENANT)


def receipt(number: int = 1, phase: ErasurePhase = ErasurePhase.REQUESTED) -> ErasureReceipt:
    at = NOW + timedelta(seconds=number)
    return ErasureReceipt(f"{number:032x}", SUBJECT, phase, "steward", at)


def test_a_stewards_request_is_entered() -> None:
    found = judge_request(request().to_bytes(), GROUND, NOW).receipt
    assert found is not None
    assert (found.phase, found.subject) == (ErasurePhase.REQUESTED, SUBJECT)
    assert (found.id, found.tag, found.agent) == (("i" * 16).encode().hex(), "74" * 8, "steward")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"anything", "no request"),
        (request("other", 5).to_bytes(), "no Steward"),
        (request("stranger", 1).to_bytes(), "no Steward"),
        (replace(request(), subject="b" * 22).to_bytes(), "did not make"),
        (request().sealed(key("other", 5), TENANT).to_bytes(), "did not make"),
        (request().sealed(key("steward", 3), NEIGHBOUR).to_bytes(), "did not make"),
    ],
)
def test_what_no_steward_asked_leaves_no_receipt(raw: bytes, told: str) -> None:
    verdict = judge_request(raw, GROUND, NOW)
    assert verdict.receipt is None
    assert told in verdict.complaint


@pytest.mark.parametrize(
    ("asked", "changes", "refusal"),
    [
        (request(version=2), {}, "CredentialRevoked"),
        (request(), {"rights": SubjectRights()}, "ErasureNotPermitted"),
        (request(), {"rights": SubjectRights(True, True)}, "ConsentRequired"),
        (request(), {"obstacle": "LegalHold", "keeps": "A hold"}, "LegalHold"),
    ],
)
def test_what_may_not_be_is_refused_with_a_reason(
    asked: ErasureRequest, changes: dict[str, Any], refusal: str
) -> None:
    found = judge_request(asked.to_bytes(), replace(GROUND, **changes), NOW).receipt
    assert found is not None
    assert (found.phase, found.refusal, found.settled) == (ErasurePhase.REFUSED, refusal, True)
    assert found.why


def test_a_proof_of_consent_is_kept() -> None:
    ground = replace(GROUND, rights=SubjectRights(erasure=True, consent_required=True))
    found = judge_request(request(consent=b"c" * 16).to_bytes(), ground, NOW).receipt
    assert found is not None
    assert (found.phase, found.consent) == (ErasurePhase.REQUESTED, "63" * 16)


def test_a_mark_is_true_if_the_operator_or_a_steward_set_it_for_this_person() -> None:
    stewards = Tombstone(b"i" * 16, "steward", 3)
    true = [
        stewards.sealed(key("steward", 3), TENANT, SUBJECT).to_bytes(),
        operator_mark(receipt(), GROUND, receipt().subject),
    ]
    false = [
        b"1",
        stewards.sealed(key("other", 5), TENANT, SUBJECT).to_bytes(),
        stewards.sealed(key("steward", 3), TENANT, "b" * 22).to_bytes(),
        Tombstone(b"i" * 16, "other", 5).sealed(key("other", 5), TENANT, SUBJECT).to_bytes(),
        Tombstone(b"i" * 16, "", 0).sealed(key("steward", 3), TENANT, SUBJECT).to_bytes(),
    ]
    assert all(is_true_mark(one, SUBJECT, GROUND) for one in true)
    assert not any(is_true_mark(one, SUBJECT, GROUND) for one in false)


def test_the_operators_events_count_on_and_are_under_a_key_of_its_own() -> None:
    events = OperatorEvents(GROUND, NOW)
    first, second = events(), events()
    events.renew()  # whether the second arrived is not known
    told = [Event.parse(one) for one in (first, second, events())]
    assert [one.counter for one in told] == [1, 2, 1]
    assert told[0].writer == told[1].writer != told[2].writer
    assert is_authentic(key(OPERATOR, 0), first)


def test_the_oldest_finished_receipts_make_room() -> None:
    done = {one.id: one for n in range(MAX_RECEIPTS) for one in [_done(n)]}
    assert outdated(done, 0) == []
    assert outdated(done, 2) == [_done(0).id, _done(1).id]
    waiting = {one.id: one for n in range(MAX_RECEIPTS) for one in [receipt(n)]}
    assert outdated(waiting, 2) == []


def _done(number: int) -> ErasureReceipt:
    return receipt(number, ErasurePhase.CRYPTO_ERASED)


moments = st.none() | st.datetimes(NOW.replace(tzinfo=None), timezones=st.just(NOW.tzinfo)).map(
    lambda at: at.replace(microsecond=0)
)


@given(
    st.sampled_from(ErasurePhase),
    moments,
    st.none() | st.integers(0, 9),
    st.lists(st.text(max_size=80), max_size=9).map(tuple),
)
def test_a_receipt_reads_back(
    phase: ErasurePhase, at: Any, remaining: int | None, residuals: tuple[str, ...]
) -> None:
    made = replace(
        receipt(phase=phase),
        remaining=remaining,
        deleted_at=at,
        crypto_erased_at=at,
        residuals=residuals,
    )
    assert ErasureReceipt.from_json(made.to_json()) == made


@given(st.binary(max_size=100))
def test_what_is_no_receipt_is_told(data: bytes) -> None:
    with pytest.raises(RecordMalformed):
        ErasureReceipt.from_json(data)
