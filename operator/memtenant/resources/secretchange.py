"""What has to change for a Secret to become what a draft says, decided alike for every adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from memtenant.errors import InvalidResource, ResourceConflict
from memtenant.resources.port import (
    FOREIGN_SECRET,
    MANAGED_BY_LABEL,
    MANAGED_BY_VALUE,
    OWNER_LABEL,
    SecretDraft,
    StoredSecret,
)

__all__ = ["SecretChange", "change_towards", "require_ours"]

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class SecretChange:
    """The entries to set and the keys of ``data`` to remove. ``owner_uid`` None: leave owners."""

    data: Mapping[str, bytes] = field(repr=False)
    removed: tuple[str, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner_uid: str | None

    def __bool__(self) -> bool:
        return bool(self.data or self.removed or self.labels or self.annotations or self.owner_uid)


def require_ours(draft: SecretDraft, current: StoredSecret) -> None:
    """`ResourceConflict` with reason `FOREIGN_SECRET` if somebody else made ``current`` or it was
    made for another owner than ``draft`` says."""
    where = f"Secret {draft.namespace}/{draft.name}"
    if current.owner is None:
        raise ResourceConflict(
            f"{where} does not carry memtenant's labels, so it is left alone. Rename or delete it, "
            f"but if memtenant made it, put them back: kubectl -n {draft.namespace} label secret "
            f"{draft.name} {MANAGED_BY_LABEL}={MANAGED_BY_VALUE} {OWNER_LABEL}={draft.owner}",
            reason=FOREIGN_SECRET,
        )
    if current.owner != draft.owner:
        raise ResourceConflict(
            f"{where} is for {current.owner!r}: it is left alone; rename or delete it",
            reason=FOREIGN_SECRET,
        )


def change_towards(draft: SecretDraft, current: StoredSecret) -> SecretChange:
    """The change from ``current`` to ``draft``; empty (falsy) if it is that already.

    Raises as `require_ours`, and `InvalidResource` if its type would have to change, which no API
    allows.
    """
    require_ours(draft, current)
    if current.type != draft.type:
        raise InvalidResource(
            f"Secret {draft.namespace}/{draft.name} has type {current.type!r}, which cannot become "
            f"{draft.type!r}: delete it"
        )
    owner_uid = None if draft.owned_by is None else draft.owned_by.uid
    return SecretChange(
        data=_differing(draft.data, current.data),
        removed=tuple(sorted(current.data.keys() - draft.data.keys())),
        labels=_differing(draft.all_labels, current.labels),
        annotations=_differing(draft.annotations, current.annotations),
        owner_uid=None if owner_uid in current.owner_uids else owner_uid,
    )


def _differing(wanted: Mapping[str, Value], present: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in wanted.items() if present.get(name) != value}
