"""Messages and values with what was found in them replaced.

Imported where something is masked, because the detectors' patterns take time to compile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from memtenant.crypto.primitives import SecretKey, derive
from memtenant.errors import MaskingRejected
from memtenant.masking.masker import Masker, Plan
from memtenant.memory.masking import MaskingRules
from memtenant.memory.messages import SYSTEM, TOOL, Json, Message, ToolCall
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.masking import Detector

if TYPE_CHECKING:
    from memtenant.memory.summaries import Answer, SummaryRequest

__all__ = ["Plans", "SubjectMask"]

_MAX_DEPTH: Final = 64
"""The codec refuses what is nested deeper."""

_KEPT: Final = frozenset({"type", "status", "role", "name", "id", "call_id", "approval_request_id"})
"""Fields of a framework's that say what is what; a text or number in their place is masked."""

_OPAQUE: Final = "encrypted_content"
_IDENTIFIER = re.compile(r"[\w.:/|-]*[A-Za-z][\w.:/|-]*")
_NOT_LETTERS = re.compile(r"[^A-Za-z]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Plans:
    """`MaskingRules`, ready to be used."""

    texts: Plan
    tools: Plan
    contexts: Plan
    everywhere: Plan

    @classmethod
    def of(cls, rules: MaskingRules) -> Plans:
        """Made once for many messages."""
        return cls(
            Plan(rules.actions), Plan(rules.tools), Plan(rules.contexts), Plan(rules.everywhere)
        )


@dataclass(slots=True)
class SubjectMask:
    """What is masked for one person, or in one shared context: ``whose`` tells them apart, so that
    a token says nothing about anybody else's values."""

    plans: Plans
    token_key: SecretKey
    tenant: TenantId
    whose: bytes

    def messages(
        self, messages: Sequence[Message]
    ) -> tuple[tuple[Message, ...], Mapping[Detector, int]]:
        """The messages as they may be stored, and what was found. Raises `MaskingRejected`."""
        masker = self._masker()
        masked = tuple(self._message(message, masker) for message in messages)
        return masked, _checked(masker)

    def text(self, text: str) -> str:
        """A text of the person's. Raises `MaskingRejected`."""
        masker = self._masker()
        masked = masker.text(text, self.plans.texts)
        _checked(masker)
        return masked

    def request(self, request: SummaryRequest) -> SummaryRequest:
        """What a summariser reads. What is stored already is masked, not rejected."""
        masker = self._masker()
        messages = tuple(
            replace(one, message=self._message(one.message, masker)) for one in request.messages
        )
        before = request.previous
        if before is not None:
            before = replace(
                before,
                text=masker.text(before.text, self.plans.texts),
                facts=self._texts(before.facts, masker),
            )
        return replace(request, messages=messages, previous=before)

    def answer(self, answer: Answer) -> Answer:
        """A summary, masked as what it was made from."""
        masker = self._masker()
        text = masker.text(answer.text, self.plans.texts)
        return replace(answer, text=text, facts=self._texts(answer.facts, masker))

    def values(self, values: Mapping[str, Json]) -> dict[str, Json]:
        """A shared context's values; its names stay. Raises `MaskingRejected`."""
        masker = self._masker()
        plan = self.plans.contexts
        masked = {name: _json(value, name, masker, plan) for name, value in values.items()}
        _checked(masker)
        return masked

    def _masker(self) -> Masker:
        return Masker(
            lambda: derive(
                self.token_key, "memtenant/1/token", str(self.tenant).encode(), self.whose
            )
        )

    def _texts(self, texts: Sequence[str], masker: Masker) -> tuple[str, ...]:
        return tuple(masker.text(text, self.plans.texts) for text in texts)

    def _message(self, message: Message, masker: Masker) -> Message:
        plan = self._plan(message.role)
        changes: dict[str, object] = {}
        if isinstance(message.content, str):
            if (text := masker.text(message.content, plan)) != message.content:
                changes["content"] = text
        else:
            parts = tuple(_part(part, masker, plan) for part in message.content)
            if parts != tuple(message.content):
                changes["content"] = parts
        if message.tool_calls and self.plans.tools:
            calls = tuple(_call(call, masker, self.plans.tools) for call in message.tool_calls)
            if calls != message.tool_calls:
                changes["tool_calls"] = calls
        further = _further(message.further, masker, plan, self.plans.everywhere)
        if further != message.further:
            changes["further"] = further
        if everywhere := self.plans.everywhere:
            # Found is rejected, so that nothing has to be put in its place.
            _json(message.metadata, "", masker, everywhere)
        return replace(message, **changes) if changes else message  # type: ignore[arg-type]

    def _plan(self, role: str) -> Plan:
        """A role that is not known is a person's or a model's: it could be anybody's."""
        return {SYSTEM: self.plans.everywhere, TOOL: self.plans.tools}.get(role, self.plans.texts)


def _part(part: Mapping[str, Json], masker: Masker, plan: Plan) -> Mapping[str, Json]:
    """A part's ``text``; the rest of it is references, types and ids."""
    text = part.get("text")
    if not isinstance(text, str) or (masked := masker.text(text, plan)) == text:
        return part
    return {**part, "text": masked}


def _call(call: ToolCall, masker: Masker, plan: Plan) -> ToolCall:
    arguments = _json(call.arguments, "", masker, plan)
    return call if arguments == call.arguments else replace(call, arguments=arguments)


def _further(
    value: Json, masker: Masker, plan: Plan, everywhere: Plan, name: str = "", depth: int = 0
) -> Any:
    """What an adapter keeps of a framework beside a message's text: every text and number in it,
    but what tells its parts apart."""
    if depth > _MAX_DEPTH:
        return value
    if isinstance(value, Mapping):
        return {
            key: _further(inner, masker, plan, everywhere, str(key), depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return [_further(inner, masker, plan, everywhere, name, depth + 1) for inner in value]
    return _json(value, name, masker, everywhere if _is_kept(name, value) else plan, depth)


def _is_kept(name: str, value: Json) -> bool:
    if name == _OPAQUE:
        return True
    return name in _KEPT and isinstance(value, str) and bool(_IDENTIFIER.fullmatch(value))


def _json(value: Json, name: str, masker: Masker, plan: Plan, depth: int = 0) -> Json:
    """Every text in it, and numbers that are found; names stay. A value is read beside its name:
    ``{"cvv": 123}`` says what it is by that alone."""
    if depth > _MAX_DEPTH or not plan:
        return value
    if isinstance(value, str):
        return _named(value, name, masker, plan)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            text = str(value)
        except ValueError:
            return value  # more digits than Python writes out: the codec refuses it
        return value if (masked := _named(text, name, masker, plan)) == text else masked
    if isinstance(value, Mapping):
        return {
            key: _json(inner, str(key), masker, plan, depth + 1) for key, inner in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_json(inner, name, masker, plan, depth + 1) for inner in value]
    return value


def _named(text: str, name: str, masker: Masker, plan: Plan) -> str:
    words = _NOT_LETTERS.sub(" ", _HUMP.sub(" ", name)).strip()
    beside = f"{words}: " if words else ""
    masked = masker.text(beside + text, plan)
    # Letters and spaces are never of a value: what stands in front is still there.
    return masked.removeprefix(beside)


def _checked(masker: Masker) -> Mapping[Detector, int]:
    if masker.rejected:
        found = ", ".join(f"{count} {kind.value}" for kind, count in masker.rejected.items())
        raise MaskingRejected(
            f"What was to be stored holds {found}, which the tenant's masking rejects: nothing was "
            "stored. Take it out, and send the rest again",
            counts={kind.value: count for kind, count in masker.rejected.items()},
        )
    return masker.counts
