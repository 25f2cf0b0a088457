"""The twin without asyncio: the same, for threads; and that it is what its source says."""

import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtenant import Head, Message
from memtenant.errors import IdempotencyConflict, QuotaExceeded, StoreUnavailable, VersionConflict
from memtenant.memory import generate
from memtenant.memory._sync.link import Link
from memtenant.memory.options import Options
from memtenant.sync import Tenant
from tests.functions.tenants import set_limits
from tests.memory.bindings import PATIENT, Provisioned
from tests.memory.test_conversation import EVERY_KIND
from tests.support.certificates import Authority
from tests.support.relay import Proxy, Target, TlsRelay


@pytest.fixture
def tenant(acme: Provisioned) -> Iterator[Tenant]:
    with Tenant(acme.source(), options=PATIENT) as tenant:
        yield tenant


def test_the_twin_is_what_its_source_says() -> None:
    assert generate.main(["--check"]) == 0


def test_words_are_translated_and_nothing_else() -> None:
    source = "async def a(self):\n    async with b as c:\n        await c.d()  # awaiting"
    assert generate.translated(source) == (
        "def a(self):\n    with b as c:\n        c.d()  # awaiting"
    )


def test_a_conversation(tenant: Tenant) -> None:
    chat = tenant.conversation("s", user="ada", title="Order")
    chat.extend(EVERY_KIND, idempotency_key="once")
    assert chat.extend(EVERY_KIND, idempotency_key="once").duplicate
    with pytest.raises(IdempotencyConflict):
        chat.append(Message.human("other"), idempotency_key="once")
    assert tuple(one.message for one in chat.messages()) == EVERY_KIND
    chat.update_message(1, Message.system("Be long."))
    assert chat.messages()[0].text == "Be long."
    assert (popped := chat.pop()) is not None
    assert popped.sequence == len(EVERY_KIND)
    with pytest.raises(VersionConflict):
        chat.append(Message.human("x"), expected=Head(1, 1))
    assert len(chat.window(10_000)) == chat.count() == len(EVERY_KIND) - 1
    assert tenant.conversations("ada").items[0].title == "Order"
    assert tenant.usage().messages == len(EVERY_KIND) - 1
    assert chat.clear() == len(EVERY_KIND) - 1


def test_threads_share_round_trips_and_a_tenant(tenant: Tenant) -> None:
    chat = tenant.conversation("s", user="ada")
    errors = []

    def work(name: int) -> None:
        try:
            for number in range(20):
                chat.append(Message.human(f"{name}-{number}"))
                tenant.conversation(f"own-{name}", user="bob").append(Message.human("x"))
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    stored = [one.text for one in chat.messages()]
    assert len(stored) == 240
    for name in range(12):
        assert [t for t in stored if t.startswith(f"{name}-")] == [f"{name}-{n}" for n in range(20)]
    assert len(tenant.conversations("bob").items) == 12


def test_the_rate_is_waited_for(acme: Provisioned, tenant: Tenant) -> None:
    chat = tenant.conversation("s", user="ada")
    set_limits(acme.server, writes_per_second=3)
    for number in range(7):
        chat.append(Message.human(str(number)), on_limit="wait")
    with pytest.raises(QuotaExceeded):
        [chat.append(Message.human("x")) for _ in range(50)]


def test_a_context(tenant: Tenant) -> None:
    context = tenant.shared_context("case")
    context.create({"n": 1})
    context.update(lambda values: {"n": values["n"] + 1})
    assert context.read().values == {"n": 2}
    events = context.watch(interval=0.01, since=0)
    assert [one.version for one in next(events).changes] == [1, 2]


def test_connections_that_are_cut_are_made_anew(acme: Provisioned) -> None:
    with Proxy.to(acme.server.host, acme.server.port) as proxy:
        source = acme.source(port=proxy.port)
        with Tenant(source, options=PATIENT) as tenant:
            chat = tenant.conversation("s", user="ada")
            for number in range(5):
                chat.append(Message.human(str(number)))
                proxy.cut()
            assert chat.count() == 5
        with Tenant(source, options=Options(timeout=2, retry_budget=2)) as tenant:
            chat = tenant.conversation("s", user="ada")
            assert chat.count() == 5
            proxy.freeze()
            with pytest.raises(StoreUnavailable, match="in time"):
                chat.count()
            proxy.thaw()
            assert chat.count() == 5


def test_tls(acme: Provisioned) -> None:
    authority = Authority("tests")
    with TlsRelay(Target(acme.server.host, acme.server.port), authority) as relay:
        pem = authority.certificate.decode()
        with Tenant(acme.source(port=relay.port, host="localhost", ca=pem)) as tenant:
            tenant.conversation("s", user="ada").append(Message.human("x"))
        pem = Authority("others").certificate.decode()
        source = acme.source(port=relay.port, host="localhost", ca=pem)
        with (
            Tenant(source, options=Options(retry_budget=0.2)) as tenant,
            pytest.raises(StoreUnavailable, match="certificate"),
        ):
            tenant.usage()


def test_every_module_beside_the_twins_is_held_to_be_without_asyncio() -> None:
    there = {
        f"memtenant.memory.{file.stem}"
        for file in Path(generate.__file__).parent.glob("*.py")
        if file.stem not in ("__init__", "generate")
    }
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    held = [one for one in contracts if one["name"] == "In the SDK, asyncio only in _async"]
    assert [set(one["source_modules"]) for one in held] == [there]


def test_importing_memtenant_imports_nothing_of_the_operator() -> None:
    code = """
import sys
import memtenant
assert not any(name.startswith("memtenant.") for name in sys.modules), sys.modules
memtenant.Tenant, memtenant.Message
import memtenant.sync
unwanted = {"kopf", "kubernetes", "pydantic", "redis", "yaml", "typer", "rich", "pytest"}
print(sorted(unwanted & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_connection_that_another_thread_takes_first_is_not_missed(on_valkey: Provisioned) -> None:
    class Contended(list[Link]):
        """Something is there at every look, and gone at the pop."""

        def __bool__(self) -> bool:
            return True

    with Tenant(on_valkey.source()) as tenant:
        tenant._store._idle = Contended()
        assert tenant.conversation("s", user="ada").count() == 0
