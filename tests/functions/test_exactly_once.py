"""Writers whose replies are lost, whose connections die and whose retries overlap: once each."""

import collections
import concurrent.futures
import random
import socket

from memtenant.functions import NewRecord, Pop, ReadRange, ReadUsage
from memtenant.functions.library import libraries
from memtenant.rules.acl import setuser_args
from memtenant.tenancy import keys
from tests.conftest import StartServer
from tests.functions.catalogue import Place, declared, epoch_of, every_call, fill
from tests.functions.tenants import (
    AGENT,
    CONVERSATION,
    LIMITS,
    ONCE,
    Agent,
    Lane,
    acting,
    mark,
    provision,
    record,
)
from tests.stores.operators import ACME, PASSWORD, agent_for, server_commands
from tests.support import processes
from tests.support.servers import Flavour, Options, Server


def lose_the_reply(server: Server, name: str, words: tuple[object, ...]) -> None:
    """Send the command on a connection that is closed before anything is read."""
    with socket.create_connection((server.host, server.port)) as raw:
        for command in (("AUTH", name, PASSWORD), words):
            encoded = [one if isinstance(one, bytes) else str(one).encode() for one in command]
            raw.sendall(
                b"*%d\r\n" % len(encoded)
                + b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in encoded)
            )


def test_lost_replies_and_retries_store_every_message_once(redis_server: Server) -> None:
    name = provision(redis_server).name

    def write(seed: int) -> list[bytes]:
        chance, lane, sent = random.Random(seed), Lane(), []
        with Agent(redis_server, name) as own:
            for number in range(40):
                records = [b"writer %d message %d.%d" % (seed, number, n) for n in range(1, 4)]
                records = records[: chance.randint(1, 3)]
                call = lane.append(*records)
                for _ in range(chance.choice([0, 0, 1, 2])):
                    lose_the_reply(redis_server, name, call.words)
                if chance.random() < 0.3:
                    own.append(call)
                stored = own.append(call)
                assert stored.last - stored.first + 1 == len(records)
                sent += records
        return sent

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        sent = [one for many in pool.map(write, range(6)) for one in many]
    with Agent(redis_server, name) as own:
        entries = own.call(ReadRange(CONVERSATION)).entries
        found = [entry.record for entry in entries]
        assert collections.Counter(found) == collections.Counter(sent)
        assert [entry.header.sequence for entry in entries] == list(range(1, len(sent) + 1))
        for writer in range(6):
            start = b"writer %d " % writer
            own_order = [one for one in found if one.startswith(start)]
            assert own_order == [one for one in sent if one.startswith(start)]
        assert own.call(ReadUsage(ONCE)).messages == len(sent)


def test_an_idempotency_key_used_by_many_at_once_stores_one(redis_server: Server) -> None:
    name = provision(redis_server).name
    key, mac = mark(), mark()

    def write(seed: int) -> None:
        with Agent(redis_server, name) as own:
            own.call(Lane().append(records=(NewRecord(b"%d" % seed, 1, key, mac),)))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    with Agent(redis_server, name) as own:
        assert len(own.entries().entries) == 1


def test_pops_that_race_and_retry_take_each_message_once(redis_server: Server) -> None:
    name = provision(redis_server).name
    with Agent(redis_server, name) as own:
        own.append(Lane().append(*(record() for _ in range(60))))

    def take(seed: int) -> list[int]:
        chance, taken = random.Random(seed), []
        with Agent(redis_server, name) as own:
            for _ in range(10):
                call = Pop(CONVERSATION, AGENT, mark())
                if chance.random() < 0.5:
                    lose_the_reply(redis_server, name, call.words)
                taken.append(own.call(call).sequence)
                assert own.call(call).duplicate
        return taken

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        taken = [one for many in pool.map(take, range(6)) for one in many]
    assert sorted(taken) == list(range(1, 61))


def test_in_a_cluster_every_call_stays_in_the_tenants_slot(
    flavour: Flavour, start_server: StartServer
) -> None:
    server = start_server(flavour, Options(config={"cluster-enabled": "yes"}))
    user = agent_for(server_commands(server), ACME)
    with server.admin() as admin:
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

        def ready() -> bool:
            return b"cluster_state:ok" in admin.execute_command("CLUSTER", "INFO")

        processes.wait_until(ready, what="the cluster", log=server.log)
        admin.function_load(libraries()[0].code)
        admin.execute_command("ACL", "SETUSER", *setuser_args(user))
        admin.hset(keys.limits(ACME), mapping=dict(LIMITS))
        with Agent(server, user.name) as own:
            fill(own, Place(ACME))
            calls = every_call(Place(ACME), epoch_of(own, Place(ACME)))
            own_slot = admin.execute_command("CLUSTER", "KEYSLOT", "{support.acme}")
            for name, words in calls.items():
                for key in declared(words):
                    slot = admin.execute_command("CLUSTER", "KEYSLOT", key)
                    assert slot == own_slot, name
                own.send(words)


def test_a_tenants_user_writes_through_the_functions_alone(redis_server: Server) -> None:
    """One command a message: no read before it, nothing after it."""
    with acting(redis_server) as own, redis_server.admin() as admin:
        lane = Lane()
        own.append(lane.append())
        admin.config_resetstat()
        for _ in range(10):
            own.append(lane.append())
        stats = admin.info("commandstats")
        assert stats["cmdstat_fcall"]["calls"] == 10
        assert stats["cmdstat_rpush"]["calls"] == 10
        assert stats["cmdstat_hset"]["calls"] == 20
