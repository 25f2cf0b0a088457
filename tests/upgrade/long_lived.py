"""A process that keeps one conversation open for weeks, in the time that a test takes.

`python long_lived.py BINDING DAYS` with an SDK in PYTHONPATH. It appends what each line of its
input says, and answers with the sequence and the writer's id, or with the name of the error. After
the first append it makes its writer so many days older, as if it had been opened then; the test
does the same on the server. The reply to an append of `LOST` is lost: it says `stored`, and tries
again after the next line.
"""

import sys
from typing import Any

from memtenant import Message
from memtenant.errors import MemtenantError
from memtenant.memory.options import Options
from memtenant.sync import Tenant

SESSION, USER = "s", "ada"
DAY = 86_400
LOST = "lost"


def lose_the_reply(store: Any) -> None:
    """Of the next call."""
    exchange = store._exchange

    def lossy(*call: Any) -> Any:
        store._exchange = exchange
        exchange(*call)
        print("stored", flush=True)
        sys.stdin.readline()
        raise ConnectionResetError("the reply is lost")

    store._exchange = lossy


def main() -> None:
    """See the module."""
    binding, days = sys.argv[1:]
    with Tenant.from_binding(binding, options=Options(retry_budget=120)) as tenant:
        chat = tenant.conversation(SESSION, user=USER)
        lane = chat._lane
        for number, line in enumerate(sys.stdin):
            if line.strip() == LOST:
                lose_the_reply(lane._store)
            try:
                receipt = chat.append(Message.human(line.strip()))
            except MemtenantError as error:
                print(type(error).__name__, flush=True)
                continue
            print(receipt.first, lane._writer.hex(), flush=True)
            if number == 0:
                opened = int.from_bytes(lane._writer[:4], "big") - int(days) * DAY
                lane._writer = opened.to_bytes(4, "big") + lane._writer[4:]


if __name__ == "__main__":
    main()
