"""`python -m tests.support.kubelet --kubeconfig FILE --image PREFIX=PROGRAM [ARGUMENT …] …`."""

import argparse
import shlex
import signal
import sys
import threading
from pathlib import Path

from tests.support.kubelet import Image, running


def main() -> None:
    """Run pods until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.kubelet")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="PREFIX=COMMAND",
        help="what the images whose names begin with PREFIX run, such as example/app=/opt/app -v",
    )
    options = parser.parse_args()
    images = {}
    for image in options.image:
        prefix, _, command = image.partition("=")
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        images[prefix] = Image(entrypoint=tuple(shlex.split(command)), env={"PATH": path})
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with running(options.kubeconfig, images) as kubelet:
        print(f"node {kubelet.name} is ready, logs are in {kubelet.logs}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
