"""Logging, configured in one place: one JSON object a line, or text on a terminal.

Every line that is written while an object is reconciled carries the object and the id of that
reconcile, whichever layer wrote it. Nothing in memtenant logs a secret on purpose; what looks
like one is masked all the same, in messages, arguments and tracebacks, before a line is written.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from memtenant.controller.settings import LogFormat, LogLevel
from memtenant.resources.port import Kind, ObjectKey

__all__ = ["MASK", "configure", "mask_secrets", "reconciling"]

MASK = "[masked]"

_SECRETS = (
    # userinfo of any URL: redis://user:password@host
    (re.compile(r"(?<=://)[^/\s@'\"]*@"), f"{MASK}@"),
    # 32 bytes in hexadecimal: keys, passwords that the operator mints, password hashes
    (re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])"), MASK),
    # 32 bytes in base64, standard or URL-safe, padded or not. Without a capital and padding it is
    # an object's namespace and name: of five thousand million keys one is like that
    (
        re.compile(
            r"(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{43}=|"
            r"(?=[a-z0-9+/_-]*[A-Z])[A-Za-z0-9+/_-]{43}(?![A-Za-z0-9+/_-]))"
        ),
        MASK,
    ),
    # JSON web tokens: a ServiceAccount's
    (re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"), MASK),
    (re.compile(r"(?i)\b(bearer\s+)[^\s'\"]+"), rf"\g<1>{MASK}"),
    # password=…, "password": "…", 'adminPassword': '…'
    (
        re.compile(r"(?i)(passw(?:or)?d['\"]?\s*[=:]\s*b?['\"]?)(?!\[masked\])[^\s'\",;}]+"),
        rf"\g<1>{MASK}",
    ),
)


def mask_secrets(text: str) -> str:
    """``text`` with everything masked that has the form of a secret."""
    for pattern, masked in _SECRETS:
        text = pattern.sub(masked, text)
    return text


@dataclass(frozen=True, slots=True)
class _Subject:
    key: ObjectKey
    reconcile_id: str


_subject: ContextVar[_Subject | None] = ContextVar("memtenant_log_subject", default=None)


@contextlib.contextmanager
def reconciling(key: ObjectKey, reconcile_id: str) -> Iterator[None]:
    """Name the object and the reconcile on every line that is logged inside."""
    token = _subject.set(_Subject(key, reconcile_id))
    try:
        yield
    finally:
        _subject.reset(token)


def _subject_fields() -> dict[str, str]:
    subject = _subject.get()
    if subject is None:
        return {}
    key = subject.key
    if key.kind is Kind.TENANT:
        named = {"tenant": f"{key.namespace}.{key.name}"}
    else:
        named = {"object": str(key)}
    return {**named, "reconcile": subject.reconcile_id}


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, tenant or object, reconcile, error."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask_secrets(record.getMessage()),
            **_subject_fields(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = mask_secrets(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class _TextFormatter(logging.Formatter):
    """``09:30:00 INFO  [support.acme 1f3a] message``."""

    def format(self, record: logging.LogRecord) -> str:
        subject = " ".join(_subject_fields().values())
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        named = f"[{subject}] " if subject else ""
        text = f"{at} {record.levelname:<7} {named}{record.getMessage()}"
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + self.formatException(record.exc_info)
        return mask_secrets(text)


def configure(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Make the root logger write to ``stream`` (standard error), replacing what was configured."""
    stream = sys.stderr if stream is None else stream
    text = log_format is LogFormat.TEXT or (log_format is LogFormat.AUTO and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_TextFormatter() if text else _JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.value)
    if level is not LogLevel.DEBUG:
        # kopf tells a line of every event and every step; aiohttp of every probe.
        logging.getLogger("kopf").setLevel(logging.WARNING)
        # It warns that it takes no signals in its thread: the process takes them.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
