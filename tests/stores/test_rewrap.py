"""A pass over a store's data keys: for all tenants at once, and whole after an interruption."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch

import pytest

from memtenant.clock import system_clock
from memtenant.crypto.datakey import kek_version, wrap_data_key
from memtenant.crypto.keyring import activate, add_version, new_keyring
from memtenant.crypto.primitives import new_key
from memtenant.errors import StoreUnavailable
from memtenant.jobs.link import LiveTenant, StoreLink
from memtenant.jobs.rewrap import rewrap
from memtenant.resources.port import ObjectKey
from memtenant.rules.keymotion import KeyStage, MovingKeys
from memtenant.rules.quota import Limits, QuotaState
from memtenant.stores import StoreAdmin
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId
from tests.stores.operators import ACME, GLOBEX, leading, settings_for
from tests.support.servers import Server

COUNT = 1_200


def turned(server: Server, tenant: TenantId, count: int = COUNT) -> MovingKeys:
    """The tenant's keys after a rotation, with its subjects' data keys under the version before."""
    root, now = new_key(), system_clock.now()
    before = new_keyring(tenant, root, now=now)
    opened = activate(add_version(before, root, now=now), root)
    with server.admin() as admin:
        pipeline = admin.pipeline(transaction=False)
        for number in range(count):
            alias = f"subject-{number}"
            wrapped = wrap_data_key(before.active, tenant, alias, new_key())
            pipeline.hset(keys.dek(tenant, alias), "dek", wrapped)
        pipeline.execute()
    return MovingKeys(opened, KeyStage(2, 1), now)


def versions(server: Server, tenant: TenantId) -> set[int]:
    with server.admin() as admin:
        names = list(admin.scan_iter(keys.dek(tenant, "*"), count=1000))
        return {kek_version(admin.hget(name, "dek") or b"") for name in names}


@asynccontextmanager
async def linked(server: Server, **moving: MovingKeys | None) -> AsyncIterator[StoreLink]:
    async with leading(server) as admin:
        key = ObjectKey.store("shared")
        where = settings_for(server).endpoint
        link = StoreLink("shared", "shared", key, "", admin, where, facts=admin.facts)
        for name, found in moving.items():
            tenant = ACME if name == "acme" else GLOBEX
            link.tenants[tenant] = LiveTenant((), Limits(1, 1), QuotaState(), keys=found)
        yield link


async def test_one_scan_wraps_the_data_keys_of_all_tenants_whose_key_turned(
    redis_server: Server,
) -> None:
    acme, globex = turned(redis_server, ACME), turned(redis_server, GLOBEX)
    async with linked(redis_server, acme=acme, globex=globex) as link:
        with redis_server.admin() as admin:
            admin.config_resetstat()
            found = await rewrap(link, system_clock)
            scans = admin.info("commandstats")["cmdstat_scan"]["calls"]
        assert (found.affected, found.rewrapped) == ((GLOBEX, ACME), 2 * COUNT)
        assert scans <= 2 * COUNT // 50 + 5
        assert (versions(redis_server, ACME), versions(redis_server, GLOBEX)) == ({2}, {2})
        scan = link.key_scans[ACME]
        assert (scan.total, scan.old, scan.remaining, scan.clean) == (COUNT, COUNT, 0, False)
        await rewrap(link, system_clock)
        assert link.key_scans[ACME].clean


async def test_who_does_not_wait_for_a_pass_is_left_alone(valkey: Server) -> None:
    acme, globex = turned(valkey, ACME, 5), turned(valkey, GLOBEX, 5)
    later = MovingKeys(acme.opened, acme.stage, acme.scan_from + timedelta(hours=1))
    async with linked(valkey, acme=later, globex=globex) as link:
        assert (await rewrap(link, system_clock)).affected == (GLOBEX,)
        link.tenants.pop(GLOBEX)
        with valkey.admin() as admin:
            admin.config_resetstat()
            assert (await rewrap(link, system_clock)).affected == ()
            assert "cmdstat_scan" not in admin.info("commandstats"), "nothing to look for"
    assert versions(valkey, ACME) == {1}


async def test_a_pass_that_was_cut_off_goes_on_and_forgets_nothing(valkey: Server) -> None:
    acme = turned(valkey, ACME)
    replaced = 0
    whole = StoreAdmin.replace_data_keys

    async def cut_off(self: StoreAdmin, changes: object) -> object:
        nonlocal replaced
        replaced += bool(changes)
        if changes and replaced % 3 == 0:
            raise StoreUnavailable("the connection is lost")
        return await whole(self, changes)  # type: ignore[arg-type]

    async with linked(valkey, acme=acme) as link:
        with patch.object(StoreAdmin, "replace_data_keys", cut_off):
            for _ in range(100):
                try:
                    await rewrap(link, system_clock)
                    break
                except StoreUnavailable:
                    assert link.key_pass is not None
        assert versions(valkey, ACME) == {2}
        scan = link.key_scans[ACME]
        assert (scan.rewrapped, scan.clean) == (COUNT, False)
        await rewrap(link, system_clock)
        assert link.key_scans[ACME].clean


async def test_a_pass_of_a_server_that_was_replaced_begins_anew(valkey: Server) -> None:
    acme = turned(valkey, ACME, 3)
    async with linked(valkey, acme=acme) as link:
        with (
            patch.object(StoreAdmin, "replace_data_keys", side_effect=StoreUnavailable("away")),
            pytest.raises(StoreUnavailable),
        ):
            await rewrap(link, system_clock)
        assert link.key_pass is not None
        link.key_pass.run_id = "another process"
        link.key_pass.position.done = True
        await rewrap(link, system_clock)
        assert versions(valkey, ACME) == {2}


async def test_a_pass_in_which_a_tenant_was_refused_shows_nothing_of_it(valkey: Server) -> None:
    acme = turned(valkey, ACME)
    whole = StoreAdmin.replace_data_keys
    parts = 0
    async with linked(valkey, acme=acme) as link:
        live = link.tenants[ACME]

        async def refused(self: StoreAdmin, changes: object) -> object:
            nonlocal parts
            parts += 1
            link.tenants[ACME] = replace(live, keys=None) if parts % 2 else live
            return await whole(self, changes)  # type: ignore[arg-type]

        with patch.object(StoreAdmin, "replace_data_keys", refused):
            await rewrap(link, system_clock)
        assert ACME not in link.key_scans
        link.tenants[ACME] = live
        await rewrap(link, system_clock)
        assert versions(valkey, ACME) == {2}
        assert not link.key_scans[ACME].clean


async def test_the_same_damage_is_told_once(valkey: Server) -> None:
    acme = turned(valkey, ACME, 3)
    with valkey.admin() as admin:
        admin.hset(keys.dek(ACME, "subject-1"), "dek", b"x" * 44)
    async with linked(valkey, acme=acme) as link:
        told = [(await rewrap(link, system_clock)).affected for _ in range(4)]
    assert told == [(ACME,), (ACME,), (), ()]
    assert (link.key_scans[ACME].unreadable, link.key_scans[ACME].examples) == (1, ("subject-1",))


async def test_what_was_found_before_a_failover_says_nothing_of_the_new_primary(
    valkey: Server,
) -> None:
    async with linked(valkey, acme=turned(valkey, ACME, 3)) as link:
        await rewrap(link, system_clock)
        await rewrap(link, system_clock)
        clean = link.key_scan(ACME)
        assert clean is not None
        assert clean.clean
        assert link.facts is not None
        link.facts = replace(link.facts, primary=replace(link.facts.primary, run_id="promoted"))
        assert link.key_scan(ACME) is None
        assert (await rewrap(link, system_clock)).affected == (ACME,)
        assert link.key_scan(ACME) is not None
