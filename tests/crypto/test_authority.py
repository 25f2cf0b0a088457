"""The certificates of instances, made, judged and made anew."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from memtenant.crypto.authority import Authority, is_due, made_at, new_authority
from memtenant.errors import KeyInvalid

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)
NAMES = ("mt-health-clinic-1.memtenant-system.svc",)
YEAR = timedelta(days=365)


def test_a_server_is_verified_by_its_authority_under_its_names() -> None:
    authority = new_authority(NOW)
    made = authority.sign(NAMES, NOW)
    certificate = x509.load_pem_x509_certificate(made.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == list(NAMES)
    assert authority.signed(made.certificate)
    assert not new_authority(NOW).signed(made.certificate)
    assert made_at(made.certificate) == NOW
    ssl.create_default_context(cadata=authority.trusted.decode())


def test_a_certificate_is_due_after_two_thirds_of_its_time() -> None:
    authority = new_authority(NOW)
    made = authority.sign(NAMES, NOW).certificate
    assert not is_due(made, NAMES, authority, NOW + timedelta(days=59))
    assert is_due(made, NAMES, authority, NOW + timedelta(days=61))


def test_a_certificate_of_somebody_else_or_for_other_names_is_due() -> None:
    authority = new_authority(NOW)
    made = authority.sign(NAMES, NOW).certificate
    assert is_due(made, ("another.name",), authority, NOW)
    assert is_due(made, NAMES, new_authority(NOW), NOW)
    assert is_due(b"no certificate", NAMES, authority, NOW)


def test_a_successor_is_trusted_for_a_week_before_it_signs() -> None:
    first = new_authority(NOW)
    assert first.renewed(NOW + 6 * YEAR) == first
    late = NOW + 7 * YEAR
    introduced = first.renewed(late)
    assert introduced.certificate == first.certificate
    assert introduced.trusted == first.certificate + introduced.other
    assert introduced.renewed(late + timedelta(days=6)) == introduced
    second = introduced.renewed(late + timedelta(days=7))
    assert second.certificate == introduced.other
    assert second.trusted == introduced.other + first.certificate
    served = first.sign(NAMES, late).certificate
    assert is_due(served, NAMES, second, late + timedelta(days=7))
    assert second.signed(second.sign(NAMES, late).certificate)


def test_a_damaged_authority_says_what_to_do() -> None:
    with pytest.raises(KeyInvalid, match="delete it"):
        Authority(new_authority(NOW).certificate, b"no key").sign(NAMES, NOW)
    with pytest.raises(KeyInvalid, match="delete it"):
        Authority(b"", b"").renewed(NOW)
