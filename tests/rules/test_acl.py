"""ACL rules as text: what each state renders, and how drift is recognised. No server needed."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.rules.acl import (
    AccessMode,
    AccessState,
    AclUser,
    AgentAccess,
    UserName,
    names_user,
    parse_user,
    render_user,
    setuser_args,
    template_digest,
)
from memtenant.rules.acl_drift import differences
from memtenant.tenancy.identity import TenantId, agent_user

ACME = TenantId("support", "acme")
OWN = "mt:{support.acme}:"
HASH = "ab" * 32
UNRESTRICTED = AccessState()
# What the rules name and a little more; servers know some 400 commands.
_NAMES = """
acl|whoami append client|setinfo client|setname del discard echo eval exec exists expire
expireat expiretime fcall fcall_ro get getdel getrange hdel hexists hget hgetall hincrby
hkeys hlen hmget hscan hset hsetnx hstrlen hvals incrby keys lindex llen lpop lpos lpush
lrange lrem lset ltrim mget multi persist pexpire pexpireat pexpiretime ping pttl rpop
rpush scan select set setnx strlen time ttl type unlink unwatch wait watch zadd zcard
zcount zincrby zmscore zrange zrangebyscore zrank zrem zremrangebyrank zremrangebyscore
zrevrange zscan zscore
"""
COMMANDS = frozenset(_NAMES.split())

labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
tenants = st.builds(TenantId, labels, labels)
states = st.builds(AccessState, st.booleans(), st.booleans(), st.booleans())
accesses = st.sampled_from(AgentAccess)


def user(
    access: AgentAccess = AgentAccess.READ_WRITE,
    *,
    tenant: TenantId = ACME,
    commands: frozenset[str] = COMMANDS,
    state: AccessState = UNRESTRICTED,
) -> AclUser:
    return render_user(
        tenant,
        "triage",
        "a",
        access=access,
        state=state,
        password_hashes=(HASH,),
        commands=commands,
    )


def allows(rendered: AclUser, command: str, key: str) -> bool:
    """Whether some selector of the rules names both; patterns are prefixes or whole here."""
    root = " ".join(rule for rule in rendered.rules if not rule.startswith("("))
    selectors = [rule.strip("()") for rule in rendered.rules if rule.startswith("(")]
    for part in (root, *selectors):
        words = part.split()
        patterns = [word.partition("~")[2] for word in words if "~" in word]
        named = any(_matches(pattern, key) for pattern in patterns)
        if f"+{command}" in words and named:
            return True
    return False


def _matches(pattern: str, key: str) -> bool:
    head, star, tail = pattern.partition("*")
    return key.startswith(head) and key.endswith(tail) if star else key == pattern


@pytest.mark.parametrize(
    ("state", "mode"),
    [
        ({}, AccessMode.READ_WRITE),
        ({"over_quota": True}, AccessMode.OVER_QUOTA),
        ({"held": True}, AccessMode.HELD),
        ({"over_quota": True, "held": True}, AccessMode.HELD_OVER_QUOTA),
        ({"off": True}, AccessMode.OFF),
        ({"over_quota": True, "held": True, "off": True}, AccessMode.OFF),
    ],
)
def test_each_state_has_one_name(state: dict[str, bool], mode: AccessMode) -> None:
    assert AccessState(**state).mode is mode


LIST, HEAD, QUEUE = f"{OWN}r:s:c:l", f"{OWN}r:s:c:h", f"{OWN}q"


@pytest.mark.parametrize(
    ("state", "allowed", "refused"),
    [
        (
            {},
            [("rpush", LIST), ("lset", LIST), ("del", LIST), ("hsetnx", f"{OWN}k:x")],
            [("del", QUEUE), ("lrange", QUEUE), ("del", f"{OWN}k:x"), ("lset", f"{OWN}i:x")],
        ),
        (
            {"over_quota": True},
            [("lrange", LIST), ("del", LIST), ("ltrim", LIST), ("hset", HEAD), ("rpush", QUEUE)],
            [("rpush", LIST), ("lset", LIST), ("hsetnx", f"{OWN}k:x"), ("rpush", f"{OWN}i:x")],
        ),
        (
            {"held": True},
            [("lrange", LIST), ("rpush", LIST), ("hset", HEAD), ("hsetnx", f"{OWN}k:x")],
            [("lset", LIST), ("lpop", LIST), ("expire", LIST), ("del", LIST), ("rpush", HEAD)],
        ),
        (
            {"over_quota": True, "held": True},
            [("lrange", LIST), ("hget", f"{OWN}k:x"), ("rpush", QUEUE)],
            [("rpush", LIST), ("del", LIST), ("hset", HEAD), ("hsetnx", f"{OWN}k:x")],
        ),
        ({"off": True}, [], [("get", LIST), ("rpush", QUEUE), ("fcall", LIST)]),
    ],
)
def test_each_state_allows_what_it_is_named_after(
    state: dict[str, bool], allowed: list[tuple[str, str]], refused: list[tuple[str, str]]
) -> None:
    rendered = user(state=AccessState(**state))
    assert [pair for pair in allowed if not allows(rendered, *pair)] == []
    assert [pair for pair in refused if allows(rendered, *pair)] == []


def test_a_reader_is_the_same_in_every_state_but_off() -> None:
    readers = {
        user(AgentAccess.READ_ONLY, state=AccessState(over, held)).rules
        for over in (False, True)
        for held in (False, True)
    }
    assert readers == {user(state=AccessState(over_quota=True, held=True)).rules}


def test_a_steward_has_the_rules_of_a_writer() -> None:
    assert user(AgentAccess.STEWARD).rules == user(AgentAccess.READ_WRITE).rules


@given(tenants, accesses, states)
def test_limits_are_readable_and_nothing_else_of_the_operators_is_named(
    tenant: TenantId, access: AgentAccess, state: AccessState
) -> None:
    rendered = render_user(
        tenant, "triage", "a", access=access, state=state, password_hashes=(), commands=COMMANDS
    )
    own = f"mt:{{{tenant}}}:"
    readable = {c for c in COMMANDS if allows(rendered, c, f"{own}o:limits")}
    private = {c for c in COMMANDS if allows(rendered, c, f"{own}o:access")}
    calls = set() if state.off else {"fcall", "fcall_ro"}
    assert readable == calls | (set() if state.off else {"hget", "hmget"})
    assert private == calls


@given(tenants, tenants, accesses, states)
def test_no_pattern_matches_a_neighbours_key(
    tenant: TenantId, other: TenantId, access: AgentAccess, state: AccessState
) -> None:
    rendered = render_user(
        tenant, "triage", "a", access=access, state=state, password_hashes=(), commands=COMMANDS
    )
    if tenant != other:
        for part in ("r:s:c:l", "r:s:c:h", "x", "u", "q", "k:x", "i:x", "o:limits", "o:access"):
            assert not any(allows(rendered, c, f"mt:{{{other}}}:{part}") for c in COMMANDS)


@given(accesses, states)
def test_no_rule_names_a_category_all_commands_or_a_channel(
    access: AgentAccess, state: AccessState
) -> None:
    rendered = render_user(
        ACME, "triage", "a", access=access, state=state, password_hashes=(), commands=COMMANDS
    )
    words = " ".join(rendered.rules).replace("(", " ").replace(")", " ").split()
    assert words[0] == "-@all"
    assert not any(word.startswith(("+@", "&", "allkeys", "allcommands")) for word in words)
    forbidden = {"scan", "keys", "eval", "evalsha", "copy", "move", "select", "function|load"}
    assert not {word[1:] for word in words if word.startswith("+")} & forbidden


def test_a_command_that_the_server_lacks_is_left_out() -> None:
    assert "+client|setinfo" in user().rules
    assert "+client|setinfo" not in user(commands=COMMANDS - {"client|setinfo"}).rules


def test_setuser_starts_from_nothing() -> None:
    rendered = user()
    assert setuser_args(rendered)[:5] == (rendered.name, "reset", "on", f"#{HASH}", "-@all")
    assert setuser_args(user(state=AccessState(off=True)))[2] == "off"


def test_a_password_hash_is_checked_and_never_shown() -> None:
    assert HASH not in repr(user())
    with pytest.raises(ValueError, match="is not SHA-256 hex") as error:
        render_user(
            ACME,
            "triage",
            "a",
            access=AgentAccess.READ_ONLY,
            state=AccessState(),
            password_hashes=("plain-password",),
            commands=COMMANDS,
        )
    assert "plain-password" not in str(error.value)


def test_the_template_digest_changes_with_the_rules_and_not_with_the_tenant() -> None:
    assert template_digest(COMMANDS) == template_digest(COMMANDS | {"another"})
    assert template_digest(COMMANDS) != template_digest(COMMANDS - {"client|setinfo"})


@given(labels, labels, labels, st.sampled_from(["a", "b"]))
def test_a_username_reads_back(namespace: str, name: str, agent: str, slot: str) -> None:
    tenant = TenantId(namespace, name)
    assert parse_user(agent_user(tenant, agent, slot)) == UserName(tenant, agent, slot)
    assert names_user(agent_user(tenant, agent, slot))


@given(st.text(max_size=40) | labels.map(lambda label: f"mt.{label}"))
def test_other_usernames_are_nobodys(name: str) -> None:
    found = parse_user(name)
    assert found is None or str(found) == name
    assert names_user(name) is (found is not None)


@given(*(st.from_regex(r"[-a-z0-9]{0,70}", fullmatch=True) for _ in range(3)))
def test_a_look_at_all_names_takes_the_same_for_tenants_users(
    namespace: str, name: str, agent: str
) -> None:
    text = f"mt.{namespace}.{name}.{agent}.a"
    assert names_user(text) is (parse_user(text) is not None)


@pytest.mark.parametrize(
    "name",
    ["default", "mt.a.b.c", "mt.a.b.c.c", "mt.a.b.c.a.b", "MT.a.b.c.a", "mt.A.b.c.a", "mt.a..c.a"],
)
def test_near_misses_are_nobodys(name: str) -> None:
    assert parse_user(name) is None
    assert not names_user(name)


# GETUSER's forms, as Redis 7.0, Redis 8.2 and Valkey 9.1 gave them.
SMALL = dataclasses.replace(user(), rules=("-@all", "~a:*", "+get", "+set", "(+rpush %W~q)"))
REDIS_RESP2 = [
    *(b"flags", [b"on", b"sanitize-payload"], b"passwords", [HASH.encode()]),
    *(b"commands", b"-@all +set +get", b"keys", b"~a:*", b"channels", b""),
    *(b"selectors", [[b"commands", b"-@all +rpush", b"keys", b"%W~q", b"channels", b""]]),
]
VALKEY_RESP3 = {
    b"flags": {b"on"},
    b"passwords": [HASH.encode()],
    b"commands": b"-@all +get +set",
    b"keys": b"%RW~a:*",
    b"channels": b"",
    b"databases": b"alldbs",
    b"selectors": [
        {
            b"commands": b"-@all +rpush",
            b"keys": b"%W~q",
            b"channels": b"",
            b"databases": b"alldbs",
        }
    ],
}


@pytest.mark.parametrize("reply", [REDIS_RESP2, VALKEY_RESP3])
def test_every_servers_form_of_the_same_user_is_no_difference(reply: object) -> None:
    assert differences(SMALL, reply) == ()  # type: ignore[arg-type]


def test_redis_7_0_describes_rules_by_categories() -> None:
    reply = [
        *(b"flags", [b"on"], b"passwords", [HASH.encode()]),
        *(b"commands", b"-@all +@string -append -client -incr", b"keys", b"~a:*"),
        *(b"channels", b"", b"selectors", REDIS_RESP2[-1]),
    ]
    string = frozenset({"get", "set", "append", "incr", "client|id"})
    assert differences(SMALL, reply, {"string": string}) == ()
    assert differences(SMALL, reply) != ()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({b"flags": [b"off"]}, "user is off"),
        ({b"flags": [b"on", b"nopass"]}, "no password"),
        ({b"flags": [b"on", b"skip-sanitize-payload"]}, "RESTORE"),
        ({b"passwords": []}, "1 password(s) missing"),
        ({b"passwords": [HASH.encode(), b"cd" * 32]}, "did not set"),
        ({b"commands": b"-@all +get +set +scan"}, "+scan"),
        ({b"commands": b"+@all"}, "+@all"),
        ({b"commands": b"-@all +get"}, "+set"),
        ({b"keys": b"~a:* ~b:*"}, "~b:*"),
        ({b"keys": b"%R~a:*"}, "%R~a:*"),
        ({b"channels": b"&*"}, "&*"),
        ({b"databases": b"0"}, "root"),
        ({b"selectors": []}, "selector missing"),
        (
            {
                b"selectors": [
                    *VALKEY_RESP3[b"selectors"],
                    {b"commands": b"+@all", b"keys": b"~*", b"channels": b""},
                ]
            },
            "selector not wanted",
        ),
    ],
)
def test_each_kind_of_drift_is_named(change: dict[bytes, object], word: str) -> None:
    found = differences(SMALL, {**VALKEY_RESP3, **change})  # type: ignore[dict-item]
    assert any(word in text for text in found), found
    assert not any(HASH in text or "cdcd" in text for text in found)


def test_a_missing_user_is_a_difference() -> None:
    assert differences(SMALL, None) == ("user is missing",)


def reply_for(rendered: AclUser) -> list[object]:
    """What a server that has the user exactly so answers in RESP2."""
    root = [rule for rule in rendered.rules if not rule.startswith("(")]
    selectors = [rule.strip("()").split() for rule in rendered.rules if rule.startswith("(")]

    def told(rules: list[str]) -> list[object]:
        commands = [rule for rule in rules if rule[0] in "+-"]
        patterns = [rule for rule in rules if rule[0] in "~%"]
        found = {"commands": commands, "keys": patterns, "channels": []}
        return [one for name, words in found.items() for one in (name.encode(), _spaced(words))]

    return [
        *(b"flags", [b"on" if rendered.enabled else b"off"], b"passwords", [HASH.encode()]),
        *told(root),
        *(b"selectors", [told(["-@all", *rules]) for rules in selectors]),
    ]


def _spaced(words: list[str]) -> bytes:
    return " ".join(words).encode()


@given(tenants, tenants, accesses, states, st.data())
def test_what_was_compared_for_one_tenant_hides_no_drift_of_another(
    tenant: TenantId, other: TenantId, access: AgentAccess, state: AccessState, data: st.DataObject
) -> None:
    for one in (tenant, other):
        wanted = user(access, tenant=one, state=state)
        assert differences(wanted, reply_for(wanted)) == ()
    wanted, theirs = (user(access, tenant=one, state=state) for one in (tenant, other))
    if tenant != other and not state.off:
        assert differences(wanted, reply_for(theirs)) != ()
    rules = list(wanted.rules)
    at = data.draw(st.integers(min_value=0, max_value=len(rules) - 1))
    drifted = [*rules[:at], *data.draw(st.sampled_from(_DRIFTS)), *rules[at + 1 :]]
    reply = reply_for(dataclasses.replace(wanted, rules=tuple(drifted)))
    assert (differences(wanted, reply) == ()) is (_plain(drifted) == _plain(rules))


_DRIFTS = (
    (),
    ("~*",),
    ("+eval",),
    ("~mt:{support.acme}:*",),
    ("~mt:{\0}:*",),
    ("(+get ~\x1d)",),
    ("~\x1e",),
)


def _plain(rules: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """What is permitted: the order is nothing, and to begin with nothing is the server's habit."""
    return (
        frozenset(one for one in rules if not one.startswith("(") and one != "-@all"),
        frozenset(one for one in rules if one.startswith("(")),
    )
