"""`python -m tests.chaos`: see `--help`."""

import argparse
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.faults import ALL, OF_SHAPE
from tests.chaos.run import run, scheduled
from tests.support.processes import Unavailable

_MOUNTS = "MEMTENANT_CHAOS_MOUNTS"
"""Set in the process that has a mount namespace of its own."""

_EPILOG = """\
Two operators, a sealer, an API server and a store run as real processes (--store: a primary with a
replica, three servers under three Sentinels, or a Cluster of three shards). Agents append and read,
people declare, rotate and delete tenants. Faults come by a schedule that the seed decides. Then
everything is healed, and must be whole again: every tenant as declared, every agent served, every
acknowledged append of a Replicated tenant there, former credentials refused, no user, key, Secret
or object without an owner, the sealed log as it was signed, no secret in any log.

A run that fails prints the command that does it again. The same seed gives the same faults at the
same times; what they meet differs a little from run to run. To find the fault that matters, repeat
with --only, which leaves the others out and those that stay where they were:

    python -m tests.chaos --seed 7 --minutes 2
    python -m tests.chaos --seed 7 --minutes 2 --only failover --only link-torn
    python -m tests.chaos --seed 7 --minutes 2 --plan
    python -m tests.chaos --store sentinel --seed 7 --minutes 2

Exit code: 0 everything holds, 1 something does not, 2 wrong usage, 3 something is missing here.
"""


def main() -> int:
    options = _parser().parse_args()
    if options.list:
        for one in sorted(OF_SHAPE[options.store], key=lambda one: one.kind.name):
            print(f"{one.kind.name:24} {one.means}")
        return 0
    seed = random.randrange(2**32) if options.seed is None else options.seed
    seconds = options.minutes * 60
    if options.plan:
        for fault in scheduled(seed, seconds, options.only, options.store):
            print(fault)
        return 0
    _into_a_mount_namespace(seed)
    for told_of_each_fault in ("aiohttp.server", "memtenant.memory"):
        logging.getLogger(told_of_each_fault).setLevel(logging.CRITICAL)
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="memtenant-chaos-"))
    try:
        report = run(seed, seconds, options.only, options.store, folder, _say)
    except Unavailable as missing:
        print(f"chaos cannot be made here: {missing}", file=sys.stderr)
        return 3
    print(report.text(), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(report.data(), indent=2) + "\n")
    if report.failures and options.keep:
        print(f"logs: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if report.failures else 0


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Break everything at random while agents work, and check that it is whole.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, help="of the schedule (default: a new one)")
    parser.add_argument(
        "--store",
        choices=OF_SHAPE,
        default="standalone",
        help="the store's shape (default: standalone)",
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults (default: 2)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=sorted(ALL),
        metavar="FAULT",
        help="only faults of this kind (repeatable)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a run that fails")
    parser.add_argument("--list", action="store_true", help="list the kinds of faults of the store")
    parser.add_argument("--plan", action="store_true", help="print the schedule, do nothing")
    return parser


def _into_a_mount_namespace(seed: int) -> None:
    """Start again in a mount namespace of one's own, where small disks can be mounted and vanish
    with this process. It needs no root where the kernel lets users have namespaces."""
    if _MOUNTS in os.environ:
        return
    unshare = shutil.which("unshare")
    if unshare is None:
        sys.exit("chaos cannot be made here: there is no `unshare` (of util-linux)")
    flags = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    again = [sys.executable, "-m", "tests.chaos", *sys.argv[1:], "--seed", str(seed)]
    os.environ[_MOUNTS] = "1"
    os.execv(unshare, [unshare, *flags, *again])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
