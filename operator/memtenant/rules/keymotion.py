"""How a tenant's key turns under agents that go on working: step by step, each one waited out.

1. A new version is added, *pending*: it travels in all bindings, and nothing is wrapped with it.
2. When every agent has had time to read its binding, it becomes active: now all can open what any
   of them wraps. The versions before it retire.
3. When every agent has had time to notice that, passes over the store wrap each data key anew
   (`memtenant.jobs.rewrap`), until one finds none under another version.
4. Then the Functions refuse the retired versions, so that none comes back; agents let go of what
   they keep in memory.
5. A pass after that finds none still: the retired versions are destroyed, in keyring and bindings.

What the steps wait for is in the tenant record, or is seen: an operator that is killed anywhere
goes on from there. What cannot be opened stops step 4 and 5: nothing is lost without a word.

A rotation is asked for by a changed root, by an annotation, or by an erasure: erased data is
unreadable only when the versions that its key was under are gone. Erasures of a day share one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

from memtenant.crypto.agent_keyring import MAX_KEKS, AgentKeyring
from memtenant.crypto.keyring import OpenKeyring, activate, add_version, destroy
from memtenant.crypto.keyring_record import KekVersion, Keyring
from memtenant.rules.keymaterial import KeyState
from memtenant.rules.record import KeyMotion, TenantRecord

__all__ = [
    "KeyAdvance",
    "KeyRules",
    "KeyScan",
    "KeySight",
    "KeyStage",
    "KeyStep",
    "MovingKeys",
    "advance_keys",
    "in_motion",
    "least_version",
    "shows",
]


class KeyStep(Enum):
    """What one look did; after ``CLOSED`` the retired versions are refused."""

    NONE = "none"
    MADE = "made"
    ADDED = "added"
    ACTIVATED = "activated"
    CLOSED = "closed"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class KeyRules:
    """``lag`` is how long an agent may go on with a binding that was changed; ``grace`` how long
    with a data key that it keeps in memory."""

    lag: timedelta
    grace: timedelta


@dataclass(frozen=True, slots=True)
class KeyStage:
    """What a pass over the store was made under: what it shows counts for this stage alone."""

    active: int
    least: int


@dataclass(frozen=True, slots=True)
class KeyScan:
    """What one pass over the store, begun at ``started``, found of a tenant's data keys.

    ``old`` of the ``total`` were not under the active version; ``rewrapped`` of these now are, and
    ``unreadable`` open with no version (``examples`` names some of their subjects, by alias).
    """

    stage: KeyStage
    started: datetime
    total: int = 0
    old: int = 0
    rewrapped: int = 0
    unreadable: int = 0
    examples: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether no data key was under another version when the pass came to it."""
        return self.old == 0

    @property
    def remaining(self) -> int:
        """How many are still to be wrapped anew."""
        return self.old - self.rewrapped


@dataclass(frozen=True, slots=True)
class KeySight:
    """What was seen of keys in motion.

    ``shown``: every binding has the keyring as the record has it; ``least_on_store`` is what the
    Functions go by, as stored; ``scan`` the last pass; ``whole``: every replica has what the
    primary has, so that none can bring back what was wrapped before; ``token`` the request that
    was made last.
    """

    shown: bool
    least_on_store: str
    scan: KeyScan | None
    whole: bool
    token: str


@dataclass(frozen=True, slots=True)
class MovingKeys:
    """What the passes need of a tenant whose retired versions wait for one. A pass that begins
    before ``scan_from`` shows nothing: an agent may not have read its binding yet."""

    opened: OpenKeyring
    stage: KeyStage
    scan_from: datetime


@dataclass(frozen=True, slots=True)
class KeyAdvance:
    """The next state of a tenant's keys, and what is to be remembered of it.

    ``change`` says in words what the step did; ``moving`` is for the passes over the store, None
    while there is nothing to find; ``due`` is when time alone changes something.
    """

    opened: OpenKeyring
    step: KeyStep = KeyStep.NONE
    change: str = ""
    motion: KeyMotion = field(default_factory=KeyMotion)
    shred_through: int = 0
    shred_due: datetime | None = None
    moving: MovingKeys | None = None
    due: datetime | None = None

    @property
    def least(self) -> int:
        """The least version of a data key that the Functions accept."""
        return least_version(self.opened.keyring, self.motion)

    @property
    def next_step(self) -> datetime | None:
        """When a look, or a pass over the store, may take the next step; None: not by time."""
        return self.moving.scan_from if self.moving is not None else self.due

    @property
    def waits(self) -> bool:
        """Whether a rotation is under way, or versions are to be destroyed."""
        return len(self.opened.keyring.keks) > 1 or self.shred_through > 0

    @property
    def moves(self) -> bool:
        """Whether the next look sees what this one wrote, and builds on it."""
        return self.step not in (KeyStep.NONE, KeyStep.MADE)


def in_motion(record: TenantRecord, keyring: Keyring) -> bool:
    """Whether bindings and store have to be looked at for the keys' sake."""
    return len(keyring.keks) > 1 or record.shred_through > 0


def least_version(keyring: Keyring, motion: KeyMotion) -> int:
    """The least version of a data key that is accepted: never one that is destroyed."""
    return max(motion.least, keyring.keks[0].version)


def shows(binding: AgentKeyring, keyring: Keyring) -> bool:
    """Whether the binding has this keyring's versions, and wraps with the active one."""
    versions = tuple(kek.version for kek in keyring.keks)
    return (
        tuple(kek.version for kek in binding.keks) == versions
        and binding.active == keyring.active.version
    )


def advance_keys(
    state: KeyState,
    record: TenantRecord | None,
    sight: KeySight,
    rules: KeyRules,
    *,
    now: datetime,
) -> KeyAdvance:
    """Decide the keys' next state: at most one step, which the next look builds on.

    Raises `KeyInvalid` (``TooManyKeyVersions``) where a changed root asks for one version too
    many. Without the root nothing can be wrapped: then nothing is decided either.
    """
    if record is None or state.new:
        made = KeyStep.MADE if state.new else KeyStep.NONE
        change = "new keys" if state.new else ""
        return KeyAdvance(state.opened, made, change, KeyMotion(token=sight.token))
    seen = _seen(state.opened.keyring, record, sight, now)
    after = _step(state, seen, record, sight, rules, now)
    return _settled(after, sight, rules, now)


def _seen(keyring: Keyring, record: TenantRecord, sight: KeySight, now: datetime) -> KeyMotion:
    """What the record remembers, with what can be seen now."""
    motion = record.motion
    moment = now.replace(microsecond=0)
    shown_since = (motion.shown_since or moment) if sight.shown else None
    least = least_version(keyring, motion)
    closed = bool(keyring.retiring) and least >= keyring.active.version
    least_since = motion.least_since
    if closed and least_since is None and sight.least_on_store == str(least):
        least_since = moment
    return replace(motion, shown_since=shown_since, least=least, least_since=least_since)


def _step(
    state: KeyState,
    motion: KeyMotion,
    record: TenantRecord,
    sight: KeySight,
    rules: KeyRules,
    now: datetime,
) -> KeyAdvance:
    opened, root, keyring = state.opened, state.root, state.opened.keyring
    active = keyring.active.version
    here = KeyAdvance(
        opened,
        motion=motion,
        shred_through=record.shred_through,
        shred_due=record.shred_due if record.shred_through >= active else None,
    )
    if root is None:
        return _closed(here, sight, rules)
    if state.replaced or _is_asked(here, record, sight, now):
        opened = add_version(opened, root, now=now)
        version = opened.keyring.pending[-1].version
        under = " under a new root" if state.replaced else ""
        return KeyAdvance(
            opened,
            KeyStep.ADDED,
            f"key version {version}{under}, pending until every agent has had time to read it",
            replace(motion, token=sight.token or motion.token, shown_since=None),
            # What was erased so far goes with the versions that retire now.
            here.shred_through,
        )
    if keyring.pending:
        if motion.shown_since is None or now < motion.shown_since + rules.lag:
            return here
        opened = activate(opened, root)
        version = opened.active.version
        motion = replace(motion, shown_since=None, least_since=None)
        change = f"key version {version} is active, {_named(opened.keyring.retiring)} retires"
        return replace(here, opened=opened, step=KeyStep.ACTIVATED, change=change, motion=motion)
    if _are_done_with(here, sight, rules):
        gone = keyring.retiring
        for kek in gone:
            opened = destroy(opened, kek.version, root)
        change = f"key {_named(gone)} destroyed"
        motion = replace(motion, shown_since=None)
        return replace(here, opened=opened, step=KeyStep.DESTROYED, change=change, motion=motion)
    return _closed(here, sight, rules)


def _is_asked(here: KeyAdvance, record: TenantRecord, sight: KeySight, now: datetime) -> bool:
    """A request that was not honoured yet, or erasures whose day is over. One version at a time is
    on its way, and where too many retire, the next waits for them."""
    keyring = here.opened.keyring
    if keyring.pending or len(keyring.keks) >= MAX_KEKS:
        return False
    requested = bool(sight.token) and sight.token != record.motion.token
    return requested or (here.shred_due is not None and here.shred_due <= now)


def _closed(here: KeyAdvance, sight: KeySight, rules: KeyRules) -> KeyAdvance:
    """Refuse what retired, where a pass found nothing left under it."""
    motion, keyring = here.motion, here.opened.keyring
    if motion.shown_since is None or motion.least >= keyring.active.version:
        return here
    if not _found_none(here, sight, motion.shown_since + rules.lag):
        return here
    motion = replace(motion, least=keyring.active.version, least_since=None)
    change = f"key {_named(keyring.retiring)} refused: nothing is left under it"
    return replace(here, step=KeyStep.CLOSED, change=change, motion=motion)


def _are_done_with(here: KeyAdvance, sight: KeySight, rules: KeyRules) -> bool:
    """Whether the retired versions may go."""
    motion, keyring = here.motion, here.opened.keyring
    if not keyring.retiring or motion.least < keyring.active.version or not sight.whole:
        return False
    return motion.least_since is not None and _found_none(
        here, sight, motion.least_since + rules.grace
    )


def _found_none(here: KeyAdvance, sight: KeySight, since: datetime) -> bool:
    scan = sight.scan
    return scan is not None and scan.stage == _stage(here) and scan.clean and scan.started >= since


def _stage(here: KeyAdvance) -> KeyStage:
    return KeyStage(here.opened.keyring.active.version, here.motion.least)


def _settled(after: KeyAdvance, sight: KeySight, rules: KeyRules, now: datetime) -> KeyAdvance:
    """With what is left to wait for; a keyring at rest remembers no more than the last request."""
    keyring, motion = after.opened.keyring, after.motion
    if (
        after.shred_through
        and after.step is KeyStep.NONE
        and sight.shown
        and all(kek.version > after.shred_through for kek in keyring.keks)
    ):
        after = replace(after, shred_through=0, shred_due=None)
    if len(keyring.keks) == 1:
        motion = KeyMotion(token=motion.token)
    return replace(
        after,
        motion=motion,
        moving=_moving(after, sight, rules),
        due=min((at for at in _looks(after, rules) if at > now), default=None),
    )


def _moving(after: KeyAdvance, sight: KeySight, rules: KeyRules) -> MovingKeys | None:
    motion, keyring = after.motion, after.opened.keyring
    if not keyring.retiring or motion.shown_since is None:
        return None
    scan_from = motion.shown_since + rules.lag
    if motion.least >= keyring.active.version:
        if motion.least_since is None or not sight.whole:
            return None
        scan_from = motion.least_since + rules.grace
    return MovingKeys(after.opened, _stage(after), scan_from)


def _looks(after: KeyAdvance, rules: KeyRules) -> Iterator[datetime]:
    """When time alone changes something. A pass over the store has its own rounds."""
    if after.shred_due is not None and not after.opened.keyring.pending:
        yield after.shred_due
    if after.opened.keyring.pending and after.motion.shown_since is not None:
        yield after.motion.shown_since + rules.lag


def _named(keks: tuple[KekVersion, ...]) -> str:
    word = "version" if len(keks) == 1 else "versions"
    return f"{word} {', '.join(str(kek.version) for kek in keks)}"
