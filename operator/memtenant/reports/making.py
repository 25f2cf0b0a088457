"""A report made and kept: looked at, written, told to the log, shown, and the old ones pruned.

The order matters: files first, so that nothing points at what is not there; the log next; the
object last, which is what people and the operator look at.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from memtenant.api.policy import RetentionPolicySpec
from memtenant.clock import Clock, system_clock
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import InvalidResource, MemtenantError, ResourceNotFound
from memtenant.reports.artefacts import Manifest, make_room, write_report
from memtenant.reports.evidence import Missing, Period
from memtenant.reports.history import (
    newest_report,
    prune_files,
    prune_objects,
    prune_unfinished,
    told_until,
)
from memtenant.reports.looking import Progress
from memtenant.reports.report import Report
from memtenant.reports.run import make_report
from memtenant.reports.sources import Sources
from memtenant.reports.submission import read_entry, report_entry
from memtenant.reports.summary import report_name, run_name, spec_of, status_of
from memtenant.resources.port import Declared
from memtenant.resources.reportobjects import ReportObjects
from memtenant.rules.policy import PolicyFacts, policy_facts
from memtenant.rules.sealing import SealerReport
from memtenant.stores.witness import StoreWitness
from memtenant.tenancy.keys import INSTALLATION_QUEUE, STORE_SEALER

__all__ = ["Made", "make_and_keep"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """``name`` is the ComplianceReport's. ``in_log`` names the store through whose queue the log
    knows of it; empty where none could be reached."""

    report: Report
    manifest: Manifest
    folder: Path
    name: str
    in_log: str
    pruned: tuple[str, ...] = ()


async def make_and_keep(
    sources: Sources,
    objects: ReportObjects,
    policy: str,
    root: Path,
    *,
    audit_key: SecretKey | None,
    period: Period | None = None,
    installation: str = "",
    clock: Clock = system_clock,
    progress: Progress = lambda _done, _due: None,
) -> Made:
    """A report about a policy's tenants, below ``root`` as ``<policy>/<run>``, and a
    ComplianceReport that points there. Without a ``period``: from where the last report ended whose
    period nobody chose, so that periods join.

    Raises `ResourceNotFound` for a policy that is not declared, `InvalidResource` for one that
    cannot be resolved, `UsageError` where files cannot be written.
    """
    now = clock.now()
    declared = await _declared(sources, policy)
    facts = _facts(declared)
    folder = root / policy
    make_room(folder)
    earlier = await newest_report(folder, objects, policy)
    previous = earlier.report
    if audit_key is not None:
        await _tell_log(sources, read_entry(policy, audit_key, now))
    since = told_until(folder, now, earlier.not_believed) or declared.creation_timestamp
    report = await make_report(
        sources,
        policy,
        replace(period, chosen=True) if period else Period(min(since, now), now),
        previous,
        doubts=earlier.doubts,
        files=folder,
        installation=installation,
        clock=clock,
        progress=progress,
    )
    run = run_name(report.made)
    asked = facts.spec.report
    manifest = write_report(report, folder / run, *(asked.formats if asked else ()))
    in_log = ""
    if audit_key is not None:
        in_log = await _tell_log(sources, report_entry(manifest, audit_key, clock.now()))
    if not in_log:
        _log.warning(
            "the report is not told to the audit log: the reporter has no key of it, or no store "
            "whose queues are drained takes its event"
        )
    name = report_name(policy, run)
    location = PurePosixPath(policy, run)
    await objects.save(policy, name, spec_of(report), status_of(report, manifest, location))
    if asked is not None:
        await prune_objects(objects, policy, asked.history_limit)
    prune_unfinished(folder, now)
    return Made(report, manifest, folder / run, name, in_log, prune_files(folder, facts, now))


async def _declared(sources: Sources, policy: str) -> Declared:
    found = await sources.declarations()
    if isinstance(found, Missing):
        raise ResourceNotFound(f"RetentionPolicy {policy!r} cannot be read: {found}")
    for one in found.policies:
        if one.key.name == policy:
            return one
    raise ResourceNotFound(f"there is no RetentionPolicy {policy!r}: name one that is declared")


def _facts(declared: Declared) -> PolicyFacts:
    try:
        spec = RetentionPolicySpec.model_validate(declared.spec)
    except ValidationError as error:
        raise InvalidResource(
            f"RetentionPolicy {declared.key.name!r} cannot be read: {error.error_count()} fields "
            "are wrong; `kubectl describe` says which"
        ) from None
    return policy_facts(declared.key.name, spec)


async def _tell_log(sources: Sources, entry: bytes) -> str:
    """Push an entry into the installation's queue of the first store that takes it, and from which
    a sealer ever drained one; the store's name."""
    for login in await sources.stores():
        if isinstance(login.settings, Missing):
            continue
        witness = StoreWitness(login.settings)
        try:
            if not SealerReport.from_fields(await witness.hash(STORE_SEALER)).beat_at:
                continue
            await witness.push(INSTALLATION_QUEUE, entry)
        except MemtenantError as error:
            _log.warning("store %s does not take an event of the report: %s", login.name, error)
        else:
            return login.name
        finally:
            await witness.close()
    return ""
