"""Requests that are repeated where it does no harm, and errors that say what to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from memtenant.errors import (
    InvalidResource,
    MemtenantError,
    ResourceConflict,
    ResourceForbidden,
    ResourceNotFound,
    ResourceUnavailable,
    UsageError,
)
from memtenant.resources.connection import Connection, Limits, Request, path
from memtenant.resources.kubernetes import KubernetesResources
from memtenant.resources.port import (
    SECRET_ACCESS_MISSING,
    Declared,
    EventType,
    Kind,
    ObjectKey,
    SecretDraft,
)
from memtenant.resources.reading import declared_from
from tests.resources.declaring import InCluster
from tests.resources.objects import raw_object
from tests.resources.scripted import Answer, Scripted, scripted, write_kubeconfig
from tests.support.controlplane.cluster import Cluster

QUICK = Limits(attempts=4, first_delay=0.01, longest_delay=0.02, request_timeout=5.0)
READ = Request("GET", "/it", "Thing/it")
MINT = Request("POST", "/it", "Secret/it", {"data": "hunter2"}, repeatable=False, secret=True)
ACME = ObjectKey.tenant("support", "acme")
BUSY = Answer.refusal(429)
FINE = Answer(200, {"fine": True})


@asynccontextmanager
async def talking(folder: Path, *answers: Answer) -> AsyncIterator[tuple[Connection, Scripted]]:
    async with (
        scripted(folder, *answers) as script,
        Connection.open(kubeconfig=script.kubeconfig, limits=QUICK) as connection,
    ):
        yield connection, script


@pytest.mark.parametrize(
    "fault",
    [Answer.refusal(500), Answer.refusal(503), Answer(502, "<html>"), BUSY, Answer(cut=True)],
    ids=["500", "503", "502", "429", "cut"],
)
async def test_a_read_is_repeated_until_it_is_answered(tmp_path: Path, fault: Answer) -> None:
    async with talking(tmp_path, fault, fault, FINE) as (connection, _):
        assert await connection.call(READ) == {"fine": True}


@pytest.mark.parametrize("fault", [Answer.refusal(503), Answer(cut=True)], ids=["503", "cut"])
async def test_repeating_ends(tmp_path: Path, fault: Answer) -> None:
    async with talking(tmp_path, fault) as (connection, script):
        with pytest.raises(ResourceUnavailable, match="Thing/it failed 4 times") as failed:
            await connection.call(READ)
    assert failed.value.retryable
    assert len(script.asked) >= QUICK.attempts


@pytest.mark.parametrize("fault", [Answer.refusal(500), Answer(cut=True)], ids=["500", "cut"])
async def test_what_may_not_be_done_twice_is_not_repeated(tmp_path: Path, fault: Answer) -> None:
    async with talking(tmp_path, fault, FINE) as (connection, script):
        with pytest.raises(ResourceUnavailable):
            await connection.call(MINT)
    assert len(script.asked) == 1


async def test_what_was_not_looked_at_is_repeated_whatever_it_is(tmp_path: Path) -> None:
    async with talking(tmp_path, BUSY, FINE) as (connection, script):
        await connection.call(MINT)
    assert len(script.asked) == 2


async def test_retry_after_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float, *arguments: Any) -> None:
        nonlocal waited
        waited += [seconds] if seconds else []  # aiohttp yields by sleep(0)
        await real_sleep(0, *arguments)

    polite = Answer(429, {"kind": "Status"}, {"Retry-After": "7"})
    absurd = Answer(429, {"kind": "Status"}, {"Retry-After": "86400"})
    async with talking(tmp_path, polite, absurd, FINE) as (connection, _):
        monkeypatch.setattr(asyncio, "sleep", sleep)
        await connection.call(READ)
    assert waited == [7.0, 60.0]


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (Answer.refusal(404), ResourceNotFound, "NotFound"),
        (Answer(404, "404 page not found"), ResourceUnavailable, "CRDMissing"),
        (Answer.refusal(409), ResourceConflict, "Conflict"),
        (Answer.refusal(403, "may not"), ResourceForbidden, "Forbidden"),
        (Answer.refusal(403, "x exceeded quota: y"), ResourceForbidden, "ResourceQuotaExceeded"),
        (
            Answer.refusal(403, causes=[{"reason": "NamespaceTerminating"}]),
            ResourceForbidden,
            "NamespaceTerminating",
        ),
        (Answer.refusal(401), ResourceForbidden, "Unauthorized"),
        (Answer.refusal(410), ResourceUnavailable, "APIUnavailable"),
        (Answer.refusal(422), InvalidResource, "InvalidSpec"),
        (Answer(200, "<html>"), ResourceUnavailable, "APIUnavailable"),
    ],
)
async def test_a_refusal_is_one_typed_error(
    tmp_path: Path, answer: Answer, error: type[MemtenantError], reason: str
) -> None:
    async with talking(tmp_path, answer) as (connection, _):
        with pytest.raises(error, match="Thing/it") as refused:
            await connection.call(READ)
    assert refused.value.reason == reason


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 500])
async def test_no_error_or_log_quotes_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG, "memtenant")
    # As an API server writes about a body that it cannot decode.
    answer = Answer.refusal(status, 'illegal base64 near {"password": "hunter2"}')
    async with talking(tmp_path, answer) as (connection, _):
        with pytest.raises(MemtenantError) as refused:
            await connection.call(MINT)
    assert "hunter2" not in f"{refused.value!r} {refused.value} {caplog.text}"


async def test_credentials_are_read_again_when_they_are_refused(tmp_path: Path) -> None:
    async with talking(tmp_path, Answer.refusal(401), FINE) as (connection, script):
        server = str(connection._base)
        write_kubeconfig(tmp_path, server, token="second")
        await connection.call(READ)
    assert script.tokens == ["Bearer first", "Bearer second"]


async def test_a_list_follows_its_pages_and_keeps_its_snapshot(tmp_path: Path) -> None:
    pages = [
        Answer(
            body={
                "metadata": {"resourceVersion": "7", "continue": more},
                "items": [raw_object(ObjectKey.tenant("support", name), 5)],
            }
        )
        for name, more in (("one", "more/a&b"), ("two", ""))
    ]
    async with talking(tmp_path, *pages) as (connection, script):
        resources = KubernetesResources(connection, home="home", instance="test")
        listing = await resources.list(Kind.TENANT)
    assert [declared.key.name for declared in listing] == ["one", "two"]
    assert listing.resource_version == "7"
    assert "continue=more%2Fa%26b" in script.asked[1]


async def test_an_event_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    async with talking(tmp_path, Answer.refusal(500)) as (connection, script):
        resources = KubernetesResources(connection, home="home", instance="test")
        await resources.emit_event(declared(), EventType.NORMAL, "Ready", "it is")
    assert len(script.asked) == 1


async def test_calls_under_way_are_bounded(tmp_path: Path) -> None:
    async with talking(tmp_path, FINE) as (connection, script):
        connection._slots = asyncio.Semaphore(0)
        waiting = [asyncio.create_task(connection.call(READ)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert script.asked == []
        connection._slots.release()
        await asyncio.gather(*waiting)
    assert len(script.asked) == 3


def test_no_name_leaves_its_place_in_a_path() -> None:
    assert path("api", "v1", "secrets", "../x?y=%2e") == "/api/v1/secrets/..%2Fx%3Fy%3D%252e"


async def test_without_a_configuration_it_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none: it does not exist\. Give a kubeconfig"):
        async with Connection.open(kubeconfig=tmp_path / "none"):
            pass


_WHOLE = """
current-context: it
contexts: [{name: it, context: {cluster: it, user: it}}]
users: [{name: it, user: {}}]
clusters: [{name: it, cluster: {server: "%s"}}]
"""


@pytest.mark.parametrize(
    "text",
    [
        *("", "a: [1", "\t: x", "words", "[]", "contexts: 3\ncurrent-context: it"),
        *(_WHOLE % server for server in ("", "127.0.0.1", "ftp://it", "https://[::")),
        _WHOLE % 'https://it", certificate-authority-data: "aGFsbG8=',
    ],
)
async def test_a_file_that_is_no_configuration_is_told_in_one_line(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "it").write_text(text)
    with pytest.raises(UsageError, match=r"^no usable Kubernetes configuration: [^\n]*$"):
        async with Connection.open(kubeconfig=tmp_path / "it"):
            pass


async def test_without_the_permission_a_secret_is_out_of_reach(
    in_cluster: InCluster, crds: Cluster, namespace: str
) -> None:
    secret = await in_cluster.resources.create_secret(
        SecretDraft(namespace, "key", "acme", {"root": b"hunter2"})
    )
    await asyncio.to_thread(crds.kubectl, "create", "sa", "operator", "-n", namespace)
    kubeconfig = await asyncio.to_thread(crds.kubeconfig_for_service_account, namespace, "operator")
    async with Connection.open(kubeconfig=kubeconfig) as connection:
        resources = KubernetesResources(connection, home=namespace, instance="test")
        assert not await resources.can_read_secrets(namespace)
        attempts = (
            resources.get_secret(namespace, "key"),
            resources.list_secrets(namespace, {}),
            resources.replace_secret(secret, {"root": b"x"}),
            resources.delete_secret(secret),
        )
        for attempt in attempts:
            with pytest.raises(ResourceForbidden) as refused:
                await attempt
            assert refused.value.reason == SECRET_ACCESS_MISSING
        with pytest.raises(ResourceForbidden) as refused:
            await resources.list(Kind.TENANT)
        assert refused.value.reason == "Forbidden"


async def test_a_namespace_that_goes_takes_no_secret(
    in_cluster: InCluster, crds: Cluster, namespace: str
) -> None:
    await in_cluster.declare(
        ObjectKey.tenant(namespace, "acme"), {"retentionPolicyRef": {"name": "gdpr"}}
    )
    tenant = await in_cluster.resources.get(ObjectKey.tenant(namespace, "acme"))
    assert tenant is not None
    await in_cluster.resources.add_finalizer(tenant, "memtenant.dev/tenant")
    await asyncio.to_thread(crds.kubectl, "delete", "namespace", namespace, "--wait=false")
    there = await in_cluster.resources.get_namespace(namespace)
    assert there is not None
    assert there.terminating
    with pytest.raises(ResourceForbidden) as refused:
        await in_cluster.resources.create_secret(SecretDraft(namespace, "late", "acme", {}))
    assert refused.value.reason == "NamespaceTerminating"


def declared() -> Declared:
    return declared_from(Kind.TENANT, raw_object(ACME, 5))


async def test_the_proxy_of_the_environment_is_used_unless_it_is_excepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(tmp_path, FINE) as proxy:
        address = proxy.kubeconfig.read_text().split("server: ")[1].split()[0]
        kubeconfig = write_kubeconfig(tmp_path, "http://cluster.invalid", token="it")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", address)
        async with Connection.open(kubeconfig=kubeconfig, limits=QUICK) as connection:
            assert await connection.call(READ) == {"fine": True}
        assert proxy.asked == ["GET /it"]
        monkeypatch.setenv("no_proxy", ".invalid")
        async with Connection.open(kubeconfig=kubeconfig, limits=QUICK) as connection:
            with pytest.raises(ResourceUnavailable):
                await connection.call(READ)
        assert len(proxy.asked) == 1
