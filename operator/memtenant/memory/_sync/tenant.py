# Generated from _async/tenant.py by `make generate`: change it there.
"""A tenant's memory, opened by a binding."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from memtenant.audit import Operation
from memtenant.errors import RecordInvalid, UsageError
from memtenant.functions.calls import ReadUsage
from memtenant.functions.index_calls import ReadIndex
from memtenant.functions.keyspace import TenantKeys
from memtenant.memory._sync.audited import AuditedStore
from memtenant.memory._sync.conversation import Conversation
from memtenant.memory._sync.lane import TITLE, Lane
from memtenant.memory._sync.masks import Masks
from memtenant.memory.agents import require_listed, require_shared
from memtenant.memory.answers import value
from memtenant.memory.auditing import Intent
from memtenant.memory.codec import decode_value, unpack
from memtenant.memory.datakeys import DataKey, DataKeys
from memtenant.memory.heads import HEAD_FIELDS, heads_of, last_append
from memtenant.memory.history import History
from memtenant.memory.listing import listed_as, next_page
from memtenant.memory.locks import ShortLock
from memtenant.memory.masking import Masking
from memtenant.memory.messages import Page
from memtenant.memory.options import Options
from memtenant.memory.places import (
    ContextPlace,
    ConversationPlace,
    agents_place,
    context_place,
    conversation_place,
    index_alias,
    listed_place,
    user_place,
)
from memtenant.memory.reports import (
    AgentStatus,
    Info,
    Usage,
    agent_statuses,
    checked_description,
    info_of,
    usage_of,
)
from memtenant.memory.source import BindingSource
from memtenant.memory.tokens import TokenCounter, estimate_tokens
from memtenant.tenancy.keys import subject_index

if TYPE_CHECKING:
    from memtenant.memory._sync.checkpoints import Checkpoints
    from memtenant.memory._sync.context import SharedContext
    from memtenant.memory.exports import ExportItem, ExportManifest
    from memtenant.memory.summaries import Summariser
    from memtenant.tenancy.erasure import ErasureReceipt

__all__ = ["Tenant"]

T = TypeVar("T")

_HEADS_AT_ONCE = 500
_MOST_OPEN = 64
"""Conversations whose state (a copy of at most 1 MiB) is kept for the next handle on them."""


class Tenant:
    """One agent's access to its tenant's memory. Connects when it is first used.

        with Tenant.from_binding() as tenant:
            chat = tenant.conversation("ticket-4711", user="ada@example.org")
            chat.append(Message.human("Hello"))

    Safe for many tasks (or threads) at once, after a fork, and in another event loop.
    """

    def __init__(
        self,
        source: BindingSource,
        *,
        options: Options | None = None,
        token_counter: TokenCounter = estimate_tokens,
        masking: Masking | None = None,
    ) -> None:
        self._source = source
        self._options = options or Options()
        self._keys = DataKeys(source)
        self._store = AuditedStore(source, self._options, self._keys)
        self._counter = token_counter
        self._masking = masking
        self._masks = Masks(source, masking)
        self._open: OrderedDict[tuple[str, str], tuple[History, Lane]] = OrderedDict()
        self._lock = ShortLock()

    @classmethod
    def from_binding(
        cls,
        name: str | None = None,
        *,
        options: Options | None = None,
        token_counter: TokenCounter = estimate_tokens,
        masking: Masking | None = None,
    ) -> Self:
        """The tenant of the binding ``name`` under ``$SERVICE_BINDING_ROOT``; without a name, of
        the only one there. Raises `BindingInvalid` or `KeyInvalid`.

        masking: replaces personal data before it is stored, beside what the policy requires.
        """
        source = BindingSource.named(name)
        return cls(source, options=options, token_counter=token_counter, masking=masking)

    @classmethod
    def dev(
        cls,
        name: str,
        *,
        namespace: str = "dev",
        state: Path | None = None,
        options: Options | None = None,
        token_counter: TokenCounter = estimate_tokens,
        masking: Masking | None = None,
    ) -> Self:
        """A tenant on an embedded Valkey, made if it is not there: the same users, quotas and keys
        as in a cluster. Needs ``pip install memtenant[dev]``; blocks for a second or two.

        state: the folder that keeps it (``$MEMTENANT_STATE``, else ``.memtenant``). Raises
        `UsageError` with what the program said.
        """
        from memtenant.memory import development  # imported by those who develop alone

        folder = development.binding_of(name, namespace, state)
        return cls(
            BindingSource(folder), options=options, token_counter=token_counter, masking=masking
        )

    @property
    def token_counter(self) -> TokenCounter:
        """What counts the tokens of its messages."""
        return self._counter

    def opened_as(self, kind: Callable[..., T]) -> T:
        """The same binding with the same options as another class, such as `memtenant.sync.Tenant`;
        with connections of its own."""
        return kind(
            self._source,
            options=self._options,
            token_counter=self._counter,
            masking=self._masking,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The tenant can be used again; it connects anew."""
        self._store.close()

    def conversation(
        self,
        session: str,
        *,
        user: str,
        title: str | None = None,
        agent: str | None = None,
        summariser: Summariser | None = None,
    ) -> Conversation:
        """A session of a user: whose data it is. Nothing is sent yet.

        Whoever names the same session and user shares the conversation (Moderate isolation; under
        Minimal the session alone decides, and under Strict each agent has its own). title: shown
        in `conversations`, stored with the next append. agent: whose conversation it is, where
        that is not this one: the same where agents share conversations, a `UsageError` under
        Strict. summariser: writes the summary, when `Conversation.context` or `.summarise` finds it
        due. Neither id leaves the process in the clear. Raises `AgentNotListed`, and
        `MaskingRejected` for a title that may not be stored.
        """
        opened = self._source.current()
        require_listed(opened, (opened.binding.agent, agent or opened.binding.agent))
        require_shared(opened, agent)
        policy = opened.binding.policy
        where = conversation_place(
            opened.binding.tenant,
            policy.isolation,
            opened.keyring.name_key,
            session,
            user,
            opened.owner,
        )
        key = (where.place.conversation, where.subject.index.decode())
        with self._lock:
            known = self._open.get(key)
            if known is None:
                history = History(where, policy.encryption)
                known = (history, Lane(self._store, self._keys, history, session))
                self._open[key] = known
                while len(self._open) > _MOST_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(key)
        history, lane = known
        if title is not None:
            lane.entitle(self._masks.title(title, where.subject.index))
        return Conversation(
            self._store, self._keys, history, lane, self._counter, self._masks, summariser
        )

    def conversations(self, user: str, *, limit: int = 50, cursor: str | None = None) -> Page:
        """A user's conversations, those begun last first; ``cursor`` is the page's before.

        Two round trips a page.
        """
        if not 1 <= limit <= 1000:
            raise UsageError("limit is a number of conversations from 1 to 1000")
        opened = self._source.current()
        tenant, isolation = opened.binding.tenant, opened.binding.policy.isolation
        index = index_alias(opened.keyring.name_key, user, opened.owner)
        where = user_place(tenant, isolation, opened.keyring.name_key, user, opened.owner)
        call = ReadIndex(self._once, where.subject.index)
        entries = self._store.ask_audited(call, Intent(Operation.LIST, where))
        names, rest = next_page(entries, limit, cursor)
        found = [listed_place(tenant, isolation, index, name, opened.owner) for name in names]
        places = [place for place in found if place is not None]
        if not places:
            return Page((), None)
        replies = self._store.read(
            *self._keys.lookup(places[0].subject.data_key),
            *(("HMGET", place.keys.head, *HEAD_FIELDS) for place in places),
        )
        answers = [value(reply) for reply in replies]
        with self._store.opening(where):
            data_key = self._keys.learn(places[0].alias, answers[:2])
        listed = []
        for place, fields in zip(places, answers[2:], strict=True):
            listed.append(listed_as(fields, self._title(place, fields, data_key)))
        items = tuple(one for one in listed if one is not None)
        return Page(items, names[-1] if rest else None)

    def _title(self, place: ConversationPlace, fields: object, data_key: DataKey | None) -> object:
        if not isinstance(fields, list) or not isinstance(fields[1], bytes) or data_key is None:
            return None
        keys = History(place, self._source.current().binding.policy.encryption)
        try:
            with self._store.opening(place):
                record = keys.record_keys(data_key).open(TITLE, fields[1])
                return decode_value(unpack(record.content))
        except RecordInvalid:
            return None  # written around memtenant, or under a key that was replaced

    def shared_context(self, context: str) -> SharedContext:
        """A context that all agents of the tenant share: named values with versions."""
        opened = self._source.current()
        tenant, isolation = opened.binding.tenant, opened.binding.policy.isolation
        return self._context(context_place(tenant, isolation, opened.keyring.name_key, context))

    def agent_status(self, agents: Sequence[str] | None = None) -> list[AgentStatus]:
        """What agents of the tenant last did, and say of themselves: all that ever wrote, or those
        named, in their order. One round trip, however many. Raises `AgentNotListed`."""
        from memtenant.memory.contexts import is_name

        require_listed(self._source.current(), agents or ())
        call = ReadUsage(self._once)
        names = [agent for agent in agents or () if is_name(agent)]
        told, replies = self._agents().read_beside(names, call.words)
        return agent_statuses(call.read(replies[0]), agents, told.values)

    def describe(self, summary: str) -> None:
        """Say in short what this agent is at: every agent of the tenant sees it in `agent_status`.

        Up to 1,000 characters (`MessageTooLarge`), encrypted; an empty text takes it away. No
        erasure looks for a person in it: keep personal data out.
        """
        agent = self._source.current().binding.agent
        self._agents().update({agent: checked_description(summary) or None})

    def _agents(self) -> SharedContext:
        opened = self._source.current()
        tenant, isolation = opened.binding.tenant, opened.binding.policy.isolation
        return self._context(agents_place(tenant, isolation, opened.keyring.name_key))

    def _context(self, where: ContextPlace) -> SharedContext:
        # Here, because agents without a shared context need not wait for the import.
        from memtenant.memory._sync.context import SharedContext

        policy = self._source.current().binding.policy
        return SharedContext(self._store, self._keys, where, policy, self._masks)

    def checkpoints(self, thread: str, *, user: str) -> Checkpoints:
        """The checkpoints of a graph's thread: what `memtenant.langgraph.Saver` is made of. The
        thread is the session of the same name: who deletes the conversation deletes them too."""
        opened = self._source.current()
        require_listed(opened, (opened.binding.agent,))
        policy = opened.binding.policy
        where = conversation_place(
            opened.binding.tenant,
            policy.isolation,
            opened.keyring.name_key,
            thread,
            user,
            opened.owner,
        )
        return self._checkpoints(where)

    def all_checkpoints(self, user: str) -> list[Checkpoints]:
        """The checkpoints of every thread of a user, those begun last first."""
        opened = self._source.current()
        tenant, isolation = opened.binding.tenant, opened.binding.policy.isolation
        index = index_alias(opened.keyring.name_key, user, opened.owner)
        where = user_place(tenant, isolation, opened.keyring.name_key, user, opened.owner)
        call = ReadIndex(self._once, where.subject.index)
        entries = self._store.ask_audited(call, Intent(Operation.LIST, where))
        names, _ = next_page(entries, max(len(entries), 1), None)
        found = [listed_place(tenant, isolation, index, name, opened.owner) for name in names]
        return [self._checkpoints(place) for place in found if place is not None]

    def _checkpoints(self, where: ConversationPlace) -> Checkpoints:
        # Here, because agents without a graph need not wait for the import.
        from memtenant.memory._sync.checkpoints import Checkpoints

        mode = self._source.current().binding.policy.encryption
        return Checkpoints(self._store, self._keys, where, mode, self._masks)

    def usage(self, *, active_within: timedelta | None = None) -> Usage:
        """What the tenant uses of its quotas, as the writes through memtenant were counted; the
        operator's measurement decides. One round trip.

        active_within: counts also the conversations that were appended to in that time (under
        Strict isolation, those of this agent). That looks at the head of every conversation, 500
        in a round trip.
        """
        found = self._store.ask(ReadUsage(self._once))
        if active_within is None:
            return usage_of(found)
        since = found.time - int(active_within.total_seconds() * 1000)
        return usage_of(found, self._active_since(since))

    def _active_since(self, since: int) -> int:
        tenant, members = self._source.current().binding.tenant, self._once.conversations
        start, active = 0, 0
        replies = self._store.read(("ZRANGE", members, 0, _HEADS_AT_ONCE - 1))
        names = value(replies[0])
        while isinstance(names, list) and names:
            start += _HEADS_AT_ONCE
            heads = heads_of(tenant, names, self._source.current().owner)
            *writers, names = (
                value(reply)
                for reply in self._store.read(
                    *(("HGET", head, "writers") for head in heads),
                    ("ZRANGE", members, start, start + _HEADS_AT_ONCE - 1),
                )
            )
            active += sum((last_append(one) or 0) >= since for one in writers)
        return active

    def forget(self, user: str, *, consent_reference: str | None = None) -> ErasureReceipt:
        """Erase what is kept of a user: conversations with all that was derived from them, and the
        values of shared contexts that are about them (`about=`), also those about others too.

        Only for agents with access Steward. What this agent's rights reach is deleted when the call
        returns, and nothing can be stored or read of the user from then on (`SubjectErased`); the
        operator deletes it again, looks for what no index named, has the servers' files written
        anew and the keys destroyed. The receipt's ``id`` asks `erasure` how far that is. May be
        repeated: an erasure under way is gone on with.

        consent_reference: kept nowhere; where the policy asks for one, a proof of it is. Raises
        `ErasureNotPermitted`, `ConsentRequired`, `TenantHeld` (a legal hold or content minimum).
        """
        from memtenant.memory._sync.erasure import Requests  # by Stewards alone

        receipt = Requests(self._store).forget(user, consent_reference)
        opened = self._source.current()
        named = index_alias(opened.keyring.name_key, user, opened.owner)
        self._keys.forget(named)
        index = subject_index(opened.binding.tenant, named).encode()
        with self._lock:
            for key in [key for key in self._open if key[1] == index.decode()]:
                self._open.pop(key)[0].drop_copy()
        return receipt

    def erasures(self) -> list[ErasureReceipt]:
        """How far every erasure of the tenant is, as the operator wrote, oldest first: all under
        way, and the last finished ones."""
        from memtenant.memory._sync.erasure import Requests

        return Requests(self._store).receipts()

    def erasure(self, request: str) -> ErasureReceipt | None:
        """How far the erasure with this id (`ErasureReceipt.id`) is; None until the operator has
        seen it, and after its receipt went."""
        from memtenant.memory._sync.erasure import Requests

        return Requests(self._store).receipt(request)

    def export(self, user: str, destination: Path | str) -> ExportManifest:
        """Write what is kept of a user to a new folder, in the clear: ``conversations.jsonl``,
        ``messages.jsonl``, ``summaries.jsonl``, ``values.jsonl``, and ``manifest.json`` with their
        SHA-256.

        Only for agents with access Steward. Memory is bounded by a page of 1 MiB; the folder is
        there when all of it is. Raises `PortabilityNotPermitted`, `SubjectErased`, `UsageError`.
        """
        from memtenant.memory._sync.export import Exporter

        return Exporter(self._store, self._keys).export(user, Path(destination))

    def exported(self, user: str) -> Iterator[ExportItem]:
        """As `export`, line by line for the caller to keep: a conversation before its messages,
        then values of shared contexts."""
        from memtenant.memory._sync.export import Exporter

        return Exporter(self._store, self._keys).items(user)

    def info(self) -> Info:
        """What the binding says: no I/O but a look at its folder."""
        return info_of(self._source)

    @property
    def _once(self) -> TenantKeys:
        return TenantKeys.of(self._source.current().binding.tenant)
