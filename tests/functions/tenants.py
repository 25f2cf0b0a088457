"""A provisioned tenant whose Functions are called as its own user: never as an administrator.

The operator's half (users, limits, Functions) is made by `StoreAdmin`; what a test then changes
behind everybody's back, or compares, is the administrator's.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import redis

from memtenant.functions import (
    Append,
    Appended,
    Call,
    ContextKeys,
    ConversationKeys,
    Entries,
    HeadState,
    NewRecord,
    ReadRange,
    SubjectKeys,
    TenantKeys,
    refusal,
)
from memtenant.rules.acl import AccessState, AclUser, AgentAccess
from memtenant.stores import StateChange
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.stores.operators import ACME, PASSWORD, agent, leading
from tests.support.servers import Server

R = TypeVar("R")

LIMITS: Mapping[str, str] = {
    "format": "1",
    "memory": str(64 * 1024 * 1024),
    "conversations": "1000",
    "writes_per_second": "1000000",
    "held": "0",
    "least_kek": "1",
}
DATA_KEY = (1).to_bytes(4, "big") + bytes(range(40))
ALIAS = "a1h9eXLMdTGsS6PDnIGrxw"
CONVERSATION = ConversationKeys.of(ACME, "_", "gvTnUlnA8Gysa7sCcDU1qw")
CONTEXT = ContextKeys.of(ACME, "YjbDGppGTepwOpzzL1xTMw")
SUBJECT = SubjectKeys.of(ACME, ALIAS)
ONCE = TenantKeys.of(ACME)
AGENT = "default"
CONTEXT_KEY = keys.dek(ACME, "YjbDGppGTepwOpzzL1xTMw").encode()

_numbers = itertools.count(1)


def writer() -> bytes:
    """A new writer, opened now."""
    return int(time.time()).to_bytes(4, "big") + secrets.token_bytes(4)


def mark() -> bytes:
    return secrets.token_bytes(16)


def record(text: str = "") -> bytes:
    """A record as opaque as any: what is inside is nobody's business here."""
    return b"\xfa" + (text or f"record {next(_numbers)}").encode()


@dataclass(slots=True)
class Lane:
    """A writer and its counter."""

    conversation: ConversationKeys = CONVERSATION
    subject: SubjectKeys = SUBJECT
    writer: bytes = field(default_factory=writer)
    counter: int = 1

    def append(self, *records: bytes, **options: object) -> Append:
        """The next append; the counter moves on."""
        new = tuple(NewRecord(one, tokens=10) for one in (records or (record(),)))
        call = Append(
            conversation=self.conversation,
            subject=self.subject,
            writer=self.writer,
            counter=self.counter,
            records=new,
            data_key=DATA_KEY,
            agent=AGENT,
            new_data_key=True,
        )
        self.counter += len(new)
        return replace(call, **options)  # type: ignore[arg-type]


class Agent:
    """One connection of a tenant's user."""

    def __init__(self, server: Server, name: str) -> None:
        self.client = server.client(name, PASSWORD)

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def send(self, words: Sequence[bytes | str | int]) -> object:
        """The raw reply; a refusal of a Function is raised as its typed error."""
        self.client.response_callbacks.clear()
        try:
            return self.client.execute_command(*words)  # type: ignore[no-untyped-call]
        except redis.exceptions.NoPermissionError:
            raise
        except redis.exceptions.ResponseError as error:
            known = refusal(str(error))
            if known is None:
                raise
            raise known from None

    def call(self, call: Call[R]) -> R:
        """The typed answer."""
        return call.read(self.send(call.words))

    def append(self, call: Append) -> Appended:
        """The typed answer of an append that meets no idempotency mark."""
        answer = self.call(call)
        assert isinstance(answer, Appended)
        return answer

    def entries(self, conversation: ConversationKeys = CONVERSATION) -> Entries:
        """The whole conversation."""
        return self.call(ReadRange(conversation))


def provision(
    server: Server,
    *,
    tenant: TenantId = ACME,
    limits: Mapping[str, str | None] | None = None,
    access: AgentAccess = AgentAccess.READ_WRITE,
    state: AccessState | None = None,
) -> AclUser:
    """Functions, limits and the user, as the operator makes them; may be repeated with another
    state. A limit of None is removed."""

    async def make() -> AclUser:
        async with leading(server) as store:
            await store.load_functions()
            user = agent(store, tenant, access=access, state=state)
            (await store.users.set([user])).require_all()
            changed: dict[str, str | None] = {**LIMITS, **(limits or {})}
            if state is not None and state.held:
                changed["held"] = "1"
            await store.write_states({tenant: StateChange(limits=changed)})
            return user

    return asyncio.run(make())


def acting(server: Server, **options: object) -> Agent:
    """`provision`, and a connection of the user."""
    return Agent(server, provision(server, **options).name)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Kept:
    """A key's value as DUMP tells it. A hash in a table is told in any order: its fields count."""

    dump: bytes = field(compare=False, repr=False)
    content: object


_HASH_IN_A_TABLE = 4
"""The first byte of such a dump."""


def snapshot(server: Server) -> dict[bytes, Kept]:
    """Every key of every tenant, as it is stored."""
    with server.admin() as admin:
        found: list[bytes] = sorted(admin.scan_iter("*", count=1000))
        names = [name for name in found if not name.startswith(b"mt:store:")]
        with admin.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.dump(name)
            dumps = pipeline.execute()
        return {
            name: Kept(
                dump,
                frozenset(admin.hgetall(name).items()) if dump[0] == _HASH_IN_A_TABLE else dump,
            )
            for name, dump in zip(names, dumps, strict=True)
            if dump is not None
        }


class Books:
    """What a server held at first, to be put back; and whether it holds what it did at the last
    look. For loops of thousands of calls: each question is one round trip, on one connection."""

    def __init__(self, server: Server) -> None:
        self._admin = server.admin()
        names = self._admin.keys("*")
        with self._admin.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.dump(name)
            self._dumps = dict(zip(names, pipeline.execute(), strict=True))
        self.look()

    def __enter__(self) -> "Books":
        return self

    def __exit__(self, *error: object) -> None:
        self._admin.close()

    def look(self) -> None:
        """Compare with what is there now."""
        self._digest = self._now()

    def unchanged(self) -> bool:
        """Whether every key has the type and the content that it had, and expires if it did."""
        return self._now() == self._digest

    def restore(self, *changes: tuple[str | bytes, ...]) -> None:
        """Put every key back as it was at first, make these changes, and `look`."""
        with self._admin.pipeline(transaction=False) as pipeline:
            pipeline.flushall()
            for name, dump in self._dumps.items():
                pipeline.restore(name, 0, dump)
            for change in changes:
                pipeline.execute_command(*change)  # type: ignore[no-untyped-call]
            pipeline.execute_command("DEBUG", "DIGEST")  # type: ignore[no-untyped-call]
            self._digest = pipeline.execute()[-1]

    def _now(self) -> object:
        return self._admin.execute_command("DEBUG", "DIGEST")  # type: ignore[no-untyped-call]


def set_limits(server: Server, **fields: object) -> None:
    """Change o:limits behind the operator's back; None removes a field.

    It waits out the millisecond: what was written before is older than any call that follows, and
    what is as old as a call is not past anything.
    """
    with server.admin() as admin:
        for name, value in fields.items():
            if value is None:
                admin.hdel(keys.limits(ACME), name)
            else:
                admin.hset(keys.limits(ACME), name, str(value))
    now = in_ms()
    while in_ms() == now:
        pass


def state(admin: "redis.Redis", conversation: ConversationKeys = CONVERSATION) -> HeadState:
    """The numbers in a conversation's head."""
    packed = admin.hget(conversation.head, "state")
    assert isinstance(packed, bytes)
    return HeadState.parse(packed)


def change_state(admin: "redis.Redis", **numbers: int) -> None:
    """Change numbers in the head of `CONVERSATION`."""
    packed = replace(state(admin), **numbers).to_bytes()
    admin.hset(CONVERSATION.head, "state", packed)


def in_ms() -> int:
    return time.time_ns() // 1_000_000
