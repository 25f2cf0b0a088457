"""A process that keeps one conversation open for weeks, in the time that a test takes.

`python long_lived.py BINDING DAYS` with an SDK in PYTHONPATH. It appends what each line of its
input says, and answers with the sequence and the writer's id. After the first append it makes its
writer so many days older, as if it had been opened then; the test does the same on the server.
"""

import sys

from memtenant import Message
from memtenant.sync import Tenant

SESSION, USER = "s", "ada"
DAY = 86_400


def main() -> None:
    """See the module."""
    binding, days = sys.argv[1:]
    with Tenant.from_binding(binding) as tenant:
        chat = tenant.conversation(SESSION, user=USER)
        lane = chat._lane
        for number, line in enumerate(sys.stdin):
            receipt = chat.append(Message.human(line.strip()))
            print(receipt.first, lane._writer.hex(), flush=True)
            if number == 0:
                opened = int.from_bytes(lane._writer[:4], "big") - int(days) * DAY
                lane._writer = opened.to_bytes(4, "big") + lane._writer[4:]


if __name__ == "__main__":
    main()
