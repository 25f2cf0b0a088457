"""One run: a world is made, broken by schedule, healed, and looked at."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import checks
from tests.chaos.faults import ALL, OF_SHAPE
from tests.chaos.report import Report, Struck
from tests.chaos.schedule import Fault, plan
from tests.chaos.world import World, made

__all__ = ["run", "scheduled"]

Say = Callable[[str], None]


def scheduled(seed: int, seconds: float, only: Sequence[str], shape: str) -> tuple[Fault, ...]:
    """The faults of a run on a store of this shape. ``only`` leaves the others out, and those that
    stay where they were."""
    faults = plan(seed, seconds, (one.kind for one in OF_SHAPE[shape]))
    return tuple(one for one in faults if not only or one.kind in only)


def run(
    seed: int, seconds: float, only: Sequence[str], shape: str, folder: Path, say: Say
) -> Report:
    """Raises Unavailable where something is missing that a run needs."""
    report = Report(seed, seconds, only, shape)
    faults = scheduled(seed, seconds, only, shape)
    try:
        with made(seed, shape, folder) as world:
            say(f"everything works; {len(faults)} faults come in {seconds:.0f} s")
            _Storm(world, faults, report, say).break_and_heal(seconds)
            began = time.monotonic()
            report.failures += checks.failures(world)
            report.recovery = time.monotonic() - began
            report.people = Counter(one.split()[0] for one in world.people.done)
            report.acknowledged = sum(len(one.acknowledged) for one in world.agents.all)
            report.erased = sum(len(one.erased) for one in world.agents.all)
            report.checkpoints = len(world.kept)
    except AssertionError as wrong:
        report.failures.append(("what nobody may see is not shown", str(wrong)))
    return report


@dataclass
class _Storm:
    world: World
    faults: Sequence[Fault]
    report: Report
    say: Say
    _began: float = 0.0
    _raw: list[tuple[Fault, str, float, float]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def break_and_heal(self, seconds: float) -> None:
        """All faults at their times, those on one target one after the other."""
        self._began = time.monotonic()
        self.world.people.start()
        keeper = threading.Thread(target=self._keep_checkpoints, daemon=True)
        keeper.start()
        targets = sorted({one.target for one in self.faults})
        with ThreadPoolExecutor(max(1, len(targets))) as lanes:
            done = [lanes.submit(self._lane, target) for target in targets]
            for one in done:
                one.result()
        time.sleep(max(0.0, self._began + seconds - time.monotonic()))
        self._over.set()
        keeper.join()
        self.world.people.stop()
        self._tell()

    def _lane(self, target: str) -> None:
        for fault in self.faults:
            if fault.target == target:
                time.sleep(max(0.0, self._began + fault.at - time.monotonic()))
                self._strike(fault)

    def _strike(self, fault: Fault) -> None:
        began = time.monotonic()
        try:
            with ALL[fault.kind].strike(self.world, random.Random(fault.seed)) as chosen:
                self.say(f"{began - self._began:6.1f} s  {fault.kind} {chosen}")
                time.sleep(fault.seconds)
        except Exception as error:  # noqa: BLE001 - the others go on, and it is told
            wrong = f"{fault.kind}: {type(error).__name__}: {error}"
            self.report.failures.append(("faults can be done and healed", wrong))
            return
        self._raw.append((fault, chosen, began, time.monotonic()))

    def _keep_checkpoints(self) -> None:
        while not self._over.wait(1.0):
            self.world.keep_checkpoint()

    def _tell(self) -> None:
        """Agents are given a moment, so that what the last fault did is seen."""
        agents = self.world.agents
        deadline = time.monotonic() + 30
        while agents.unserved_since(max((raw[3] for raw in self._raw), default=0.0)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        for fault, chosen, began, healed in sorted(self._raw, key=lambda raw: raw[2]):
            whole = agents.whole_after(healed)
            until = healed + (30.0 if whole is None else whole)
            told = Counter(one.reason for one in agents.refusals(began, until))
            self.report.struck.append(
                Struck(fault, chosen, began - self._began, healed - self._began, whole, told)
            )
