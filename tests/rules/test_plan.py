from __future__ import annotations

import hashlib
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from memtenant.rules.acl import AclUser
from memtenant.rules.acl_drift import differences
from memtenant.rules.plan import (
    AddFinalizer,
    Disconnect,
    Prove,
    RemoveBinding,
    Revoke,
    SaveRecord,
    SetState,
    SetUsers,
    WriteBinding,
    changed_fields,
    user_actions,
)
from tests.rules.builders import PASSWORD, settled

A, B, C = "mt.support.acme.a.a", "mt.support.acme.b.a", "mt.support.acme.c.a"
NODE, REPLICA = "10.0.0.1:6379", "10.0.0.2:6379"


def user(name: str, enabled: bool = True) -> AclUser:
    return AclUser(name, enabled, ("0" * 64,), ("-@all",))


names = st.sampled_from([A, B, C])
found = st.dictionaries(
    st.sampled_from([NODE, REPLICA]),
    st.dictionaries(names, st.lists(st.text(max_size=5), max_size=2).map(tuple), max_size=3),
)
hashes = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=5)


# -- users -----------------------------------------------------------------------------------------


def test_where_nothing_differs_nothing_is_done() -> None:
    assert user_actions([user(A), user(B, enabled=False)], {NODE: {}, REPLICA: {}}, False) == ()
    assert user_actions([user(A)], {NODE: {A: ()}}, False) == ()


def test_what_differs_on_any_node_is_set_everywhere_and_proven() -> None:
    actions = user_actions([user(A), user(B)], {REPLICA: {A: ("user is missing",)}}, False)
    assert actions == (
        SetUsers((A,), ((REPLICA, A, "user is missing"),)),
        Prove((A,), live=False),
    )


def test_users_that_are_switched_off_are_disconnected_and_not_proven() -> None:
    actions = user_actions([user(A, enabled=False)], {NODE: {A: ("user is on",)}}, True)
    assert actions == (SetUsers((A,), ((NODE, A, "user is on"),)), Disconnect((A,)))


def test_a_user_that_is_off_already_is_left_alone() -> None:
    assert user_actions([user(A, enabled=False)], {NODE: {}}, True) == ()


def test_a_live_proof_is_of_every_user_that_is_on() -> None:
    actions = user_actions([user(A), user(B), user(C, enabled=False)], {}, True)
    assert actions == (Prove((A, B), live=True),)


@given(st.lists(names, unique=True), st.sets(names), found, st.booleans())
def test_users_are_set_before_they_are_cut_and_cut_before_the_others_are_proven(
    present: list[str],
    off: set[str],
    differing: Mapping[str, Mapping[str, tuple[str, ...]]],
    live: bool,
) -> None:
    users = [user(name, name not in off) for name in present]
    actions = user_actions(users, differing, live)
    order = [SetUsers, Disconnect, Prove]
    kinds = [type(action) for action in actions]
    assert kinds == [kind for kind in order if kind in kinds]
    for action in actions:
        if isinstance(action, Disconnect):
            assert set(action.users) <= off
        if isinstance(action, Prove):
            assert not set(action.users) & off


@given(found)
def test_the_plan_does_not_depend_on_the_order_of_the_nodes_answers(
    differing: dict[str, dict[str, tuple[str, ...]]],
) -> None:
    turned = {
        node: dict(reversed(by_user.items())) for node, by_user in reversed(differing.items())
    }
    users = [user(A), user(B), user(C)]
    assert user_actions(users, differing, False) == user_actions(users, turned, False)


# -- hashes ----------------------------------------------------------------------------------------


@given(hashes)
def test_equal_hashes_have_no_changed_field(fields: dict[str, str]) -> None:
    assert changed_fields("limits", fields, dict(fields)) == ()


@given(hashes, hashes)
def test_applying_the_changed_fields_gives_the_wanted_hash(
    before: dict[str, str], after: dict[str, str]
) -> None:
    applied: dict[str, str | None] = dict(before)
    for name, field, was, becomes in changed_fields("limits", before, after):
        assert name == "limits"
        assert was == before.get(field)
        applied[field] = becomes
    assert {field: value for field, value in applied.items() if value is not None} == after


# -- in words --------------------------------------------------------------------------------------


def test_each_action_says_what_it_does() -> None:
    said = [
        str(action)
        for action in (
            AddFinalizer(),
            Revoke((A, B)),
            SaveRecord("support.acme-keyring", ("record.json", "new credential of triage")),
            SetState((("limits", "memory", None, "1"), ("access", "minimum", "1", None))),
            SetUsers((A,), ((NODE, A, "user is missing"),)),
            Disconnect((A,)),
            Prove((A,), live=True),
            Prove((A,), live=False),
            WriteBinding("acme-triage", "triage", ("password", "uri")),
            RemoveBinding("acme-triage"),
        )
    ]
    assert said == [
        "add finalizer",
        f"revoke ACL user {A}, {B} on every node",
        "save tenant record support.acme-keyring: record.json, new credential of triage",
        "set limits.memory: none → 1; access.minimum: 1 → none",
        f"set ACL user {A} on {NODE}: user is missing",
        f"disconnect ACL user {A} on every node",
        f"prove isolation of {A} by ACL and with live connections",
        f"prove isolation of {A} by ACL",
        "write binding acme-triage of agent triage: password, uri",
        "remove binding acme-triage",
    ]


def test_a_long_list_of_differences_is_cut_and_counted() -> None:
    many = tuple((NODE, f"user-{n}", "user is missing") for n in range(9))
    said = str(SetUsers(tuple(name for _, name, _ in many), many))
    assert "user-5" in said
    assert "user-6" not in said
    assert said.endswith("(and 3 more)")


def test_no_secret_is_in_a_plan() -> None:
    """Not even its hash: of a weak password that is as good as the password."""
    situation, made = settled()
    reply: Mapping[object, object] = {
        "flags": ["on"],
        "passwords": ["f" * 64],
        "commands": "-@all",
        "keys": "",
    }
    differing = {NODE: {user.name: differences(user, reply) for user in made.users}}
    binding = made.bindings["default"]
    plan = (
        SetState(
            (
                *changed_fields("limits", {}, made.limits),
                *changed_fields("access", {}, made.access),
            )
        ),
        *user_actions(made.users, differing, True),
        WriteBinding("acme-default", "default", tuple(binding.to_secret_data())),
    )
    said = "\n".join(map(str, plan)) + repr(plan)
    assert "password(s) missing" in said
    for secret in (
        binding.password,
        hashlib.sha256(binding.password.encode()).hexdigest(),
        "f" * 64,
        binding.keyring.decode(),
        situation.audit_root.secret.hex(),
        PASSWORD,
    ):
        assert secret not in said
