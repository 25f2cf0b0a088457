"""Writes and reads encrypted records as an agent does, with nothing but its binding."""

import secrets
import time
from datetime import timedelta

import redis

from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.datakey import unwrap_data_key, wrap_data_key
from memtenant.crypto.header import Header, peek_header
from memtenant.crypto.primitives import SecretKey
from memtenant.crypto.record import MESSAGE, Place, RecordKeys
from memtenant.tenancy import keys
from memtenant.tenancy.binding import Binding

ALIAS = "a" * 32
_SCOPE, _CONVERSATION = "shared", "c" * 32


def conversation_key(binding: Binding) -> str:
    """The list of the conversation that these functions write to."""
    return f"{keys.records(binding.tenant)}{_SCOPE}:{_CONVERSATION}:l"


def remember(
    agent: "redis.Redis", binding: Binding, text: str, age: timedelta = timedelta()
) -> None:
    """Append one encrypted message, as old as said, under a data key of its subject."""
    agent.hsetnx(keys.dek(binding.tenant, ALIAS), "dek", _new_data_key(binding))
    record = _record_keys(agent, binding).seal(MESSAGE, b"w" * 8, 1, text.encode())
    written = int((time.time() - age.total_seconds()) * 1000)
    agent.rpush(conversation_key(binding), Header(1, written, 3).to_bytes() + record)


def recall(agent: "redis.Redis", binding: Binding) -> list[str]:
    """All messages of the conversation, decrypted."""
    opened = _record_keys(agent, binding)
    entries = agent.lrange(conversation_key(binding), 0, -1)
    texts = []
    for entry in entries:
        assert isinstance(entry, bytes)
        record = entry[peek_header(entry).length :]
        texts.append(opened.open(MESSAGE, record).content.decode())
    return texts


def _new_data_key(binding: Binding) -> bytes:
    ring = AgentKeyring.from_json(binding.keyring)
    key = SecretKey(secrets.token_bytes(32))
    return wrap_data_key(ring.active_kek(), binding.tenant, ALIAS, key)


def _record_keys(agent: "redis.Redis", binding: Binding) -> RecordKeys:
    stored = agent.hget(keys.dek(binding.tenant, ALIAS), "dek")
    assert isinstance(stored, bytes)
    data_key = unwrap_data_key(AgentKeyring.from_json(binding.keyring), ALIAS, stored)
    return RecordKeys(data_key, Place(binding.tenant, _SCOPE, _CONVERSATION))
