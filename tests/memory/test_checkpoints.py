"""Checkpoints as whoever adapts a framework of his own uses them."""

import os

import pytest

from memtenant.errors import KeyUnavailable
from memtenant.functions.checkpoint_calls import GetCheckpoint
from memtenant.memory.auditing import Intent
from memtenant.memory.checkpoints import Checkpoint, PendingWrite
from tests.memory.bindings import Provisioned
from tests.memory.conftest import Open


async def test_one_that_is_pruned_while_its_parts_are_read_gives_way_to_the_one_before(
    on_valkey: Provisioned, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for one that was tampered with."""
    tenant = opened(on_valkey)
    thread = tenant.checkpoints("t", user="ada")
    channels: dict[str, bytes] = {}
    for name, parent in (("1", None), ("2", "1")):
        channels |= {f"{name}-{n}": os.urandom(250_000) for n in range(20)}
        await thread.put(Checkpoint("", name, b"", dict(channels), parent))
    ask = tenant._store.ask_audited

    async def removed_before(call: GetCheckpoint, intent: Intent) -> object:
        await thread.remove(("", "2"))
        return await ask(call, intent)

    monkeypatch.setattr(tenant._store, "ask_audited", removed_before)
    found = await thread.get("")
    assert found is not None
    assert (found.head.name, len(found.channels)) == ("1", 20)


async def test_writes_of_more_than_a_reply_come_back_in_their_order(
    acme: Provisioned, opened: Open
) -> None:
    thread = opened(acme).checkpoints("t", user="ada")
    await thread.put(Checkpoint("", "1", b"", {"one": os.urandom(250_000)}))
    wrote = [os.urandom(250_000) for _ in range(40)]
    for n, content in enumerate(wrote):
        await thread.write("", "1", [PendingWrite(f"task {n}", 0, content)])
    for name in ("1", None):
        found = await thread.get("", name)
        assert found is not None
        assert list(found.writes) == wrote
        assert len(found.channels) == 1


async def test_a_lost_data_key_is_told(on_valkey: Provisioned, opened: Open) -> None:
    thread = opened(on_valkey).checkpoints("t", user="ada")
    await thread.put(Checkpoint("", "1", b"", {}))
    with on_valkey.server.admin() as admin:
        admin.delete(next(iter(admin.scan_iter("*:k:*"))))
    other = opened(on_valkey).checkpoints("t", user="ada")
    for _ in range(2):
        with pytest.raises(KeyUnavailable):
            _ = [head async for head in other.heads()]
        with pytest.raises(KeyUnavailable):
            await other.put(Checkpoint("", "2", b"", {}, "1"))
