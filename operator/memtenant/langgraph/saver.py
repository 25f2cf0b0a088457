"""A checkpointer for LangGraph that keeps threads in a tenant: encrypted, bound to their place,
within its quota, and erased with their user."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.base import Checkpoint as GraphCheckpoint
from langgraph.checkpoint.serde.base import SerializerProtocol

from memtenant.errors import UsageError
from memtenant.langgraph.typed import (
    copied,
    copied_writes,
    kept,
    matches,
    metadata_of,
    restored,
    surplus,
    where_of,
    writes_of,
)
from memtenant.memory._async.checkpoints import Checkpoints as AsyncCheckpoints
from memtenant.memory._async.tenant import Tenant as AsyncTenant
from memtenant.memory._sync.checkpoints import Checkpoints
from memtenant.memory._sync.tenant import Tenant
from memtenant.sync.either import Either

__all__ = ["Saver"]

Subject = str | Callable[[RunnableConfig], str]

_MOST_OPEN = 256
"""Threads of which is remembered what the server has already."""

K = TypeVar("K", Checkpoints, AsyncCheckpoints)


class Saver(BaseCheckpointSaver[int]):
    """Checkpoints of a tenant: ``builder.compile(checkpointer=Saver(tenant, subject="ada"))``.

    tenant: either kind of Tenant; ``invoke`` and ``ainvoke`` work with both. subject: whose data
    the threads are, so that an erasure finds them; or a function that tells it from the config,
    such as ``lambda config: config["configurable"]["user_id"]``. Without a config (`list` of every
    thread, `delete_for_runs`) there is none to tell it from: these need a fixed subject.

    Under a legal hold or a content minimum nothing can be put (`TenantHeld`).
    """

    def __init__(
        self,
        tenant: AsyncTenant | Tenant,
        *,
        subject: Subject,
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(serde=serde)
        if not callable(subject) and not (isinstance(subject, str) and subject):
            raise UsageError(
                "Saver needs a subject: the user whose data the threads are, or a function that "
                "tells the user from a config"
            )
        self._tenant = Either(tenant)
        self._subject = subject
        self._threads: OrderedDict[tuple[str, str], Checkpoints] = OrderedDict()
        self._athreads: OrderedDict[tuple[str, str], AsyncCheckpoints] = OrderedDict()

    # Without asyncio

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the thread's newest."""
        where = where_of(config)
        stored = self._thread(config).get(where.namespace, where.checkpoint)
        return None if stored is None else restored(stored, self.serde)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints of a thread (of every thread of the subject), the newest first."""
        threads = self._every_thread() if config is None else [self._thread(config)]
        namespace, only, until = _range(config, before)
        found = 0
        for thread in threads:
            for head in thread.heads(namespace, before=until):
                if limit is not None and found >= limit:
                    return
                if only not in (None, head.name) or not matches(
                    metadata_of(head, self.serde), filter
                ):
                    continue
                stored = thread.get(head.namespace, head.name)
                if stored is not None:
                    found += 1
                    yield restored(stored, self.serde)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: GraphCheckpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint that follows the one which the config names."""
        self._thread(config).put(kept(config, checkpoint, metadata, self.serde))
        return where_of(config).config(checkpoint["id"])

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task wrote beside the checkpoint that the config names."""
        where = where_of(config)
        made = writes_of(writes, task_id, task_path, self.serde)
        self._thread(config).write(where.namespace, _named(where.checkpoint), made)

    def delete_thread(self, thread_id: str) -> None:
        """Remove every checkpoint of a thread; messages of a conversation of that name stay."""
        self._thread(_of(thread_id)).delete()

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of these runs, in every thread of the subject."""
        runs = frozenset(run_ids)
        for thread in self._every_thread() if runs else ():
            thread.remove(
                *(
                    (head.namespace, head.name)
                    for head in thread.heads()
                    if metadata_of(head, self.serde).get("run_id") in runs
                )
            )

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with all its checkpoints; what is copied is as old as it was."""
        source, target = self._thread(_of(source_thread_id)), self._thread(_of(target_thread_id))
        for head in sorted(source.heads(), key=lambda one: one.name):
            stored = source.get(head.namespace, head.name)
            if stored is not None:
                target.put(copied(stored, target_thread_id, self.serde), time=head.time)
                target.write(head.namespace, head.name, copied_writes(stored), time=head.time)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep the latest checkpoint of each namespace with the writes beside it, or ``delete``."""
        _check_strategy(strategy)
        for thread_id in thread_ids:
            thread = self._thread(_of(thread_id))
            if strategy == "delete":
                thread.delete()
            else:
                thread.remove(*surplus(thread.heads(), self.serde))

    def close(self) -> None:
        """Close what this saver opened itself: the connections of the other kind of Tenant."""
        self._tenant.close()

    # With asyncio

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        if self._tenant.asynchronous is None:
            return await asyncio.to_thread(self.get_tuple, config)
        where = where_of(config)
        stored = await self._athread(config).get(where.namespace, where.checkpoint)
        return None if stored is None else restored(stored, self.serde)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        if self._tenant.asynchronous is None:
            listed = self.list(config, filter=filter, before=before, limit=limit)
            while (one := await asyncio.to_thread(next, listed, None)) is not None:
                yield one
            return
        if config is None:
            threads = await self._tenant.asynchronous.all_checkpoints(self._fixed_subject())
        else:
            threads = [self._athread(config)]
        namespace, only, until = _range(config, before)
        found = 0
        for thread in threads:
            async for head in thread.heads(namespace, before=until):
                if limit is not None and found >= limit:
                    return
                if only not in (None, head.name) or not matches(
                    metadata_of(head, self.serde), filter
                ):
                    continue
                stored = await thread.get(head.namespace, head.name)
                if stored is not None:
                    found += 1
                    yield restored(stored, self.serde)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: GraphCheckpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        if self._tenant.asynchronous is None:
            return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)
        await self._athread(config).put(kept(config, checkpoint, metadata, self.serde))
        return where_of(config).config(checkpoint["id"])

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """As `put_writes`."""
        if self._tenant.asynchronous is None:
            await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)
            return
        where = where_of(config)
        made = writes_of(writes, task_id, task_path, self.serde)
        await self._athread(config).write(where.namespace, _named(where.checkpoint), made)

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        if self._tenant.asynchronous is None:
            await asyncio.to_thread(self.delete_thread, thread_id)
            return
        await self._athread(_of(thread_id)).delete()

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        if self._tenant.asynchronous is None:
            await asyncio.to_thread(self.delete_for_runs, run_ids)
            return
        runs = frozenset(run_ids)
        if not runs:
            return
        for thread in await self._tenant.asynchronous.all_checkpoints(self._fixed_subject()):
            doomed = [
                (head.namespace, head.name)
                async for head in thread.heads()
                if metadata_of(head, self.serde).get("run_id") in runs
            ]
            await thread.remove(*doomed)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        if self._tenant.asynchronous is None:
            await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)
            return
        source, target = self._athread(_of(source_thread_id)), self._athread(_of(target_thread_id))
        heads = [head async for head in source.heads()]
        for head in sorted(heads, key=lambda one: one.name):
            stored = await source.get(head.namespace, head.name)
            if stored is not None:
                await target.put(copied(stored, target_thread_id, self.serde), time=head.time)
                writes = copied_writes(stored)
                await target.write(head.namespace, head.name, writes, time=head.time)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        if self._tenant.asynchronous is None:
            await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)
            return
        _check_strategy(strategy)
        for thread_id in thread_ids:
            thread = self._athread(_of(thread_id))
            if strategy == "delete":
                await thread.delete()
            else:
                heads = [head async for head in thread.heads()]
                await thread.remove(*surplus(heads, self.serde))

    # Whose, and where

    def _subject_of(self, config: RunnableConfig) -> str:
        return self._subject(config) if callable(self._subject) else self._subject

    def _fixed_subject(self) -> str:
        if callable(self._subject):
            raise UsageError(
                "Threads are found by their subject, and this saver tells it from a config, of "
                "which there is none here: use a Saver with a fixed subject"
            )
        return self._subject

    def _thread(self, config: RunnableConfig) -> Checkpoints:
        thread, subject = where_of(config).thread, self._subject_of(config)
        tenant = self._tenant.plain()
        return _kept_open(
            self._threads, (thread, subject), lambda: tenant.checkpoints(thread, user=subject)
        )

    def _athread(self, config: RunnableConfig) -> AsyncCheckpoints:
        tenant = self._tenant.asynchronous
        assert tenant is not None  # noqa: S101 - every caller looked
        thread, subject = where_of(config).thread, self._subject_of(config)
        return _kept_open(
            self._athreads, (thread, subject), lambda: tenant.checkpoints(thread, user=subject)
        )

    def _every_thread(self) -> Sequence[Checkpoints]:
        return self._tenant.plain().all_checkpoints(self._fixed_subject())


def _kept_open(
    threads: OrderedDict[tuple[str, str], K], name: tuple[str, str], make: Callable[[], K]
) -> K:
    thread = threads.get(name)
    if thread is None:
        thread = threads[name] = make()
        while len(threads) > _MOST_OPEN:
            threads.popitem(last=False)
    return thread


def _of(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


def _range(
    config: RunnableConfig | None, before: RunnableConfig | None
) -> tuple[str | None, str | None, str | None]:
    """Namespace, the one checkpoint, and the one before which to list; None for any."""
    named = config.get("configurable", {}) if config is not None else {}
    until = before.get("configurable", {}).get("checkpoint_id") if before is not None else None
    return named.get("checkpoint_ns"), named.get("checkpoint_id"), until


def _named(checkpoint: str | None) -> str:
    if checkpoint is None:
        raise UsageError("A task's writes belong to a checkpoint: the config has no checkpoint_id")
    return checkpoint


def _check_strategy(strategy: str) -> None:
    if strategy not in ("keep_latest", "delete"):
        raise UsageError(f"{strategy!r} is no strategy of pruning: keep_latest or delete")
