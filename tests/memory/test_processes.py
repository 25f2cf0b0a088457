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

WRITERS, LIVES = 3, 3

_WRITER = """
import sys
from pathlib import Path
from memtenant import Message
from memtenant.memory.source import BindingSource
from memtenant.sync import Tenant

folder, name, life, number = *sys.argv[1:4], int(sys.argv[4])
tenant = Tenant(BindingSource(Path(folder)))
mine, all_ = (tenant.conversation(session, user="ada") for session in (name, "all"))
while True:
    key = f"{name}-{number}"
    mine.append(Message.human(key), idempotency_key=key)
    all_.append(Message.human(f"{life}.{key}"))
    print(key, flush=True)
    number += 1
"""


def test_killed_writers_lose_no_acknowledged_append_and_double_none(
    acme: Provisioned, tmp_path: Path
) -> None:
    """Each writer has a conversation of its own and shares one. There, each of its lives begins
    with what the one before was acknowledged last, and goes on with what may or may not have got
    through: both by the same key as before. Here, nothing is said twice."""
    folder = acme.bind()
    acknowledged: list[list[str]] = [[] for _ in range(WRITERS)]
    shared: list[str] = []
    for life in range(LIVES):
        logs = [tmp_path / f"{life}-{number}.log" for number in range(WRITERS)]
        writers = []
        for number, log in enumerate(logs):
            begin = max(len(acknowledged[number]) - 1, 0)
            arguments = (str(folder), str(number), str(life), str(begin))
            with log.open("wb") as out:
                command = [sys.executable, "-c", _WRITER, *arguments]
                writers.append(subprocess.Popen(command, stdout=out))
        deadline = time.monotonic() + 60
        while not all(log.stat().st_size for log in logs):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for writer in writers:
            time.sleep(random.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        for number, log in enumerate(logs):
            # The last line may be cut off: it was acknowledged, but who would know.
            lines = log.read_text().split("\n")[:-1]
            acknowledged[number] += lines[1:] if life else lines
            shared += [f"{life}.{line}" for line in lines]
    with SyncTenant(BindingSource(folder)) as tenant:
        for number, lines in enumerate(acknowledged):
            stored = _texts(tenant, str(number))
            assert lines == [f"{number}-{n}" for n in range(len(lines))]
            assert stored == [f"{number}-{n}" for n in range(len(stored))]
            # What was on its way when the writer was killed may be there as well.
            assert len(lines) <= len(stored) <= len(lines) + 1
        stored = _texts(tenant, "all")
    assert len(set(stored)) == len(stored)
    assert set(shared) <= set(stored)
    assert len(stored) <= len(shared) + WRITERS * LIVES


def _texts(tenant: SyncTenant, session: str) -> list[str]:
    return [one.text for one in tenant.conversation(session, user="ada").messages()]


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
