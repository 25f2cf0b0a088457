"""An API server as a bare asyncio/aiohttp loop uses it: raw JSON, no model, no retry."""

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.support.controlplane.cluster import Cluster

Json = dict[str, Any]

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
TENANTS = "/apis/memtenant.dev/v1alpha1/namespaces/{}/memorytenants"

_WRITES = {"POST", "PUT", "PATCH", "APPLY", "DELETE"}
_OF_THE_SERVER_ITSELF = {"leases", "tokenreviews", "subjectaccessreviews", "endpointslices"}


@dataclass(frozen=True, slots=True)
class Api:
    """One session, as the account of a kubeconfig with a token."""

    base: str
    session: aiohttp.ClientSession

    async def send(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> Json:
        """The parsed answer; an answer of 400 or more is an `AssertionError`."""
        async with self.session.request(
            method,
            self.base + path,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type},
        ) as answer:
            payload = await answer.read()
            assert answer.status < 400, f"{method} {path}: {answer.status} {payload[:300]!r}"
            parsed: Json = json.loads(payload)
            return parsed

    async def text(self, path: str) -> str:
        """An answer that is no JSON."""
        async with self.session.get(self.base + path) as answer:
            return await answer.text()


@asynccontextmanager
async def connect(cluster: Cluster, kubeconfig: Path) -> AsyncIterator[Api]:
    """An `Api` as the ServiceAccount of ``kubeconfig``."""
    (user,) = yaml.safe_load(await asyncio.to_thread(kubeconfig.read_text))["users"]
    trust = ssl.create_default_context(cafile=str(cluster.ca_file))
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=128, ssl=trust),
        headers={"Authorization": f"Bearer {user['user']['token']}"},
        timeout=aiohttp.ClientTimeout(total=None, sock_read=120),
    ) as session:
        yield Api(cluster.url, session)


async def at_once(concurrency: int, count: int, work: Callable[[int], Awaitable[None]]) -> float:
    """Do ``work`` for 0 … count-1, so many at a time; the seconds that all of it took."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    started = time.monotonic()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return time.monotonic() - started


async def requests(api: Api) -> Counter[str]:
    """Requests that the API server answered so far, by verb and resource; only of those kinds that
    tenants are made of, whoever asked.
    """
    found: Counter[str] = Counter()
    for line in (await api.text("/metrics")).splitlines():
        if not line.startswith("apiserver_request_total{"):
            continue
        labels = dict(
            part.split("=", 1) for part in line[line.index("{") + 1 : line.rindex("}")].split(",")
        )
        verb, resource, sub = (labels[n].strip('"') for n in ("verb", "resource", "subresource"))
        group = labels["group"].strip('"')
        if resource in _OF_THE_SERVER_ITSELF or verb in {"WATCH", "LIST"}:
            continue
        if group not in {"", "memtenant.dev", "bench.memtenant.dev", "events.k8s.io"}:
            continue
        if group == "" and resource not in {"secrets", "events"}:
            continue
        if (verb, resource) == ("PATCH", "events"):
            continue  # the controller manager's: the operator's account may only create them
        found[f"{verb} {resource}{'/' if sub else ''}{sub}"] += int(float(line.rsplit(" ", 1)[1]))
    return found


def writes(counted: Counter[str]) -> dict[str, int]:
    """Those of them that write."""
    return {name: n for name, n in counted.items() if name.split()[0] in _WRITES and n}


@dataclass
class ReadyWatch:
    """When each MemoryTenant of a namespace was first seen Ready, in monotonic seconds; ``seen`` is
    called for each."""

    ready: dict[str, float] = field(default_factory=dict)
    seen: Callable[[], None] = lambda: None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, names: set[str]) -> None:
        """Return when all of them are Ready."""
        while not names <= self.ready.keys():
            self._news.clear()
            await self._news.wait()

    async def follow(self, api: Api, namespace: str) -> None:
        """Watch from now on, until cancelled. A watch that the API server ends, as it does with one
        that falls behind, begins anew where it ended."""
        where = TENANTS.format(namespace)
        now = (await api.send("GET", f"{where}?limit=1"))["metadata"]["resourceVersion"]
        while True:
            now = await self._watch(api, where, now)

    async def _watch(self, api: Api, where: str, since: str) -> str:
        """The last version that was seen before the watch ended."""
        async with api.session.get(
            f"{api.base}{where}?watch=1&resourceVersion={since}",
            read_bufsize=1 << 20,
            # Nothing comes for as long as the bare loop has its turn.
            timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
        ) as stream:
            assert stream.status == 200, f"watch of {where}: {await stream.text()}"
            async for line in stream.content:
                event = json.loads(line)
                seen = event["object"]
                assert event["type"] != "ERROR", f"watch of {where}: {seen}"
                since = seen["metadata"]["resourceVersion"]
                name = seen["metadata"]["name"]
                if name not in self.ready and _is_ready(seen):
                    self.ready[name] = time.monotonic()
                    self.seen()
                    self._news.set()
        return since


def _is_ready(tenant: Json) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True"
        for one in tenant.get("status", {}).get("conditions", [])
    )
