"""The store goes away, hangs, changes its role, refuses the login; the binding rotates."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from memtenant import Message, Options, StoredMessage, Tenant
from memtenant.errors import (
    AccessDenied,
    FunctionsUnavailable,
    LoginRefused,
    StoreUnavailable,
    TenantUnprovisioned,
    UsageError,
)
from memtenant.functions.library import libraries
from memtenant.functions.versions import CURRENT_VERSION, function_prefix
from memtenant.memory.source import BindingSource
from memtenant.rules.acl import AccessState
from memtenant.sync import Tenant as SyncTenant
from memtenant.tenancy.identity import agent_user
from tests.conftest import StartServer
from tests.memory.bindings import PATIENT, Provisioned
from tests.memory.conftest import Open
from tests.support.certificates import Authority
from tests.support.relay import Proxy, Target, TlsRelay
from tests.support.servers import Flavour
from tests.support.servers import Options as ServerOptions

IMPATIENT = Options(connect_timeout=0.5, timeout=0.5, retry_budget=1.0)
"""For what fails whatever it waits for."""


def proxied(
    acme: Provisioned, stack: ExitStack, options: Options = PATIENT
) -> tuple[Proxy, Tenant]:
    proxy = stack.enter_context(Proxy.to(acme.server.host, acme.server.port))
    return proxy, Tenant(acme.source(port=proxy.port), options=options)


async def test_a_store_that_comes_back_is_waited_for(acme: Provisioned, stack: ExitStack) -> None:
    proxy, tenant = proxied(acme, stack)
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("one"))
    proxy.refuse()
    pending = asyncio.create_task(chat.append(Message.human("two")))
    await asyncio.sleep(0.2)
    proxy.accept()
    assert not (await pending).duplicate
    assert await chat.count() == 2
    await tenant.aclose()


async def test_a_store_that_stays_away_is_told_after_the_budget(
    acme: Provisioned, stack: ExitStack
) -> None:
    proxy, tenant = proxied(acme, stack)
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("one"))
    proxy.refuse()
    async with Tenant(acme.source(port=proxy.port), options=IMPATIENT) as impatient:
        late = impatient.conversation("s", user="ada")
        with pytest.raises(StoreUnavailable, match="Try again later"):
            await late.messages()
        with pytest.raises(StoreUnavailable, match="nothing was done"):
            await late.append(Message.human("two"))
    proxy.accept()
    await chat.append(Message.human("three"))
    assert [one.text for one in await chat.messages()] == ["one", "three"]
    await tenant.aclose()


async def test_a_lost_reply_does_not_store_twice(acme: Provisioned, stack: ExitStack) -> None:
    proxy, tenant = proxied(acme, stack)
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("0"))
    for number in range(1, 6):
        proxy.delay(0.05)
        pending = asyncio.create_task(chat.append(Message.human(str(number))))
        await asyncio.sleep(0.07)  # there, and not yet back
        proxy.cut()
        proxy.delay(0)
        await pending
    assert [one.text for one in await chat.messages()] == [str(n) for n in range(6)]
    await tenant.aclose()


async def test_a_store_that_hangs_is_told_as_such(acme: Provisioned, stack: ExitStack) -> None:
    proxy, tenant = proxied(
        acme, stack, Options(connect_timeout=1.5, timeout=1.5, retry_budget=1.5)
    )
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("one"))
    proxy.freeze()
    with pytest.raises(StoreUnavailable, match="may have been done"):
        await chat.append(Message.human("perhaps"))
    with pytest.raises(StoreUnavailable, match="in time"):
        await chat.count()
    proxy.thaw()
    await chat.append(Message.human("two"))
    stored = [one.text for one in await chat.messages()]
    assert stored in (["one", "two"], ["one", "perhaps", "two"])
    await tenant.aclose()


async def test_more_callers_than_connections_all_get_through(
    acme: Provisioned,
) -> None:
    few = Options(connections=2)
    async with Tenant(acme.source(), options=few) as tenant:
        chats = [tenant.conversation(f"s{n}", user="ada") for n in range(30)]
        await asyncio.gather(*(chat.append(Message.human("x")) for chat in chats))
        assert sum(await asyncio.gather(*(chat.count() for chat in chats))) == 30


async def test_a_cancelled_append_leaves_others_and_the_connection_alone(
    acme: Provisioned, stack: ExitStack
) -> None:
    proxy, tenant = proxied(acme, stack)
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("0"))
    proxy.delay(0.03)
    for round_ in range(4):
        names = [f"{round_}-{n}" for n in range(3)]
        first, *others = [asyncio.create_task(chat.append(Message.human(n))) for n in names]
        await asyncio.sleep(0.02 * (round_ + 1))
        first.cancel()
        receipts = await asyncio.gather(first, *others, return_exceptions=True)
        assert not any(isinstance(one, Exception) for one in receipts[1:])
    proxy.delay(0)
    stored = [one.text for one in await chat.messages()]
    assert len(stored) == len(set(stored))
    for round_ in range(4):
        assert {f"{round_}-1", f"{round_}-2"} <= set(stored)
    await tenant.aclose()


async def test_those_who_wait_are_stored_though_whoever_led_was_cancelled_before_it_sent(
    acme: Provisioned, stack: ExitStack
) -> None:
    proxy, tenant = proxied(acme, stack)
    chat = tenant.conversation("s", user="ada")
    proxy.freeze()  # while the data key is looked for, nothing has been sent
    one, two, three = [asyncio.create_task(chat.append(Message.human(n))) for n in "123"]
    for leader in (one, two):
        await asyncio.sleep(0.05)
        leader.cancel()
    proxy.thaw()
    ends = await asyncio.gather(one, two, three, return_exceptions=True)
    assert [type(end) for end in ends[:2]] == [asyncio.CancelledError] * 2
    assert not isinstance(ends[2], BaseException)
    assert [stored.text for stored in await chat.messages()] == ["3"]
    await tenant.aclose()


async def test_a_rotated_binding_is_followed_without_a_failed_call(
    acme: Provisioned, opened: Open
) -> None:
    tenant = opened(acme)
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("one"))
    name = agent_user(acme.tenant, "default", "a")
    with acme.server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", name, "resetpass", ">rotated")
        acme.bind(password="rotated", version=2)
        admin.client_kill_filter(_type="normal", user=name.encode(), skipme=True)
    await chat.append(Message.human("two"))
    assert tenant.info().binding_version == 2
    assert await chat.count() == 2


async def test_new_credentials_that_arrive_late_are_waited_for(
    acme: Provisioned,
) -> None:
    tenant = Tenant(acme.source(), options=PATIENT)
    chat = tenant.conversation("s", user="ada")
    name = agent_user(acme.tenant, "default", "a")
    with acme.server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", name, "resetpass", ">rotated")
    pending = asyncio.create_task(chat.append(Message.human("one")))
    await asyncio.sleep(0.3)
    acme.bind(password="rotated", version=2)
    await pending
    await tenant.aclose()


async def test_credentials_that_are_refused_for_good_are_told(
    acme: Provisioned,
) -> None:
    tenant = Tenant(acme.source(password="wrong"), options=IMPATIENT)
    with pytest.raises(LoginRefused, match="mount the binding Secret again"):
        await tenant.conversation("s", user="ada").append(Message.human("one"))
    await tenant.aclose()


async def test_a_tenant_that_is_switched_off_is_told(acme: Provisioned) -> None:
    tenant = Tenant(acme.source(), options=IMPATIENT)
    await tenant.conversation("s", user="ada").append(Message.human("one"))
    acme.provision(state=AccessState(off=True))
    with pytest.raises((AccessDenied, LoginRefused), match="conditions"):
        await tenant.conversation("s", user="ada").append(Message.human("two"))
    await tenant.aclose()


async def test_rules_that_lack_what_a_call_needs_are_told(
    acme: Provisioned, tenant: Tenant
) -> None:
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("one"))
    with acme.server.admin() as admin:
        admin.execute_command(
            "ACL", "SETUSER", agent_user(acme.tenant, "default", "a"), "clearselectors"
        )
    for refused in (chat.append(Message.human("two")), chat.messages()):
        with pytest.raises(AccessDenied, match="conditions"):
            await refused
    acme.provision()
    assert await chat.count() == 1


async def test_a_store_without_functions_or_limits_is_told(
    acme: Provisioned, tenant: Tenant
) -> None:
    chat = tenant.conversation("s", user="ada")
    with acme.server.admin() as admin:
        admin.delete("mt:{support.acme}:o:limits")
        with pytest.raises(TenantUnprovisioned, match="provisioned"):
            await chat.append(Message.human("one"))
        for library in libraries():
            admin.function_delete(library.name)
    with pytest.raises(FunctionsUnavailable, match="operator loads"):
        await chat.append(Message.human("one"))


async def test_an_operator_that_is_a_version_behind_or_ahead_keeps_no_agent_from_working(
    acme: Provisioned, tenant: Tenant
) -> None:
    current, previous = libraries()
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("both"))
    with acme.server.admin() as admin:
        admin.function_delete(current.name)
        assert (await chat.append(Message.human("behind"))).first == 2
        admin.function_load(current.code)
        admin.function_delete(previous.name)
        assert (await chat.append(Message.human("ahead"))).first == 3
    assert [one.message.text for one in await chat.messages()] == ["both", "behind", "ahead"]


async def test_where_a_slot_goes_that_is_a_version_behind_keeps_no_agent_from_working(
    on_valkey: Provisioned, opened: Open, start_server: StartServer, tmp_path: Path
) -> None:
    """An operator that was rolled back provides a new node with its own version alone."""
    added = start_server(Flavour.VALKEY_9)
    Provisioned(added, tmp_path / "added").provision()
    for server, code in ((on_valkey.server, _moving(added.endpoint)), (added, "")):
        with server.admin() as admin:
            for library in libraries():
                if code or library.version == CURRENT_VERSION:
                    admin.function_delete(library.name)
            if code:
                admin.function_load(code)
    chat = opened(on_valkey).conversation("s", user="ada")
    assert (await chat.append(Message.human("there"))).first == 1


def _moving(to: str) -> str:
    """Functions that answer as a node does whose slot is on its way."""
    names = [f"{function_prefix(one.version)}append" for one in libraries()]
    offers = "\n".join(f"redis.register_function('{name}', moved)" for name in names)
    return f"""#!lua name=moving
local function moved()
  return redis.error_reply('ASK 3999 {to}')
end
{offers}
"""


async def test_a_promoted_replica_behind_the_same_address_is_used(
    start_server: StartServer, tmp_path: Path, stack: ExitStack
) -> None:
    primary = start_server(Flavour.VALKEY_9)
    replica = start_server(Flavour.VALKEY_9, replica_of=primary)
    acme = Provisioned(primary, tmp_path, replicas=(replica,))
    acme.provision()
    proxy = stack.enter_context(Proxy.to(primary.host, primary.port))
    tenant = Tenant(acme.source(port=proxy.port), options=PATIENT)
    chat = tenant.conversation("s", user="ada")
    await chat.append(Message.human("one"))
    with primary.admin() as admin:
        assert admin.wait(1, 60_000) == 1
    proxy.point_to(replica.host, replica.port)  # a replica still: READONLY
    pending = asyncio.create_task(chat.append(Message.human("two")))
    await asyncio.sleep(0.2)
    replica.promote()
    await pending
    assert [one.text for one in await chat.messages()] == ["one", "two"]
    await tenant.aclose()


async def test_everything_works_over_tls_with_the_bindings_own_authority(
    acme: Provisioned, stack: ExitStack
) -> None:
    authority = Authority("tests")
    relay = stack.enter_context(TlsRelay(Target(acme.server.host, acme.server.port), authority))
    await use(acme.source(port=relay.port, host="localhost", ca=authority.certificate.decode()))
    stranger = Authority("others").certificate.decode()
    other = acme.source(port=relay.port, host="localhost", ca=stranger)
    async with Tenant(other, options=IMPATIENT) as tenant:
        with pytest.raises(StoreUnavailable, match="certificate"):
            await tenant.conversation("s", user="ada").append(Message.human("one"))
    with SyncTenant(other, options=IMPATIENT) as twin, pytest.raises(StoreUnavailable):
        twin.conversation("s", user="ada").append(Message.human("one"))


async def test_everything_works_over_tls_that_the_server_speaks_itself(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(Flavour.REDIS_7, ServerOptions(tls=Authority("tests")))
    acme = Provisioned(server, tmp_path)
    acme.provision()
    assert server.ca_file is not None
    await use(acme.source(host="localhost", ca=server.ca_file.read_text()))


async def use(source: BindingSource) -> None:
    """Write and read, little and much, with and without asyncio."""
    async with Tenant(source) as tenant:
        chat = tenant.conversation("s", user="ada")
        await chat.append(Message.human("one"))
        random = Random(1)
        await chat.extend([Message.human(random.randbytes(3000).hex()) for _ in range(100)])
        assert len(await chat.messages()) == 101
        assert len(await chat.window(max_tokens=10)) <= 1
        case = tenant.shared_context("case")
        await case.create({"state": "open"})
        assert (await case.read()).values == {"state": "open"}
        usage = await tenant.usage()
        assert usage.messages == 101

    def without_asyncio() -> list[StoredMessage]:
        with SyncTenant(source) as twin:
            twin.conversation("s", user="ada").append(Message.human("two"))
            return twin.conversation("s", user="ada").messages()

    assert len(await asyncio.to_thread(without_asyncio)) == 102


def test_connections_of_an_event_loop_that_ended_do_not_stay_open(acme: Provisioned) -> None:
    tenant = Tenant(acme.source())
    name = agent_user(acme.tenant, "default", "a")
    for _ in range(5):
        asyncio.run(tenant.conversation("s", user="ada").count())
    with acme.server.admin() as admin:
        users = [client["user"] for client in admin.client_list()]
    assert users.count(name) == 1


def test_two_event_loops_at_the_same_time_are_refused(acme: Provisioned) -> None:
    tenant = Tenant(acme.source())
    chat = tenant.conversation("s", user="ada")

    async def elsewhere() -> None:
        with pytest.raises(UsageError, match="another event loop"):
            await chat.append(Message.human("theirs"))
        with pytest.raises(UsageError, match="another event loop"):
            await chat.count()

    async def work() -> int:
        await chat.append(Message.human("one"))
        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        await chat.append(Message.human("two"))
        return await chat.count()

    assert asyncio.run(work()) == 2
    assert asyncio.run(chat.count()) == 2


def test_another_event_loop_finds_everything_anew(acme: Provisioned) -> None:
    tenant = Tenant(acme.source())
    chat = tenant.conversation("s", user="ada")

    async def work(text: str) -> int:
        await asyncio.gather(*(chat.append(Message.human(text)) for _ in range(3)))
        return await chat.count()

    async def close() -> None:
        await tenant.aclose()

    assert [asyncio.run(work("one")), asyncio.run(work("two"))] == [3, 6]
    asyncio.run(close())
