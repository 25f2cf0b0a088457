"""Where something is, as a report shows it: by names that hold nothing personal."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

from memtenant.reports.bookkeeping import is_subject
from memtenant.tenancy.identity import TenantId

__all__ = ["alias_bytes", "is_ours", "place_of", "shown_key"]

_OURS: Final = re.compile(
    rb"r:(?:_|[a-z0-9-]{1,40}_):[A-Za-z0-9_-]{22}:[lhsg]|r:c:[A-Za-z0-9_-]{22}(?::v|:log)?"
)
_ONCE: Final = frozenset((b"e", b"u", b"x"))


def is_ours(part: bytes) -> bool:
    """Whether memtenant gives such a name to a key with records; ``part`` is what of it follows the
    tenant's prefix."""
    return _OURS.fullmatch(part) is not None


def place_of(run: bytes) -> str:
    """Where the records of a run are, as a report shows it."""
    return f"r:…:{base64.urlsafe_b64encode(run).decode().rstrip('=')}"


def alias_bytes(part: bytes) -> bytes:
    """The conversation or context in the name of a key that is ours."""
    return base64.urlsafe_b64decode(part.split(b":")[2] + b"==")


def shown_key(tenant: TenantId, part: bytes) -> str:
    """A key as a report may show it: memtenant's own names hold nothing personal; those that
    somebody else chose may, and are told by a digest."""
    whole = f"mt:{{{tenant}}}:{part.decode('utf-8', 'backslashreplace')}"
    if is_ours(part) or part in _ONCE:
        return whole
    if part[:2] in (b"i:", b"k:") and is_subject(part[2:]):
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
    return f"a key of mt:{{{tenant}}}:{part.decode('utf-8', 'replace')[:1]}… (sha256 {digest})"
