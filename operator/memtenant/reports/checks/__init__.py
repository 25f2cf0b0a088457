"""The checks that controls name: small pure functions from evidence to a judgement."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from memtenant.reports.checks.access import (
    credentials_rotated,
    default_user_off,
    least_privilege,
    transport_encrypted,
    unique_users,
)
from memtenant.reports.checks.audit import (
    audit_covers,
    audited,
    changes_recorded,
    log_verifies,
    sealer_live,
)
from memtenant.reports.checks.content import (
    encrypted,
    no_forbidden_data,
    personal_data_masked,
    records_authentic,
)
from memtenant.reports.checks.judging import Check, Finding, Judgement, Status
from memtenant.reports.checks.keeping import (
    erasures_completed,
    kept_within_period,
    nothing_deleted_under_hold,
    nothing_removed_under_minimum,
    period_justified,
)
from memtenant.reports.checks.kept import log_kept, reports_kept, revisions_kept
from memtenant.reports.checks.keys import keys_rotated, log_key_separate

__all__ = ["CHECKS", "PARAMETERS", "Check", "Finding", "Judgement", "Status"]

CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "AuditCovers": audit_covers,
        "Audited": audited,
        "ChangesRecorded": changes_recorded,
        "CredentialsRotated": credentials_rotated,
        "DefaultUserOff": default_user_off,
        "Encrypted": encrypted,
        "ErasuresCompleted": erasures_completed,
        "KeptWithinPeriod": kept_within_period,
        "KeysRotated": keys_rotated,
        "LeastPrivilege": least_privilege,
        "LogKept": log_kept,
        "LogKeySeparate": log_key_separate,
        "LogVerifies": log_verifies,
        "NoForbiddenData": no_forbidden_data,
        "NothingDeletedUnderHold": nothing_deleted_under_hold,
        "NothingRemovedUnderMinimum": nothing_removed_under_minimum,
        "PeriodJustified": period_justified,
        "PersonalDataMasked": personal_data_masked,
        "RecordsAuthentic": records_authentic,
        "ReportsKept": reports_kept,
        "RevisionsKept": revisions_kept,
        "SealerLive": sealer_live,
        "TransportEncrypted": transport_encrypted,
        "UniqueUsers": unique_users,
    }
)

PARAMETERS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "Audited": frozenset({"reads"}),
        "CredentialsRotated": frozenset({"period"}),
        "ErasuresCompleted": frozenset({"within"}),
        "KeysRotated": frozenset({"period"}),
        "LogKept": frozenset({"at_hand"}),
        "NoForbiddenData": frozenset({"detectors"}),
    }
)
"""What a check can be told; the others nothing."""
