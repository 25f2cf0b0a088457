from __future__ import annotations

import base64
import json
import secrets
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.crypto.agent_keyring import MAX_KEKS, AgentKeyring, Kek
from memtenant.crypto.keyring import (
    OpenKeyring,
    activate,
    add_version,
    agent_keyring,
    destroy,
    keyring_of,
    new_keyring,
    open_keyring,
    recover,
)
from memtenant.crypto.keyring_record import KekState, Keyring
from memtenant.crypto.primitives import SecretKey, new_key
from memtenant.errors import KeyInvalid, KeyUnavailable
from memtenant.tenancy.identity import TenantId
from tests.crypto import independent, vectors

TENANT = TenantId("support", "acme")
ROOT = SecretKey(bytes(range(32)))
OTHER_ROOT = SecretKey(bytes(range(1, 33)))
NOW = datetime(2026, 1, 31, 9, 30, 0, 250, tzinfo=UTC)


def fresh(tenant: TenantId = TENANT, root: SecretKey = ROOT) -> OpenKeyring:
    return new_keyring(tenant, root, now=NOW)


def binding(opened: OpenKeyring, agent: str = "triage") -> AgentKeyring:
    return agent_keyring(opened, agent, new_key())


def stored(opened: OpenKeyring) -> Keyring:
    """Through the bytes of the Secret and back."""
    return Keyring.from_json(opened.keyring.to_json(), opened.keyring.tenant)


def stored_open(opened: OpenKeyring) -> OpenKeyring:
    return open_keyring(stored(opened), ROOT)


def rotate(opened: OpenKeyring, root: SecretKey = ROOT) -> OpenKeyring:
    """A whole rotation: a version is added, and has its turn."""
    return activate(add_version(opened, root, now=NOW), root)


def rotated_twice() -> OpenKeyring:
    return rotate(rotate(fresh()))


def test_a_new_keyring_has_one_active_version() -> None:
    opened = fresh()
    assert [(kek.version, kek.state) for kek in opened.keyring.keks] == [(1, KekState.ACTIVE)]
    assert opened.active.version == opened.keyring.active.version == 1
    assert len({key.secret for key in (opened.active.key, opened.name_key, opened.token_key)}) == 3


def test_a_keyring_opens_again_with_its_root() -> None:
    opened = rotated_twice()
    assert open_keyring(stored(opened), ROOT) == opened


def test_equal_keyrings_are_equal_bytes() -> None:
    opened = rotated_twice()
    assert stored(opened).to_json() == opened.keyring.to_json()
    assert rotate(opened).keyring.to_json() != opened.keyring.to_json()


def test_no_key_is_in_the_stored_keyring() -> None:
    opened = fresh()
    data = opened.keyring.to_json()
    for key in (ROOT, opened.active.key, opened.name_key, opened.token_key):
        assert base64.b64encode(key.secret) not in data


def test_another_root_is_told_apart_from_damage() -> None:
    keyring = fresh().keyring
    assert keyring.opens_with(ROOT)
    assert not keyring.opens_with(OTHER_ROOT)
    with pytest.raises(KeyUnavailable, match="is not the one that wrapped") as caught:
        open_keyring(keyring, OTHER_ROOT)
    assert caught.value.reason == "KeyChanged"


def test_tenants_with_the_same_root_cannot_exchange_keyrings() -> None:
    foreign = fresh(TenantId("sales", "acme")).keyring
    with pytest.raises(KeyInvalid, match=r"tenantId is not support\.acme"):
        Keyring.from_json(foreign.to_json(), TENANT)
    with pytest.raises(KeyInvalid) as caught:
        open_keyring(replace(foreign, tenant=TENANT), ROOT)
    assert caught.value.reason == "KeyringDamaged"


def edits() -> list[tuple[str, Keyring]]:
    keyring = rotated_twice().keyring
    first, second, third = keyring.keks
    return [
        ("state", replace(keyring, keks=(replace(first, state=KekState.ACTIVE), second, third))),
        ("minted", replace(keyring, minted=9)),
        ("dropped", replace(keyring, keks=(second, third))),
        (
            "created",
            replace(keyring, keks=(replace(first, created=NOW.replace(year=2020)), second, third)),
        ),
        (
            "exchanged",
            replace(
                keyring,
                keks=(replace(first, key=second.key), replace(second, key=first.key), third),
            ),
        ),
        ("role", replace(keyring, name_key=keyring.token_key, token_key=keyring.name_key)),
        ("seal", replace(keyring, seal=bytes(32))),
    ]


@pytest.mark.parametrize(("what", "edited"), edits(), ids=[what for what, _ in edits()])
def test_an_edit_without_the_root_is_noticed(what: str, edited: Keyring) -> None:
    with pytest.raises(KeyInvalid, match="changed by someone without its root key") as caught:
        open_keyring(edited, ROOT)
    assert caught.value.reason == "KeyringDamaged"


def test_a_wrapped_key_in_another_role_does_not_open_even_under_a_valid_seal() -> None:
    keyring = fresh().keyring
    swapped = replace(keyring, name_key=keyring.token_key).sealed(ROOT)
    with pytest.raises(KeyInvalid):
        open_keyring(swapped, ROOT)


def test_a_key_that_its_commitment_does_not_name_is_refused() -> None:
    keyring = fresh().keyring
    named = replace(keyring, name_key=replace(keyring.name_key, key_id=bytes(16))).sealed(ROOT)
    with pytest.raises(KeyInvalid):
        open_keyring(named, ROOT)


def test_a_rotation_adds_a_version_and_retires_the_others() -> None:
    opened = rotated_twice()
    assert [(kek.version, kek.state) for kek in opened.keyring.keks] == [
        (1, KekState.RETIRING),
        (2, KekState.RETIRING),
        (3, KekState.ACTIVE),
    ]
    assert len({kek.key.secret for kek in opened.keks}) == 3


def test_a_rotation_keeps_the_older_versions_and_the_name_key() -> None:
    before = fresh()
    after = rotate(before)
    assert after.keks[0] == before.keks[0]
    assert (after.name_key, after.token_key) == (before.name_key, before.token_key)


def test_a_changed_root_rewraps_everything_and_adds_a_version() -> None:
    before = fresh()
    after = rotate(before, OTHER_ROOT)
    assert open_keyring(stored(after), OTHER_ROOT) == after
    assert after.keks[0] == before.keks[0]
    assert after.active.version == 2
    with pytest.raises(KeyUnavailable):
        open_keyring(stored(after), ROOT)


def test_a_version_that_was_added_only_unwraps_until_it_is_activated() -> None:
    before = rotated_twice()
    added = add_version(before, ROOT, now=NOW)
    assert added.active == before.active
    assert [kek.version for kek in added.keyring.pending] == [4]
    assert [kek.version for kek in added.keyring.retiring] == [1, 2]
    assert binding(added).active == 3
    assert binding(added).kek(4) == added.keks[-1].key
    turned = activate(stored_open(added), ROOT)
    assert turned.active == added.keks[-1]
    assert turned.keyring.pending == ()
    assert [kek.version for kek in turned.keyring.retiring] == [1, 2, 3]


def test_an_operator_of_before_pending_versions_reads_them_as_retiring() -> None:
    """It knows these two states, and wraps with the one active version."""
    added = json.loads(add_version(fresh(), ROOT, now=NOW).keyring.to_json())
    assert [kek["state"] for kek in added["keks"]] == ["Active", "Retiring"]


def test_a_pending_version_that_came_into_no_binding_is_given_up() -> None:
    before = rotated_twice()
    added = add_version(before, ROOT, now=NOW)
    assert recover(stored(added), [binding(before)]).keks == before.keks
    assert recover(stored(added), [binding(added)]) == added
    again = add_version(recover(stored(added), [binding(before)]), OTHER_ROOT, now=NOW)
    assert [kek.version for kek in again.keks] == [1, 2, 3, 5]
    assert open_keyring(stored(again), OTHER_ROOT) == again


def test_live_versions_are_bounded() -> None:
    opened = fresh()
    for _ in range(MAX_KEKS - 1):
        opened = rotate(opened)
    with pytest.raises(KeyInvalid) as caught:
        add_version(opened, ROOT, now=NOW)
    assert caught.value.reason == "TooManyKeyVersions"
    assert open_keyring(stored(opened), ROOT) == opened
    assert AgentKeyring.from_json(binding(opened).to_json()).keks == opened.keks


def test_a_destroyed_version_is_gone_and_its_number_is_not_used_again() -> None:
    opened = destroy(destroy(rotated_twice(), 1, ROOT), 2, ROOT)
    assert [kek.version for kek in stored(opened).keks] == [3]
    assert open_keyring(stored(opened), ROOT) == opened
    assert rotate(opened).active.version == 4


def test_destroying_again_changes_nothing() -> None:
    once = destroy(rotated_twice(), 1, ROOT)
    assert destroy(once, 1, ROOT) == once


def test_the_active_version_cannot_be_destroyed() -> None:
    with pytest.raises(ValueError, match="is active"):
        destroy(fresh(), 1, ROOT)


def test_keys_of_a_lost_root_are_recovered_from_the_bindings() -> None:
    before = rotated_twice()
    recovered = recover(stored(before), [binding(before)])
    assert recovered == before
    assert open_keyring(stored(rotate(recovered, OTHER_ROOT)), OTHER_ROOT).keks[:3] == (before.keks)


def test_keys_are_recovered_from_several_bindings_together() -> None:
    before = rotated_twice()
    whole = binding(before)
    parts = [replace(whole, keks=(kek,), active=kek.version) for kek in whole.keks]
    stale = replace(whole, keks=(Kek(1, new_key()),), name_key=new_key())
    assert recover(stored(before), [stale, *parts]) == before


@pytest.mark.parametrize(
    "missing", ["all", "version 1", "version 3", "name", "token", "forged", "other tenant"]
)
def test_a_lost_key_never_becomes_a_new_one(missing: str) -> None:
    before = rotated_twice()
    whole = binding(before)
    left = {
        "all": [],
        "version 1": [replace(whole, keks=whole.keks[1:])],
        "version 3": [replace(whole, keks=whole.keks[:2])],
        "name": [replace(whole, name_key=new_key())],
        "token": [replace(whole, token_key=new_key())],
        "forged": [replace(whole, keks=(Kek(1, new_key()), *whole.keks[1:]))],
        "other tenant": [replace(whole, tenant=TenantId("sales", "acme"))],
    }[missing]
    with pytest.raises(KeyUnavailable, match="No new key is made") as caught:
        recover(stored(before), left)
    assert caught.value.reason == "KeyChanged"


def test_a_version_under_another_number_is_not_taken() -> None:
    before = rotated_twice()
    whole = binding(before)
    renumbered = tuple(Kek(4 - kek.version, kek.key) for kek in reversed(whole.keks))
    with pytest.raises(KeyUnavailable):
        recover(stored(before), [replace(whole, keks=renumbered)])


# -- Strict isolation: a key for each agent --------------------------------------------------------

ESCROW = SecretKey(bytes(range(200, 232)))


def strict() -> OpenKeyring:
    return new_keyring(TENANT, ROOT, now=NOW, per_agent=True)


def test_each_agent_has_keys_of_its_own_and_all_have_those_of_what_they_share() -> None:
    opened = rotate(strict())
    one, other = (agent_keyring(opened, name, new_key(), ESCROW) for name in ("one", "other"))
    for kek in opened.keks:
        assert all(derived.key != kek.key for derived in (*one.keks, *one.shared))
    assert all(own.key != others.key for own in one.keks for others in other.keks)
    assert one.shared == other.shared
    assert one.kek(1, "one_alias") == one.keks[0].key == opened.keks_of("one_alias")[0].key
    assert one.kek(1, "_alias") == one.shared[0].key == opened.keks_of("_alias")[0].key
    assert AgentKeyring.from_json(one.to_json()) == one


def test_keys_of_their_own_are_recovered_by_the_operator_alone() -> None:
    before = rotate(strict())
    held = agent_keyring(before, "one", new_key(), ESCROW)
    assert recover(stored(before), [held], ESCROW) == before
    for escrow in (None, ROOT):
        with pytest.raises(KeyUnavailable):
            recover(stored(before), [held], escrow)


def test_the_operator_makes_the_keys_of_an_agent_that_is_gone() -> None:
    opened = rotate(strict())
    held = agent_keyring(opened, "one", new_key(), ESCROW)
    gone = agent_keyring(opened, "gone", new_key(), ESCROW)
    assert keyring_of(held, "gone", ESCROW).keks == gone.keks


def test_a_keyring_says_for_good_that_it_is_per_agent() -> None:
    assert stored(strict()).per_agent
    assert not stored(fresh()).per_agent
    assert b"perAgent" not in fresh().keyring.to_json()


# -- keyring.json of a binding ---------------------------------------------------------------------


def test_a_binding_holds_every_live_version() -> None:
    opened = rotated_twice()
    agent = binding(opened)
    assert agent.keks == opened.keks
    assert agent.active_kek() == opened.active
    assert AgentKeyring.from_json(agent.to_json()) == agent
    assert AgentKeyring.from_json(agent.to_json() + b"\n").to_json() == agent.to_json()


def test_a_version_that_a_binding_lacks_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(KeyUnavailable, match=r"no version 9 .*read the binding again"):
        binding(fresh()).kek(9)


def test_a_field_of_a_newer_operator_is_ignored_by_an_agent() -> None:
    agent = binding(fresh())
    newer = json.loads(agent.to_json()) | {"contextKey": "new"}
    assert AgentKeyring.from_json(json.dumps(newer).encode()) == agent


def test_a_field_of_a_newer_operator_is_refused_by_an_older_operator() -> None:
    opened = fresh()
    newer = json.loads(opened.keyring.to_json()) | {"contextKey": "new"}
    with pytest.raises(KeyInvalid, match="does not know"):
        Keyring.from_json(json.dumps(newer).encode(), TENANT)


# -- bad input -------------------------------------------------------------------------------------

DOCUMENTS: dict[str, dict[str, object]] = {
    "keyring": json.loads(rotated_twice().keyring.to_json()),
    "agent": json.loads(binding(rotated_twice()).to_json()),
}


def read(which: str, document: object) -> None:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    if which == "keyring":
        Keyring.from_json(data, TENANT)
    else:
        AgentKeyring.from_json(data)


@pytest.mark.parametrize(
    ("which", "name"), [(which, name) for which, document in DOCUMENTS.items() for name in document]
)
def test_a_field_that_is_missing_or_wrong_is_named(which: str, name: str) -> None:
    document = DOCUMENTS[which]
    without = {key: value for key, value in document.items() if key != name}
    with pytest.raises(KeyInvalid, match=f"{name} is missing"):
        read(which, without)
    wrongs: list[object] = [None, -1, True, "?", "AAAA", [], {}, [1], "x" * 70_000]
    for wrong in wrongs:
        with pytest.raises(KeyInvalid):
            read(which, document | {name: wrong})


@pytest.mark.parametrize("which", DOCUMENTS)
@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{", b"[" * 60_000, b"\xff\xfe", b" " * 70_000, b'{"a":1,"a":1}']
)
def test_what_is_no_keyring_is_refused(which: str, data: bytes) -> None:
    with pytest.raises(KeyInvalid):
        read(which, data)


def test_versions_must_ascend_and_one_be_active() -> None:
    document = DOCUMENTS["keyring"]
    keks = document["keks"]
    assert isinstance(keks, list)
    none_active = [kek | {"state": "Retiring"} for kek in keks]
    wrongs: list[list[object]] = [[], keks[::-1], [*keks, keks[-1]], none_active, keks[:1]]
    for wrong in wrongs:
        with pytest.raises(KeyInvalid, match="keks is not"):
            read("keyring", document | {"keks": wrong})
    with pytest.raises(KeyInvalid, match="keks is not"):
        read("keyring", document | {"minted": 2})
    with pytest.raises(KeyInvalid, match="active is not a version in keks"):
        read("agent", DOCUMENTS["agent"] | {"active": 9})


@given(st.sampled_from(sorted(DOCUMENTS)), st.binary(max_size=200))
def test_no_bytes_make_a_reader_crash(which: str, data: bytes) -> None:
    with pytest.raises(KeyInvalid):
        read(which, data)


@given(st.sampled_from(sorted(DOCUMENTS)), st.integers(0), st.integers(1, 255))
def test_a_damaged_keyring_is_an_error_that_shows_no_key(
    which: str, position: int, mask: int
) -> None:
    data = bytearray(json.dumps(DOCUMENTS[which]).encode())
    data[position % len(data)] ^= mask
    try:
        read(which, bytes(data))
    except KeyInvalid as error:
        shown = str(error)
        for key in (vector for vector in secrets_of(DOCUMENTS[which]) if len(vector) > 20):
            if key in shown:
                raise AssertionError("a key is in an error") from None


def secrets_of(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in secrets_of(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in secrets_of(inner)]
    return [value] if isinstance(value, str) else []


def test_no_representation_shows_a_key() -> None:
    opened = fresh()
    agent = binding(opened)
    keys = [opened.active.key, opened.name_key, opened.token_key, agent.audit_key]
    wrapped = [opened.keyring.active.key.wrapped, opened.keyring.seal]
    shown = repr(opened) + repr(agent) + str(opened.keyring) + repr(asdict(agent))
    for secret in [*(key.secret for key in keys), *wrapped]:
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
        assert base64.b64encode(secret).decode() not in shown


def test_a_second_implementation_opens_the_keyring() -> None:
    opened = new_keyring(TENANT, ROOT, now=vectors.NOW, random=secrets.token_bytes)
    kek = opened.keyring.active
    key = independent.kek(ROOT.secret, str(TENANT), kek.version, kek.key.wrapped)
    assert key == opened.active.key.secret
