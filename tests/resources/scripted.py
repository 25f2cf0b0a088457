"""An HTTP server that answers by script: for the faults that a healthy API server does not have."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web


@dataclass(frozen=True)
class Answer:
    """What comes back; ``cut`` closes the connection instead."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False

    @classmethod
    def refusal(cls, status: int, message: str = "no", **details: Any) -> Answer:
        """A Kubernetes Status."""
        return cls(status, {"kind": "Status", "message": message, "details": details})


@dataclass
class Scripted:
    """Answers in turn, the last one for ever; and what was asked."""

    answers: list[Answer]
    asked: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    kubeconfig: Path = Path()

    async def handle(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked.append(f"{request.method} {request.rel_url}")
        self.tokens.append(request.headers.get("Authorization"))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.cut:
            assert request.transport is not None
            request.transport.abort()
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        return web.Response(status=answer.status, text=text, headers=answer.headers)


@asynccontextmanager
async def scripted(folder: Path, *answers: Answer) -> AsyncIterator[Scripted]:
    """A server that gives these answers, and a kubeconfig for it."""
    script = Scripted(list(answers))
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", script.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    script.kubeconfig = write_kubeconfig(folder, f"http://{host}:{port}", token="first")
    try:
        yield script
    finally:
        await runner.cleanup()


def write_kubeconfig(folder: Path, server: str, *, token: str) -> Path:
    """A kubeconfig with a token, written anew."""
    file = folder / "kubeconfig"
    config = {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": server}}],
        "users": [{"name": "it", "user": {"token": token}}],
    }
    file.write_text(yaml.safe_dump(config))
    return file
