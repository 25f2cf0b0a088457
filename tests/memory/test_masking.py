"""What is masked never leaves the process: as the tenant's own user, against real servers."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from memtenant import ContextBudget, Detector, Masking, MaskingAction, Message, Tenant, ToolCall
from memtenant.crypto.primitives import SecretKey
from memtenant.errors import IdempotencyConflict, MaskingRejected, MessageInvalid, UsageError
from memtenant.memory import masked
from memtenant.memory.masking import LONG_TEXT, masking_rules
from memtenant.memory.messages import Json
from memtenant.memory.summaries import SummaryRequest
from memtenant.sync import Tenant as SyncTenant
from memtenant.tenancy.masking import MaskingPolicy
from memtenant.tenancy.policy import EncryptionMode, TenantPolicy
from tests.memory.bindings import PATIENT, Provisioned
from tests.memory.conftest import Open
from tests.stores.operators import ACME

REQUIRED = MaskingPolicy(required=True)
PCI = MaskingPolicy(
    required=True, refused=(Detector.CARD_VERIFICATION, Detector.CARD_TRACK, Detector.CARD)
)
RAW = ("ada@example.org", "4111111111111111", "2125550123")


@pytest.fixture
def policy() -> TenantPolicy:
    """Records in the clear, so that a test can look for what is in them."""
    return TenantPolicy(encryption=EncryptionMode.DISABLED, masking=REQUIRED)


def asked(of: Provisioned, masking: Masking | None, policy: MaskingPolicy) -> Tenant:
    of.policy = replace(of.policy, masking=policy)
    return Tenant(of.source(), options=PATIENT, masking=masking)


def everything(admin: "redis.Redis") -> Iterator[bytes]:
    for key in admin.scan_iter("*"):
        yield key
        match admin.type(key):
            case b"list":
                yield from admin.lrange(key, 0, -1)
            case b"hash":
                yield from (part for pair in admin.hgetall(key).items() for part in pair)
            case b"zset":
                yield from admin.zrange(key, 0, -1)


async def test_a_number_of_too_many_digits_is_told_as_where_nothing_is_masked(
    tenant: Tenant,
) -> None:
    with pytest.raises(MessageInvalid):
        await tenant.shared_context("c").create({"n": 10**4300})
    with pytest.raises(MessageInvalid):
        await tenant.conversation("s", user="u").append(Message("x", further={"n": 10**4300}))


async def test_what_is_no_message_is_told_as_where_nothing_is_masked(tenant: Tenant) -> None:
    with pytest.raises(UsageError, match=r"Message\.human"):
        await tenant.conversation("s", user="u").append("x")  # type: ignore[arg-type]


async def test_no_server_holds_what_was_masked(acme: Provisioned, tenant: Tenant) -> None:
    chat = tenant.conversation("s", user="u", title="Mail of ada@example.org")
    receipt = await chat.append(Message.human("ada@example.org"))
    await chat.append(Message.ai("pay 4111111111111111", tool_calls=(ToolCall("c", "t", {}),)))
    await chat.update_message(1, Message.human("call 2125550123"))
    await tenant.shared_context("c").create({"owner": "ada@example.org", "n": 4111111111111111})
    with acme.server.admin() as admin:
        held = b"\n".join(everything(admin))
    assert b"<PHONE>" in held
    assert b"<EMAIL>" in held
    assert not [raw for raw in RAW if raw.encode() in held]
    assert receipt.masked == {Detector.EMAIL: 1}
    texts = [one.text for one in await chat.messages()]
    assert texts == ["call <PHONE>", "pay <CARD 411111******1111>"]
    assert (await tenant.conversations("u")).items[0].title == "Mail of <EMAIL>"
    values = (await tenant.shared_context("c").read()).values
    assert values == {"owner": "<EMAIL>", "n": "<CARD 411111******1111>"}


def test_without_asyncio_too(acme: Provisioned) -> None:
    with SyncTenant(acme.source(), options=PATIENT) as tenant:
        chat = tenant.conversation("s", user="u")
        long = "ada@example.org " * (LONG_TEXT // 8)
        receipt = chat.extend([Message.human("ada@example.org"), Message.ai(long)])
        assert receipt.masked == {Detector.EMAIL: 1 + LONG_TEXT // 8}
        assert [one.text[:7] for one in chat.messages()] == ["<EMAIL>", "<EMAIL>"]


async def test_ids_system_messages_and_what_is_no_text_stay(tenant: Tenant) -> None:
    user, image = "ada@example.org", {"type": "image", "url": "https://e.org/ada@example.org"}
    stay = (
        Message.system("Answer as ada@example.org."),
        Message.tool("ada@example.org", call="ada@example.org", name="ada@example.org"),
        Message.ai("", tool_calls=(ToolCall("ada@example.org", "mail", {"to": user}),)),
        Message.human((image,), mail="ada@example.org"),
    )
    chat = tenant.conversation(user, user=user)
    receipt = await chat.extend(stay)
    assert tuple(one.message for one in await chat.messages()) == stay
    assert not receipt.masked


async def test_tools_are_masked_where_the_policy_or_the_code_says(on_valkey: Provisioned) -> None:
    call = ToolCall("c", "pay", {"card": "4111111111111111", "to": [{"mail": "a@example.org"}]})
    raw = ToolCall("d", "pay", '{"to": "a@example.org"}')
    for masking, policy in (
        (None, replace(REQUIRED, tools=True)),
        (Masking(tools=True), MaskingPolicy()),
    ):
        async with asked(on_valkey, masking, policy) as tenant:
            chat = tenant.conversation("s", user="u")
            await chat.clear()
            await chat.extend(
                [
                    Message.ai("", tool_calls=[call, raw]),
                    Message.tool("sent to a@example.org", call="c"),
                    Message.human([{"type": "text", "text": "I am a@example.org"}]),
                ]
            )
            asking, answer, parts = (one.message for one in await chat.messages())
            assert asking.tool_calls[0].arguments == {
                "card": "<CARD 411111******1111>",
                "to": [{"mail": "<EMAIL>"}],
            }
            assert asking.tool_calls[1].arguments == '{"to": "<EMAIL>"}'
            assert answer.text == "sent to <EMAIL>"
            assert parts.content == ({"type": "text", "text": "I am <EMAIL>"},)


@pytest.mark.parametrize(
    "message",
    [
        Message.human("my cvv is 123"),
        Message.system("cvv 123"),
        Message.tool('{"cvc": "123"}', call="c"),
        Message.ai("", tool_calls=(ToolCall("c", "pay", {"cardCvv": 123}),)),
        Message.ai("", tool_calls=(ToolCall("c", "pay", {"card": {"cvv2": ["123"]}}),)),
        Message.human("Hello", note="cvv 123"),
        Message("other", further={"item": {"output": ["cvv 123"]}}),
        Message.human([{"type": "text", "text": ";4111111111111111=25121011234567890000?"}]),
        Message.human("pay with 4111 1111 1111 1111"),
        Message.system("The test card is 4111-1111-1111-1111."),
        Message.tool("4111111111111111", call="c"),
        Message.ai("", tool_calls=(ToolCall("c", "pay", {"number": 4111111111111111}),)),
        Message.human("Hello", card="4111111111111111"),
    ],
)
async def test_what_is_refused_is_refused_wherever_it_stands(
    on_valkey: Provisioned, message: Message
) -> None:
    async with asked(on_valkey, None, PCI) as tenant:
        chat = tenant.conversation("s", user="u")
        with pytest.raises(MaskingRejected, match=r"holds 1 Card") as error:
            await chat.extend([Message.human("Hello"), message])
        assert not [part for part in ("123", "1111") if part in str(error.value)]
        assert sum(error.value.counts.values()) == 1
        assert await chat.count() == 0
        for values in ({"cvv": "123"}, {"n": 4111111111111111}):
            with pytest.raises(MaskingRejected):
                await tenant.shared_context("c").create(values)
        assert (await tenant.shared_context("c").read()).revision == 0


async def test_a_token_is_one_persons(on_valkey: Provisioned) -> None:
    async with asked(on_valkey, None, replace(REQUIRED, action=MaskingAction.TOKENISE)) as tenant:
        texts = []
        for user in ("ada", "ada", "bob"):
            chat = tenant.conversation("s", user=user)
            await chat.append(Message.human("ada@example.org"))
            texts.append((await chat.messages())[-1].text)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("<EMAIL:")


async def test_an_idempotency_key_compares_what_is_stored(tenant: Tenant) -> None:
    """Not even a keyed hash of the value leaves: who holds the key could try all codes."""
    chat = tenant.conversation("s", user="u")
    await chat.append(Message.human("I am ada@example.org"), idempotency_key="k")
    again = await chat.append(Message.human("I am bob@example.org"), idempotency_key="k")
    assert again.duplicate
    assert again.masked == {Detector.EMAIL: 1}
    with pytest.raises(IdempotencyConflict):
        await chat.append(Message.human("I am 2125550123 by phone"), idempotency_key="k")


async def test_a_running_agent_follows_its_policy(on_valkey: Provisioned, opened: Open) -> None:
    on_valkey.policy = replace(on_valkey.policy, masking=MaskingPolicy())
    tenant = opened(on_valkey)
    chat = tenant.conversation("s", user="u")
    await chat.append(Message.human("ada@example.org"))
    on_valkey.policy = replace(on_valkey.policy, masking=REQUIRED)
    on_valkey.bind()
    assert tenant.info().masking.required  # looks at the binding at once
    await chat.append(Message.human("ada@example.org"))
    assert [one.text for one in await chat.messages()] == ["ada@example.org", "<EMAIL>"]


async def test_long_texts_are_masked_in_a_thread(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    masks = masked.SubjectMask.messages

    def noted(self: masked.SubjectMask, messages: tuple[Message, ...]) -> object:
        threads.append(threading.current_thread() is threading.main_thread())
        return masks(self, messages)

    monkeypatch.setattr(masked.SubjectMask, "messages", noted)
    chat = tenant.conversation("s", user="u")
    await chat.append(Message.human("x" * LONG_TEXT))
    receipt = await chat.append(Message.human("x" * LONG_TEXT + " ada@example.org"))
    assert threads == [True, False]
    assert receipt.masked == {Detector.EMAIL: 1}


async def test_a_summariser_sees_no_value_that_was_stored_before_masking_was_on(
    on_valkey: Provisioned,
) -> None:
    requests: list[SummaryRequest] = []

    async def tells(request: SummaryRequest) -> dict[str, object]:
        requests.append(request)
        facts = ["cvv 123", "card 4111111111111111"]
        return {"summary": "Write to ada@example.org.", "facts": facts}

    async with asked(on_valkey, None, MaskingPolicy()) as tenant:
        chat = tenant.conversation("s", user="u")
        await chat.extend([Message.human(f"{n} cvv 123 of ada@example.org") for n in range(20)])
    async with asked(on_valkey, None, PCI) as tenant:
        chat = tenant.conversation("s", user="u", summariser=tells)
        budget = ContextBudget(400, summary_tokens=160, summary_timeout=60.0, counter=len)
        summary = (await chat.summarise(budget)).summary
    assert summary is not None
    assert summary.text == "Write to <EMAIL>."
    assert summary.facts == ("cvv <CVV>", "card <CARD 411111******1111>")
    assert {one.text[-19:] for one in requests[0].messages} == {" cvv <CVV> of <EMAIL>"[-19:]}


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([*RAW, "cvv 123", "", "plain", "123"])
)
NAMES = st.sampled_from(["cvv", "cardNumber", "ada@example.org", "4111111111111111", "", "a b"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)


def shape(value: object) -> object:
    """The value with every leaf left out."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else None


@settings(deadline=None)  # the first telephone number loads the numbering plans
@given(VALUES)
def test_names_and_shape_of_a_value_stay_and_no_value_does(value: Json) -> None:
    rules = masking_rules(REQUIRED, None)
    assert rules is not None
    mask = masked.SubjectMask(masked.Plans.of(rules), SecretKey(b"k" * 32), ACME, b"whose")
    after = mask.values({"it": value})
    assert shape(after) == shape({"it": value})
    leaves = json.dumps(after).replace('"4111111111111111":', "").replace('"ada@example.org":', "")
    assert not [raw for raw in RAW[:2] if f'"{raw}"' in leaves]
    assert mask.values(after) == after


# --- what policy and code say together ---------------------------------------------------------


def test_code_cannot_weaken_what_the_policy_requires() -> None:
    policy = MaskingPolicy(True, MaskingAction.DROP, (Detector.EMAIL,), tools=True)
    rules = masking_rules(policy, Masking(MaskingAction.MASK, (Detector.IBAN, Detector.EMAIL)))
    assert rules is not None
    assert rules.actions == {
        Detector.EMAIL: MaskingAction.DROP,
        Detector.IBAN: MaskingAction.MASK,
    }
    assert rules.tools == rules.actions
    assert rules.contexts == {Detector.EMAIL: MaskingAction.DROP}


def test_code_can_be_stricter() -> None:
    rules = masking_rules(PCI, Masking(MaskingAction.REJECT, [Detector.EMAIL]))
    assert rules is not None
    assert rules.actions[Detector.EMAIL] is MaskingAction.REJECT
    assert rules.actions[Detector.CARD] is MaskingAction.REJECT
    assert rules.actions[Detector.IBAN] is MaskingAction.MASK
    assert rules.tools == dict.fromkeys(PCI.refused, MaskingAction.REJECT)


def test_an_optional_policy_says_what_an_agent_gets_that_names_nothing() -> None:
    policy = MaskingPolicy(False, MaskingAction.TOKENISE, (Detector.EMAIL,))
    assert masking_rules(policy, None) is None
    rules = masking_rules(policy, Masking())
    assert rules is not None
    assert rules.actions == {Detector.EMAIL: MaskingAction.TOKENISE}
    assert not rules.contexts


def test_a_detector_that_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match="'Mail': use CardVerification"):
        Masking(detectors=["Mail"])  # type: ignore[list-item]


def test_importing_the_sdk_compiles_no_pattern() -> None:
    code = (
        "import sys, memtenant; memtenant.Tenant; memtenant.Masking; "
        "print([m for m in ('memtenant.masking.masker', 'phonenumbers') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
