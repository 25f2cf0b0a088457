"""Writers that are killed, processes that fork: nothing is lost, nothing is doubled."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from memtenant import Message, Tenant
from memtenant.memory.source import BindingSource
from memtenant.sync import Tenant as SyncTenant
from tests.memory.bindings import Provisioned

WRITERS, ROUNDS = 3, 2

_WRITER = """
import sys
from pathlib import Path
from memtenant import Message
from memtenant.memory.source import BindingSource
from memtenant.sync import Tenant

folder, name = sys.argv[1:]
chat = Tenant(BindingSource(Path(folder))).conversation("s", user="ada")
number = 0
while True:
    chat.append(Message.human(f"{name}-{number}"))
    print(f"{name}-{number}", flush=True)
    number += 1
"""


def test_killed_writers_lose_no_acknowledged_append_and_double_none(
    acme: Provisioned, tmp_path: Path
) -> None:
    folder = acme.bind()
    acknowledged: list[str] = []
    for round_ in range(ROUNDS):
        logs = [tmp_path / f"{round_}-{n}.log" for n in range(WRITERS)]
        writers = []
        for number, log in enumerate(logs):
            command = [sys.executable, "-c", _WRITER, str(folder), f"{round_}.{number}"]
            with log.open("wb") as out:
                writers.append(subprocess.Popen(command, stdout=out))
        deadline = time.monotonic() + 30
        while not all(log.stat().st_size for log in logs):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for writer in writers:
            time.sleep(random.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        # The last line may be cut off: it was acknowledged, but who would know.
        acknowledged += [line for log in logs for line in log.read_text().split("\n")[:-1]]
    with SyncTenant(BindingSource(folder)) as tenant:
        stored = [one.text for one in tenant.conversation("s", user="ada").messages()]
    assert len(set(acknowledged)) == len(acknowledged) >= WRITERS * ROUNDS
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
    for writer_name in {text.partition("-")[0] for text in stored}:
        of_one = [text for text in stored if text.startswith(f"{writer_name}-")]
        assert of_one == [f"{writer_name}-{n}" for n in range(len(of_one))]


def test_a_forked_child_is_a_writer_of_its_own(acme: Provisioned) -> None:
    tenant = SyncTenant(acme.source())
    chat = tenant.conversation("s", user="ada")
    chat.append(Message.human("before"))
    holding = threading.Event()
    stop = threading.Event()

    def busy() -> None:
        number = 0
        while not stop.is_set():
            chat.append(Message.human(f"thread-{number}"))
            number += 1
            holding.set()

    thread = threading.Thread(target=busy)
    thread.start()
    holding.wait(10)
    # The other thread may hold the lane's lock and a connection at this moment.
    children = []
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for number in range(5):
                    chat.append(Message.human(f"child{child}-{number}"))
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    stop.set()
    thread.join(20)
    assert codes == [0, 0, 0]
    chat.append(Message.human("after"))
    stored = [one.text for one in chat.messages()]
    assert len(stored) == len(set(stored))
    for child in range(3):
        assert [t for t in stored if t.startswith(f"child{child}")] == [
            f"child{child}-{n}" for n in range(5)
        ]
    tenant.close()


async def test_a_child_forked_out_of_an_event_loop_leaves_its_parent_alone(
    acme: Provisioned,
) -> None:
    tenant = Tenant(acme.source())
    chat = tenant.conversation("s", user="ada")
    await asyncio.gather(*(chat.append(Message.human(f"p{n}")) for n in range(5)))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.events._set_running_loop(None)

            async def child() -> int:
                await asyncio.gather(*(chat.append(Message.human(f"c{n}")) for n in range(5)))
                return await chat.count()

            code = 0 if asyncio.run(child()) == 10 else 2
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert status == 0
    await chat.append(Message.human("p5"))
    assert await chat.count() == 11
    await tenant.aclose()
