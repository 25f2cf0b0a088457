"""What the sealer's and the reporter's users can do on a store: heard from the server, with every
command that it lists. Only NOPERM counts as a denial.
"""

import hashlib
import re
from itertools import product

import pytest
import redis

from memtenant.rules.systemusers import SystemRole, render_system_user
from memtenant.tenancy import keys
from tests.stores.operators import ACME, GLOBEX, PASSWORD, leading
from tests.stores.test_isolation import answer, described, dump, plant, raw
from tests.support.servers import Server

_REFUSALS = re.compile(
    "(?i)no permission|unknown subcommand|number of arguments|MODULE command not allowed"
)
OTHERS = "somebody-elses"
TENANTS = (ACME, GLOBEX)
QUEUES = (*(keys.audit_queue(tenant) for tenant in TENANTS), keys.INSTALLATION_QUEUE)
REPORTS = (*(keys.sealer_report(tenant) for tenant in TENANTS), keys.STORE_SEALER)
OPERATORS = (keys.STORE_AUDITED, keys.STORE_OWNER, keys.STORE_EPOCH)

SEALER = {
    *product(("llen", "lrange", "ltrim"), QUEUES),
    ("hgetall", keys.STORE_AUDITED),
    *product(("hget", "hmget", "hset", "watch"), [keys.limits(tenant) for tenant in TENANTS]),
    *(("hget", keys.usage(tenant)) for tenant in TENANTS),
    *product(("hget", "hgetall", "hset"), REPORTS),
}
_READS = """
exists get getrange hget hgetall hlen hmget hscan lindex llen lrange memory|usage smembers sscan
strlen type xrange zcard zrange zscan zscore
"""
READS = frozenset(_READS.split())
# No rule can deny the first four.
ALWAYS = {"auth", "hello", "quit", "reset", "acl|whoami", "info", "ping", "time"}
ALWAYS |= {"client|setinfo", "client|setname"}
KEYLESS = {
    SystemRole.SEALER: ALWAYS | {"discard", "exec", "multi", "unwatch"},
    SystemRole.REPORTER: ALWAYS
    | {"acl|cat", "acl|getuser", "acl|list", "acl|users", "command|list"}
    | {"cluster|info", "cluster|nodes", "dbsize", "role", "scan"},
}


def plant_all(admin: "redis.Redis") -> list[str]:
    names = [*plant(admin, ACME), *plant(admin, GLOBEX)]
    admin.rpush(keys.INSTALLATION_QUEUE, "event")
    for name in (*REPORTS, keys.STORE_AUDITED):
        admin.hset(name, "field", "value")
    admin.set(OTHERS, "text")
    return sorted({*names, keys.INSTALLATION_QUEUE, *REPORTS, *OPERATORS, OTHERS})


def refuses(reply: object) -> bool:
    """Whether the rules deny it, or the server denies it to everybody."""
    return isinstance(reply, redis.exceptions.NoPermissionError) or (
        isinstance(reply, redis.exceptions.RedisError) and _REFUSALS.search(str(reply)) is not None
    )


@pytest.mark.parametrize("role", SystemRole)
async def test_a_system_user_can_do_its_own_part_and_nothing_else(
    redis_server: Server, role: SystemRole
) -> None:
    async with leading(redis_server) as store:
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        user = render_system_user(role, password_hashes=(digest,), commands=store.facts.commands)
        await store.users.set([user])
        assert not any((await store.users.differing([user])).require_all().values())
    with redis_server.admin() as admin:
        targets = plant_all(admin)
        before = dump(admin)
    allowed, keyless = set(), set()
    for command in (await described(redis_server)).values():
        for form in command.forms:
            with raw(redis_server, user.name) as connection:
                for target in targets if form.places else [""]:
                    reply = answer(connection, form.call((target,) * form.places))
                    if refuses(reply):
                        continue
                    (allowed if target else keyless).add((command.name, target))
    assert {name for name, _ in keyless} <= KEYLESS[role]
    if role is SystemRole.SEALER:
        assert allowed == SEALER
        return
    assert allowed == {
        *product(READS, [target for target in targets if target != OTHERS]),
        ("rpush", keys.INSTALLATION_QUEUE),
    }
    with redis_server.admin() as admin:
        assert dump(admin) == before
