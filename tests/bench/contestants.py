"""Who appends and reads in the SDK's part: memtenant and its peers, behind one shape.

Runs in a process for each (`tests.bench.worker`), with nothing imported but what that one needs:
the peers have an environment of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

Append = Callable[[Sequence[str]], Awaitable[object]]
Read = Callable[[], Awaitable[Sequence[object]]]


class Contestant(Protocol):
    """One library, connected. ``blocks``: it has no asyncio, so several writers are threads."""

    blocks: bool

    def session(self, name: str) -> tuple[Append, Read]:
        """How to append texts to a conversation, and how to read all of it as objects."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class Raw:
    """What nobody can undercut by much: RPUSH and EXPIRE in one pipeline of redis-py."""

    blocks = False

    def __init__(self, url: str) -> None:
        import redis.asyncio

        self._client = redis.asyncio.from_url(url)

    def session(self, name: str) -> tuple[Append, Read]:
        async def append(texts: Sequence[str]) -> None:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.rpush(f"raw:{name}", *texts)
            pipeline.expire(f"raw:{name}", 86400)
            await pipeline.execute()

        async def read() -> Sequence[object]:
            found: Sequence[object] = await self._client.lrange(f"raw:{name}", 0, -1)
            return found

        return append, read

    async def close(self) -> None:
        await self._client.aclose()


class Memtenant:
    """The SDK as an agent uses it: by its binding, as the tenant's user, with all checks."""

    blocks = False

    def __init__(self, folder: str, *, masking: bool = False) -> None:
        from pathlib import Path

        from memtenant import Masking, Message, Tenant
        from memtenant.memory.source import BindingSource

        self._human = Message.human
        source = BindingSource(Path(folder))
        self._tenant = Tenant(source, masking=Masking() if masking else None)

    def session(self, name: str) -> tuple[Append, Read]:
        chat = self._tenant.conversation(name, user=f"user of {name}")
        human = self._human

        async def append(texts: Sequence[str]) -> None:
            if len(texts) == 1:
                await chat.append(human(texts[0]))
            else:
                await chat.extend([human(text) for text in texts])

        async def read() -> Sequence[object]:
            # Another process's first look: nothing is kept from one read to the next.
            chat._history.drop_copy()
            return await chat.messages()

        return append, read

    async def close(self) -> None:
        await self._tenant.aclose()


class LangChain:
    """langchain-community's RedisChatMessageHistory: plain text, without asyncio."""

    blocks = True

    def __init__(self, url: str) -> None:
        import warnings

        warnings.simplefilter("ignore")
        from langchain_community.chat_message_histories import RedisChatMessageHistory
        from langchain_core.messages import HumanMessage, message_to_dict

        self._dict = message_to_dict
        self._url, self._history, self._human = url, RedisChatMessageHistory, HumanMessage
        self._open: list[Any] = []

    def session(self, name: str) -> tuple[Append, Read]:
        history = self._history(name, url=self._url, ttl=86400)
        self._open.append(history)

        # Called without a thread: what is measured is the library, not the way into a thread.
        async def append(texts: Sequence[str]) -> None:
            if len(texts) == 1:
                history.add_message(self._human(texts[0]))
            else:  # it has no batches; this only fills
                made = (json.dumps(self._dict(self._human(text))) for text in texts)
                history.redis_client.lpush(history.key, *made)

        async def read() -> Sequence[object]:
            found: Sequence[object] = history.messages
            return found

        return append, read

    async def close(self) -> None:
        for history in self._open:
            history.redis_client.close()


class OpenAIAgents:
    """OpenAI Agents' RedisSession; with ``encrypted``, inside its EncryptedSession."""

    blocks = False

    def __init__(self, url: str, *, encrypted: bool) -> None:
        import redis.asyncio

        self._client = redis.asyncio.from_url(url)
        self._encrypted = encrypted

    def session(self, name: str) -> tuple[Append, Read]:
        from agents.extensions.memory import EncryptedSession, RedisSession

        session: Any = RedisSession(name, redis_client=self._client, ttl=86400)
        if self._encrypted:
            session = EncryptedSession(name, session, "a key of the bench", ttl=86400)

        async def append(texts: Sequence[str]) -> None:
            await session.add_items([{"role": "user", "content": text} for text in texts])

        async def read() -> Sequence[object]:
            found: Sequence[object] = await session.get_items()
            return found

        return append, read

    async def close(self) -> None:
        await self._client.aclose()


def contestant(name: str, where: str) -> Contestant:
    """By name; ``where`` is a URL, of memtenant the folder of a binding."""
    match name:
        case "raw":
            return Raw(where)
        case "memtenant":
            return Memtenant(where)
        case "memtenant-masking":
            return Memtenant(where, masking=True)
        case "langchain":
            return LangChain(where)
        case "openai":
            return OpenAIAgents(where, encrypted=False)
        case "openai-encrypted":
            return OpenAIAgents(where, encrypted=True)
    raise ValueError(name)


async def at_once(
    writers: int, work: Callable[[int], Coroutine[Any, Any, None]], *, threads: bool
) -> None:
    """Do the work of each writer, all at the same time."""
    if not threads:
        await asyncio.gather(*(work(number) for number in range(writers)))
        return
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(writers) as pool:
        each = (loop.run_in_executor(pool, asyncio.run, work(number)) for number in range(writers))
        await asyncio.gather(*each)
