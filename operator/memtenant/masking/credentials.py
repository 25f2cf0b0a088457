"""Keys and tokens whose form says what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from memtenant.masking.findings import Finding
from memtenant.masking.reading import WALL, Reading
from memtenant.tenancy.masking import Detector

__all__ = ["secrets"]

_FORMS: Final = (
    r"(?:AKIA|ASIA|AROA|AIDA)[A-Z2-7]{16}",  # AWS
    r"gh[pousr]_[A-Za-z0-9]{36,255}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{40,255}",
    r"glpat-[A-Za-z0-9_-]{20,255}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,255}",  # Slack
    r"xapp-[0-9]-[A-Za-z0-9-]{10,255}",
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_-]{20,512}",
    r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,255}",  # Stripe
    r"whsec_[A-Za-z0-9]{24,255}",
    r"sk-[A-Za-z0-9_-]{20,255}",  # OpenAI, Anthropic
    r"hf_[A-Za-z0-9]{30,255}",  # Hugging Face
    r"npm_[A-Za-z0-9]{36,255}",
    r"pypi-AgEI[A-Za-z0-9_-]{50,512}",
    r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}",  # SendGrid
    r"dop_v1_[a-f0-9]{64}",  # DigitalOcean
    r"hv[sb]\.[A-Za-z0-9_-]{24,255}",  # Vault
    r"eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{16,2048}",  # JWT
)
_SHORTEST: Final = 16
"""Characters in a row that each of them has."""

_HINTS = (
    *("AKIA", "ASIA", "AROA", "AIDA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("glpat-", "xox", "xapp-", "AIza", "ya29.", "_live_", "_test_", "whsec_", "sk-", "hf_"),
    *("npm_", "pypi-", "SG.", "dop_v1_", "hvs.", "hvb.", "eyJ"),
)
_SHAPED = re.compile(rf"(?<![A-Za-z0-9_-])(?:{'|'.join(_FORMS)})(?![A-Za-z0-9_])")
_HOOK = re.compile(r"hooks\.slack\.com/services/([A-Z0-9]{6,16}/[A-Z0-9]{6,16}/[A-Za-z0-9]{16,32})")
_AWS_SECRET = re.compile(
    r"aws.?secret.?(?:access.?)?key[\"']?\s{0,3}[=:]\s{0,3}[\"']?([A-Za-z0-9/+]{40})"
    r"(?![A-Za-z0-9/+=])",
    re.IGNORECASE,
)
_BEARER = re.compile(r"[Bb]earer\s{1,4}([A-Za-z0-9._~+/-]{20,4096}={0,2})")
_BLOCK = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_END = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")


def secrets(reading: Reading) -> Iterator[Finding]:
    """API keys, tokens, bearer headers, and private keys in PEM."""
    plain = reading.plain
    if "PRIVATE KEY" in plain:
        yield from _private_keys(plain)
    if max(map(len, plain.split()), default=0) < _SHORTEST:
        return
    if any(hint in plain for hint in _HINTS):
        for one in _SHAPED.finditer(plain):
            yield Finding(*one.span(), Detector.SECRET, one[0])
    if "hooks.slack.com" in plain:
        for one in _HOOK.finditer(plain):
            yield Finding(*one.span(1), Detector.SECRET, one[1])
    if "earer" in plain:
        for one in _BEARER.finditer(plain):
            yield Finding(*one.span(1), Detector.SECRET, one[1])
    if "aws" in reading.lower:
        for one in _AWS_SECRET.finditer(plain):
            yield Finding(*one.span(1), Detector.SECRET, one[1])


def _private_keys(plain: str) -> Iterator[Finding]:
    """From begin to end; one that is cut off goes to the end of the text, or to a wall."""
    start = 0
    while begin := _BLOCK.search(plain, start):
        end = _BLOCK_END.search(plain, begin.end())
        if end is None:
            wall = plain.find(WALL, begin.end())
            stop = len(plain) if wall < 0 else wall
        else:
            stop = end.end()
        yield Finding(begin.start(), stop, Detector.SECRET, plain[begin.start() : stop])
        if end is None:
            return
        start = stop
