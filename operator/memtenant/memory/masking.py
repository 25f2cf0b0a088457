"""What an agent's code and its tenant's policy say together about masking.

The policy is in the binding and may change while the agent runs. Where it requires masking, code
can only add to it: more detectors, a stronger action, tools too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from memtenant.errors import UsageError
from memtenant.masking.findings import STRENGTH
from memtenant.memory.messages import Message
from memtenant.tenancy.masking import Detector, MaskingAction, MaskingPolicy

__all__ = ["LONG_TEXT", "Masking", "MaskingRules", "are_long", "is_long", "masking_rules"]

LONG_TEXT: Final = 8 * 1024
"""Characters from which an event loop is not kept waiting."""


_MAX_DEPTH: Final = 64
"""The codec refuses what is nested deeper."""


@dataclass(frozen=True, slots=True)
class Masking:
    """Switches masking on, for `Tenant`. What is left out is as the tenant's policy says.

    action: what becomes of a value that is found. detectors: what is looked for. tools: also in
    the arguments and results of tools.
    """

    action: MaskingAction | None = None
    detectors: Collection[Detector] | None = None
    tools: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.detectors or ()) - set(Detector)
        if unknown:
            raise UsageError(
                f"There is no detector {', '.join(sorted(map(repr, unknown)))}: use "
                f"{', '.join(Detector)}"
            )


@dataclass(frozen=True, slots=True)
class MaskingRules:
    """What is done to what people and models say (``actions``), to what tools are given and
    answer, to values of shared contexts, and to everything else: system messages, metadata."""

    actions: Mapping[Detector, MaskingAction]
    tools: Mapping[Detector, MaskingAction]
    contexts: Mapping[Detector, MaskingAction]
    everywhere: Mapping[Detector, MaskingAction]


def masking_rules(policy: MaskingPolicy, wanted: Masking | None) -> MaskingRules | None:
    """None where nothing is masked: the policy does not require it, and the code did not ask."""
    if not policy.required and wanted is None:
        return None
    required = dict.fromkeys(policy.detectors, policy.action) if policy.required else {}
    actions = dict(required)
    if wanted is not None:
        action = wanted.action or policy.action
        named = policy.detectors if wanted.detectors is None else wanted.detectors
        for detector in map(Detector, named):
            actions[detector] = _stronger(actions.get(detector), action)
    everywhere = dict.fromkeys(policy.refused, MaskingAction.REJECT)
    actions |= everywhere
    tools = policy.tools or (wanted is not None and wanted.tools)
    return MaskingRules(
        actions=actions,
        tools=actions if tools else everywhere,
        contexts=required | everywhere,
        everywhere=everywhere,
    )


def _stronger(required: MaskingAction | None, wanted: MaskingAction) -> MaskingAction:
    if required is None or STRENGTH[wanted] > STRENGTH[required]:
        return wanted
    return required


def are_long(messages: Sequence[Message]) -> bool:
    """Whether masking them takes long enough to keep others waiting."""
    left = LONG_TEXT
    for message in messages:
        left -= len(message.content) if isinstance(message.content, str) else _size(message.content)
        left -= sum(_size(call.arguments) for call in message.tool_calls)
        left -= _size(message.further)
        if left < 0:
            return True
    return False


def is_long(value: object) -> bool:
    """Whether masking it takes long enough to keep others waiting."""
    return _size(value) > LONG_TEXT


def _size(value: object) -> int:
    return sum(len(text) for text in _texts(value, 0))


def _texts(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth > _MAX_DEPTH:
        return
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        for inner in value:
            yield from _texts(inner, depth + 1)
