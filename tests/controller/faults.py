"""An HTTP proxy in front of the real API server that refuses, loses and silences on demand.

It holds the admin's credentials and speaks plain HTTP to its clients. It has a thread and an event
loop of its own, so that it works beside clients in the test's loop and in other processes.
"""

import asyncio
import base64
import json
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from tests.support.controlplane.cluster import Cluster

_SESSION = web.AppKey("session", aiohttp.ClientSession)
_DROPPED = {"content-length", "transfer-encoding", "content-encoding", "connection"}


@dataclass
class _Fault:
    matches: Callable[[web.Request], bool]
    status: int
    left: int
    headers: dict[str, str]


@dataclass
class FaultyApi:
    """The proxy. Faults are set from any thread and hold for requests that come later."""

    cluster: Cluster
    folder: Path
    port: int = 0
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    _faults: list[_Fault] = field(default_factory=list)
    _silent: set[str] = field(default_factory=set)
    _hidden: dict[str, int] = field(default_factory=dict)
    _ends_with: int = 410
    _expired: set[str] = field(default_factory=set)
    _watching: set[tuple[str, asyncio.Task[Any]]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _open: threading.Event = field(default_factory=threading.Event)

    @property
    def kubeconfig(self) -> Path:
        """How clients reach the API server through the proxy."""
        path = self.folder / "faulty.kubeconfig"
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "users": [{"name": "u", "user": {}}],
            "contexts": [context],
            "current-context": "c",
        }
        path.write_text(json.dumps(config))
        return path

    def refuse(
        self,
        status: int,
        times: int,
        *,
        method: str = "GET",
        ending: str = "",
        retry_after: int | None = None,
    ) -> None:
        """Answer the next `times` requests of this method and path with an error."""

        def matches(request: web.Request) -> bool:
            return request.method == method and request.path.endswith(ending)

        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._faults.append(_Fault(matches, status, times, headers))

    def silence(self, plural: str) -> None:
        """Watches of it stay open and bring nothing any more, neither events nor bookmarks."""
        self._silent.add(plural)

    def lose_watch(self, plural: str) -> None:
        """End the watches of it; none opens again until `expire_watch`."""
        self._open.clear()
        self._expired.add(plural)

        def cut() -> None:
            for name, task in self._watching:
                if name == plural:
                    task.cancel()

        self._loop.call_soon_threadsafe(cut)

    def heal(self) -> None:
        """Refuse no more, and let every lost watch open again."""
        self._faults.clear()
        self.expire_watch()

    def hide(self, plural: str, times: int) -> None:
        """Leave it out of the next `times` answers of discovery, as just after a restart."""
        self._hidden[plural] = times

    def watched(self, plural: str) -> bool:
        """Whether a watch of it is open."""
        return any(name == plural for name, _ in self._watching.copy())

    def expire_watch(self, code: int = 410) -> None:
        """Let the lost watch open again, to end with an error: 410 as after a compaction."""
        self._ends_with = code
        self._open.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        watching = request.query.get("watch") == "true"
        plural = request.path.rsplit("/", 1)[-1]
        self.requests.append((request.method, request.path, "watch" if watching else ""))
        for fault in self._faults:
            if fault.left and fault.matches(request):
                fault.left -= 1
                return web.json_response(_status(fault.status), **_answer(fault))
        if watching and plural in self._expired:
            await asyncio.to_thread(self._open.wait)
            self._expired.discard(plural)
            event = {"type": "ERROR", "object": _status(self._ends_with)}
            return web.Response(text=json.dumps(event) + "\n", content_type="application/json")
        return await self._forward(request, plural, watching)

    async def _forward(
        self, request: web.Request, plural: str, watching: bool
    ) -> web.StreamResponse:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in {"host", *_DROPPED}
        }
        session: aiohttp.ClientSession = request.app[_SESSION]
        async with session.request(
            request.method,
            f"{self.cluster.url}{request.raw_path}",
            headers=headers,
            data=await request.read() or None,
        ) as answer:
            if request.transport is None or request.transport.is_closing():
                return web.Response()
            if request.path == "/apis/memtenant.dev/v1alpha1":
                return web.json_response(self._without_hidden(await answer.json()))
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _DROPPED}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            task = asyncio.current_task()
            assert task is not None
            entry = (plural, task)
            if watching:
                self._watching.add(entry)
            try:
                async for piece in answer.content.iter_any():
                    if not (watching and plural in self._silent):
                        await response.write(piece)
            finally:
                self._watching.discard(entry)
            await response.write_eof()
            return response

    def _without_hidden(self, discovered: dict[str, Any]) -> dict[str, Any]:
        hidden = {plural for plural, times in self._hidden.items() if times}
        self._hidden = {plural: times - 1 for plural, times in self._hidden.items() if times}
        kept = [each for each in discovered["resources"] if each["name"] not in hidden]
        return {**discovered, "resources": kept}


def _answer(fault: _Fault) -> dict[str, Any]:
    return {"status": fault.status, "headers": fault.headers}


def _status(code: int) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": {410: "Expired", 429: "TooManyRequests"}.get(code, "InternalError"),
        "message": "made by a test",
    }


def _tls(cluster: Cluster) -> ssl.SSLContext:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    user = config["users"][0]["user"]
    context = ssl.create_default_context(cafile=str(cluster.ca_file))
    with tempfile.NamedTemporaryFile() as pem:
        for part in ("client-certificate-data", "client-key-data"):
            pem.write(base64.b64decode(user[part]) + b"\n")
        pem.flush()
        context.load_cert_chain(pem.name)
    return context


@contextmanager
def faulty_api(cluster: Cluster, folder: Path) -> Iterator[FaultyApi]:
    proxy = FaultyApi(cluster, folder)
    started = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        connector = aiohttp.TCPConnector(limit=0, ssl=_tls(cluster))
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=True
        ) as session:
            app = web.Application(client_max_size=8 << 20)
            app[_SESSION] = session
            app.router.add_route("*", "/{path:.*}", proxy.handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            proxy.port = runner.addresses[0][1]
            started.set()
            await stop.wait()
            proxy._open.set()
            await runner.cleanup()

    def run() -> None:
        loop = proxy._loop
        loop.run_until_complete(serve())
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=run, name="faulty-api", daemon=True)
    thread.start()
    assert started.wait(120)
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(stop.set)
        thread.join(20)
