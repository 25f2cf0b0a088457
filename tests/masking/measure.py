"""`python -m tests.masking.measure`: precision and recall of each detector on the made-up corpus.

Recall: of the values, how many are covered to their last character, by whichever detector.
Precision: of a detector's findings, how many lie on a value of its kind.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from memtenant.masking.masker import Plan
from memtenant.tenancy.masking import Detector, MaskingAction
from tests.masking.corpus import Sample, corpus

ALL = Plan(dict.fromkeys(Detector, MaskingAction.MASK))


@dataclass(slots=True)
class Figures:
    values: Counter[str] = field(default_factory=Counter)
    covered: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    missed: list[tuple[str, str, str]] = field(default_factory=list)
    wrong: list[tuple[str, str, str]] = field(default_factory=list)

    def recall(self, kind: str) -> float:
        return self.covered[kind] / self.values[kind]

    def precision(self, kind: str) -> float:
        return self.right[kind] / self.findings[kind]


def measure(samples: Iterable[Sample]) -> Figures:
    figures = Figures()
    for sample in samples:
        findings = ALL.found(sample.text)
        hidden = {place for one in findings for place in range(one.start, one.end)}
        for label in sample.labels:
            figures.values[label.kind] += 1
            if hidden.issuperset(range(label.start, label.end)):
                figures.covered[label.kind] += 1
            else:
                value = sample.text[label.start : label.end]
                figures.missed.append((label.kind, value, sample.text))
        for one in findings:
            figures.findings[one.detector] += 1
            if any(
                label.kind == one.detector and label.start < one.end and one.start < label.end
                for label in sample.labels
            ):
                figures.right[one.detector] += 1
            else:
                value = sample.text[one.start : one.end]
                figures.wrong.append((one.detector, value, sample.text))
    return figures


def table(figures: Figures) -> str:
    rows = [
        f"| `{kind}` | {figures.values[kind]} | {figures.recall(kind):.3f} "
        f"| {figures.findings[kind]} | {figures.precision(kind):.3f} |"
        for kind in Detector
    ]
    head = ["| detector | values | recall | findings | precision |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


if __name__ == "__main__":
    print(table(measure(corpus())), end="")
