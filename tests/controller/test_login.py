"""What kopf is told of an API server that does not serve everything yet."""

import json
import logging
from pathlib import Path

import aiohttp
import kopf
import pytest
from aiohttp import web

from memtenant.controller.login import session_for
from memtenant.controller.watches import Watches

GROUP = "memtenant.dev/v1alpha1"


async def ask(folder: Path, path: str, answer: web.Response) -> int:
    """The status that kopf's session gets where the server answers so."""

    async def handle(_: web.Request) -> web.Response:
        return answer

    app = web.Application()
    app.router.add_get("/{anything:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        login = session_for(Watches(), {GROUP: frozenset({"memorytenants"})})
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
        async with (
            info.aiohttp_session as session,
            session.get(f"http://{host}:{port}{path}") as got,
        ):
            return got.status
    finally:
        await runner.cleanup()


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
