"""`python -m tests.support.controlplane build [--background-nice]`, and `… helm|kubectl|where`."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from tests.support.controlplane import build
from tests.support.processes import StartFailed, Unavailable

_LOWEST_PRIORITY = 15


def main() -> int:
    """Returns 0, 1 if something is missing or a build fails, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.controlplane")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="build what is missing")
    make.add_argument("only", nargs="*", metavar="NAME", help="etcd, kubernetes, helm")
    make.add_argument("--background-nice", action="store_true", help="leave the CPU to others")
    commands.add_parser("helm", help="print where Helm is")
    commands.add_parser("kubectl", help="print where kubectl is")
    commands.add_parser("where", help="print the cache folder")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        match options.command:
            case "build":
                if options.background_nice:
                    os.nice(_LOWEST_PRIORITY)
                _build(options.only)
            case "helm":
                print(build.helm())
            case "kubectl":
                print(build.kubectl())
            case "where":
                print(build.default_cache())
    except (Unavailable, StartFailed) as error:
        print(f"control plane: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("control plane: interrupted, run it again to go on", file=sys.stderr)
        return 130
    return 0


def _build(only: Sequence[str]) -> None:
    began = time.monotonic()

    def report(line: str) -> None:
        print(f"control plane [{time.monotonic() - began:4.0f} s]: {line}", flush=True)

    build.build_all(report, names=only)
    report(f"ready in {build.default_cache()}")


def _interrupted(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
