from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memtenant.crypto.keyring import MAX_KEKS, OpenKeyring, open_keyring
from memtenant.crypto.keyring_record import Keyring
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import KeyInvalid
from memtenant.rules.keymaterial import KeyState
from memtenant.rules.keymotion import (
    KeyAdvance,
    KeyRules,
    KeyScan,
    KeySight,
    KeyStep,
    MovingKeys,
    advance_keys,
)
from memtenant.rules.record import TenantRecord
from tests.rules.builders import KEYS, NOW, ROOT, TENANT, record

OTHER_ROOT = SecretKey(bytes(range(50, 82)))
LAG, GRACE, DAY = timedelta(minutes=3), timedelta(minutes=5), timedelta(days=1)
RULES = KeyRules(LAG, GRACE)
A_MOMENT = timedelta(seconds=1)


@dataclass
class Tenant:
    """A tenant's record, its bindings and its store, as one reconcile after the other sees them.

    ``wraps`` are the versions that the subjects' data keys are under.
    """

    record: TenantRecord = field(default_factory=record)
    root: SecretKey | None = field(default_factory=lambda: ROOT)
    bound: bytes = b""
    least_on_store: str = "1"
    wraps: list[int] = field(default_factory=lambda: [1, 1])
    scan: KeyScan | None = None
    moving: MovingKeys | None = None
    whole: bool = True
    token: str = ""
    now: datetime = NOW
    bound_at: datetime = NOW
    steps: list[KeyStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bound = self.record.keyring
        self._opened: OpenKeyring = KEYS

    @property
    def keyring(self) -> Keyring:
        return Keyring.from_json(self.record.keyring, TENANT)

    @property
    def versions(self) -> list[int]:
        return [kek.version for kek in self.keyring.keks]

    def look(self, *, written: bool = True) -> KeyAdvance:
        """One reconcile. ``written``: it got as far as the store and the bindings."""
        stored = self.keyring
        replaced = self.root is not None and not stored.opens_with(self.root)
        opened = (
            open_keyring(stored, self.root)
            if self.root is not None and not replaced
            else self._opened
        )
        sight = KeySight(
            shown=self.bound == self.record.keyring,
            least_on_store=self.least_on_store,
            scan=self.scan,
            whole=self.whole,
            token=self.token,
        )
        state = KeyState(opened, self.root, replaced=replaced)
        made = advance_keys(state, self.record, sight, RULES, now=self.now)
        self._opened = made.opened
        keyring = self.record.keyring if self.root is None else made.opened.keyring.to_json()
        self.record = replace(
            self.record,
            keyring=keyring,
            motion=made.motion,
            shred_through=made.shred_through,
            shred_due=made.shred_due,
        )
        self.record = TenantRecord.from_data(self.record.to_data(), f"{TENANT}-keyring")
        if written:
            if self.bound != keyring:
                self.bound_at = self.now
            self.bound, self.least_on_store = keyring, str(made.least)
            self.moving = made.moving
        self.steps.append(made.step)
        return made

    def scan_store(self) -> None:
        """A pass as `memtenant.jobs.rewrap` makes it."""
        moving = self.moving
        if moving is None or moving.scan_from > self.now:
            return
        live = {kek.version for kek in moving.opened.keks}
        active = moving.stage.active
        old = [at for at, version in enumerate(self.wraps) if version not in (live & {active})]
        damaged = [at for at in old if self.wraps[at] not in live]
        for at in set(old) - set(damaged):
            self.wraps[at] = active
        self.scan = KeyScan(
            moving.stage,
            self.now,
            len(self.wraps),
            len(old),
            len(old) - len(damaged),
            len(damaged),
        )

    def settle(self, looks: int = 40) -> None:
        """Looks and passes, minutes apart, until nothing is left to do."""
        for _ in range(looks):
            self.look()
            self.scan_store()
            self.now += timedelta(minutes=1)


def taken(tenant: Tenant) -> list[KeyStep]:
    return [step for step in tenant.steps if step is not KeyStep.NONE]


TURN = [KeyStep.ADDED, KeyStep.ACTIVATED, KeyStep.CLOSED, KeyStep.DESTROYED]


def asked(tenant: Tenant) -> None:
    tenant.token = "now"


def with_another_root(tenant: Tenant) -> None:
    tenant.root = OTHER_ROOT


def after_an_erasure(tenant: Tenant) -> None:
    tenant.record = replace(tenant.record, shred_through=1, shred_due=tenant.now)


@pytest.mark.parametrize("begin", [asked, with_another_root, after_an_erasure])
def test_a_key_turns_step_by_step_and_the_old_version_goes(
    begin: Callable[[Tenant], None],
) -> None:
    tenant = Tenant()
    begin(tenant)
    tenant.settle()
    assert taken(tenant) == TURN
    assert (tenant.versions, set(tenant.wraps), tenant.least_on_store) == ([2], {2}, "2")
    assert tenant.root is not None
    assert tenant.keyring.opens_with(tenant.root)
    assert replace(tenant.record.motion, token="") == record().motion
    assert (tenant.record.shred_through, tenant.record.shred_due) == (0, None)


def test_a_tenant_at_rest_is_left_alone() -> None:
    tenant = Tenant()
    before = tenant.record
    tenant.settle(3)
    assert taken(tenant) == []
    assert tenant.record == before


def test_nothing_is_wrapped_with_a_version_before_every_agent_can_have_it() -> None:
    tenant = Tenant(token="now")
    tenant.look(written=False)  # and killed before the bindings were written
    tenant.now += DAY
    assert tenant.look().step is KeyStep.NONE
    made = tenant.look()
    assert (made.opened.active.version, made.due) == (1, tenant.now + LAG)
    tenant.now += LAG - A_MOMENT
    assert tenant.look().opened.active.version == 1
    tenant.now += A_MOMENT
    assert tenant.look().opened.active.version == 2


def test_a_binding_that_lost_the_new_version_makes_all_wait_anew() -> None:
    tenant = Tenant(token="now")
    for _ in range(2):
        tenant.look()
    tenant.now += LAG - A_MOMENT
    tenant.bound = b"as it was before"
    tenant.look()
    tenant.now += A_MOMENT
    tenant.look()
    assert tenant.keyring.active.version == 1


def test_a_pass_counts_from_when_every_agent_wraps_with_the_new_version() -> None:
    tenant = Tenant(token="now")
    while tenant.keyring.active.version == 1:
        tenant.look()
        tenant.now += LAG
    tenant.look()
    assert tenant.moving is not None
    assert tenant.moving.scan_from == tenant.now + LAG
    early = KeyScan(tenant.moving.stage, tenant.now, 2)
    tenant.scan = early
    assert tenant.look().step is KeyStep.NONE
    tenant.scan = replace(early, started=tenant.moving.scan_from)
    assert tenant.look().step is KeyStep.CLOSED


def closed() -> Tenant:
    """A tenant whose retired version is refused, and waits for its end."""
    tenant = Tenant(token="now")
    while KeyStep.CLOSED not in tenant.steps:
        tenant.settle(1)
    tenant.look()
    return tenant


def test_a_retired_version_stays_until_the_grace_is_over_and_a_pass_after_it_found_none() -> None:
    tenant = closed()
    assert tenant.moving is not None
    assert tenant.moving.scan_from == tenant.record.motion.least_since + GRACE  # type: ignore[operator]
    clean = KeyScan(tenant.moving.stage, tenant.moving.scan_from, 2)
    tenant.scan = replace(clean, started=clean.started - A_MOMENT)
    assert tenant.look().step is KeyStep.NONE
    tenant.scan = replace(clean, old=1, rewrapped=1)
    assert tenant.look().step is KeyStep.NONE
    tenant.scan = clean
    assert tenant.look().step is KeyStep.DESTROYED


def test_the_grace_counts_from_when_the_store_was_seen_to_refuse() -> None:
    tenant = closed()
    tenant.least_on_store = "1"
    tenant.record = replace(tenant.record, motion=replace(tenant.record.motion, least_since=None))
    tenant.look(written=False)
    assert tenant.record.motion.least_since is None
    tenant.look()
    tenant.now += DAY
    tenant.look()
    assert tenant.record.motion.least_since == tenant.now


def test_nothing_is_destroyed_while_a_replica_may_bring_back_what_was() -> None:
    tenant = closed()
    tenant.whole = False
    tenant.settle(20)
    assert tenant.versions == [1, 2]
    tenant.whole = True
    tenant.settle()
    assert tenant.versions == [2]


def test_a_data_key_that_nothing_opens_keeps_every_version() -> None:
    tenant = Tenant(token="now", wraps=[1, 9])
    tenant.settle()
    assert taken(tenant) == [KeyStep.ADDED, KeyStep.ACTIVATED]
    assert (tenant.versions, tenant.wraps) == ([1, 2], [2, 9])
    tenant.wraps = [2]
    tenant.settle()
    assert taken(tenant) == TURN


def test_a_request_is_honoured_once_and_one_at_a_time() -> None:
    tenant = Tenant(token="one")
    tenant.look()
    tenant.token = "two"
    tenant.settle(80)
    assert taken(tenant).count(KeyStep.ADDED) == 2
    assert tenant.versions == [3]


def test_a_root_that_changes_again_in_mid_turn_gets_a_version_of_its_own() -> None:
    tenant = Tenant(token="now")
    tenant.look()
    tenant.root = OTHER_ROOT
    tenant.settle(60)
    assert tenant.versions == [3]
    assert tenant.keyring.opens_with(OTHER_ROOT)


def test_without_its_root_a_keyring_stays_as_it_is() -> None:
    tenant = Tenant(token="now")
    tenant.look()
    stored = tenant.record.keyring
    tenant.root = None
    tenant.settle()
    assert tenant.record.keyring == stored
    tenant.root = ROOT
    tenant.settle()
    assert tenant.versions == [2]


def test_erasures_of_a_day_share_one_new_version() -> None:
    tenant = Tenant()
    tenant.record = replace(tenant.record, shred_through=1, shred_due=NOW + DAY)
    assert tenant.look().due == NOW + DAY
    tenant.settle()
    assert taken(tenant) == []
    tenant.now = NOW + DAY
    tenant.look()
    assert (tenant.record.shred_through, tenant.record.shred_due) == (1, None)


def test_an_erasure_in_the_middle_of_a_turn_waits_for_a_day_of_its_own() -> None:
    """Its data key may be under the new version already."""
    tenant = Tenant()
    after_an_erasure(tenant)
    while tenant.keyring.active.version == 1:
        tenant.settle(1)
    due = tenant.now + DAY
    tenant.record = replace(tenant.record, shred_through=2, shred_due=due)
    tenant.settle()
    assert (tenant.versions, tenant.record.shred_through, tenant.record.shred_due) == ([2], 2, due)
    tenant.now = due
    tenant.settle()
    assert (tenant.versions, tenant.record.shred_through, tenant.record.shred_due) == ([3], 0, None)


def test_a_shred_is_over_only_when_the_bindings_have_lost_the_version_too() -> None:
    tenant = Tenant()
    after_an_erasure(tenant)
    while KeyStep.DESTROYED not in tenant.steps:
        tenant.settle(1)
        bound_before = tenant.bound
    tenant.bound = bound_before + b" "
    tenant.look(written=False)
    assert tenant.record.shred_through == 1
    tenant.look()
    tenant.look()
    assert tenant.record.shred_through == 0


def test_too_many_versions_make_a_request_wait_and_a_changed_root_an_error() -> None:
    tenant = Tenant()
    for number in range(MAX_KEKS - 1):
        tenant.token = str(number)
        while len(tenant.versions) < number + 2:
            tenant.look()
            tenant.now += LAG
    while tenant.keyring.pending:
        tenant.look()
        tenant.now += LAG
    tenant.token = "one more"
    tenant.look()
    assert len(tenant.versions) == MAX_KEKS
    tenant.root = OTHER_ROOT
    with pytest.raises(KeyInvalid) as error:
        tenant.look()
    assert error.value.reason == "TooManyKeyVersions"
    tenant.root = ROOT
    tenant.settle(60)
    assert len(tenant.versions) == 1


class AnyOrder(RuleBasedStateMachine):
    """Looks that end anywhere, passes, restarts, requests and erasures in any order: a data key
    that an agent wrote can be opened at every moment, and what is due ends."""

    def __init__(self) -> None:
        super().__init__()
        self.tenant = Tenant()
        self.mounted = self.tenant.keyring
        self.erased = 0

    @rule(times=st.integers(1, 4))
    def look(self, times: int) -> None:
        for _ in range(times):
            self.tenant.look()
            self.tenant.scan_store()

    @rule()
    def look_and_be_killed(self) -> None:
        self.tenant.look(written=False)

    @rule()
    def restart(self) -> None:
        """What was only in memory is gone."""
        self.tenant.scan = self.tenant.moving = None

    @rule(minutes=st.integers(1, 10))
    def wait(self, minutes: int) -> None:
        """At the latest after the kubelet's lag an agent's pod has the binding as it is now."""
        self.tenant.now += timedelta(minutes=minutes)
        if self.tenant.now - self.tenant.bound_at >= LAG:
            self.mounted = Keyring.from_json(self.tenant.bound, TENANT)

    @rule()
    def write(self) -> None:
        """An agent stores a new data key by the binding that it has, if the Functions let it."""
        version = self.mounted.active.version
        if version >= int(self.tenant.least_on_store):
            self.tenant.wraps.append(version)

    @rule(number=st.integers(0, 3))
    def ask(self, number: int) -> None:
        self.tenant.token = str(number)

    @rule()
    def erase(self) -> None:
        record, active = self.tenant.record, self.tenant.keyring.active.version
        due = min(record.shred_due or self.tenant.now + DAY, self.tenant.now + DAY)
        self.erased = max(active, self.erased)
        self.tenant.record = replace(
            record, shred_through=max(active, record.shred_through), shred_due=due
        )

    @precondition(lambda self: len(self.tenant.wraps) > 1)
    @rule()
    def forget(self) -> None:
        self.tenant.wraps.pop()

    @invariant()
    def every_data_key_opens(self) -> None:
        assert set(self.tenant.wraps) <= set(self.tenant.versions)

    @invariant()
    def an_agent_can_open_what_any_of_them_wraps(self) -> None:
        assert set(self.tenant.wraps) <= {kek.version for kek in self.mounted.keks}

    def teardown(self) -> None:
        tenant = self.tenant
        tenant.now += 2 * DAY
        tenant.settle(120)
        assert len(tenant.versions) == 1
        assert tenant.versions[0] > self.erased
        assert tenant.record.shred_through == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
