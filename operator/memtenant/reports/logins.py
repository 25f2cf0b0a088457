"""The stores as the reporter's own user reaches them, from the Secret that the operator wrote."""

from __future__ import annotations

from collections.abc import Iterable

from memtenant.reports.evidence import Missing
from memtenant.reports.sources import StoreLogin
from memtenant.resources.port import Declared
from memtenant.rules.instance import ADMIN_USER
from memtenant.rules.systemusers import SystemRole
from memtenant.stores.connection import Address, StoreSettings, StoreTls
from memtenant.tenancy.storesfile import CLUSTER, StoreAccess, StoresFile

__all__ = ["logins"]


def logins(stores: StoresFile, declared: Iterable[Declared]) -> list[StoreLogin]:
    """One for each declared store, and for each tenant's own instance; of a store that the file
    does not name, that it is missing."""
    system = frozenset(role.user for role in SystemRole)
    found = []
    names = set()
    for one in declared:
        name = one.key.name
        names.add(name)
        if "dedicated" in one.spec:
            continue  # a template: each of its tenants has an instance of its own
        access = stores.get(name)
        settings: StoreSettings | Missing = (
            Missing(f"store {name}", "the operator has not made a user of the reporter there yet")
            if access is None
            else _settings(access)
        )
        administrator = str(one.spec.get("adminUsername") or "default")
        found.append(StoreLogin(name, settings, system | {administrator}))
    found += [
        StoreLogin(access.name, _settings(access), system | {ADMIN_USER})
        for access in stores
        if access.name not in names
    ]
    return found


def _settings(access: StoreAccess) -> StoreSettings:
    endpoint = access.endpoints[0]
    tls = (
        StoreTls(
            ca=access.ca_crt or None,
            client_certificate=access.client_crt or None,
            client_key=access.client_key or None,
        )
        if access.tls
        else None
    )
    return StoreSettings(
        endpoint=Address(endpoint.host, endpoint.port),
        username=access.username,
        password=lambda: access.password,
        tls=tls,
        server_name=access.server_name or None,
        cluster=tuple(Address(one.host, one.port) for one in access.endpoints)
        if access.flavour == CLUSTER
        else (),
    )
