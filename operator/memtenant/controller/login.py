"""How kopf talks to the API server: our login, our session.

kopf's own login for asynchronous clients looks for a package of another name, so the operator
brings its own (reference: `@kopf.on.login`). The session takes each watch's pulse, and asks for
the metadata alone where nothing else is wanted: no value of a Secret that is only watched ever
enters this process. It also spares the lists with which kopf begins each watch, where nobody wants
them: what was listed already is watched from there on, and of Secrets only changes are news.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import kopf

from memtenant.controller.watches import Watches, watch_name

__all__ = ["session_for"]

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_METADATA_ONLY = {"secrets", "namespaces"}
_CHANGES_ONLY = {"secrets"}


def session_for(
    watches: Watches, needed: Mapping[str, frozenset[str]], listed: MutableMapping[str, str]
) -> Callable[..., Awaitable[kopf.AiohttpSession]]:
    """A login handler for kopf that reports to ``watches``.

    kopf calls it at the start and after each 401: then a ServiceAccount's token is read anew.
    ``needed`` names the resources (plural) that each ``group/version`` must have. ``listed`` are
    the resourceVersions from which resources are watched at first; a later list, after a watch that
    could not go on, is a whole one.
    """

    async def pulse(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        watching = request.url.query.get("watch") == "true"
        name = watch_name(request.url.path)
        spared = not watching and "limit" in request.url.query
        spared = spared and (name in listed or name.partition("@")[0] in _CHANGES_ONLY)
        if spared:
            request.url = request.url.update_query(limit="1")
        metadata = name.partition("@")[0] in _METADATA_ONLY and _is_core(request.url.path)
        if metadata:
            request.headers["Accept"] = _METADATA if watching else _METADATA_LIST
        response = await handler(request)
        await _require(needed, request.url.path, response)
        if metadata and not watching:
            response.json = _with_items(response.json)  # type: ignore[method-assign, assignment]
        if spared and response.ok:
            response.json = _without_items(  # type: ignore[method-assign, assignment]
                response.json, listed.pop(name, None)
            )
        if watching and response.ok:
            heard = _Heard(response.content, lambda: watches.heard(name))
            response.content = heard  # type: ignore[assignment]
        return response

    async def login(**kwargs: Any) -> kopf.AiohttpSession:
        info = _connection_info(**kwargs)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers={**info.as_http_headers(), "User-Agent": "memtenant"},
            middlewares=(pulse,),
        )
        return kopf.AiohttpSession(server=info.server, aiohttp_session=session)

    return login


def _connection_info(**kwargs: Any) -> kopf.ConnectionInfo:
    """Where and as whom, in the order that `memtenant.resources.connection` has too."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if os.environ.get("KUBECONFIG") or not host:
        info = kopf.login_with_kubeconfig(**kwargs)
        if info is None:
            raise kopf.LoginError(
                "there is neither a kubeconfig nor a ServiceAccount to log in with"
            )
        return info
    if ":" in host:
        host = f"[{host}]"
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return kopf.ConnectionInfo(
        server=f"https://{host}:{port}",
        ca_path=str(_SERVICE_ACCOUNT / "ca.crt"),
        token=(_SERVICE_ACCOUNT / "token").read_text().strip(),
    )


async def _require(
    needed: Mapping[str, frozenset[str]], path: str, response: aiohttp.ClientResponse
) -> None:
    """Let kopf ask again while discovery does not show what has to be watched.

    kopf looks once, and what it does not find it never watches, without an error: a server that
    has just started, or has just been given a CRD, shows its kinds one by one, and may answer 404
    to a version that it has just listed (both seen on 1.36).
    """
    served: set[str]
    missing: set[str]
    version = path.removeprefix("/apis/")
    if response.status == HTTPStatus.NOT_FOUND and version in needed:
        missing = {version}
    elif not response.ok:
        return
    elif path == "/apis":
        body = await response.json()
        served = {
            version["groupVersion"] for group in body["groups"] for version in group["versions"]
        }
        missing = needed.keys() - served
    elif version in needed:
        body = await response.json()
        served = {resource["name"] for resource in body["resources"]}
        missing = {f"{plural}.{version}" for plural in needed[version] - served}
    else:
        return
    if missing:
        response.release()
        raise aiohttp.ClientConnectionError(
            f"the API server does not serve {', '.join(sorted(missing))} yet: are memtenant's CRDs "
            "installed?"
        )


def _is_core(path: str) -> bool:
    return path.startswith("/api/v1/")


def _with_items(read: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """An empty list of metadata says ``"items": null`` (measured on 1.36), which ends kopf."""

    async def json(**options: Any) -> Any:
        body = await read(**options)
        if isinstance(body, dict) and body.get("items", ()) is None:
            body["items"] = []
        return body

    return json


def _without_items(
    read: Callable[..., Awaitable[Any]], version: str | None
) -> Callable[..., Awaitable[Any]]:
    """An empty list, as of ``version`` (None: as of now)."""

    async def json(**options: Any) -> Any:
        found = (await read(**options))["metadata"]["resourceVersion"]
        return {"items": [], "metadata": {"resourceVersion": version or found}}

    return json


class _Heard:
    """A response's body that tells of each piece that is read from it."""

    def __init__(self, body: aiohttp.StreamReader, heard: Callable[[], None]) -> None:
        self._body = body
        self._heard = heard

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """As `aiohttp.StreamReader.iter_chunked`: the one way in which kopf reads a watch."""
        async for piece in self._body.iter_chunked(size):
            self._heard()
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)
