"""The log's key and the signer's state in a Secret: of two sealers one signs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtenant.archive import SignedHead
from memtenant.errors import KeyUnavailable, SignerConflict
from memtenant.jobs.logsecret import LOG_SECRET, LogSecret, read_or_make
from memtenant.resources.folder import FolderResources

AUDIT, ORIGIN = "memtenant-system-audit", "memtenant.dev/test"
FIRST, SECOND = SignedHead(1, b"a" * 32, 1), SignedHead(2, b"b" * 32, 2)


@pytest.fixture
def resources(tmp_path: Path) -> Iterator[FolderResources]:
    with FolderResources.open(tmp_path / "state") as opened:
        yield opened


async def advance(secret: LogSecret, before: SignedHead | None, after: SignedHead) -> None:
    await asyncio.to_thread(secret.advance, before, after)


async def test_the_state_moves_only_from_what_it_is(resources: FolderResources) -> None:
    one = await read_or_make(resources, AUDIT, ORIGIN)
    two = await read_or_make(resources, AUDIT, "memtenant.dev/another")
    assert two.key.public == one.key.public
    assert one.key.public.name == ORIGIN
    assert await asyncio.to_thread(one.load) is None
    await advance(one, None, FIRST)
    with pytest.raises(SignerConflict):
        await advance(two, None, SECOND)
    assert await asyncio.to_thread(two.load) == FIRST
    await advance(two, FIRST, SECOND)
    with pytest.raises(SignerConflict):
        await advance(one, FIRST, SECOND)


async def test_of_two_that_write_at_once_one_is_refused(
    resources: FolderResources, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await read_or_make(resources, AUDIT, ORIGIN)
    two = await read_or_make(resources, AUDIT, ORIGIN)
    stale = await resources.get_secret(AUDIT, LOG_SECRET)
    await advance(one, None, FIRST)

    async def as_it_was(namespace: str, name: str) -> object:
        return stale

    monkeypatch.setattr(resources, "get_secret", as_it_was)
    with pytest.raises(SignerConflict, match="at the same time"):
        await advance(two, None, SECOND)


async def test_no_new_key_takes_the_place_of_a_lost_one(resources: FolderResources) -> None:
    secret = await read_or_make(resources, AUDIT, ORIGIN)
    stored = await resources.get_secret(AUDIT, LOG_SECRET)
    assert stored is not None
    await resources.delete_secret(stored)
    with pytest.raises(KeyUnavailable):
        await asyncio.to_thread(secret.load)
    with pytest.raises(KeyUnavailable):
        await read_or_make(resources, AUDIT, ORIGIN, fresh=False)
    resources.declare_secret(AUDIT, LOG_SECRET, {"origin": ORIGIN.encode()})
    with pytest.raises(KeyUnavailable):
        await read_or_make(resources, AUDIT, ORIGIN)
