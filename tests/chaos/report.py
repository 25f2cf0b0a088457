"""What a run says: each fault and what came of it, what does not hold, how to do it again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.schedule import Fault

__all__ = ["Report", "Struck"]


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was done. ``began`` and ``healed`` are seconds of the run; ``whole_after`` is
    how many it took from then until every agent was served again, with whatever else was broken;
    ``refusals`` are what agents were told until then."""

    fault: Fault
    chosen: str
    began: float
    healed: float
    whole_after: float | None
    refusals: Counter[str]


@dataclass(slots=True)
class Report:
    """A run. ``failures`` are (check, what is wrong)."""

    seed: int
    seconds: float
    only: Sequence[str]
    shape: str
    struck: list[Struck] = field(default_factory=list)
    people: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    erased: int = 0
    checkpoints: int = 0
    recovery: float = 0.0
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def command(self) -> str:
        """What does it again."""
        only = "".join(f" --only {name}" for name in self.only)
        how = f"--store {self.shape} --seed {self.seed} --minutes {self.seconds / 60:g}"
        return f"python -m tests.chaos {how}{only}"

    def text(self) -> str:
        """For people."""
        lines = ["   began  for       fault                    then whole after, agents were told"]
        for one in self.struck:
            whole = "-" if one.whole_after is None else f"{one.whole_after:.1f} s"
            told = ", ".join(f"{count} {reason}" for reason, count in one.refusals.most_common())
            what = f"{one.fault.kind} {f'({one.chosen})' if one.chosen else ''}"
            lines.append(
                f"{one.began:6.1f} s  {one.healed - one.began:5.1f} s  {what}\n"
                f"{'':20}{whole}, {told or 'nothing'}"
            )
        done = ", ".join(f"{count} x {what}" for what, count in self.people.most_common())
        totals = (
            f"{self.acknowledged} appends acknowledged, {self.erased} persons forgotten, "
            f"{self.checkpoints} checkpoints kept"
        )
        lines += [
            "",
            f"{len(self.struck)} faults in {self.seconds:.0f} s; people: {done or 'nothing'}",
            f"{totals}; checked for {self.recovery:.1f} s after everything was healed",
        ]
        for check, wrong in self.failures:
            lines.append(f"DOES NOT HOLD: {check}: {wrong}")
        verdict = "everything holds" if not self.failures else "again"
        lines.append(f"seed {self.seed}: {verdict}: {self.command}")
        return "\n".join(lines)

    def data(self) -> dict[str, object]:
        """For programs."""
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "only": list(self.only),
            "store": self.shape,
            "command": self.command,
            "faults": [
                {
                    "kind": one.fault.kind,
                    "chosen": one.chosen,
                    "planned": one.fault.at,
                    "began": round(one.began, 3),
                    "healed": round(one.healed, 3),
                    "wholeAfter": one.whole_after and round(one.whole_after, 3),
                    "refusals": dict(one.refusals),
                }
                for one in self.struck
            ],
            "people": dict(self.people),
            "acknowledged": self.acknowledged,
            "erased": self.erased,
            "checkpoints": self.checkpoints,
            "recovery": round(self.recovery, 3),
            "failures": [{"check": check, "wrong": wrong} for check, wrong in self.failures],
        }
