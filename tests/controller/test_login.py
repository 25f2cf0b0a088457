"""What kopf is told of an API server that does not serve everything yet."""

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import kopf
import pytest
from aiohttp import web
from yarl import URL

from memtenant.controller.login import session_for
from memtenant.controller.watches import Watches

GROUP = "memtenant.dev/v1alpha1"


@asynccontextmanager
async def kopfs_session(
    folder: Path, answer: Callable[[web.Request], web.Response], listed: dict[str, str]
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with a server that answers so."""

    async def handle(request: web.Request) -> web.Response:
        return answer(request)

    app = web.Application()
    app.router.add_get("/{anything:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        login = session_for(Watches(), {GROUP: frozenset({"memorytenants"})}, listed)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "current-context": "x",
                    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                    "clusters": [{"name": "x", "cluster": {"server": f"http://{host}:{port}"}}],
                    "users": [{"name": "x", "user": {"token": "t"}}],
                }
            )
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(kubeconfig))
            info = await login(logger=logging.getLogger(__name__), settings=kopf.OperatorSettings())
        async with info.aiohttp_session as session:
            session._base_url = URL(f"http://{host}:{port}")
            yield session
    finally:
        await runner.cleanup()


async def ask(folder: Path, path: str, answer: web.Response) -> int:
    """The status that kopf's session gets where the server answers so."""
    async with (
        kopfs_session(folder, lambda _: answer, {}) as session,
        session.get(path) as got,
    ):
        return got.status


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/apis", {"groups": []}),
        (f"/apis/{GROUP}", {"resources": [{"name": "memorystores"}]}),
        (f"/apis/{GROUP}", None),
    ],
    ids=["no group", "not all kinds", "a version that was listed is not there"],
)
async def test_what_is_not_served_yet_is_asked_for_again(
    tmp_path: Path, path: str, answer: object
) -> None:
    response = web.Response(status=404) if answer is None else web.json_response(answer)
    with pytest.raises(aiohttp.ClientConnectionError, match="yet"):
        await ask(tmp_path, path, response)


async def test_what_others_do_not_serve_is_their_affair(tmp_path: Path) -> None:
    assert await ask(tmp_path, "/apis/example.org/v1", web.Response(status=404)) == 404


def a_list(request: web.Request) -> web.Response:
    items = [{"metadata": {"name": f"asked-for-{request.query['limit']}"}}]
    return web.json_response({"items": items, "metadata": {"resourceVersion": "77"}})


async def test_what_was_listed_is_watched_from_there_and_listed_again_after_that(
    tmp_path: Path,
) -> None:
    where = f"/apis/{GROUP}/memorytenants?limit=500"
    async with kopfs_session(tmp_path, a_list, {"memorytenants": "41"}) as session:
        async with session.get(where) as first:
            assert await first.json() == {"items": [], "metadata": {"resourceVersion": "41"}}
        async with session.get(where) as later:
            assert [one["metadata"]["name"] for one in (await later.json())["items"]] == [
                "asked-for-500"
            ]


async def test_of_secrets_only_what_changes_is_news(tmp_path: Path) -> None:
    async with kopfs_session(tmp_path, a_list, {}) as session:
        for _ in range(2):
            async with session.get("/api/v1/namespaces/support/secrets?limit=500") as found:
                assert await found.json() == {"items": [], "metadata": {"resourceVersion": "77"}}
