import base64
import io
import json
import logging
from collections.abc import Iterator
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.controller import logs
from memtenant.controller.settings import LogFormat, LogLevel
from memtenant.resources.port import ObjectKey

ACME = ObjectKey.tenant("support", "acme")


def fail(message: str) -> NoReturn:
    raise ValueError(message)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_json_line_names_the_tenant_and_the_reconcile(stream: io.StringIO) -> None:
    logs.configure(LogFormat.AUTO, LogLevel.INFO, stream)
    with logs.reconciling(ACME, "1f3a"):
        logging.getLogger("memtenant.stores").info("made %d users", 2)
    line = json.loads(stream.getvalue())
    assert line["tenant"] == "support.acme"
    assert line["reconcile"] == "1f3a"
    assert line["message"] == "made 2 users"
    assert line["level"] == "info"


def test_a_line_outside_of_a_reconcile_names_none(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, LogLevel.INFO, stream)
    with logs.reconciling(ObjectKey.store("eu"), "1f3a"):
        logging.getLogger("memtenant").info("inside")
    logging.getLogger("memtenant").info("outside")
    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert inside["object"] == "MemoryStore/eu"
    assert not {"tenant", "object", "reconcile"} & outside.keys()


def test_text_keeps_a_traceback_on_lines_of_its_own(stream: io.StringIO) -> None:
    logs.configure(LogFormat.TEXT, LogLevel.INFO, stream)
    try:
        fail("broken")
    except ValueError:
        with logs.reconciling(ACME, "1f3a"):
            logging.getLogger("memtenant").exception("it failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("[support.acme 1f3a] it failed")
    assert rest[-1] == "ValueError: broken"


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.TEXT])
def test_a_secret_in_message_arguments_or_traceback_is_masked(
    stream: io.StringIO, log_format: LogFormat
) -> None:
    logs.configure(log_format, LogLevel.INFO, stream)
    secret = "9f" * 32
    try:
        fail(f"AUTH failed for redis://admin:{secret[:20]}@host:6379/0")
    except ValueError:
        logging.getLogger("memtenant").exception("password %s of key %s", secret, secret)
    assert secret not in stream.getvalue()
    assert secret[:20] not in stream.getvalue()
    assert "host:6379" in stream.getvalue()


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["{}", "key={} ", "('{}',)", "> {};"]))
def test_thirty_two_bytes_are_masked_in_every_usual_spelling(key: bytes, around: str) -> None:
    for text in (
        key.hex(),
        key.hex().upper(),
        base64.b64encode(key).decode(),
        base64.urlsafe_b64encode(key).decode().rstrip("="),
    ):
        assert text not in logs.mask_secrets(around.format(text))


@given(
    st.text("abcDEF019!$%&*()-_+", min_size=6, max_size=30), st.sampled_from(["redis", "rediss"])
)
def test_a_password_in_a_url_is_masked(password: str, scheme: str) -> None:
    masked = logs.mask_secrets(f"cannot reach {scheme}://mt.admin:~{password}@eu.example:6379/0")
    assert password not in masked
    assert "@eu.example:6379/0" in masked


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.def",
        "{'password': 's3cret-s3cret'}",
        'adminPassword="s3cret-s3cret"',
        "passwd=s3cret-s3cret",
        "token eyJhbGciOi.eyJpc3MiOi.c2lnbmF0dXJl",
    ],
)
def test_other_usual_forms_of_a_secret_are_masked(text: str) -> None:
    masked = logs.mask_secrets(text)
    assert logs.MASK in masked
    assert not {"abc.def", "s3cret", "eyJ"} & {
        part for part in ("abc.def", "s3cret", "eyJ") if part in masked
    }


@pytest.mark.parametrize(
    "text",
    [
        "MemoryTenant/support/acme is Ready",
        "uid 7d0a3c52-7f3e-4c6c-9c0c-1c1f4c1e7b1a",
        "PUT https://10.0.0.1:6443/apis/memtenant.dev/v1alpha1/namespaces/support/memorytenants",
        "the password of mt.support.acme.default.a was rotated",
        "GET CronJob home-edcc51/memtenant-report-audited-edcc51 was refused",  # 43 characters
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert logs.mask_secrets(text) == text
