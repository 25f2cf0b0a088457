"""E-mail addresses, IP addresses, and what a URL has before its host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from memtenant.masking.findings import Finding
from memtenant.masking.reading import Reading
from memtenant.tenancy.masking import Detector

__all__ = ["emails", "ip_addresses", "url_credentials"]

_LOCAL_SIGNS = frozenset(".!#$%&'*+/=?^_`{|}~-")
_LONGEST_LOCAL: Final = 64
_DOMAIN = re.compile(r"[\w.-]{1,253}")
_TLD = re.compile(r"[^\W\d_]{2,24}|xn--[a-z0-9-]{2,59}", re.IGNORECASE)
_FILE_ENDINGS = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "ts", "json", "html", "yaml")
)
_USER_INFO = re.compile(r"[^\s/@:<>\"'\uffff]{0,128}:[^\s/@<>\"'\uffff]{1,256}(?=@)")
_LEAVES_AUTHORITY = re.compile(r"[\s/]")
_NEAR = 400

_DOTTED = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]")
_COLONS = re.compile(":[0-9A-Fa-f]{0,4}:")
_IPV4 = re.compile(r"(?<![\w.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\w|\.[0-9])")
_VERSION = re.compile(r"(?:version|release|build|firmware|\bv|\bver|/)[\s.:=]{0,3}$")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{2,39}(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3})?(?![\w:])")
_NOBODYS = ("0.", "127.", "255.")


def emails(reading: Reading) -> Iterator[Finding]:
    """Addresses with a domain that has a name at its end."""
    plain = reading.plain
    at = plain.find("@")
    while at >= 0:
        found = _email_at(plain, at)
        if found is not None:
            yield found
        at = plain.find("@", at + 1)


def _email_at(plain: str, at: int) -> Finding | None:
    start = at
    while start and at - start <= _LONGEST_LOCAL:
        sign = plain[start - 1]
        if not (sign.isalnum() or sign in _LOCAL_SIGNS):
            break
        start -= 1
    domain_at = _DOMAIN.match(plain, at + 1)
    if domain_at is None:
        return None
    # What introduces an address is not of it: quotes, mailto?to=, slashes, a list's dash.
    while start < at and not (plain[start].isalnum() or plain[start] == "_"):
        start += 1
    local = plain[start:at]
    if "=" in local or "/" in local:
        start += max(local.rfind("="), local.rfind("/")) + 1
        local = plain[start:at]
    domain = _domain(domain_at[0])
    if not local or not domain:
        return None
    if local == "git" and plain[at + 1 + len(domain) :][:1] == ":":
        return None  # where a repository is
    if _in_user_info(plain, start):
        return None
    return Finding(start, at + 1 + len(domain), Detector.EMAIL, f"{local}@{domain}".lower())


def _domain(text: str) -> str:
    """The longest beginning that is a domain, else nothing."""
    text = text.rstrip(".-_")
    labels = text.split(".")
    while len(labels) > 1:
        last = labels[-1]
        if _TLD.fullmatch(last) and last.lower() not in _FILE_ENDINGS and all(labels):
            return ".".join(labels)
        labels.pop()
    return ""


def _in_user_info(plain: str, start: int) -> bool:
    """Whether it is the end of a password: the host behind it is no mail domain."""
    scheme = plain.rfind("://", max(start - _NEAR, 0), start)
    before = plain[scheme + 3 : start]
    return scheme >= 0 and ":" in before and not _LEAVES_AUTHORITY.search(before)


def url_credentials(reading: Reading) -> Iterator[Finding]:
    """``user:password`` between a scheme and a host."""
    plain = reading.plain
    scheme = plain.find("://")
    while scheme >= 0:
        found = _USER_INFO.match(plain, scheme + 3)
        if found:
            yield Finding(*found.span(), Detector.URL_CREDENTIALS, found[0])
        scheme = plain.find("://", scheme + 3)


def ip_addresses(reading: Reading) -> Iterator[Finding]:
    """IPv4 and IPv6, but what is nobody's address: loopback, unspecified, broadcast."""
    plain = reading.plain
    if _DOTTED.search(plain):
        for four in _IPV4.finditer(plain):
            text = four[0]
            if text.startswith(_NOBODYS) or any(int(one) > 255 for one in text.split(".")):
                continue
            if _VERSION.search(reading.lower, max(four.start() - 12, 0), four.start()):
                continue
            yield Finding(*four.span(), Detector.IP_ADDRESS, text)
    if _COLONS.search(plain):
        for six in _IPV6.finditer(plain):
            if (address := _ipv6(six[0])) is not None:
                yield Finding(six.start(), six.end(), Detector.IP_ADDRESS, str(address))


def _ipv6(text: str) -> IPv6Address | None:
    if text.count(":") < 2 or not any(one.isdigit() for one in text) or len(text) < 6:
        return None
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return None
    return None if address.is_loopback or address.is_unspecified else address
