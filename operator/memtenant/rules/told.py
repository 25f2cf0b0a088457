"""What the audit of a tenant has been told of the operator's doings, and what is to be told now.

The operator reconciles: it does not know events, only what is and what should be. So what was told
last stands in the tenant's access hash (``told``), and every difference from it is a deed. Both
are written in one transaction with what they tell, so each is told once, however often the
operator is killed in between.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace

from memtenant.audit import Deed, Operation
from memtenant.tenancy.identity import TenantId

__all__ = ["TOLD", "Actors", "Told", "deeds"]

TOLD = "told"
"""The field of ``o:access``."""

_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class Actors:
    """Who declared the tenant and its policy as they are, where the cluster tells
    (docs/operations.md, Who changed it); else empty."""

    tenant: str = ""
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """Facts about a tenant. ``namespace`` is its uid; ``versions`` are the newest credential of
    each principal, ``keys`` the live versions of its key, ``retention`` the periods that it chose;
    ``refused``: the generation was not accepted; ``ended`` is the deletion policy of a tenant that
    is gone."""

    uid: str
    namespace: str
    generation: int
    policy: str
    mode: str
    reads: bool
    on_failure: str
    agents: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    keys: tuple[int, ...] = ()
    matters: tuple[str, ...] = ()
    retention: Mapping[str, str] = field(default_factory=dict)
    refused: bool = False
    ended: str = ""

    def to_text(self) -> str:
        """As it stands in the access hash; of who chose no period as releases wrote it that did not
        know of any, so that an upgrade writes nothing."""
        known = asdict(self)
        if not self.retention:
            del known["retention"]
        return json.dumps(known, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Told | None:
        """What `to_text` wrote; None where nothing was, or it cannot be read."""
        try:
            found = json.loads(text or "null")
            known = {one.name: found[one.name] for one in fields(cls) if one.name in found}
            told = cls(**known)
            return replace(
                told,
                keys=tuple(told.keys),
                matters=tuple(told.matters),
                agents=dict(told.agents),
                retention=dict(told.retention),
            )
        except (TypeError, ValueError):
            return None


def deeds(
    tenant: TenantId, before: Told | None, after: Told | None, *, new: bool, actors: Actors
) -> tuple[Deed, ...]:
    """What the operator did between the two. None is a tenant that is not audited; ``new`` is one
    of which the store knew nothing."""
    if after is None:
        return () if before is None or before.ended else (_stopped(actors),)
    if before is None:
        first = (_provisioned(after, actors),) if new else ()
        return (*first, _started(after))
    return tuple(_differences(tenant, before, after, actors))


def _differences(tenant: TenantId, before: Told, after: Told, actors: Actors) -> Iterator[Deed]:
    if after.ended != before.ended:
        if after.ended:
            yield from _holds(before, after, actors)
            yield Deed(Operation.DEPROVISIONED, {"deletionPolicy": after.ended, "uid": after.uid})
            return
        yield _provisioned(after, actors)
    if after.namespace != before.namespace:
        yield Deed(
            Operation.OVERRIDE,
            {"what": "RetainedReleased", "namespaceUid": after.namespace},
        )
    seen = (after.uid, after.generation, after.policy, after.refused)
    if seen != (before.uid, before.generation, before.policy, before.refused):
        yield _spec_seen(tenant, after, actors)
    if (after.reads, after.on_failure) != (before.reads, before.on_failure):
        yield _started(after)
    yield from _access(before, after)
    for name, version in sorted(after.versions.items()):
        if version != before.versions.get(name, version):
            yield Deed(Operation.CREDENTIALS_ROTATED, {"agent": name, "version": version})
    for version in sorted(set(after.keys) - set(before.keys)):
        yield Deed(Operation.KEY_MADE, {"version": version})
    for version in sorted(set(before.keys) - set(after.keys)):
        yield Deed(Operation.KEY_DESTROYED, {"version": version})
    yield from _holds(before, after, actors)


def _holds(before: Told, after: Told, actors: Actors) -> Iterator[Deed]:
    for operation, matters in (
        (Operation.HOLD_SET, set(after.matters) - set(before.matters)),
        (Operation.HOLD_RELEASED, set(before.matters) - set(after.matters)),
    ):
        for matter in sorted(matters):
            detail = {"matter": matter, "policy": after.policy}
            yield Deed(operation, detail | _by(actors.policy))


def _access(before: Told, after: Told) -> Iterator[Deed]:
    if after.mode != before.mode:
        yield Deed(Operation.ACCESS_CHANGED, {"access": after.mode, "was": before.mode})
    for name in sorted(after.agents.keys() | before.agents.keys()):
        now, was = after.agents.get(name, ""), before.agents.get(name, "")
        if now != was:
            yield Deed(Operation.ACCESS_CHANGED, {"agent": name, "access": now, "was": was})


def _provisioned(after: Told, actors: Actors) -> Deed:
    detail = {"uid": after.uid, "generation": after.generation}
    return Deed(Operation.PROVISIONED, detail | _under(after) | _by(actors.tenant))


def _spec_seen(tenant: TenantId, after: Told, actors: Actors) -> Deed:
    detail: dict[str, object] = {
        "kind": "MemoryTenant",
        "namespace": tenant.namespace,
        "name": tenant.name,
        "uid": after.uid,
        "generation": after.generation,
    }
    refused = {"refused": True} if after.refused else {}
    return Deed(Operation.SPEC_SEEN, detail | _under(after) | refused | _by(actors.tenant))


def _started(after: Told) -> Deed:
    detail = {"reads": after.reads, "onFailure": after.on_failure, "access": after.mode}
    return Deed(Operation.AUDIT_STARTED, detail | _under(after))


def _stopped(actors: Actors) -> Deed:
    return Deed(Operation.AUDIT_STOPPED, _by(actors.policy or actors.tenant))


def _under(after: Told) -> dict[str, object]:
    """What says how long content is kept: with the policy's own event."""
    return {"policy": after.policy, "retention": dict(after.retention)}


def _by(actor: str) -> dict[str, object]:
    return {"by": actor[:_LONGEST_NAME]} if actor else {}
