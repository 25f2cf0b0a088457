"""A person as the SDK erases and exports them: who may ask, what the index names, what is asked.

Erasure has one implementation: the SDK runs these steps as far as its rights go, and the operator
runs them again over its own connection, with what it finds besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from memtenant.crypto.erasure import ErasureRequest, Tombstone, consent_proof
from memtenant.crypto.names import subject_tag, user_alias
from memtenant.errors import (
    ConsentRequired,
    ErasureNotPermitted,
    PortabilityNotPermitted,
)
from memtenant.functions.fcall import Words
from memtenant.memory.places import (
    ContextPlace,
    ConversationPlace,
    check_user,
    listed_context,
    listed_place,
)
from memtenant.memory.source import OpenBinding
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.identity import AgentName, TenantId
from memtenant.tenancy.keys import own_alias
from memtenant.tenancy.policy import AgentAccess, Isolation

__all__ = [
    "Plain",
    "Subject",
    "SubjectPlaces",
    "check_may_export",
    "check_may_forget",
    "erasure_request",
    "places_of",
    "subject_of",
    "tombstone",
]

_CONTEXT: Final = "c:"
_ALIAS: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Subject:
    """A person by what stands for it in the store. ``tag`` marks its records under Minimal, and is
    empty where the person has a data key of its own. Under Strict a person is one subject at each
    agent that keeps something of it, the ``owner``."""

    tenant: TenantId
    isolation: Isolation
    alias: str
    tag: bytes
    owner: AgentName = ""

    @property
    def named(self) -> str:
        """The alias in the names of its data key and its index."""
        return own_alias(self.owner, self.alias) if self.owner else self.alias


@dataclass(frozen=True, slots=True)
class SubjectPlaces:
    """What a person's index names, each once: conversations, and values of shared contexts."""

    subject: Subject
    conversations: tuple[ConversationPlace, ...] = ()
    values: Mapping[ContextPlace, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plain:
    """One command that is no Function, sent as a call that may be repeated."""

    words: Words

    def read(self, reply: object) -> object:
        """The reply as it is."""
        return reply


def subject_of(opened: OpenBinding, user: str) -> Subject:
    """The person of this id. `UsageError` where it is no text, or empty."""
    check_user(user)
    binding, name_key = opened.binding, opened.keyring.name_key
    return Subject(
        tenant=binding.tenant,
        isolation=binding.policy.isolation,
        alias=user_alias(name_key, user),
        tag=subject_tag(name_key, user),
        owner=opened.owner,
    )


def places_of(subject: Subject, index: Iterable[bytes]) -> SubjectPlaces:
    """What the entries of its index name; agents may write anything there, so what names no place
    is passed over."""
    conversations: dict[str, ConversationPlace] = {}
    values: dict[str, dict[str, None]] = {}
    for entry in index:
        name = entry.decode("utf-8", "replace")
        if name.startswith(_CONTEXT):
            context, _, value = name.removeprefix(_CONTEXT).partition(":")
            if _ALIAS.fullmatch(context) and _ALIAS.fullmatch(value):
                values.setdefault(context, {})[value] = None
            continue
        place = listed_place(subject.tenant, subject.isolation, subject.named, name, subject.owner)
        if place is not None and _ALIAS.fullmatch(place.place.conversation):
            conversations[name] = place
    return SubjectPlaces(
        subject,
        tuple(conversations.values()),
        {
            listed_context(subject.tenant, subject.isolation, context): tuple(names)
            for context, names in values.items()
        },
    )


def check_may_forget(binding: Binding, consent_reference: str | None) -> None:
    """Raises `ErasureNotPermitted` or `ConsentRequired`; no I/O. The operator checks again."""
    if binding.policy.access is not AgentAccess.STEWARD:
        raise ErasureNotPermitted(_not_a_steward(binding, "forget"))
    if not binding.policy.rights.erasure:
        raise ErasureNotPermitted(
            f"The RetentionPolicy of tenant {binding.tenant} does not let persons be forgotten "
            "(spec.erasure.mode: Forbidden): ask whoever answers for it"
        )
    if binding.policy.rights.consent_required and not consent_reference:
        raise ConsentRequired(
            f"The RetentionPolicy of tenant {binding.tenant} lets a person be forgotten only with "
            "a reference to their consent or request: pass consent_reference="
        )


def check_may_export(binding: Binding) -> None:
    """Raises `PortabilityNotPermitted`; needs no I/O."""
    if binding.policy.access is not AgentAccess.STEWARD:
        raise PortabilityNotPermitted(_not_a_steward(binding, "export"))
    if not binding.policy.rights.portability:
        raise PortabilityNotPermitted(
            f"The RetentionPolicy of tenant {binding.tenant} does not let what is kept of persons "
            "be exported (spec.portability.mode: Forbidden): ask whoever answers for it"
        )


def erasure_request(
    opened: OpenBinding, subject: Subject, request: bytes, consent_reference: str | None, now: int
) -> ErasureRequest:
    """The request with this id, under the MAC of the binding's agent. The reference stays here but
    for a proof of it, and that only where the policy asks for one."""
    binding, key = opened.binding, opened.keyring.audit_key
    needed = binding.policy.rights.consent_required and consent_reference
    return ErasureRequest(
        id=request,
        time=now,
        subject=subject.alias,
        tag=subject.tag,
        agent=binding.agent,
        binding_version=binding.version,
        consent=consent_proof(key, request, consent_reference or "") if needed else b"",
    ).sealed(key, binding.tenant)


def tombstone(opened: OpenBinding, subject: Subject, request: bytes) -> Tombstone:
    """The mark beside the person's data key, under the MAC of the binding's agent."""
    binding = opened.binding
    mark = Tombstone(request, binding.agent, binding.version)
    return mark.sealed(opened.keyring.audit_key, binding.tenant, subject.named)


def _not_a_steward(binding: Binding, what: str) -> str:
    access = binding.policy.access
    told = f"has access {access}" if access is not None else "has a binding that tells no access"
    return (
        f"Agent {binding.agent} of tenant {binding.tenant} {told}, and {what} needs Steward: set "
        "spec.agents[].access of the MemoryTenant, and mount the binding that the operator writes"
    )
