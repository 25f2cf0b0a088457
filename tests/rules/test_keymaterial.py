from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.keyring import OpenKeyring, agent_keyring, new_keyring
from memtenant.crypto.primitives import SecretKey, new_key
from memtenant.errors import KeyInvalid, KeyUnavailable
from memtenant.rules.keymaterial import KeyState, Roots, operator_made_root, settle_keys
from tests.rules.builders import INSTALLATION_ROOT, NEIGHBOUR, NOW, TENANT

OPERATOR_MADE = operator_made_root(INSTALLATION_ROOT, "uid-1")
FIRST, SECOND = SecretKey(b"1" * 32), SecretKey(b"2" * 32)
LATER = NOW + timedelta(days=1)
SECRET = "Secret support/acme-key"


def settle(
    stored: OpenKeyring | None,
    declared: SecretKey | None,
    bindings: tuple[AgentKeyring, ...] = (),
    operator_made: SecretKey = OPERATOR_MADE,
) -> KeyState:
    written = stored.keyring.to_json() if stored else b""
    return settle_keys(TENANT, written, Roots(declared, operator_made, SECRET), bindings, LATER)


def under(root: SecretKey) -> OpenKeyring:
    return new_keyring(TENANT, root, now=NOW)


def bound(opened: OpenKeyring) -> tuple[AgentKeyring, ...]:
    return (agent_keyring(opened, "triage", new_key()),)


def keys_of(opened: OpenKeyring) -> dict[int, bytes]:
    return {kek.version: kek.key.secret for kek in opened.keks}


# -- the first keys --------------------------------------------------------------------------------


def test_a_tenant_that_never_had_keys_gets_new_ones_under_its_root() -> None:
    state = settle(None, FIRST)
    assert (state.new, state.root) == (True, FIRST)
    assert state.opened.keyring.opens_with(FIRST)


def test_without_the_secret_there_are_no_first_keys() -> None:
    with pytest.raises(KeyUnavailable, match="Secret support/acme-key does not exist") as error:
        settle(None, None)
    assert error.value.reason == "KeySecretMissing"


def test_each_incarnation_of_a_tenant_has_an_operator_made_root_of_its_own() -> None:
    roots = {operator_made_root(INSTALLATION_ROOT, uid).secret for uid in ("uid-1", "uid-2")}
    assert len(roots | {operator_made_root(FIRST, "uid-1").secret}) == 3
    assert operator_made_root(INSTALLATION_ROOT, "uid-1") == OPERATOR_MADE


# -- nothing changed -------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [FIRST, OPERATOR_MADE], ids=["users", "operators"])
def test_under_the_same_root_nothing_changes(root: SecretKey) -> None:
    before = under(root)
    state = settle(before, root)
    assert (state.new, state.replaced, state.root) == (False, False, root)
    assert state.opened.keyring.to_json() == before.keyring.to_json()
    assert keys_of(state.opened) == keys_of(before)


# -- a changed root --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "declared"),
    [(FIRST, SECOND), (OPERATOR_MADE, FIRST), (FIRST, OPERATOR_MADE)],
    ids=["another Secret", "a Secret at last", "no Secret any more"],
)
def test_a_changed_root_is_told_and_every_key_is_kept(
    stored: SecretKey, declared: SecretKey
) -> None:
    before = under(stored)
    state = settle(before, declared, bound(before))
    assert (state.new, state.replaced, state.root) == (False, True, declared)
    assert state.opened == before


def test_a_changed_secret_without_a_binding_to_take_the_keys_from_is_an_error() -> None:
    with pytest.raises(KeyUnavailable, match="No new key is made") as error:
        settle(under(FIRST), SECOND)
    assert error.value.reason == "KeyChanged"


def test_keys_are_not_taken_from_another_tenants_binding() -> None:
    other = agent_keyring(new_keyring(NEIGHBOUR, FIRST, now=NOW), "triage", new_key())
    with pytest.raises(KeyUnavailable):
        settle(under(FIRST), SECOND, (other,))


# -- a vanished root -------------------------------------------------------------------------------


def test_a_vanished_secret_changes_nothing_and_makes_no_key() -> None:
    before = under(FIRST)
    state = settle(before, None, bound(before))
    assert (state.new, state.replaced, state.root) == (False, False, None)
    assert state.opened.keyring.to_json() == before.keyring.to_json()
    assert keys_of(state.opened) == keys_of(before)


def test_a_vanished_secret_without_bindings_is_an_error_not_a_new_key() -> None:
    with pytest.raises(KeyUnavailable):
        settle(under(FIRST), None)


def test_naming_a_secret_that_is_not_there_yet_locks_nobody_out() -> None:
    """An adopted tenant has no binding to take its keys from; its root is the operator's still."""
    before = under(OPERATOR_MADE)
    state = settle(before, None)
    assert (state.new, state.replaced, state.root) == (False, False, None)
    assert keys_of(state.opened) == keys_of(before)


# -- whatever happens ------------------------------------------------------------------------------


@given(
    st.sampled_from([FIRST, SECOND, OPERATOR_MADE]),
    st.sampled_from([None, FIRST, SECOND, OPERATOR_MADE]),
    st.booleans(),
)
def test_a_tenant_that_has_keys_keeps_all_of_them_or_is_refused(
    stored: SecretKey, declared: SecretKey | None, bindings: bool
) -> None:
    before = under(stored)
    try:
        state = settle(before, declared, bound(before) if bindings else ())
    except KeyUnavailable:
        assert not bindings
        return
    assert not state.new
    assert state.replaced is (declared is not None and not before.keyring.opens_with(declared))
    assert keys_of(before).items() <= keys_of(state.opened).items()
    assert state.root == declared


@pytest.mark.parametrize("stored", [b"{}", b"\x00", b"null", b" "])
def test_a_damaged_keyring_is_an_error_not_a_new_key(stored: bytes) -> None:
    with pytest.raises(KeyInvalid, match="Restore its Secret"):
        settle_keys(TENANT, stored, Roots(FIRST, OPERATOR_MADE), (), NOW)


def test_a_keyring_that_somebody_edited_is_not_opened() -> None:
    edited = under(FIRST).keyring.to_json().replace(b'"minted":1', b'"minted":9')
    with pytest.raises(KeyInvalid) as error:
        settle_keys(TENANT, edited, Roots(FIRST, OPERATOR_MADE), (), NOW)
    assert error.value.reason == "KeyringDamaged"


def test_no_key_is_in_a_repr() -> None:
    before = under(FIRST)
    shown = repr(settle(before, SECOND, bound(before))) + repr(Roots(FIRST, SECOND, SECRET))
    for key in (*keys_of(before).values(), FIRST.secret, SECOND.secret):
        assert repr(key)[2:-1] not in shown
        assert key.hex() not in shown
    assert SECRET in shown
