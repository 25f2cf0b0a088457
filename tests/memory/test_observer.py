"""One hook is told of each call, and of nothing that was said in it: against a real server."""

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace

from memtenant import Message, Observation, Options, Tenant
from memtenant.errors import VersionConflict
from memtenant.sync import Tenant as SyncTenant
from tests.docs.pages import DOCS, blocks
from tests.functions.tenants import in_ms
from tests.memory.bindings import Provisioned

SAID = ("ada@example.org", "ticket-4711", "Parcel 17 is late")


@pytest.fixture
def seen() -> list[Observation]:
    return []


@pytest.fixture
def tenant(on_valkey: Provisioned, seen: list[Observation]) -> Tenant:
    return Tenant(on_valkey.source(), options=Options(observer=seen.append))


async def test_each_call_is_told_with_its_outcome_and_without_what_was_said(
    tenant: Tenant, seen: list[Observation]
) -> None:
    before = time.time()
    async with tenant:
        chat = tenant.conversation(SAID[1], user=SAID[0])
        await chat.extend([Message.human(SAID[2]), Message.ai("So it is")])
        await chat.messages()
        await tenant.shared_context("c").create({"owner": SAID[0]})
        with pytest.raises(VersionConflict):
            await tenant.shared_context("c").create({"owner": SAID[0]})
    told = [(one.operation, one.outcome, one.count) for one in seen]
    assert told == [
        ("append", "ok", 2),
        ("read", "ok", 1),
        ("context_create", "ok", 1),
        ("context_create", "VersionConflict", 1),
    ]
    assert {(one.tenant, one.agent) for one in seen} == {("support.acme", "default")}
    assert all(before <= one.started and 0 < one.seconds < 60 for one in seen)
    assert not [word for word in SAID for one in seen if word in str(one)]


async def test_an_audited_call_is_told_once(
    on_valkey: Provisioned, tenant: Tenant, seen: list[Observation]
) -> None:
    on_valkey.provision(limits={"audit": "1", "audit_heartbeat": str(in_ms() + 60_000)})
    async with tenant:
        await tenant.conversation("s", user="u").append(Message.human("one"))
    assert [one.operation for one in seen] == ["append"]


def test_an_observer_that_fails_is_logged_and_the_call_is_done(
    on_valkey: Provisioned, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(seen: Observation) -> None:
        raise ValueError(seen.operation)

    options = Options(observer=fails)
    with SyncTenant(on_valkey.source(), options=options) as tenant:
        chat = tenant.conversation("s", user="u")
        with caplog.at_level(logging.ERROR, "memtenant.memory"):
            assert chat.append(Message.human("one")).last == 1
    assert "The observer failed" in caplog.text


async def test_the_example_of_the_documentation_makes_spans(
    on_valkey: Provisioned, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[tuple[str, dict[str, str], int]] = []

    def start_span(name: str, start_time: int) -> SimpleNamespace:
        attributes: dict[str, str] = {}
        return SimpleNamespace(
            set_attributes=attributes.update,
            end=lambda end_time: spans.append((name, attributes, end_time - start_time)),
        )

    monkeypatch.setattr(trace, "get_tracer", lambda name: SimpleNamespace(start_span=start_span))
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(on_valkey.bind().parent))
    (example,) = (one for one in blocks(DOCS / "sdk.md") if "opentelemetry" in one.text)
    assert len(example.text.splitlines()) <= 16
    made: dict[str, Any] = {}
    exec(example.text, made)  # noqa: S102 - a page of our own
    async with made["tenant"] as tenant:
        await tenant.conversation("s", user="u").append(Message.human("one"))
    ((name, attributes, nanoseconds),) = spans
    assert name == "memtenant.append"
    assert attributes == {"memtenant.tenant": "support.acme", "memtenant.outcome": "ok"}
    assert nanoseconds > 0
