"""Requests to a Kubernetes API server: raw JSON over one bounded aiohttp session.

Configuration, credentials and TLS come from ``kubernetes.aio``. Its generated client is left out:
building a model per object costs more than the request. An answer is a parsed JSON value or one of
memtenant's errors, and no error or log line quotes a body that was sent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_kube_config
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)
from yaml import YAMLError
from yarl import URL

from memtenant.errors import (
    InvalidResource,
    MemtenantError,
    ResourceConflict,
    ResourceForbidden,
    ResourceNotFound,
    ResourceUnavailable,
    UsageError,
)
from memtenant.resources.port import SECRET_ACCESS_MISSING

__all__ = ["APPLY", "JSON_PATCH", "MERGE_PATCH", "Connection", "Limits", "Request", "path"]

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"

_JSON = "application/json"
_LONGEST_QUOTE = 400
_log = logging.getLogger(__name__)

# What `kubernetes.aio` lets through of a file of another form: it checks little of one.
_UNUSABLE = (
    *(ConfigException, OSError, YAMLError),
    *(AttributeError, LookupError, TypeError, ValueError),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard a connection may try. Times are seconds."""

    concurrency: int = 48
    """Requests under way at once; more wait. The API server fair-queues per client anyway."""

    connect_timeout: float = 10.0
    request_timeout: float = 30.0
    attempts: int = 5
    """Tries of a call that may be repeated, the first included."""

    first_delay: float = 0.1
    longest_delay: float = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """One call. ``what`` names the object in errors: ``MemoryTenant/support/acme``.

    ``repeatable`` says that a second try after a lost answer does no harm. ``secret`` says that the
    body is confidential: the server's words on it are not quoted either.
    """

    method: str
    path: str
    what: str
    body: Any = None
    content_type: str = _JSON
    query: Mapping[str, str] | None = None
    repeatable: bool = True
    secret: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    payload: bytes
    retry_after: float | None


class _Loader(Protocol):
    """What re-reads credentials into a configuration."""

    async def load(self, configuration: Configuration) -> None:
        """Read the credentials again."""


class Connection:
    """A session with one API server. Make it by `Connection.open`."""

    def __init__(
        self,
        configuration: Configuration,
        session: aiohttp.ClientSession,
        limits: Limits,
        loader: _Loader,
    ) -> None:
        self._configuration = configuration
        self._session = session
        self._limits = limits
        self._loader = loader
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._renewing = asyncio.Lock()
        self._base = str(configuration.host).rstrip("/")
        self._proxy = configuration.proxy or _proxy_from_environment(self._base)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        limits: Limits | None = None,
    ) -> AsyncIterator[Connection]:
        """A connection as kubectl would make it: ``kubeconfig``, ``$KUBECONFIG``, the pod's own
        ServiceAccount, or ``~/.kube/config``. `UsageError` if none of them can be used.
        """
        limits = limits or Limits()
        loader = _loader(kubeconfig, context)
        configuration = Configuration()
        try:
            await loader.load(configuration)
            _require_url(str(configuration.host))
            ssl_context = RESTClientObject(configuration).ssl_context
        except _UNUSABLE as error:
            raise UsageError(
                f"no usable Kubernetes configuration: {loader}: {_in_one_line(error)}. Give a "
                "kubeconfig, set KUBECONFIG, or run in a pod with a ServiceAccount token"
            ) from error
        connector = aiohttp.TCPConnector(limit=limits.concurrency, ssl=ssl_context)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=limits.request_timeout, sock_connect=limits.connect_timeout
            ),
            headers={
                "Accept": _JSON,
                # In a cluster bytes are cheaper than the gzip of them, on both sides.
                "Accept-Encoding": "identity",
                "User-Agent": "memtenant",
            },
        ) as session:
            yield cls(configuration, session, limits, loader)

    async def call(self, request: Request) -> Any:
        """The parsed answer, after as many tries as the request bears; else one typed error."""
        body = None if request.body is None else json.dumps(request.body).encode()
        renewed = False
        for attempt in range(self._limits.attempts):
            delay = self._delay(attempt)
            try:
                answer = await self._once(request, body)
            except (aiohttp.ClientError, TimeoutError) as error:
                if not (request.repeatable or isinstance(error, aiohttp.ClientConnectorError)):
                    raise ResourceUnavailable(
                        f"no answer to {request.method} {request.what} "
                        f"({type(error).__name__}): it may or may not have been done"
                    ) from error
                failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            else:
                if answer.status < HTTPStatus.BAD_REQUEST:
                    return _parsed(request, answer)
                if answer.status == HTTPStatus.UNAUTHORIZED and not renewed:
                    renewed = True
                    await self._renew_credentials()
                    continue
                if not _may_repeat(request, answer.status):
                    raise _error(request, answer)
                failure = f"HTTP {answer.status}"
                delay = max(delay, answer.retry_after or 0.0)
            if attempt + 1 < self._limits.attempts:
                await asyncio.sleep(delay)
        raise ResourceUnavailable(
            f"{request.method} {request.what} failed {self._limits.attempts} times, "
            f"at last with {failure}: is the API server reachable and healthy?"
        )

    async def _once(self, request: Request, body: bytes | None) -> _Answer:
        url = self._base + request.path
        if request.query:
            url = f"{url}?{urlencode(request.query)}"
        async with (
            self._slots,
            self._session.request(
                request.method,
                URL(url, encoded=True),
                data=body,
                headers=await self._headers(request, body),
                server_hostname=self._configuration.tls_server_name,
                proxy=self._proxy,
                proxy_headers=self._configuration.proxy_headers,
                allow_redirects=False,
            ) as response,
        ):
            return _Answer(
                response.status,
                await response.read(),
                _seconds(response.headers.get("Retry-After")),
            )

    async def _headers(self, request: Request, body: bytes | None) -> dict[str, str]:
        headers = {} if body is None else {"Content-Type": request.content_type}
        # Reads the ServiceAccount token again once a minute: bound tokens are rotated.
        token = await self._configuration.get_api_key_with_prefix("BearerToken", "authorization")
        if not token and self._configuration.username:
            token = self._configuration.get_basic_auth_token()
        if token:
            headers["Authorization"] = token
        return headers

    async def _renew_credentials(self) -> None:
        async with self._renewing:
            try:
                await self._loader.load(self._configuration)
            except _UNUSABLE as error:
                _log.warning("credentials could not be read again: %s", type(error).__name__)

    def _delay(self, attempt: int) -> float:
        most = min(self._limits.longest_delay, self._limits.first_delay * 2.0**attempt)
        return most * random.uniform(0.5, 1.0)  # noqa: S311 -- spreads load, hides nothing


def _proxy_from_environment(url: str) -> str | None:
    """What ``HTTPS_PROXY`` and ``NO_PROXY`` say of the API server. aiohttp would ask them, and a
    netrc file in a thread, at each request: a seventh of what a request costs (measured).
    """
    server = URL(url)
    if server.host is None or proxy_bypass(server.host):
        return None
    return getproxies().get(server.scheme)


def _require_url(server: str) -> None:
    if URL(server).scheme not in ("http", "https"):
        raise ConfigException(f"the server {server!r} is no URL: it should be https://HOST:PORT")


def _in_one_line(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return (
        words
        if isinstance(error, ConfigException | OSError)
        else (f"it is not of the form of one ({type(error).__name__}: {words})")
    )


def path(*segments: str) -> str:
    """``/a/b/c`` with each segment quoted, so that no name can leave its place."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


class _FromKubeconfig:
    def __init__(self, file: Path, context: str | None) -> None:
        self._file = file
        self._context = context

    def __str__(self) -> str:
        return str(self._file)

    async def load(self, configuration: Configuration) -> None:
        self._require_file()
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(self._file),
            context=self._context,
            client_configuration=configuration,
            persist_config=False,
        )

    def _require_file(self) -> None:
        """Of several, as kubectl takes them, one is enough."""
        if not any(Path(one).exists() for one in str(self._file).split(os.pathsep)):
            raise ConfigException("it does not exist")


class _FromPod:
    def __str__(self) -> str:
        return "the pod's ServiceAccount"

    async def load(self, configuration: Configuration) -> None:
        loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
            SERVICE_TOKEN_FILENAME, SERVICE_CERT_FILENAME
        )
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]


def _loader(kubeconfig: Path | None, context: str | None) -> _Loader:
    if kubeconfig is None and os.environ.get("KUBECONFIG"):
        kubeconfig = Path(os.environ["KUBECONFIG"])
    if kubeconfig is None and context is None and os.environ.get(SERVICE_HOST_ENV_NAME):
        return _FromPod()
    return _FromKubeconfig(kubeconfig or Path.home() / ".kube" / "config", context)


def _may_repeat(request: Request, status: int) -> bool:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return True  # refused before it was looked at
    return request.repeatable and status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _seconds(retry_after: str | None) -> float | None:
    """Kubernetes sends whole seconds; a date (RFC 9110 allows it) is not worth a parser here."""
    if retry_after is None or not retry_after.isdigit():
        return None
    return min(float(retry_after), 60.0)


def _parsed(request: Request, answer: _Answer) -> Any:
    try:
        return json.loads(answer.payload)
    except ValueError as error:
        raise ResourceUnavailable(
            f"the answer to {request.method} {request.what} is not JSON: is a proxy in between?"
        ) from error


def _error(request: Request, answer: _Answer) -> MemtenantError:
    """The typed error for a refusal, with the server's reason where it is safe to repeat."""
    try:
        parsed = json.loads(answer.payload)
    except ValueError:
        parsed = None
    status = parsed if isinstance(parsed, dict) and parsed.get("kind") == "Status" else None
    # What a server says of a Secret that it cannot decode quotes the bytes around the fault.
    said = "" if status is None else str(status.get("message", ""))[:_LONGEST_QUOTE]
    detail = f": {said}" if said and not request.secret else ""
    doing = f"{request.method} {request.what}"
    match answer.status:
        case HTTPStatus.NOT_FOUND if status is None:
            return ResourceUnavailable(
                f"the API server does not serve {request.what}: install memtenant's CRDs",
                reason="CRDMissing",
            )
        case HTTPStatus.NOT_FOUND:
            return ResourceNotFound(f"{request.what} does not exist{detail}")
        case HTTPStatus.CONFLICT:
            return ResourceConflict(f"{request.what} was changed by somebody else{detail}")
        case HTTPStatus.FORBIDDEN:
            return _forbidden(request, said, status or {})
        case HTTPStatus.UNAUTHORIZED:
            return ResourceForbidden(
                f"{doing}: the API server does not accept the operator's credentials",
                reason="Unauthorized",
            )
        case HTTPStatus.GONE | HTTPStatus.TOO_MANY_REQUESTS:
            return ResourceUnavailable(f"{doing} was refused for now{detail}")
        case code if code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return ResourceUnavailable(f"{doing} failed with HTTP {code}")
        case code:
            return InvalidResource(f"{doing} was refused with HTTP {code}{detail}")


def _forbidden(request: Request, said: str, status: Mapping[str, Any]) -> ResourceForbidden:
    """A 403 is a missing permission, a full ResourceQuota, or a namespace on its way out."""
    causes = (status.get("details") or {}).get("causes") or []
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return ResourceForbidden(
            f"{request.what} cannot be made: its namespace is being deleted",
            reason="NamespaceTerminating",
        )
    if "exceeded quota" in said:
        return ResourceForbidden(
            f"{request.what} exceeds a ResourceQuota of its namespace: raise the quota",
            reason="ResourceQuotaExceeded",
        )
    message = (
        f"the operator may not {request.method} {request.what}: grant its ServiceAccount the verb"
    )
    if request.secret:
        return ResourceForbidden(message, reason=SECRET_ACCESS_MISSING)
    return ResourceForbidden(f"{message} ({said})" if said else message)
