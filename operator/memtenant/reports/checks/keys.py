"""Keys: how old, what is left under retired ones, and who can read the one that seals the log."""

from __future__ import annotations

from memtenant.clock import rfc3339
from memtenant.reports.bookkeeping import whole
from memtenant.reports.checks.judging import Judge, Judgement
from memtenant.reports.evidence import Evidence, Missing
from memtenant.rules.controls import Parameters

__all__ = ["keys_rotated", "log_key_separate"]


def keys_rotated(evidence: Evidence, parameters: Parameters) -> Judgement:
    """No active key is older than its period, and no data key is under one that was retired."""
    judge = Judge(evidence)
    period = parameters.needed_period("period")
    data_keys = 0
    for facts, records in judge.tenants(lambda one: one.records):
        name, status = str(facts.tenant), facts.status
        made, active = status.key_made_at, status.key_version
        data_keys += sum(records.kek_versions.values())
        if facts.gone:
            judge.missing(
                name,
                Missing("key", "the tenant is not declared any more: only its record has the age"),
            )
            continue
        if made is None or active is None:
            judge.missing(name, Missing("key", "its status names no key version and its age"))
            continue
        if evidence.is_to_come(made):
            why = f"version {active} was made at {rfc3339(made)}, still to come by this clock"
            judge.missing(name, Missing("key", why))
        if period.after(made) < evidence.now:
            judge.fail(name, f"key version {active} is of {rfc3339(made)}: over {period} old")
        least = whole(records.limits.get("least_kek", ""))
        if least is None:
            judge.missing(name, Missing("o:limits", "the store names no least key version"))
            continue
        live = {active, *(status.keys.retiring if status.keys else ())}
        for version, many in sorted(records.kek_versions.items()):
            if version not in live or version < least:
                judge.fail(
                    name,
                    f"data keys under version {version}, which was retired or never was: {many}",
                )
    return judge.judgement(f"{data_keys} data keys by their version")


def log_key_separate(evidence: Evidence, _parameters: Parameters) -> Judgement:
    """Only who is meant to reads the log's key, and none of these administers a store."""
    judge = Judge(evidence)
    readers = evidence.readers
    judge.expect(1)
    if isinstance(readers, Missing):
        judge.missing("log key", readers)
        return judge.judgement("rights to the log's key", of="keys")
    if not readers.readers:
        # The sealer has to be one of them.
        judge.missing("log key", Missing("readers", "nobody reads it: it is kept elsewhere"))
        return judge.judgement("rights to the log's key", of="keys")
    judge.saw(readers.at)
    for one in readers.readers:
        if one in readers.administrators:
            judge.fail("log key", f"{one} administers stores and reads the log's key")
        elif one not in readers.expected:
            judge.fail("log key", f"{one} reads the log's key, and is not meant to")
    if readers.single:
        judge.warn(
            "log key",
            "one account runs stores and sealer: whoever has the state folder could seal anew what "
            "nobody holds a checkpoint of. In a cluster they are separate",
        )
    said = f" ({readers.said})" if readers.said else ""
    return judge.judgement(
        f"{len(readers.readers)} readers of the log's key against {len(readers.expected)} declared"
        f"{said}",
        of="keys",
    )
