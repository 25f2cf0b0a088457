"""Data keys and writers that change under a running agent: it goes on without a failed call."""

import asyncio
import time

import pytest

from memtenant import Message, Tenant
from memtenant.clock import system_clock
from memtenant.crypto.datakey import unwrap_data_key, wrap_data_key
from memtenant.crypto.keyring import activate, add_version, agent_keyring
from memtenant.crypto.primitives import SecretKey, new_key
from memtenant.errors import KeyRetired, KeyUnavailable
from tests.functions.tenants import set_limits
from tests.memory.bindings import Provisioned
from tests.memory.conftest import Open


def rotate_keys(acme: Provisioned) -> None:
    """A new KEK version in the keyring and the binding, as the operator makes it."""
    root = new_key()
    acme.keyring = activate(add_version(acme.keyring, root, now=system_clock.now()), root)


def rewrap(acme: Provisioned) -> None:
    """Every data key under the active version, as the operator's job does it."""
    keyring = agent_keyring(acme.keyring, "default", SecretKey(b"a" * 32))
    with acme.server.admin() as admin:
        for name in list(admin.scan_iter("*:k:*")):
            alias = name.decode().rpartition(":")[2]
            key = unwrap_data_key(keyring, alias, admin.hget(name, "dek") or b"")
            admin.hset(name, "dek", wrap_data_key(keyring.active_kek(), acme.tenant, alias, key))


async def test_a_kek_is_rotated_under_a_running_agent(acme: Provisioned, opened: Open) -> None:
    tenant = opened(acme)
    chat, case = tenant.conversation("s", user="ada"), tenant.shared_context("case")
    await chat.append(Message.human("one"))
    await case.create({"n": 1})
    rotate_keys(acme)
    acme.bind(version=2)
    rewrap(acme)
    set_limits(acme.server, least_kek=2)
    await asyncio.gather(*(chat.append(Message.human(str(n))) for n in range(5)))
    await chat.update_message(1, Message.human("uno"))
    await case.update({"n": 2})
    assert (await chat.messages())[0].text == "uno"
    await tenant.conversation("t", user="bob").append(Message.human("under the new version"))
    with acme.server.admin() as admin:
        versions = {(admin.hget(name, "dek") or b"")[:4] for name in admin.scan_iter("*:k:*")}
    assert versions == {(2).to_bytes(4, "big")}


async def test_an_agent_without_the_new_version_is_told(acme: Provisioned, opened: Open) -> None:
    tenant = opened(acme)
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("one"))
    set_limits(acme.server, least_kek=2)
    with pytest.raises(KeyRetired, match="older than 2"):
        await chat.append(Message.human("two"))
    rotate_keys(acme)
    rewrap(acme)  # and the binding has not arrived yet
    with pytest.raises(KeyUnavailable, match="read the binding again"):
        await chat.append(Message.human("two"))
    acme.bind(version=2)
    await chat.append(Message.human("two"))
    assert await chat.count() == 2


async def test_a_key_that_was_replaced_is_read_again(acme: Provisioned, opened: Open) -> None:
    chat = opened(acme).conversation("s", user="ada")
    await chat.append(Message.human("one"))
    await chat.clear()
    with acme.server.admin() as admin:
        admin.delete(next(iter(admin.scan_iter("*:k:*"))))
    other = opened(acme).conversation("s", user="ada")
    await other.append(Message.human("under a new key"))
    assert [one.text for one in await chat.messages()] == ["under a new key"]
    await chat.append(Message.human("two"))
    assert [one.text for one in await other.messages()] == ["under a new key", "two"]


async def test_two_that_begin_with_a_user_at_once_agree_on_one_key(
    acme: Provisioned, opened: Open
) -> None:
    chats = [opened(acme).conversation("s", user="ada") for _ in range(8)]
    await asyncio.gather(*(chat.append(Message.human(str(n))) for n, chat in enumerate(chats)))
    for chat in chats:
        assert sorted(one.text for one in await chat.messages()) == [str(n) for n in range(8)]


@pytest.mark.parametrize("off", [-3600, 3600])
async def test_a_clock_that_is_wrong_does_not_keep_an_agent_from_writing(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + off)
    chat = tenant.conversation("s", user="ada")
    for number in range(3):
        await chat.append(Message.human(str(number)))
    assert await chat.count() == 3


async def test_a_writer_that_idled_is_replaced(acme: Provisioned, tenant: Tenant) -> None:
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("one"))
    with acme.server.admin() as admin:
        head = next(iter(admin.scan_iter("*:h")))
        admin.hset(head, "writers", "")  # sent away after ten idle minutes
    opened_long_ago = (int(time.time()) - 700).to_bytes(4, "big")
    writer = chat._lane
    writer._writer = opened_long_ago + writer._writer[4:]
    await chat.append(Message.human("two"))
    assert [one.text for one in await chat.messages()] == ["one", "two"]
