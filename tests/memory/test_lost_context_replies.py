"""A shared context against a model, while connections are cut at any moment and processes crash.

Every update that was acknowledged is made once, whole, and under the next revision; one that failed
is made once or not at all; no version ever comes back.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from memtenant.errors import VersionConflict
from memtenant.memory._async.context import SharedContext
from memtenant.memory.contexts import Snapshot
from memtenant.tenancy import keys
from tests.memory.machines import DELAYS, WHICH, TwoProcesses, run_on
from tests.memory.queue import Left, covered
from tests.stores.operators import ACME
from tests.support.servers import Server

HEADER = 15
NAMES = st.sampled_from(["a", "b", "c", "d"])
CHANGES = st.dictionaries(NAMES, st.none() | st.integers(0, 9), min_size=1, max_size=3)


class Contexts(TwoProcesses):
    """One context; ``versions`` are those of the values that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Any] = {}
        self.versions: dict[str, int] = {}
        self.revision = 0
        self.exists = False

    def case(self, which: int) -> SharedContext:
        return self.tenants[which].shared_context("case")

    def check_coverage(self, left: list[Left]) -> None:
        told = covered(left)
        with self.server.admin() as admin:
            name = next(iter(admin.scan_iter(f"{keys.records(ACME)}c:*:v")), b":v")[:-2]
            for entry in admin.hvals(name):
                record = entry[HEADER:]
                assert (record[18:26], int.from_bytes(record[26:30], "big")) in told

    @property
    def next_revision(self) -> int:
        # One is left out after a deletion, so that a watcher sees that it missed something.
        return self.revision + (2 if self.revision and not self.exists else 1)

    def made(self, changes: Mapping[str, Any], revision: int) -> None:
        assert revision == self.next_revision
        self.revision, self.exists = revision, True
        for name, value in changes.items():
            self.values.pop(name, None)
            self.versions.pop(name, None)
            if value is not None:
                self.values[name], self.versions[name] = value, revision

    @rule(which=WHICH, changes=CHANGES)
    def create(self, which: int, changes: dict[str, Any]) -> None:
        try:
            revision = self.run(self.case(which).create(changes))
        except VersionConflict:
            assert self.exists
        else:
            assert not self.exists
            self.made(changes, revision)

    @rule(which=WHICH, changes=CHANGES, cut=st.booleans(), delay=DELAYS, slow=DELAYS)
    def update(
        self, which: int, changes: dict[str, Any], cut: bool, delay: float, slow: float
    ) -> None:
        revision = self.run(self.while_cut(self.case(which).update(changes), cut, delay), slow)
        self.made(changes, revision)

    @rule(which=WHICH, changes=CHANGES, wrong=st.booleans(), cut=st.booleans())
    def update_with_expected_versions(
        self, which: int, changes: dict[str, Any], wrong: bool, cut: bool
    ) -> None:
        expected = {name: self.versions.get(name, 0) for name in changes}
        if wrong:
            expected[min(changes)] += 1
        updating = self.case(which).update(changes, expected=expected)
        if not wrong:
            self.made(changes, self.run(self.while_cut(updating, cut)))
            return
        with pytest.raises(VersionConflict) as conflict:
            self.run(self.while_cut(updating, cut))
        current = conflict.value.current
        assert isinstance(current, Snapshot)
        there = {name for name in (min(changes),) if name in self.values}
        assert current.values == {name: self.values[name] for name in there}
        assert current.versions == {name: self.versions[name] for name in there}

    @rule(which=WHICH, name=NAMES, cuts=st.integers(0, 2), slow=DELAYS)
    def count_up_at_once(self, which: int, name: str, cuts: int, slow: float) -> None:
        """Both processes apply a function at the same time."""

        def one_more(values: dict[str, Any]) -> dict[str, Any]:
            return {name: (values.get(name) or 0) + 1}

        async def work() -> list[int]:
            tasks = [asyncio.create_task(self.case(which).update(one_more)) for which in (0, 1, 0)]
            for _ in range(cuts):
                await asyncio.sleep(0.002)
                await asyncio.to_thread(self.proxy.cut)
            return list(await asyncio.gather(*tasks))

        for revision in sorted(self.run(work(), slow)):
            self.made({name: self.values.get(name, 0) + 1}, revision)

    @rule(changes=CHANGES, delay=DELAYS, slow=DELAYS)
    def crash_while_updating(self, changes: dict[str, Any], delay: float, slow: float) -> None:
        async def work() -> Snapshot:
            task = asyncio.create_task(self.case(0).update(changes))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.tenants[0].aclose()
            await self.arrived()
            self.tenants[0] = self.opened(0)
            return await self.case(1).read()

        snapshot = self.run(work(), slow)
        if snapshot.revision not in (0, self.revision) or (snapshot.revision and not self.exists):
            self.made(changes, snapshot.revision)

    @rule(which=WHICH, cut=st.booleans(), expects=st.booleans())
    def delete(self, which: int, cut: bool, expects: bool) -> None:
        expected = self.revision if expects and self.exists else None
        existed = self.run(self.while_cut(self.case(which).delete(expected=expected), cut))
        # A second try, after a lost reply, finds nothing any more.
        assert existed == self.exists or (cut and not existed)
        self.values.clear()
        self.versions.clear()
        self.exists = False

    @rule(which=WHICH)
    def the_log_tells_the_last_changes(self, which: int) -> None:
        log = self.run(self.case(which).access_log())
        assert [one.version for one in log] == sorted(one.version for one in log)
        last = {one.name: one for one in log}
        alive = {name: one.version for name, one in last.items() if not one.deleted}
        assert alive == self.versions

    @invariant()
    def both_read_what_was_acknowledged(self) -> None:
        for which in (0, 1):
            snapshot = self.run(self.case(which).read())
            assert (snapshot.values, snapshot.versions) == (self.values, self.versions)
            assert snapshot.revision == (self.revision if self.exists else 0)


def test_every_acknowledged_update_is_made_once(redis_server: Server) -> None:
    run_on(Contexts, redis_server, examples=10)
