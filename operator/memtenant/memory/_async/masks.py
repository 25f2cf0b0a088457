"""Masking on the way to the store: by the policy of now, and long texts without keeping others
waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from memtenant.crypto.primitives import SecretKey
from memtenant.memory._async.link import aside
from memtenant.memory.masking import Masking, MaskingRules, are_long, is_long, masking_rules
from memtenant.memory.messages import Json, Message, check_message
from memtenant.memory.source import BindingSource
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.masking import Detector, MaskingPolicy

if TYPE_CHECKING:
    from memtenant.memory.masked import SubjectMask
    from memtenant.memory.summaries import Answer, SummaryRequest

__all__ = ["Masks"]


class Masks:
    """What a tenant's agent masks; ``wanted`` is what its code asked for."""

    def __init__(self, source: BindingSource, wanted: Masking | None) -> None:
        self._source = source
        self._wanted = wanted
        self._known: tuple[MaskingPolicy, MaskingRules | None] | None = None
        self._maker: (
            tuple[MaskingRules, Callable[[SecretKey, TenantId, bytes], SubjectMask]] | None
        ) = None

    async def messages(
        self, messages: Sequence[Message], whose: bytes
    ) -> tuple[Sequence[Message], Mapping[Detector, int]]:
        """The messages as they may be stored, and what was found. Raises `MaskingRejected`."""
        mask = self._mask(whose)
        if mask is None:
            return messages, {}
        for message in messages:
            check_message(message)
        if are_long(messages):
            return await aside(lambda: mask.messages(messages))
        return mask.messages(messages)

    async def values(self, values: Mapping[str, Json], whose: bytes) -> Mapping[str, Json]:
        """A shared context's values as they may be stored. Raises `MaskingRejected`."""
        mask = self._mask(whose)
        if mask is None or not mask.plans.contexts:
            return values
        if is_long(values):
            return await aside(lambda: mask.values(values))
        return mask.values(values)

    async def request(self, request: SummaryRequest, whose: bytes) -> SummaryRequest:
        """What a summariser is given: messages that were stored before masking was on, too."""
        mask = self._mask(whose)
        if mask is None:
            return request
        return await aside(lambda: mask.request(request))

    async def answer(self, answer: Answer, whose: bytes) -> Answer:
        """A summary as it may be stored, whoever wrote it."""
        mask = self._mask(whose)
        if mask is None:
            return answer
        return await aside(lambda: mask.answer(answer))

    def any(self) -> bool:
        """Whether anything is masked."""
        return self._rules(self._source.current().binding.policy.masking) is not None

    def title(self, title: str, whose: bytes) -> str:
        """A conversation's title: often the first words of a message."""
        mask = self._mask(whose)
        return title if mask is None else mask.text(title)

    def _mask(self, whose: bytes) -> SubjectMask | None:
        opened = self._source.current()
        rules = self._rules(opened.binding.policy.masking)
        if rules is None:
            return None
        return self._made(rules)(opened.keyring.token_key, opened.binding.tenant, whose)

    def _made(self, rules: MaskingRules) -> Callable[[SecretKey, TenantId, bytes], SubjectMask]:
        known = self._maker
        if known is None or known[0] is not rules:
            from memtenant.memory.masked import Plans, SubjectMask

            known = self._maker = (rules, partial(SubjectMask, Plans.of(rules)))
        return known[1]

    def _rules(self, policy: MaskingPolicy) -> MaskingRules | None:
        known = self._known
        if known is None or known[0] is not policy:
            known = self._known = (policy, masking_rules(policy, self._wanted))
        return known[1]
