"""/healthz, /readyz and /metrics.

Liveness asks whether this process still does its work: it fails on a worker pool or a watch that
is dead, and the pod is started again. Readiness asks whether this replica could lead: a standby
that knows what is declared is ready, because it takes over without being told.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

__all__ = ["serve"]

_log = logging.getLogger(__name__)

_TEXT = "text/plain; version=0.0.4; charset=utf-8"

Ailments = Callable[[], list[str]]


@asynccontextmanager
async def serve(
    host: str,
    port: int,
    *,
    dead: Ailments,
    unready: Ailments,
    metrics: Callable[[], Awaitable[str]],
) -> AsyncIterator[int]:
    """Serve while the context lasts; yields the port.

    ``dead`` and ``unready`` answer what is wrong, one sentence each, or nothing.
    """

    def answer(ailments: Ailments) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(_: web.Request) -> web.Response:
            found = ailments()
            return web.Response(status=503 if found else 200, text="\n".join(found or ["ok"]))

        return handler

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=(await metrics()).encode(), headers={"Content-Type": _TEXT})

    app = web.Application()
    app.router.add_get("/healthz", answer(dead))
    app.router.add_get("/readyz", answer(unready))
    app.router.add_get("/metrics", exposition)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound: int = runner.addresses[0][1]
        _log.info("health and metrics on port %d", bound)
        yield bound
    finally:
        await runner.cleanup()
