"""The log's key and what was signed last, in one Secret of the sealer's own namespace.

The operator, which administers the stores, has no right there. Only whoever read the Secret as it
is may move the head, so of two sealers one wins, and the other reads anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from memtenant.archive import SignedHead
from memtenant.crypto.signing import SigningKey
from memtenant.errors import KeyUnavailable, ResourceConflict, ResourceUnavailable, SignerConflict
from memtenant.resources.port import Resources, SecretDraft, StoredSecret

__all__ = ["LOG_SECRET", "LogSecret", "read_or_make"]

LOG_SECRET: Final = "memtenant-log"  # noqa: S105 - a Secret's name

_KEY, _ORIGIN, _HEAD = "key", "origin", "head"
_PATIENCE = 20.0
"""Seconds for an API server that does not answer: the engine's thread waits, and heartbeats with
it, of which agents miss the next for a minute."""

T = TypeVar("T")


async def read_or_make(
    resources: Resources, namespace: str, origin: str, *, fresh: bool = True
) -> LogSecret:
    """The Secret, made at the first start; who finds it there keeps the name that it has.

    Raises `KeyUnavailable` where it is damaged, or gone although the archive is not ``fresh``: no
    new key takes its place.
    """
    stored = await resources.get_secret(namespace, LOG_SECRET)
    if stored is None and fresh:
        draft = SecretDraft(
            namespace=namespace,
            name=LOG_SECRET,
            owner="audit-log",
            data={_KEY: SigningKey.new(origin).secret, _ORIGIN: origin.encode()},
        )
        try:
            stored = await resources.create_secret(draft)
        except ResourceConflict:
            stored = await resources.get_secret(namespace, LOG_SECRET)
    if stored is None or _KEY not in stored.data or _ORIGIN not in stored.data:
        raise KeyUnavailable(
            f"Secret {namespace}/{LOG_SECRET} with the log's {_KEY} and {_ORIGIN} is gone or "
            "damaged: restore it from a backup. No new key is made in its place: nobody would know "
            "whose log it is"
        )
    return LogSecret(resources, namespace, stored)


class LogSecret:
    """`memtenant.archive.SignerState` over the Secret.

    Its methods are called from the engine's thread, and wait for the event loop that made it.
    """

    def __init__(self, resources: Resources, namespace: str, stored: StoredSecret) -> None:
        self._resources = resources
        self._namespace = namespace
        self._stored = stored
        self._loop = asyncio.get_running_loop()

    @property
    def key(self) -> SigningKey:
        """The log's key. `KeyInvalid` where it is none."""
        return SigningKey(self._stored.data[_ORIGIN].decode("ascii"), self._stored.data[_KEY])

    def load(self) -> SignedHead | None:
        """What was signed last; None before the first."""
        return self._wait(self._load())

    def advance(self, before: SignedHead | None, after: SignedHead) -> None:
        """Make it ``after`` if it is ``before``; `SignerConflict` if it is not."""
        self._wait(self._advance(before, after))

    async def _load(self) -> SignedHead | None:
        stored = await self._resources.get_secret(self._namespace, LOG_SECRET)
        if stored is None or stored.data.get(_KEY) != self._stored.data[_KEY]:
            raise KeyUnavailable(
                f"Secret {self._namespace}/{LOG_SECRET} is gone or holds another key than at the "
                "start: restore it from a backup, or start the sealer anew"
            )
        self._stored = stored
        head = stored.data.get(_HEAD)
        return None if head is None else SignedHead.parse(head)

    async def _advance(self, before: SignedHead | None, after: SignedHead) -> None:
        if await self._load() != before:
            raise SignerConflict("Another process sealed the log meanwhile: read it anew")
        data = {**self._stored.data, _HEAD: after.to_json()}
        try:
            self._stored = await self._resources.replace_secret(self._stored, data)
        except ResourceConflict:
            raise SignerConflict(
                "Another process sealed the log at the same time: read it anew"
            ) from None

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(_PATIENCE)
        except TimeoutError:
            future.cancel()
            raise ResourceUnavailable(
                f"Secret {self._namespace}/{LOG_SECRET} could not be read or written in time"
            ) from None
