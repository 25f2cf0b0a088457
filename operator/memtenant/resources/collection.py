"""The objects of one kind on an API server, by name: read, listed, made, applied, patched, deleted.

Whatever is no declared object of ours goes through here: Secrets, Leases, CronJobs, what an
instance is made of. So how a path is written, who is named as field manager and how an object is
called in an error is said once. A deletion names the very object that was read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from memtenant.errors import ResourceNotFound
from memtenant.resources.connection import APPLY, MERGE_PATCH, Connection, Request, path
from memtenant.resources.port import FIELD_MANAGER

__all__ = ["APIKind", "Collection", "Object", "as_read"]

Object = Mapping[str, Any]
"""An object as Kubernetes' JSON."""

_PAGE = "500"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class APIKind:
    """A kind by ``name``, and where its objects are: ``version`` is ``v1``, or ``apps/v1``."""

    name: str
    version: str
    plural: str
    secret: bool = False
    """No error may quote what the server says of a body."""


class Collection:
    """Those of one namespace; without one, of the whole cluster. ``manager`` owns the fields that
    are written."""

    def __init__(
        self,
        connection: Connection,
        kind: APIKind,
        namespace: str = "",
        *,
        manager: str = FIELD_MANAGER,
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._namespace = namespace
        self._managed = {"fieldManager": manager}
        api = ("apis", *kind.version.split("/")) if "/" in kind.version else ("api", kind.version)
        within = ("namespaces", namespace) if namespace else ()
        self._place = (*api, *within, kind.plural)

    async def get(self, name: str) -> Object | None:
        """The object, or None."""
        try:
            return await self._call("GET", name)
        except ResourceNotFound:
            return None

    async def pages(self, query: Mapping[str, str] | None = None) -> AsyncIterator[Any]:
        """The pages of a list, all of one snapshot: each is asked for while the one before it is
        worked on. `ResourceUnavailable` if the snapshot expires (410).
        """
        within = f" of namespace {self._namespace}" if self._namespace else ""
        what = f"{self._kind.plural}{within}"

        def ask(rest: str) -> asyncio.Task[Any]:
            page = {"limit": _PAGE} | ({"continue": rest} if rest else {})
            whole = {**(query or {}), **page}
            request = Request(
                "GET", path(*self._place), what, query=whole, secret=self._kind.secret
            )
            return asyncio.create_task(self._connection.call(request))

        asked = ask("")
        try:
            while True:
                page = await asked
                rest = page["metadata"].get("continue", "")
                if not rest:
                    yield page
                    return
                asked = ask(rest)
                yield page
        finally:
            asked.cancel()

    async def create(self, manifest: Object) -> Object:
        """Make it, `ResourceConflict` if it is there. Not repeated after a lost answer: it might
        conflict with itself.
        """
        name = manifest["metadata"]["name"]
        return await self._call(
            "POST", name, body=manifest, query=self._managed, at=self._place, repeatable=False
        )

    async def replace(self, manifest: Object) -> Object:
        """Make the object of the resourceVersion that the manifest names what it says. Not
        repeated, as `create`.
        """
        name = manifest["metadata"]["name"]
        return await self._call("PUT", name, body=manifest, query=self._managed, repeatable=False)

    async def apply(
        self, manifest: Object, *, subresource: str = "", dry_run: bool = False
    ) -> Object:
        """Make the fields of ``manifest`` so, by server-side apply, and return what is then. What
        this manager applied before and is not in it goes; others' fields stay.
        """
        name = manifest["metadata"]["name"]
        trial = {"dryRun": "All"} if dry_run else {}
        return await self._call(
            "PATCH",
            *((name, subresource) if subresource else (name,)),
            body=manifest,
            content_type=APPLY,
            query={**self._managed, "force": "true", **trial},
        )

    async def merge(self, name: str, change: Object) -> Object:
        """Change what ``change`` names, by a merge patch; None takes a field away."""
        return await self._call(
            "PATCH", name, body=change, content_type=MERGE_PATCH, query=self._managed
        )

    async def delete(
        self, name: str, preconditions: Object, *, propagation: str = "Background"
    ) -> None:
        """Delete the object that meets the preconditions; gone already is fine."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": preconditions,
        }
        try:
            await self._call("DELETE", name, body=options)
        except ResourceNotFound:
            _log.debug("%s is gone already", self._what(name))

    async def _call(
        self,
        method: str,
        *names: str,
        at: tuple[str, ...] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> Object:
        answer: Object = await self._connection.call(
            Request(
                method,
                path(*(at or (*self._place, *names))),
                self._what(*names),
                body=body,
                content_type=content_type,
                query=query,
                repeatable=repeatable,
                secret=self._kind.secret,
            )
        )
        return answer

    def _what(self, *names: str) -> str:
        return f"{self._kind.name} {'/'.join(filter(None, (self._namespace, *names)))}"


def as_read(metadata: Object) -> Object:
    """What names the very object that was read, and as it was then."""
    return {name: metadata[name] for name in ("uid", "resourceVersion")}
