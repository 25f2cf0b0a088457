"""How often a store or policy is looked at for the sake of its count of tenants."""

from datetime import UTC, datetime
from pathlib import Path

from memtenant.clock import Clock
from memtenant.reconcile.world import COUNT_EVERY, World
from memtenant.resources.folder import FolderResources
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import Declared, ObjectKey

POLICY = ObjectKey.policy("gdpr")
MANY = 11


class Time:
    """Seconds that pass when the test says so."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


def test_many_tenants_that_change_and_are_counted_already_are_one_look(tmp_path: Path) -> None:
    mirror, time = Mirror(), Time()
    for number in range(MANY):
        key = ObjectKey.tenant("support", f"t{number}")
        spec = {"retentionPolicyRef": {"name": "gdpr"}}
        mirror.put(Declared(key, key.name, "1", 1, datetime(2026, 1, 1, tzinfo=UTC), spec=spec))
    with FolderResources.open(tmp_path) as resources:
        clock = Clock(monotonic=time.monotonic)
        world = World(resources, mirror, "test", fence=lambda: 1, clock=clock)
        assert world.recounts_in(POLICY) == 0
        assert world.counts_wait(POLICY, MANY, MANY) is None
        assert world.recounts_in(POLICY) == COUNT_EVERY
        time.seconds += COUNT_EVERY
        assert world.recounts_in(POLICY) == 0
        # A look that found the same keeps no later one from telling what is new.
        assert world.counts_wait(POLICY, MANY, MANY) is None
        assert world.counts_wait(POLICY, MANY, MANY + 1) is None
