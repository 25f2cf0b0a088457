"""Where a conversation or a shared context is kept: the isolation level decides who shares it.

==========  ======================  ==============  =======================================
isolation   a conversation is       data key        records carry
==========  ======================  ==============  =======================================
Strict      agent + user + session   of the user at  nothing: the user has its own key
                                     this agent
Moderate    tenant + user + session  of the user     nothing: the user has its own key
Minimal     tenant + session         the tenant's    a tag of the user, for its erasure
==========  ======================  ==============  =======================================

``owner`` is the agent whose places these are, under Strict; else it is empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from memtenant.crypto.names import (
    agents_alias,
    context_alias,
    session_alias,
    subject_tag,
    user_alias,
)
from memtenant.crypto.primitives import SecretKey
from memtenant.crypto.record import Place
from memtenant.errors import UsageError
from memtenant.functions.keyspace import ContextKeys, ConversationKeys, SubjectKeys
from memtenant.tenancy.identity import AgentName, TenantId
from memtenant.tenancy.keys import own_alias, own_scope, shared_alias
from memtenant.tenancy.policy import Isolation

__all__ = [
    "SHARED_SCOPE",
    "ContextPlace",
    "ConversationPlace",
    "UserPlace",
    "agents_place",
    "check_user",
    "context_place",
    "conversation_place",
    "index_alias",
    "listed_context",
    "listed_place",
    "user_place",
]

SHARED_SCOPE: Final = "_"
"""The scope of conversations that all agents of a tenant share."""

_CONTEXT_SCOPE: Final = "c"
_ONE_KEY: Final = "_"
"""The alias of the data key where one serves the whole tenant (Minimal)."""


@dataclass(frozen=True, slots=True)
class ConversationPlace:
    """``alias`` names the data key; ``tag`` is empty where records carry none."""

    place: Place
    keys: ConversationKeys
    subject: SubjectKeys
    alias: str
    tag: bytes


@dataclass(frozen=True, slots=True)
class ContextPlace:
    """``alias`` names the data key."""

    place: Place
    keys: ContextKeys
    subject: SubjectKeys
    alias: str
    tag: bytes = b""


@dataclass(frozen=True, slots=True)
class UserPlace:
    """All of a user's; ``alias`` names the data key, ``tag`` as in `ConversationPlace`."""

    subject: SubjectKeys
    alias: str
    tag: bytes
    place: None = None


def conversation_place(
    tenant: TenantId,
    isolation: Isolation,
    name_key: SecretKey,
    session: str,
    user: str,
    owner: AgentName = "",
) -> ConversationPlace:
    """Where a session of a user is. `UsageError` where one of them is no text, or empty."""
    for what, value in (("session", session), ("user", user)):
        if not isinstance(value, str) or not value:
            raise UsageError(
                f"A conversation needs a {what}: a text that is not empty (user is whose data it "
                "is, so that it can be erased)"
            )
    person = _named(user_alias(name_key, user), owner)
    minimal = isolation is Isolation.MINIMAL
    conversation = session_alias(name_key, session, None if minimal else user)
    return _conversation(
        tenant,
        conversation,
        key_alias=_ONE_KEY if minimal else person,
        index=person,
        tag=subject_tag(name_key, user) if minimal else b"",
        owner=owner,
    )


def listed_place(
    tenant: TenantId, isolation: Isolation, index: str, where: str, owner: AgentName = ""
) -> ConversationPlace | None:
    """The place that an entry of a subject's index names; None for one that is no conversation of
    this owner's."""
    scope, colon, conversation = where.partition(":")
    if not colon or scope != _scope(owner) or not conversation or ":" in conversation:
        return None
    minimal = isolation is Isolation.MINIMAL
    return _conversation(
        tenant,
        conversation,
        key_alias=_ONE_KEY if minimal else index,
        index=index,
        tag=b"",
        owner=owner,
    )


def check_user(user: object) -> None:
    """`UsageError` for what is no text, or empty."""
    if not isinstance(user, str) or not user:
        raise UsageError("A user is a text that is not empty: whose data it is")


def index_alias(name_key: SecretKey, user: str, owner: AgentName = "") -> str:
    """The alias of a user's index. Raises what `check_user` raises."""
    check_user(user)
    return _named(user_alias(name_key, user), owner)


def user_place(
    tenant: TenantId,
    isolation: Isolation,
    name_key: SecretKey,
    user: str,
    owner: AgentName = "",
) -> UserPlace:
    """Where what belongs to a user is found: its index and its data key."""
    person = _named(user_alias(name_key, user), owner)
    minimal = isolation is Isolation.MINIMAL
    alias = _ONE_KEY if minimal else person
    tag = subject_tag(name_key, user) if minimal else b""
    return UserPlace(SubjectKeys.of(tenant, alias, person), alias, tag)


def agents_place(tenant: TenantId, isolation: Isolation, name_key: SecretKey) -> ContextPlace:
    """Where the agents of a tenant describe themselves."""
    return listed_context(tenant, isolation, agents_alias(name_key))


def context_place(
    tenant: TenantId, isolation: Isolation, name_key: SecretKey, context: str
) -> ContextPlace:
    """Where a shared context is: all agents of the tenant share it."""
    if not isinstance(context, str) or not context:
        raise UsageError("A shared context needs an id: a text that is not empty")
    return listed_context(tenant, isolation, context_alias(name_key, context))


def listed_context(tenant: TenantId, isolation: Isolation, alias: str) -> ContextPlace:
    """The place of the context with this alias (no colon in it: `ValueError`)."""
    key_alias = _ONE_KEY if isolation is Isolation.MINIMAL else alias
    if isolation is Isolation.STRICT:
        key_alias = shared_alias(alias)
    return ContextPlace(
        place=Place(tenant, _CONTEXT_SCOPE, alias),
        keys=ContextKeys.of(tenant, alias),
        subject=SubjectKeys.of(tenant, key_alias),
        alias=key_alias,
    )


def _scope(owner: AgentName) -> str:
    return own_scope(owner) if owner else SHARED_SCOPE


def _named(alias: str, owner: AgentName) -> str:
    return own_alias(owner, alias) if owner else alias


def _conversation(
    tenant: TenantId,
    conversation: str,
    *,
    key_alias: str,
    index: str,
    tag: bytes,
    owner: AgentName,
) -> ConversationPlace:
    scope = _scope(owner)
    return ConversationPlace(
        place=Place(tenant, scope, conversation),
        keys=ConversationKeys.of(tenant, scope, conversation),
        subject=SubjectKeys.of(tenant, key_alias, index),
        alias=key_alias,
        tag=tag,
    )
