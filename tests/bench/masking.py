"""`python -m tests.bench.masking`: how long masking takes, by kind of text. CPU time, the best of
several runs; the append with masking is in the SDK's part."""

import json
import time
from collections.abc import Callable

from memtenant.crypto.primitives import SecretKey
from memtenant.masking.masker import Masker, Plan
from memtenant.tenancy.masking import Detector, MaskingAction
from tests.masking.corpus import corpus

PLAN = Plan(dict.fromkeys(Detector, MaskingAction.MASK))
KEY = SecretKey(b"k" * 32)
PROSE = (
    "The parcel left the depot on Friday and should arrive before noon. We looked at invoice 48213 "
    "again: the discount of 12 percent was missing. Could you write to me when you know more "
    "about it? A new one is on its way, the other goes back."
)
HOSTILE = ("4 ", "cvv ", "+1 555 123 4567 ", "1.1.1.1", "12/27 ", "4111111111111111 ", "a@a.b ")
_SIZE = 256 * 1024


def seconds(text: str, times: int) -> float:
    """Of one call."""

    def run() -> None:
        for _ in range(times):
            Masker(lambda: KEY).text(text, PLAN)

    return min(_cpu(run) for _ in range(5)) / times


def _cpu(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Print a table."""
    seconds("+49 30 901820", 1)  # imports
    mixed = [sample.text for sample in corpus(per_kind=20, negatives=200)]
    document = json.dumps([{"id": n, "text": text} for n, text in enumerate(mixed)])[: 16 * 1024]
    rows = [
        ("220 characters of prose", seconds(PROSE[:220], 500)),
        ("the same with an e-mail address", seconds(PROSE[:204] + " ada@example.org", 500)),
        ("16 KiB of JSON full of values", seconds(document, 3)),
        ("256 KiB of prose", seconds((PROSE * _SIZE)[:_SIZE], 1)),
        *((f"256 KiB of {piece!r}", seconds((piece * _SIZE)[:_SIZE], 1)) for piece in HOSTILE),
    ]
    print("| text | ms |\n|---|---|")
    for name, taken in rows:
        print(f"| {name} | {taken * 1000:.3f} |")


if __name__ == "__main__":
    main()
