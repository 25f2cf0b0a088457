from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.api.tenant import AccessMode
from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.keyring import activate, add_version, destroy
from memtenant.rules.credentials import Credential, Principal
from memtenant.rules.desired import SHARED_PRINCIPAL, Desired, Identity, Situation, desired
from memtenant.rules.keymotion import KeyAdvance
from memtenant.rules.quota import Pressure, QuotaState
from memtenant.rules.record import KeyMotion, Phase
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.identity import TenantId
from tests.rules.builders import (
    KEYS,
    NOW,
    ROOT,
    TENANT,
    minting,
    one_credential,
    record,
    settled,
    situation,
    tenant_spec,
)

TWO_AGENTS = [{"name": "triage"}, {"name": "audit", "access": "ReadOnly"}]
LATER = NOW + timedelta(hours=1)


def never() -> str:
    raise AssertionError("a password was minted where none is due")


def rules_of(made: Desired, name: str) -> tuple[str, ...]:
    (found,) = [user.rules for user in made.users if user.name == name]
    return found


# -- the same from the same ------------------------------------------------------------------------


@given(
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["Moderate", "Minimal"]),
)
def test_a_settled_tenant_is_wanted_as_it_is(
    over: bool, flooded: bool, held: bool, minimum: bool, isolation: str
) -> None:
    state = QuotaState(Pressure.OVER if over else Pressure.NORMAL, ("memory",) * over, flooded, NOW)
    again, made = settled(
        tenant_spec(isolation=isolation, agents=[{"name": "triage"}, {"name": "audit"}]),
        quota_state=state,
        matters={"SEC-1": "digest"} if held else {},
        content_minimum=minimum,
    )
    found = desired(again, LATER, never)
    assert found.users == made.users
    assert found.bindings == made.bindings
    assert found.limits == made.limits
    assert found.access == made.access
    assert found.record.to_data() == made.record.to_data()
    assert found.revoke == ()


def test_two_computations_of_one_situation_are_equal() -> None:
    one = situation(tenant_spec(agents=TWO_AGENTS))
    assert desired(one, NOW, minting()) == desired(one, NOW, minting())


def test_the_order_of_the_agents_changes_no_user_and_no_binding() -> None:
    again, made = settled(tenant_spec(agents=TWO_AGENTS))
    turned = desired(replace(again, spec=tenant_spec(agents=TWO_AGENTS[::-1])), LATER, never)
    assert set(turned.users) == set(made.users)
    assert turned.bindings == made.bindings


# -- users -----------------------------------------------------------------------------------------


def test_each_agent_has_a_user_and_a_binding_of_its_own() -> None:
    made = desired(situation(tenant_spec(agents=TWO_AGENTS)), NOW, minting())
    assert [user.name for user in made.users] == [
        "mt.support.acme.triage.a",
        "mt.support.acme.audit.a",
    ]
    assert {name: one.username for name, one in made.bindings.items()} == {
        "triage": "mt.support.acme.triage.a",
        "audit": "mt.support.acme.audit.a",
    }
    assert made.bindings["triage"].password != made.bindings["audit"].password


def test_a_tenant_without_agents_has_one_named_default() -> None:
    made = desired(situation(), NOW, minting())
    assert list(made.bindings) == ["default"]
    assert made.record.agents == ("default",)


def test_under_minimal_all_agents_share_one_user() -> None:
    spec = tenant_spec(isolation="Minimal", agents=[{"name": "triage"}, {"name": "audit"}])
    made = desired(situation(spec), NOW, minting())
    assert [user.name for user in made.users] == ["mt.support.acme.shared.a"]
    assert set(made.record.principals) == {SHARED_PRINCIPAL}
    triage, audit = made.bindings["triage"], made.bindings["audit"]
    assert (triage.username, triage.password) == (audit.username, audit.password)
    assert (triage.agent, audit.agent) == ("triage", "audit")


def test_under_minimal_each_agent_signs_its_own_audit_events() -> None:
    spec = tenant_spec(isolation="Minimal", agents=[{"name": "triage"}, {"name": "audit"}])
    made = desired(situation(spec), NOW, minting())
    rings = [AgentKeyring.from_json(one.keyring) for one in made.bindings.values()]
    assert len({ring.audit_key.secret for ring in rings}) == 2


def test_a_read_only_agent_never_gets_a_command_that_changes_content() -> None:
    made = desired(situation(tenant_spec(agents=TWO_AGENTS)), NOW, minting())
    writer = rules_of(made, "mt.support.acme.triage.a")
    reader = rules_of(made, "mt.support.acme.audit.a")
    assert {"+set", "+del", "~mt:{support.acme}:r:*"} <= set(writer)
    assert not {"+set", "+del", "+hset", "~mt:{support.acme}:r:*"} & set(reader)
    assert "%R~mt:{support.acme}:r:*" in reader


def test_a_steward_is_to_the_server_what_a_writer_is() -> None:
    agents = [{"name": "a", "access": "Steward"}, {"name": "b", "access": "ReadWrite"}]
    made = desired(situation(tenant_spec(agents=agents)), NOW, minting())
    assert made.users[0].rules == made.users[1].rules


def test_a_user_is_known_by_the_hash_of_its_password_alone() -> None:
    made = desired(situation(), NOW, minting())
    (user,) = made.users
    digest = hashlib.sha256(made.bindings["default"].password.encode()).hexdigest()
    assert user.password_hashes == (digest,)


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({}, AccessMode.READ_WRITE),
        ({"quota_state": QuotaState(Pressure.WARNING)}, AccessMode.READ_WRITE),
        ({"quota_state": QuotaState(Pressure.OVER, ("memory",))}, AccessMode.OVER_QUOTA),
        ({"matters": {"SEC-1": "x"}}, AccessMode.HELD),
        ({"content_minimum": True}, AccessMode.HELD),
        (
            {"content_minimum": True, "quota_state": QuotaState(Pressure.OVER, ("memory",))},
            AccessMode.HELD_OVER_QUOTA,
        ),
        ({"quota_state": QuotaState(flooded=True)}, AccessMode.OFF),
    ],
)
def test_access_follows_quota_holds_and_floods(changes: dict[str, Any], mode: AccessMode) -> None:
    made = desired(situation(**changes), NOW, minting())
    assert made.state.mode is mode
    assert all(user.enabled is (mode is not AccessMode.OFF) for user in made.users)


def test_both_usernames_of_a_rotation_may_do_the_same() -> None:
    again, _ = settled()
    made = desired(replace(again, rotate_token="now"), LATER, lambda: "another password")
    assert [user.name for user in made.users] == [
        "mt.support.acme.default.a",
        "mt.support.acme.default.b",
    ]
    assert made.users[0].rules == made.users[1].rules
    assert made.users[0].password_hashes != made.users[1].password_hashes


# -- o:limits and o:access -------------------------------------------------------------------------


def test_agents_may_read_their_limits() -> None:
    quota = {"memory": "1Gi", "conversations": 7, "writesPerSecond": 9}
    made = desired(situation(tenant_spec(quota=quota)), NOW, minting())
    assert made.limits == {
        "format": "1",
        "memory": str(1 << 30),
        "conversations": "7",
        "writes_per_second": "9",
        "held": "0",
        "least_kek": "1",
        "replicas": "0",
        "audit": "0",
        "audit_reads": "0",
        "on_failure": "Closed",
    }


@pytest.mark.parametrize("changes", [{"matters": {"SEC-1": "x"}}, {"content_minimum": True}])
def test_the_limits_say_that_content_is_held(changes: dict[str, Any]) -> None:
    assert desired(situation(**changes), NOW, minting()).limits["held"] == "1"


def test_the_least_key_is_the_oldest_that_still_opens_something() -> None:
    opened = activate(add_version(KEYS, ROOT, now=NOW), ROOT)
    both, only_new = KeyAdvance(opened), KeyAdvance(destroy(opened, 1, ROOT))
    assert desired(situation(keys=both), NOW, minting()).limits["least_kek"] == "1"
    assert desired(situation(keys=only_new), NOW, minting()).limits["least_kek"] == "2"
    closed = replace(both, motion=KeyMotion(least=2))
    assert desired(situation(keys=closed), NOW, minting()).limits["least_kek"] == "2"


def test_the_access_hash_keeps_what_another_node_needs_to_render_the_same() -> None:
    state = QuotaState(Pressure.OVER, ("memory",), True, NOW)
    made = desired(
        situation(quota_state=state, matters={"B": "2", "A": "1"}, content_minimum=True),
        NOW,
        minting(),
    )
    assert made.access == {
        "agents": '{"default":"ReadWrite"}',
        "incarnation": "uid-1",
        "policy": "standard",
        "matters": '{"A":"1","B":"2"}',
        "minimum": "1",
        "retention": "{}",
        "pressure": "Over",
        "over": "memory",
        "flooded": "1",
        "quota_since": "2026-03-15T12:30:00Z",
    }
    assert QuotaState.from_fields(made.access) == state


# -- bindings --------------------------------------------------------------------------------------


def test_a_binding_can_be_read_and_says_what_was_declared() -> None:
    spec = tenant_spec(durability="Replicated", encryption={"mode": "Disabled"})
    made = desired(situation(spec), NOW, minting()).bindings["default"]
    found = Binding.from_mapping(made.to_secret_data())
    assert found == made
    assert (found.tenant, found.version, found.host, found.port) == (
        TENANT,
        1,
        "valkey.redis.svc",
        6379,
    )
    policy = found.policy
    assert [str(one) for one in (policy.isolation, policy.encryption, policy.durability)] == [
        "Moderate",
        "Disabled",
        "Replicated",
    ]
    assert policy.quota.memory == 256 << 20
    assert policy.agents == ("default",)


def test_a_binding_lists_every_agent_of_the_tenant() -> None:
    agents = [{"name": name, "access": "ReadWrite"} for name in ("triage", "answers")]
    made = desired(situation(tenant_spec(agents=agents)), NOW, minting()).bindings
    assert {one.policy.agents for one in made.values()} == {("answers", "triage")}


def test_a_binding_holds_the_keys_that_the_agent_works_with() -> None:
    made = desired(situation(), NOW, minting()).bindings["default"]
    ring = AgentKeyring.from_json(made.keyring)
    assert (ring.keks, ring.name_key, ring.token_key) == (KEYS.keks, KEYS.name_key, KEYS.token_key)


def test_every_credential_signs_audit_events_with_a_key_of_its_own() -> None:
    again, made = settled()
    again = replace(again, rotate_token="now")
    turned = desired(again, LATER, minting())
    before, after = made.bindings["default"], turned.bindings["default"]
    assert (before.version, after.version) == (1, 2)
    keys = {AgentKeyring.from_json(one.keyring).audit_key.secret for one in (before, after)}
    assert len(keys) == 2


# -- rotation on request ---------------------------------------------------------------------------


def test_a_new_token_rotates_once() -> None:
    again, _ = settled()
    asked = replace(again, rotate_token="2026-03")
    turned = desired(asked, LATER, minting())
    assert turned.advance.rotated == ("default",)
    assert turned.record.rotate_token == "2026-03"
    assert turned.bindings["default"].username == "mt.support.acme.default.b"
    shown: Mapping[str, str | None] = {"default": "b"}
    settled_again = desired(replace(asked, record=turned.record, shown=shown), LATER, never)
    assert settled_again.advance.rotated == ()


def test_a_token_on_a_new_tenant_is_honoured_by_its_first_credentials() -> None:
    made = desired(situation(rotate_token="now"), NOW, minting())
    assert made.record.rotate_token == "now"
    assert made.record.last_version == 1
    assert made.advance.rotated == ()


def test_a_token_that_is_taken_away_asks_for_nothing() -> None:
    again, _ = settled(rotate_token="now")
    made = desired(replace(again, rotate_token=""), LATER, never)
    assert made.record.rotate_token == "now"


def test_a_token_waits_for_a_rotation_that_is_under_way_and_is_honoured_where_that_ends() -> None:
    busy = Principal(
        "b",
        {"a": Credential("old", 1, NOW, retiring_since=NOW), "b": Credential("new", 2, NOW)},
    )
    before = record(principals={"default": busy}, last_version=2, rotate_token="first")
    asked = situation(record=before, rotate_token="second", shown={"default": "b"})
    waits = desired(asked, LATER, never)
    assert waits.record.rotate_token == "first"
    ends = desired(asked, NOW + timedelta(hours=24), minting())
    assert ends.revoke == ("mt.support.acme.default.a",)
    assert ends.record.rotate_token == "second"
    assert ends.advance.rotated == ("default",)
    assert ends.record.principals["default"].slots["a"].version == 3


# -- the record ------------------------------------------------------------------------------------


def test_the_first_record_is_of_this_tenant() -> None:
    made = desired(situation(), NOW, minting()).record
    assert (made.uid, made.incarnation, made.namespace_uid) == ("uid-1", "uid-1", "namespace-1")
    assert (made.store, made.phase, made.since) == ("shared", Phase.ACTIVE, NOW)
    assert made.quota_bytes == 256 << 20


def test_who_adopts_retained_memory_keeps_its_incarnation_and_its_versions() -> None:
    left = record(phase=Phase.RETAINED, principals={}, agents=(), last_version=7, since=NOW)
    again = situation(record=left, identity=Identity(TENANT, "uid-2", "namespace-1"))
    made = desired(again, LATER, minting()).record
    assert (made.uid, made.incarnation) == ("uid-2", "uid-1")
    assert (made.phase, made.since) == (Phase.ACTIVE, LATER)
    assert made.last_version == 8


def test_an_adopted_tenant_with_another_rotation_token_gets_one_credential_an_agent() -> None:
    left = record(phase=Phase.RETAINED, principals={}, agents=(), rotate_token="old")
    made = desired(situation(record=left, rotate_token="new"), LATER, minting())
    assert [user.name for user in made.users] == ["mt.support.acme.default.a"]
    assert made.record.rotate_token == "new"


def test_a_removed_agent_loses_user_and_binding_and_its_version_is_not_used_again() -> None:
    again, _ = settled(tenant_spec(agents=TWO_AGENTS))
    fewer = desired(replace(again, spec=tenant_spec(agents=TWO_AGENTS[:1])), LATER, never)
    assert fewer.revoke == ("mt.support.acme.audit.a",)
    assert list(fewer.bindings) == ["triage"]
    assert fewer.record.agents == ("triage",)
    back = replace(again, record=fewer.record)
    assert desired(back, LATER, minting()).bindings["audit"].version == 2


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True), st.integers(0, 9))
def test_the_last_version_is_never_under_any_that_is_in_use(agents: list[str], last: int) -> None:
    before = record(principals={"a": one_credential(version=last)}, last_version=last)
    spec = tenant_spec(agents=[{"name": name} for name in agents])
    made = desired(situation(spec, record=before), LATER, minting()).record
    versions = [c.version for p in made.principals.values() for c in p.slots.values()]
    assert made.last_version >= max([last, *versions])


# -- nothing secret in what is printed -------------------------------------------------------------


def test_no_secret_is_in_a_repr() -> None:
    again, made = settled()
    shown = repr(again) + repr(made)
    (user,) = made.users
    secrets = (
        made.bindings["default"].password,
        *user.password_hashes,
        *(kek.key.secret.hex() for kek in KEYS.keks),
        again.audit_root.secret.hex(),
    )
    assert not [secret for secret in secrets if secret in shown]
    for key in (*(kek.key for kek in KEYS.keks), KEYS.name_key, again.audit_root):
        assert repr(key.secret)[2:-1] not in shown
    assert "mt.support.acme.default.a" in shown


def test_situations_of_two_tenants_share_nothing() -> None:
    other = TenantId("sales", "acme")
    ours = desired(situation(), NOW, minting())
    theirs: Situation = situation(identity=Identity(other, "uid-9", "namespace-9"))
    users = {user.name for user in desired(theirs, NOW, minting()).users}
    assert not users & {user.name for user in ours.users}
