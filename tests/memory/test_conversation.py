"""A conversation as an agent uses it, on every flavour of server, as the tenant's own user."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from memtenant import Head, Message, Tenant, ToolCall
from memtenant.errors import (
    IdempotencyConflict,
    MessageInvalid,
    MessageNotFound,
    MessageTooLarge,
    UsageError,
    VersionConflict,
)
from memtenant.memory._async import lane
from memtenant.memory.tokens import estimate_tokens, message_tokens

EVERY_KIND = (
    Message.system("Be brief."),
    Message.human("Grüße, 你好 \ud83d\ude00", channel="mail", urgent=True),
    Message.ai("One moment.", tool_calls=(ToolCall("call_1", "search", {"q": "order", "n": [1]}),)),
    Message.tool("Nothing found", call="call_1", name="search"),
    Message.human(({"type": "text", "text": "See"}, {"type": "image", "url": "s3://b/k"})),
    Message("developer", "a role of tomorrow", further={"reasoning": {"effort": 3}}),
    Message.ai(""),
)


async def test_every_kind_of_message_comes_back_as_it_was(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada")
    for message in EVERY_KIND:
        await chat.append(message)
    assert tuple(one.message for one in await chat.messages()) == EVERY_KIND
    # A second process has no copy.
    again = await chat.messages(first=1, last=len(EVERY_KIND))
    assert tuple(one.message for one in again) == EVERY_KIND


async def test_a_caller_that_changes_what_it_read_changes_nothing_for_others(
    tenant: Tenant,
) -> None:
    chat = tenant.conversation("ticket", user="ada")
    await chat.append(Message.human("Hello", tags=["a"]))
    first = (await chat.messages())[0].message
    tags = first.metadata["tags"]
    assert isinstance(tags, list)
    tags.append("b")
    assert (await chat.messages())[0].message.metadata == {"tags": ["a"]}


async def test_a_writer_that_is_old_gives_way_to_a_new_one(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = tenant.conversation("ticket", user="ada")
    await chat.append(Message.human("one"))
    first = chat._lane._writer
    await chat.append(Message.human("two"))
    assert chat._lane._writer == first
    with monkeypatch.context() as later:
        half_a_day = time.time() + 12 * 3600 + 1  # a machine that slept: its uptime did not count
        later.setattr(lane.time, "time", lambda: half_a_day)
        await chat.append(Message.human("three"))
    assert chat._lane._writer != first
    assert [one.sequence for one in await chat.messages()] == [1, 2, 3]


async def test_a_receipt_tells_where_and_when_a_message_stands(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada")
    before = datetime.now(UTC) - timedelta(seconds=1)
    one = await chat.append(Message.human("one"))
    more = await chat.extend([Message.ai("two"), Message.human("three")])
    assert (one.first, one.last, more.first, more.last) == (1, 1, 2, 3)
    assert not one.duplicate
    assert before <= one.time <= datetime.now(UTC) + timedelta(seconds=1)
    assert more.version == chat.version == Head(one.version.epoch, 3)
    assert 0 <= one.memory_share < 0.01


async def test_ranges_roles_and_times_choose(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada")
    await chat.extend([Message.human(f"q{n}") if n % 2 else Message.ai(f"a{n}") for n in range(10)])
    await asyncio.sleep(0.01)
    late = await chat.append(Message.human("late"))
    texts = [one.text for one in await chat.messages(3, 5)]
    assert texts == ["a2", "q3", "a4"]
    assert {one.role for one in await chat.messages(roles={"ai"})} == {"ai"}
    assert [one.text for one in await chat.messages(since=late.time)] == ["late"]
    assert await chat.messages(12) == []
    assert await chat.count() == 11


async def test_more_than_a_page_is_read_in_order(tenant: Tenant) -> None:
    chat = tenant.conversation("long", user="ada")
    for part in range(3):
        await chat.extend([Message.human(str(part * 900 + n)) for n in range(900)])
    assert [one.text for one in await chat.messages()] == [str(n) for n in range(2700)]
    assert len(await chat.messages(2, 2600)) == 2599


async def test_a_window_is_the_newest_that_fits(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada")
    await chat.extend([Message.human(f"message number {n}") for n in range(100)])
    cost = message_tokens(Message.human("message number 99"), estimate_tokens)
    window = await chat.window(10 * cost)
    assert [one.text for one in window] == [f"message number {n}" for n in range(90, 100)]
    assert await chat.window(cost - 1) == []
    assert await chat.window(0) == []
    assert len(await chat.window(10**6)) == 100


async def test_a_window_begins_with_no_result_whose_call_is_cut_off(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada")
    calls = tuple(ToolCall(f"c{n}", "search", {"q": "x" * 200}) for n in range(2))
    await chat.extend(
        [
            Message.ai("", tool_calls=calls),
            Message.tool("found", call="c0"),
            Message.tool("found", call="c1"),
            Message.ai("Here it is."),
        ]
    )
    assert [one.text for one in await chat.window(30)] == ["Here it is."]


async def test_a_window_of_thousands_takes_two_round_trips_at_most(tenant: Tenant) -> None:
    chat = tenant.conversation("long", user="ada")
    for _ in range(3):
        await chat.extend([Message.human("x")] * 800)
    assert len(await chat.window(10**7)) == 2000


async def test_another_message_takes_the_place_of_one(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada")
    await chat.extend([Message.human("one"), Message.human("two"), Message.human("three")])
    before = await chat.messages()
    await chat.update_message(2, Message.human("zwei"))
    after = await chat.messages()
    assert [one.text for one in after] == ["one", "zwei", "three"]
    assert [one.time for one in after] == [one.time for one in before]
    with pytest.raises(VersionConflict):
        await chat.update_message(2, Message.human("2"), expected=Head(1, 3))
    with pytest.raises(MessageNotFound, match="sequence 9"):
        await chat.update_message(9, Message.human("nine"))


async def test_pop_takes_the_last_and_sequences_are_not_used_again(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada")
    await chat.extend([Message.human("one"), Message.ai("two")])
    popped = await chat.pop()
    assert popped is not None
    assert (popped.text, popped.sequence) == ("two", 2)
    assert (await chat.append(Message.ai("zwei"))).sequence == 3
    assert [one.text for one in await chat.messages()] == ["one", "zwei"]
    assert await chat.remove(1, 99) == 1
    assert [one.text for one in await chat.messages()] == ["zwei"]
    assert (await chat.pop(), await chat.pop())[1] is None
    assert await chat.count() == 0


async def test_clear_and_delete_take_everything(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada", title="Order")
    await chat.extend([Message.human("one"), Message.ai("two")])
    assert await chat.clear() == 2
    assert await chat.messages() == []
    assert [one.title for one in (await tenant.conversations("ada")).items] == ["Order"]
    assert (await chat.append(Message.human("three"))).sequence == 3
    assert await chat.delete() == 1
    assert (await tenant.conversations("ada")).items == ()
    assert await chat.messages() == []
    await chat.append(Message.human("four"))
    assert [one.text for one in await chat.messages()] == ["four"]
    assert [one.session for one in (await tenant.conversations("ada")).items] == ["ticket"]


async def test_an_append_with_an_expectation_is_refused_after_another(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada")
    first = await chat.append(Message.human("one"), expected=Head(0, 0))
    await chat.append(Message.human("two"))
    with pytest.raises(VersionConflict) as conflict:
        await chat.append(Message.human("late"), expected=first.version)
    assert conflict.value.current == chat.version
    await chat.append(Message.human("three"), expected=chat.version)
    with pytest.raises(VersionConflict):
        await chat.append(Message.human("new"), expected=Head(0, 0))
    assert await chat.count() == 3


async def test_an_idempotency_key_stores_once(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada")
    first = await chat.append(Message.human("pay", order=1, sum=2), idempotency_key="pay-1")
    again = await chat.append(Message.human("pay", sum=2, order=1), idempotency_key="pay-1")
    assert again.duplicate
    assert (again.sequence, again.time) == (first.sequence, first.time)
    with pytest.raises(IdempotencyConflict, match="new key"):
        await chat.append(Message.human("pay twice"), idempotency_key="pay-1")
    other = tenant.conversation("other", user="ada")
    assert not (await other.append(Message.human("pay"), idempotency_key="pay-1")).duplicate
    both = [Message.human("a"), Message.ai("b")]
    batch = await chat.extend(both, idempotency_key="pay-2")
    again = await chat.extend(both, idempotency_key="pay-2")
    assert (again.first, again.last, again.duplicate) == (batch.first, batch.last, True)
    assert await chat.count() == 3


async def test_appends_that_meet_share_a_round_trip_and_keep_their_order(tenant: Tenant) -> None:
    chat = tenant.conversation("busy", user="ada")
    await chat.append(Message.human("first"))
    receipts = await asyncio.gather(
        *(chat.append(Message.human(str(n)), idempotency_key=str(n % 50)) for n in range(100)),
        return_exceptions=True,
    )
    stored = [one for one in receipts if not isinstance(one, BaseException)]
    assert [type(one) for one in receipts if isinstance(one, BaseException)] == [
        IdempotencyConflict
    ] * 50
    assert sorted(one.sequence for one in stored) == list(range(2, 52))
    assert [one.text for one in await chat.messages(2)] == [str(n) for n in range(50)]


async def test_one_of_many_that_is_refused_leaves_the_others(tenant: Tenant) -> None:
    chat = tenant.conversation("busy", user="ada")
    start = await chat.append(Message.human("first"))
    results = await asyncio.gather(
        *(chat.append(Message.human(str(n))) for n in range(5)),
        chat.append(Message.human("late"), expected=Head(start.version.epoch, 0)),
        *(chat.append(Message.human(str(n))) for n in range(5, 10)),
        return_exceptions=True,
    )
    assert [type(one).__name__ for one in results].count("VersionConflict") == 1
    assert [one.text for one in await chat.messages(2)] == [str(n) for n in range(10)]


async def test_a_title_that_comes_while_another_is_on_its_way_is_stored_too(
    tenant: Tenant,
) -> None:
    chat = tenant.conversation("ticket", user="ada", title="one")
    first = asyncio.create_task(chat.append(Message.human("1")))
    for _ in range(1_000_000):
        if chat._lane._sealed_title:
            break
        await asyncio.sleep(0)
    tenant.conversation("ticket", user="ada", title="two")
    await first
    await chat.append(Message.human("2"))
    assert [one.title for one in (await tenant.conversations("ada")).items] == ["two"]


async def test_what_cannot_be_stored_is_refused_before_it_is_sent(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada")
    noise = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(120_000))
    with pytest.raises(MessageTooLarge, match="reference"):
        await chat.append(Message.human(noise))
    with pytest.raises(MessageTooLarge, match="extend in parts"):
        await chat.extend([Message.human("x")] * 1001)
    with pytest.raises(UsageError, match="at least one message"):
        await chat.extend([])
    with pytest.raises(MessageInvalid, match="base64"):
        await chat.append(Message.human("x", data=b"bytes"))
    with pytest.raises(MessageInvalid, match="key that is no text"):
        await chat.append(Message.human("x", data={1: "one"}))  # type: ignore[dict-item]
    with pytest.raises(UsageError, match=r"Message\.human"):
        await chat.append("hello")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="idempotency key is a text"):
        await chat.append(Message.human("x"), idempotency_key=4711)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="whose data it is"):
        await tenant.conversations(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a list of messages, not Message"):
        await chat.extend(Message.human("x"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs a user"):
        tenant.conversation("ticket", user="")
    assert await chat.count() == 0


async def test_a_users_conversations_are_listed_page_by_page(tenant: Tenant) -> None:
    for n in range(7):
        chat = tenant.conversation(f"s{n}", user="ada", title=f"Title {n}" if n % 2 else None)
        await chat.extend([Message.human("x")] * (n + 1))
    await tenant.conversation("s1", user="bob").append(Message.human("x"))
    page = await tenant.conversations("ada", limit=3)
    assert [(one.session, one.title, one.count) for one in page.items] == [
        ("s6", None, 7),
        ("s5", "Title 5", 6),
        ("s4", None, 5),
    ]
    sessions = [one.session for one in page.items]
    while page.cursor is not None:
        page = await tenant.conversations("ada", limit=3, cursor=page.cursor)
        sessions += [one.session for one in page.items]
    assert sessions == [f"s{n}" for n in reversed(range(7))]
    last = (await tenant.conversations("ada")).items[0].last_activity
    assert last is not None
    assert abs(last - datetime.now(UTC)) < timedelta(minutes=1)
    assert (await tenant.conversations("nobody")).items == ()
    with pytest.raises(UsageError, match="cursor"):
        await tenant.conversations("ada", cursor="_:unknown")


async def test_a_title_can_change(tenant: Tenant) -> None:
    await tenant.conversation("s", user="ada", title="Old").append(Message.human("x"))
    await tenant.conversation("s", user="ada").append(Message.human("x"))
    assert (await tenant.conversations("ada")).items[0].title == "Old"
    await tenant.conversation("s", user="ada", title="New").append(Message.human("x"))
    assert (await tenant.conversations("ada")).items[0].title == "New"
