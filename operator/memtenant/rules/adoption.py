"""May a MemoryTenant take over what a record says an earlier one of its name left?

Only in the very same namespace (its uid, not its name), or where a platform admin released the
record; and only laid out the same way, because data and keys are.
"""

from __future__ import annotations

from collections.abc import Mapping

from memtenant.api.fields import DeletionPolicy
from memtenant.rules.placement import Refusal
from memtenant.rules.record import RELEASE_ANNOTATION, Phase, TenantRecord, record_name

__all__ = ["adoption_refusal"]


def adoption_refusal(
    record: TenantRecord,
    *,
    uid: str,
    namespace_uid: str,
    isolation: str,
    encryption: str,
    release: Mapping[str, str],
    home: str,
) -> Refusal | None:
    """Why the record is not this MemoryTenant's to take, or None.

    ``release`` are the annotations of the record's Secret, which only a platform admin can write.
    """
    if record.uid == uid and record.namespace_uid == namespace_uid:
        return None
    name = f"{home}/{record_name(record.tenant)}"
    going = record.phase is Phase.ORPHANED and record.deletion_policy != DeletionPolicy.RETAIN
    if going or record.phase is Phase.DELETING:
        return Refusal(
            "DeletionUnfinished",
            "",
            "An earlier tenant of this name is still being deleted: its data goes first",
            retryable=True,
        )
    if record.namespace_uid != namespace_uid and release.get(RELEASE_ANNOTATION) not in (
        namespace_uid,
        "*",
    ):
        return Refusal(
            "RetainedForAnotherNamespace",
            "",
            f"The memory of an earlier tenant {record.tenant} is retained for a namespace that no "
            "longer exists. To hand it to this one, a platform admin runs: kubectl annotate secret "
            f"-n {home} {record_name(record.tenant)} {RELEASE_ANNOTATION}={namespace_uid}. "
            "To start afresh, have that tenant's data deleted first",
        )
    for field, was, now in (
        ("spec.isolation", record.isolation, isolation),
        ("spec.encryption.mode", record.encryption, encryption),
    ):
        if was != now:
            return Refusal(
                "AdoptionMismatch",
                field,
                f"The retained memory of this tenant ({name}) was made with {was}, not {now}: "
                f"declare {was}, or give the tenant another name",
            )
    return None
