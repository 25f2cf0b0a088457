"""What records are: encrypted, masked, authentic, and without what may never be stored."""

from __future__ import annotations

from memtenant.errors import KeyUnavailable
from memtenant.reports.checks.judging import Judge, Judgement
from memtenant.reports.evidence import Evidence, Missing, RecordEvidence
from memtenant.rules.controls import Parameters

__all__ = ["encrypted", "no_forbidden_data", "personal_data_masked", "records_authentic"]


def encrypted(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """Every record is under AES-256-GCM, by its clear bytes."""
    judge = Judge(evidence)
    total = under = 0
    for facts, records in judge.tenants(lambda one: one.records):
        total += records.records
        under += records.encrypted
        if records.authenticated:
            judge.fail(
                str(facts.tenant),
                "records that can be read, for encryption is Disabled, or was when they were "
                f"written: {records.authenticated}/{records.records}",
            )
        if records.plain:
            where = ", ".join(records.examples.get("plain", ()))
            judge.fail(
                str(facts.tenant),
                f"values in clear, written around the SDK: {records.plain}/{records.records} "
                f"({where})",
            )
    _require_any(judge, total)
    return judge.judgement(f"all records, {under}/{total} encrypted")


def no_forbidden_data(evidence: Evidence, parameters: Parameters) -> Judgement:
    """None of these values stands in a text that can be read. What is encrypted is not judged
    unless the run could open it, and then by a sample."""
    wanted = [one.value for one in parameters.needed_detectors("detectors")]
    return _looked_through(evidence, wanted, "must not be stored")


def personal_data_masked(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """No value that the policy's masking looks for stands unmasked in a text that can be read."""
    masking = evidence.policy.masking
    if not masking.required:
        judge = Judge(evidence)
        judge.skip(evidence.policy.name, "the policy does not require masking")
        return judge.judgement("the policy")
    if not masking.detectors:
        judge = Judge(evidence)
        judge.skip(evidence.policy.name, "the policy's masking looks for nothing")
        return judge.judgement("the policy")
    return _looked_through(evidence, [one.value for one in masking.detectors], "is not masked")


def _looked_through(evidence: Evidence, wanted: list[str], what: str) -> Judgement:
    judge = Judge(evidence)
    texts = of = 0
    for facts, records in judge.tenants(lambda one: one.records):
        name = str(facts.tenant)
        opened = records.opened
        texts += records.texts
        of += records.records
        for detector in wanted:
            if many := records.hits.get(detector, 0):
                where = ", ".join(records.examples.get(detector, ()))
                judge.fail(name, f"{detector} that {what}: {many} ({where})")
        closed = records.encrypted if isinstance(opened, Missing) else 0
        if closed:
            judge.skip(name, f"not decrypted: {closed}/{records.records} records")
        elif unread := _unread(records):
            judge.skip(name, f"a sample: {records.records - unread}/{records.records} records")
    _require_any(judge, of)
    return judge.judgement(f"a sample of texts, {texts}/{of} records")


def _unread(records: RecordEvidence) -> int:
    return max(0, records.records - records.texts)


def records_authentic(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """A sample of records opens with the tenant's keys, each where it stands."""
    judge = Judge(evidence)
    opened = of = 0
    for facts, records in judge.tenants(lambda one: one.records):
        name, found = str(facts.tenant), records.opened
        of += records.records
        if isinstance(found, Missing):
            if records.records:
                judge.skip(
                    name,
                    f"not decrypted: 0/{records.records} records. The run was given no key of this "
                    "tenant, and the log commits to records under the tenant's own keys too",
                )
            continue
        if not found.tried and records.records:
            judge.skip(name, f"none that a sample is taken of: 0/{records.records} records")
        opened += found.opened
        for why, many in sorted(found.failures.items()):
            words = f"records that do not open ({why}): {many}/{found.tried}"
            if why == KeyUnavailable.reason:
                # A copy of a keyring from before a rotation: that says nothing of the records.
                judge.missing(name, Missing("keys", words))
            else:
                judge.fail(name, words)
    _require_any(judge, of)
    return judge.judgement(f"a sample of records, {opened}/{of} opened")


def _require_any(judge: Judge, records: int) -> None:
    """Of no records nothing can be shown: that is no pass."""
    if not records:
        judge.skip(judge.evidence.policy.name, "no records are stored")
