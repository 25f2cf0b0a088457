"""Every byte of a record, and everything that it is bound to, changed on the server by somebody who
holds it: the SDK shows nothing, and says what was done by an error of its own. What is moved,
replayed or dropped as a whole is in test_checked_history.py."""

from dataclasses import replace
from pathlib import Path

import pytest

from memtenant import Message, Tenant
from memtenant.crypto.record import MESSAGE, OVERHEAD_BYTES
from memtenant.errors import (
    MemtenantError,
    PlaintextRefused,
    RecordKeyMismatch,
    RecordMalformed,
    RecordTampered,
)
from memtenant.memory.places import conversation_place
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.policy import EncryptionMode, Isolation
from tests.memory.bindings import Provisioned, policy
from tests.memory.conftest import Open
from tests.stores.operators import ACME
from tests.support.servers import Server

HEADER = 15
KEY_ID, WRITER, COUNTER = slice(2, 18), slice(18, 26), slice(26, 30)
CONTENT = slice(42, None)
SUITE_0_OVERHEAD = 46


async def fails(tenant: Tenant, session: str = "s", user: str = "ada") -> str:
    """How a reader without a copy is told."""
    chat = tenant.conversation(session, user=user)
    with pytest.raises(MemtenantError) as told:
        await chat.messages(1, 100)
    with pytest.raises(type(told.value)):
        await chat.window(10_000)
    return told.value.reason


def list_of(of: Provisioned, session: str = "s", user: str = "ada") -> bytes:
    where = conversation_place(ACME, Isolation.MODERATE, of.keyring.name_key, session, user)
    return where.keys.list


@pytest.mark.parametrize("mode", EncryptionMode)
async def test_every_byte_of_a_record_is_protected(
    redis_server: Server, tmp_path: Path, opened: Open, mode: EncryptionMode
) -> None:
    acme = Provisioned(redis_server, tmp_path, policy=policy(encryption=mode))
    acme.provision()
    tenant = opened(acme)
    await tenant.conversation("s", user="ada").append(Message.human("forty-two"))
    name = list_of(acme)
    with redis_server.admin() as admin:
        entry = admin.lindex(name, 0)
        assert isinstance(entry, bytes)
        head, record = entry[:HEADER], entry[HEADER:]
        found = []
        for place in range(len(record)):
            flipped = bytearray(record)
            flipped[place] ^= 1
            admin.lset(name, 0, head + flipped)
            found.append(await fails(tenant))
        admin.lset(name, 0, entry)
    assert [one.text for one in await tenant.conversation("s", user="ada").messages()] == [
        "forty-two"
    ]
    enabled = mode is EncryptionMode.ENABLED
    short = len(record) < OVERHEAD_BYTES
    # The lowest bit of the second byte is the suite: the other one's key is another key.
    suite = "PlaintextRefused" if enabled else "RecordMalformed" if short else "RecordKeyMismatch"
    assert found[:2] == ["RecordMalformed", suite]
    assert set(found[KEY_ID]) == {"RecordKeyMismatch"}
    assert set(found[KEY_ID.stop :]) == {"RecordTampered"}
    assert len(found) > (OVERHEAD_BYTES if enabled else SUITE_0_OVERHEAD)


async def test_a_record_is_bound_to_everything_it_belongs_to(
    acme: Provisioned, opened: Open
) -> None:
    tenant = opened(acme)
    other = Provisioned(acme.server, acme.root / "b", tenant=TenantId("support", "other"))
    other.provision()
    await opened(other).conversation("s", user="ada").append(Message.human("theirs"))
    chat = tenant.conversation("s", user="ada", title="A title")
    await chat.extend([Message.human("one"), Message.ai("two")])
    stranger = opened(acme, "other").conversation("s", user="ada")
    await stranger.append(Message.human("three"))  # another writer
    await tenant.conversation("t", user="ada").append(Message.human("of another session"))
    await tenant.conversation("s", user="bob").append(Message.human("of another user"))
    await tenant.shared_context("case").create({"a": "of a context"})
    with acme.server.admin() as admin:
        name = list_of(acme)
        entries = admin.lrange(name, 0, -1)
        one, two, three = (entry[HEADER:] for entry in entries)
        title = admin.hget(name[:-1] + b"h", "meta")
        value = admin.hget(next(iter(admin.scan_iter("mt:{support.acme}:r:c:*:v")))[:-2], "a")
        theirs = admin.lindex(next(iter(admin.scan_iter("mt:{support.other}:*:l"))), 0)[HEADER:]
        session = admin.lindex(list_of(acme, "t"), 0)[HEADER:]
        person = admin.lindex(list_of(acme, user="bob"), 0)[HEADER:]

        def with_part(part: slice, source: bytes) -> bytes:
            return b"".join((one[: part.start], source[part], one[part.stop :]))

        forged = {
            "tenant": (theirs, RecordKeyMismatch),
            "session": (session, RecordKeyMismatch),
            "user": (person, RecordKeyMismatch),
            "scope": (value[HEADER:], RecordKeyMismatch),
            "kind": (title, RecordTampered),
            "key id": (with_part(KEY_ID, session), RecordKeyMismatch),
            "writer": (with_part(WRITER, three), RecordTampered),
            "counter": (with_part(COUNTER, two), RecordTampered),
            "format": (one[:1] + b"\x21" + one[2:], RecordMalformed),
            "suite": (one[:1] + b"\x10" + one[2:], PlaintextRefused),
            "content": (one[: CONTENT.start] + two[CONTENT], RecordTampered),
        }
        for what, (record, error) in forged.items():
            admin.lset(name, 0, entries[0][:HEADER] + record)
            assert await fails(opened(acme)) == error.reason, what
        # The key of another subject, in the place of the right one.
        admin.lset(name, 0, entries[0])
        ada, bob = (
            conversation_place(ACME, Isolation.MODERATE, acme.keyring.name_key, "s", user).subject
            for user in ("ada", "bob")
        )
        admin.hset(ada.data_key, "dek", admin.hget(bob.data_key, "dek"))
        assert await fails(opened(acme)) == "RecordTampered"


async def test_a_forger_with_another_key_of_the_tenant_gets_nothing_in(
    acme: Provisioned, opened: Open
) -> None:
    """A record that is sealed well, by a keyring that is not this tenant's."""
    tenant, forger = opened(acme), Provisioned(acme.server, acme.root / "forger")
    await tenant.conversation("s", user="ada").append(Message.human("one"))
    keys = tenant._open[next(iter(tenant._open))][0].record_keys
    stolen = tenant._keys.known(
        conversation_place(ACME, Isolation.MODERATE, acme.keyring.name_key, "s", "ada").alias
    )
    assert stolen is not None
    false_key = replace(stolen, key=forger.keyring.name_key)
    record = keys(false_key).seal(MESSAGE, b"writer-1", 1, b"\x01{}")
    with acme.server.admin() as admin:
        name = list_of(acme)
        admin.lset(name, 0, admin.lindex(name, 0)[:HEADER] + record)
    assert await fails(opened(acme)) == "RecordKeyMismatch"
