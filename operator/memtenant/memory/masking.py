"""What an agent's code and its tenant's policy say together about masking.

The policy is in the binding and may change while the agent runs. Where it requires masking, code
can only add to it: more detectors, a stronger action, tools too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from memtenant.errors import UsageError
from memtenant.masking.findings import STRENGTH
from memtenant.tenancy.masking import Detector, MaskingAction, MaskingPolicy

__all__ = ["LONG_TEXT", "Masking", "MaskingRules", "masking_rules"]

LONG_TEXT: Final = 8 * 1024
"""Characters from which an event loop is not kept waiting."""


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
    answer, to values of shared contexts, and to everything else: system messages."""

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
