"""Run the test suite tier by tier: `python -m tests.run [--tier NAME …] [pytest arguments]`.

The control plane takes minutes to build the first time, so its build starts at once, at low
priority, while the tiers that need none run. Tiers run beside one another, because most of their
time goes into waiting: the redis tier beside the others, and the e2e tier too as soon as the
control plane is there. Each tier's result is printed as it ends; the last line is `N passed,
N failed` (and `, N skipped`) over all of them.

A few tests that fail on real servers while everything runs at once are run a second time, with
nothing beside them, so that the log says whether the machine had to do with it: one that passes
then is told as unsteady. It has failed all the same. The unit tier gets no second run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import processes
from tests.support.controlplane import build
from tests.support.processes import Unavailable
from tests.support.servers import Flavour
from tests.support.tiers import Tier, everything_required

_BUILD = [sys.executable, "-u", "-m", "tests.support.controlplane", "build", "--background-nice"]
_TESTS_FAILED, _NOTHING_COLLECTED = 1, 5  # pytest's exit codes
_ENVIRONMENT = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
"""Of the tiers: hundreds of processes would each compile memtenant and the tests anew."""

_FEW = 5
"""Of how many failures a second run is worth it: where more fail, it is not the machine."""


@dataclass(frozen=True, slots=True)
class Result:
    """How many tests of a tier (or of all) ended how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: "Result") -> "Result":
        return Result(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


class Build:
    """The control plane's build as a background process that writes to a log."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "control-plane.log"
        self._process = processes.spawn(_BUILD, log=self._log)

    def finish(self) -> bool:
        """Show what it does until it ends; whether everything is there now."""
        with self._log.open() as log:
            while self._process.poll() is None:
                _show(log.read())
                time.sleep(0.5)
            _show(log.read())
        return self._process.returncode == 0

    def stop(self) -> None:
        """End it if it still runs; another run goes on from Go's own cache."""
        processes.stop(self._process)


def main() -> int:
    """Returns 0 if nothing failed, and under MEMTENANT_REQUIRE=all only if nothing was missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.run")
    names = [tier.value for tier in Tier]
    parser.add_argument("--tier", action="append", choices=names, help="only this one (repeatable)")
    options, pytest_arguments = parser.parse_known_args()
    tiers = [tier for tier in Tier if options.tier is None or tier.value in options.tier]
    total, ended = Result(), list[TierRun]()
    wanted = any(tier.needs_control_plane for tier in tiers)
    with _scratch() as folder, _building(folder, wanted=wanted) as control_plane:
        if Tier.REDIS in tiers:
            _name_missing_servers()

        def run(tier: Tier, *, hidden: bool) -> TierRun:
            return TierRun(tier, folder, pytest_arguments, hidden=hidden)

        built = control_plane is None or build.is_complete()
        waiting, beside = list(tiers), list[TierRun]()
        while waiting:
            if waiting[0].needs_control_plane and not built:
                built = control_plane is None or control_plane.finish()
                if not built:
                    total = sum((_cannot_run(tier) for tier in waiting), total)
                    break
            for tier in _run_beside(waiting, built=built):
                waiting.remove(tier)
                beside.append(run(tier, hidden=True))
            ended.append(run(waiting.pop(0), hidden=False))
            ended[-1].finish()
        ended += beside
        total = sum((one.finish() for one in ended), total)
        unsteady = _run_again([one for one in ended if one.finish().failed], total.failed)
    _say("")
    if unsteady:
        _say(f"unsteady, failed beside other tests and passed alone, see above: {unsteady}")
    _say(str(total))
    return 1 if total.failed else 0


def _run_again(failing: Sequence["TierRun"], failed: int) -> int:
    """Run what failed once more, a tier at a time; how many passed now."""
    if failed > _FEW or not all(one.has_a_second_run for one in failing):
        return 0
    return sum(one.run_again() for one in failing)


def _run_beside(tiers: Sequence[Tier], *, built: bool) -> Sequence[Tier]:
    """Those that begin now, beside the first of the others; one is left to be shown as it runs."""
    able = [tier for tier in tiers if tier is Tier.REDIS or (built and tier is Tier.E2E)]
    return able[:-1] if len(able) == len(tiers) else able


class TierRun:
    """One tier's pytest process. A hidden one writes to a file, which is shown when it is over."""

    def __init__(
        self, tier: Tier, folder: Path, arguments: list[str], *, hidden: bool = False
    ) -> None:
        self.tier = tier
        self._report = folder / f"{tier.value}.xml"
        self._log = folder / f"{tier.value}.log" if hidden else None
        self._command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-ra",
            "-m",
            tier.value,
            f"--junitxml={self._report}",
            f"--override-ini=cache_dir={folder / tier.value}",
            *arguments,
        ]
        share = f"{list(Tier).index(tier) + 1}/{len(Tier)}"
        self._environment = _ENVIRONMENT | {processes.SHARE: share}
        self._began = time.monotonic()
        if self._log is None:
            _say(f"\n== {tier.value} tier")
            self._process = subprocess.Popen(self._command, env=self._environment)
        else:
            _say(f"== {tier.value} tier: running beside the others")
            self._process = processes.spawn(self._command, log=self._log, env=self._environment)
        self._result, self._code = Result(), 0
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def finish(self) -> Result:
        """Wait for the end; what came of it."""
        self._watcher.join()
        return self._result

    @property
    def has_a_second_run(self) -> bool:
        """Whether pytest got through, on servers: only then is it known which tests failed."""
        return self.tier is not Tier.UNIT and self._code == _TESTS_FAILED

    def run_again(self) -> int:
        """Run the tests that failed, with nothing beside them; how many passed."""
        failed = self._result.failed
        _say(f"\n== {self.tier.value} tier: what failed, once more and alone")
        self._report.unlink()
        again = [*self._command, "--last-failed", "--last-failed-no-failures=none"]
        code = subprocess.call(again, env=self._environment)
        result = _read(self._report)
        looked_at = code in {0, _TESTS_FAILED} and result.failed + result.passed == failed
        return result.passed if looked_at else 0

    def _watch(self) -> None:
        self._code = code = self._process.wait()
        if self._log is not None:
            _say(f"\n== {self.tier.value} tier")
            _show(self._log.read_text(errors="replace"))
        result = _read(self._report)
        if code not in {0, _NOTHING_COLLECTED} and not result.failed:
            result += Result(failed=1)  # pytest itself did not get through
        _say(f"== {self.tier.value} tier: {result} in {time.monotonic() - self._began:.0f} s")
        self._result = result


def _read(report: Path) -> Result:
    if not report.exists():
        return Result()
    total = Result()
    for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - pytest's own file
        count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        failed = count["failures"] + count["errors"]
        total += Result(count["tests"] - failed - count["skipped"], failed, count["skipped"])
    return total


def _cannot_run(tier: Tier) -> Result:
    required = everything_required()
    consequence = "which fails this run" if required else "skipped"
    _say(f"\n== {tier.value} tier: cannot run without the control plane, {consequence}: see above")
    _say(f"== {tier.value} tier: build it with `make control-plane`, or set KUBEBUILDER_ASSETS")
    return Result(failed=1) if required else Result(skipped=1)


def _name_missing_servers() -> None:
    for flavour in Flavour:
        try:
            flavour.binary()
        except Unavailable as missing:
            _say(f"== redis tier, {flavour.value}: {missing}")


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="memtenant-tests-") as folder:
        yield Path(folder)


@contextmanager
def _building(folder: Path, *, wanted: bool) -> Iterator[Build | None]:
    if not wanted:
        yield None
        return
    if not build.is_complete():
        _say("control plane: not built yet, building it in the background (minutes, once)")
    background = Build(folder)
    try:
        yield background
    finally:
        background.stop()


def _show(text: str) -> None:
    if text:
        print(text, end="", flush=True)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
