"""A throw-away certificate authority for TLS between local processes."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> "CertificateFiles":
        """Write `<name>.crt` and `<name>.key` (mode 0600) into `folder`."""
        files = CertificateFiles(folder / f"{name}.crt", folder / f"{name}.key")
        files.certificate.write_bytes(self.certificate)
        files.key.touch(mode=0o600)
        files.key.write_bytes(self.key)
        return files


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a certificate and its key are."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority that exists for one test run."""

    def __init__(self, common_name: str = "memtenant tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(common_name, ())
        builder = _builder(self._name, self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate, PEM: what a client has to trust."""
        return self._certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        common_name: str,
        *,
        organisations: Sequence[str] = (),
        hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    ) -> Certificate:
        """A certificate for `common_name`, good as a server on `hosts` and as a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(common_name, organisations), self._name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([_alt_name(h) for h in hosts]), False)
        )
        return Certificate(
            builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )


def _name(common_name: str, organisations: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organisations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
    )


def _alt_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
