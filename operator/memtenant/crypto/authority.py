"""The certificates of instances: an authority that the operator makes, and what it signs.

ECDSA on P-256 (FIPS 186-5), X.509 as RFC 5280 has it. The authority signs servers only, and only
of this installation; whoever trusts it trusts nobody else by that. Long before it ends, its
successor is made and trusted beside it; a week later, when every client has read that, the
successor signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from memtenant.errors import KeyInvalid

__all__ = ["Authority", "ServerCertificate", "is_due", "made_at", "new_authority"]

_AUTHORITY_FOR = timedelta(days=3650)
_SERVER_FOR = timedelta(days=90)
_RENEWED_AFTER = 2 / 3
_INTRODUCED_FOR = timedelta(days=7)
_EARLY = timedelta(hours=1)
"""Clocks differ: a certificate is valid from before it was made."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What a server shows, and its private key; PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs; PEM. ``other`` is trusted too: its successor, where ``other_key`` is there, else
    the one before; empty where there is neither."""

    certificate: bytes
    key: bytes = field(repr=False)
    other: bytes = b""
    other_key: bytes = field(default=b"", repr=False)

    @property
    def trusted(self) -> bytes:
        """What clients verify a server by."""
        return self.certificate + self.other

    def renewed(self, now: datetime) -> Authority:
        """This one; with a successor where its end comes near; or the successor, once every client
        has had time to trust it."""
        if self.other_key:
            if now < made_at(self.other) + _INTRODUCED_FOR:
                return self
            return Authority(self.other, self.other_key, self.certificate)
        if not _passed(self.certificate, now):
            return self
        made = new_authority(now)
        return Authority(self.certificate, self.key, made.certificate, made.key)

    def sign(self, names: Sequence[str], now: datetime) -> ServerCertificate:
        """A certificate for a server of these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = _certificate(self.certificate)
        signed = (
            x509.CertificateBuilder()
            .subject_name(_named("memtenant instance"))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _EARLY)
            .not_valid_after(min(now + _SERVER_FOR, issuer.not_valid_after_utc))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(_key(self.key), hashes.SHA256())
        )
        return ServerCertificate(_pem(signed), _key_pem(key))

    def signed(self, certificate: bytes) -> bool:
        """Whether this authority made the certificate."""
        try:
            _certificate(certificate).verify_directly_issued_by(_certificate(self.certificate))
        except (InvalidSignature, KeyInvalid, TypeError, ValueError):
            return False
        return True


def new_authority(now: datetime) -> Authority:
    """An authority that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("memtenant instances")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + _AUTHORITY_FOR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(_pem(made), _key_pem(key))


def is_due(certificate: bytes, names: Sequence[str], authority: Authority, now: datetime) -> bool:
    """Whether a server's certificate is to be made anew: it is of another authority, for other
    names, unreadable, or past two thirds of its time."""
    if not authority.signed(certificate):
        return True
    shown = _certificate(certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return shown.value.get_values_for_type(x509.DNSName) != list(names) or _passed(certificate, now)


def made_at(certificate: bytes) -> datetime:
    """When a certificate was made."""
    return _certificate(certificate).not_valid_before_utc + _EARLY


def _passed(certificate: bytes, now: datetime) -> bool:
    found = _certificate(certificate)
    start, end = found.not_valid_before_utc, found.not_valid_after_utc
    return now >= start + (end - start) * _RENEWED_AFTER


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise KeyInvalid(
            "A certificate of the instances cannot be read: restore its Secret, or delete it, and "
            "it is made anew"
        ) from None


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (TypeError, ValueError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyInvalid(
            "The key of the instances' authority cannot be read: restore its Secret, or delete it, "
            "and it is made anew"
        )
    return key


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
