"""An agent at work: appends and reads without a pause, with nothing but its binding and an SDK.

`python agent.py NAME WORDS` with an SDK in PYTHONPATH. Each line that it prints is what it did, as
JSON: `acked` a message that was acknowledged, `seen` how many it read back, `failed` a call that
did not do what it says. It works until SIGTERM.
"""

import json
import signal
import sys
import threading
from importlib.metadata import version

from memtenant import Message
from memtenant.sync import Tenant

SESSION, USER, BOARD = "s", "ada", "board"
PAUSE = 0.1


def work(tenant: Tenant, words: str, stop: threading.Event) -> None:
    """A message, and what came of it read again, one after the other."""
    chat, board = tenant.conversation(SESSION, user=USER), tenant.shared_context(BOARD)
    number = 0
    while not stop.wait(PAUSE):
        number += 1
        text = f"{words} {number}"
        try:
            receipt = chat.append(Message.human(text))
            tell(acked=text, sequence=receipt.first)
            read = [one.text for one in chat.latest(5)]
            if text not in read:
                raise LookupError(f"{text} is not in {read}")  # noqa: TRY301 - told below
            if number % 5 == 0:
                board.update({words: number})
                found = dict(board.read(words).values)
                if found != {words: number}:
                    raise LookupError(f"{found} is not {number}")  # noqa: TRY301 - told below
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
            tell(failed=f"{text}: {type(error).__name__}: {error}")


def tell(**what: object) -> None:
    """One line, at once."""
    print(json.dumps(what), flush=True)


def main() -> None:
    """See the module."""
    name, words = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    tell(sdk=version("memtenant"))
    with Tenant.from_binding(name) as tenant:
        work(tenant, words, stop)
    tell(done=True)


if __name__ == "__main__":
    main()
