"""What the operator may do with a tenant's keyring (`memtenant.crypto.keyring_record`).

The versions of the tenant's key-encryption key (KEK) wrap the data keys of subjects, which are in
Redis (`memtenant.crypto.datakey`). All functions here are pure. None makes a new key in place of a
lost one: that would turn an outage into a loss of data.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from memtenant.crypto.agent_keyring import (
    MAX_KEKS,
    AgentKeyring,
    Kek,
    WrappedParent,
    owners_kek,
)
from memtenant.crypto.keyring_record import KekState, KekVersion, Keyring, WrappedKey
from memtenant.crypto.primitives import (
    Random,
    SecretKey,
    WrongKey,
    commitment,
    derive,
    equal,
    new_key,
    unwrap,
    wrap,
)
from memtenant.errors import KeyInvalid, KeyUnavailable
from memtenant.tenancy.identity import AgentName, TenantId
from memtenant.tenancy.keys import owner_of

__all__ = [
    "OpenKeyring",
    "activate",
    "add_version",
    "agent_keyring",
    "destroy",
    "keyring_of",
    "new_keyring",
    "open_keyring",
    "recover",
]


@dataclass(frozen=True, slots=True)
class OpenKeyring:
    """A keyring and the keys in it; ``keks`` has the same versions in the same order."""

    keyring: Keyring
    keks: tuple[Kek, ...]
    name_key: SecretKey
    token_key: SecretKey

    @property
    def active(self) -> Kek:
        """The version that wraps new data keys."""
        version = self.keyring.active.version
        return next(kek for kek in self.keks if kek.version == version)

    def keks_of(self, alias: str) -> tuple[Kek, ...]:
        """The versions under which the data key with this alias may be."""
        return self._owned(owner_of(alias))

    def active_of(self, alias: str) -> Kek:
        """The version that wraps the data key with this alias now."""
        active = self.active.version
        return next(kek for kek in self.keks_of(alias) if kek.version == active)

    def _owned(self, owner: AgentName) -> tuple[Kek, ...]:
        if not self.keyring.per_agent:
            return self.keks
        return tuple(owners_kek(kek, self.keyring.tenant, owner) for kek in self.keks)


def new_keyring(
    tenant: TenantId,
    root: SecretKey,
    *,
    now: datetime,
    per_agent: bool = False,
    random: Random = secrets.token_bytes,
) -> OpenKeyring:
    """The keyring of a tenant that never had one: version 1 and fresh name and token keys."""
    first = Kek(1, new_key(random))
    name_key, token_key = new_key(random), new_key(random)
    version = KekVersion(1, KekState.ACTIVE, _whole_second(now), _UNWRAPPED)
    blank = Keyring(tenant, b"", 1, (version,), _UNWRAPPED, _UNWRAPPED, per_agent)
    return _wrapped(OpenKeyring(blank, (first,), name_key, token_key), root)


def open_keyring(keyring: Keyring, root: SecretKey) -> OpenKeyring:
    """Unwrap every key.

    Raises `KeyUnavailable` (reason ``KeyChanged``) when another root wrapped it: see `recover`.
    Raises `KeyInvalid` (reason ``KeyringDamaged``) when the root is right and the record was
    changed.
    """
    if not keyring.opens_with(root):
        raise KeyUnavailable(
            f"The root key of tenant {keyring.tenant} is not the one that wrapped its keyring: put "
            "the former key back, or keep a binding of the tenant in place so that its keys can be "
            "taken over under the new one",
            reason="KeyChanged",
        )
    if not keyring.is_sealed_by(root):
        raise _damaged(keyring.tenant)
    return OpenKeyring(
        keyring,
        tuple(
            Kek(kek.version, _unwrapped(keyring, root, _kek_role(kek.version), kek.key))
            for kek in keyring.keks
        ),
        _unwrapped(keyring, root, "name", keyring.name_key),
        _unwrapped(keyring, root, "token", keyring.token_key),
    )


def add_version(
    opened: OpenKeyring, root: SecretKey, *, now: datetime, random: Random = secrets.token_bytes
) -> OpenKeyring:
    """A new version, pending: it unwraps and nothing is wrapped with it before `activate`.

    All is wrapped under ``root``: with the same root this begins a rotation, with another one it
    answers a changed Secret. Name and token keys stay: a new name key would rename every key in
    Redis. Raises `KeyInvalid` (reason ``TooManyKeyVersions``) at 64 live versions.
    """
    keyring = opened.keyring
    if len(keyring.keks) >= MAX_KEKS:
        raise KeyInvalid(
            f"Tenant {keyring.tenant} has {MAX_KEKS} versions of its key that are still in use: "
            "let the rewrapping of its data keys finish before the next rotation",
            reason="TooManyKeyVersions",
        )
    minted = keyring.minted + 1
    pending = KekVersion(minted, KekState.RETIRING, _whole_second(now), _UNWRAPPED)
    grown = replace(keyring, minted=minted, keks=(*keyring.keks, pending))
    return _wrapped(
        replace(opened, keyring=grown, keks=(*opened.keks, Kek(minted, new_key(random)))), root
    )


def activate(opened: OpenKeyring, root: SecretKey) -> OpenKeyring:
    """The newest version wraps from now on, and all others retire."""
    keyring = opened.keyring
    newest = keyring.keks[-1].version
    turned = tuple(
        replace(kek, state=KekState.ACTIVE if kek.version == newest else KekState.RETIRING)
        for kek in keyring.keks
    )
    return _wrapped(replace(opened, keyring=replace(keyring, keks=turned)), root)


def destroy(opened: OpenKeyring, version: int, root: SecretKey) -> OpenKeyring:
    """The keyring without one version; unchanged where that is already gone.

    Whatever the version still wraps is unreadable from then on, so the caller has shown that
    nothing is left under it. Raises ``ValueError`` for the active version.
    """
    if version == opened.keyring.active.version:
        raise ValueError(f"version {version} of {opened.keyring.tenant}'s key is active")
    kept = replace(
        opened.keyring, keks=tuple(kek for kek in opened.keyring.keks if kek.version != version)
    )
    keks = tuple(kek for kek in opened.keks if kek.version != version)
    return _wrapped(replace(opened, keyring=kept, keks=keks), root)


def recover(
    keyring: Keyring, bindings: Iterable[AgentKeyring], escrow: SecretKey | None = None
) -> OpenKeyring:
    """The keys of a keyring whose root is gone, taken from the bindings that hold them.

    A user who replaces the bytes in a key Secret takes the old root away. The bindings have the
    keys themselves; each is taken only if it matches the commitment in the keyring. `add_version`
    then wraps them under the new root. Raises `KeyUnavailable` when one of them is nowhere to be
    found. ``escrow`` opens the parents of an agent's own keys (see `agent_keyring`). A pending
    version may have been recorded and not come into any binding: it is left out,
    for nothing was ever wrapped with it.
    """
    held = [binding for binding in bindings if binding.tenant == keyring.tenant]
    keks = [kek for binding in held for kek in (*binding.keks, *_parents(binding, escrow))]
    unseen = {
        kek.version
        for kek in keyring.pending
        if not any(equal(commitment(one.key), kek.key.key_id) for one in keks)
    }
    keyring = replace(keyring, keks=tuple(kek for kek in keyring.keks if kek.version not in unseen))
    return OpenKeyring(
        keyring,
        tuple(
            Kek(
                kek.version,
                _found(
                    keyring,
                    kek.key,
                    [one.key for one in keks if one.version == kek.version],
                    f"version {kek.version} of the tenant's key",
                ),
            )
            for kek in keyring.keks
        ),
        _found(keyring, keyring.name_key, [b.name_key for b in held], "the name key"),
        _found(keyring, keyring.token_key, [b.token_key for b in held], "the token key"),
    )


def agent_keyring(
    opened: OpenKeyring,
    agent: AgentName,
    audit_key: SecretKey,
    escrow: SecretKey | None = None,
) -> AgentKeyring:
    """What an agent's binding holds: all live versions, to read what any of them wraps.

    A ReadOnly agent's too: AES-KW is symmetric, its ACL stops its writes. Where each agent has its
    own, what they were derived from goes along under ``escrow``, which the operator alone has.
    """
    per_agent = opened.keyring.per_agent
    return AgentKeyring(
        tenant=opened.keyring.tenant,
        agent=agent,
        active=opened.active.version,
        keks=opened.keks_of(f"{agent}_"),
        shared=opened.keks_of("_") if per_agent else (),
        parents=_wrapped_parents(opened, escrow) if per_agent and escrow is not None else (),
        name_key=opened.name_key,
        token_key=opened.token_key,
        audit_key=audit_key,
    )


def keyring_of(binding: AgentKeyring, owner: AgentName, escrow: SecretKey) -> AgentKeyring:
    """The binding's keyring, with the keys of another agent of the tenant where each has its own:
    the operator erases what an agent keeps that is not declared any more."""
    if not binding.parents:
        return binding
    found = _parents(binding, escrow)
    return replace(binding, keks=tuple(owners_kek(kek, binding.tenant, owner) for kek in found))


def _parents(binding: AgentKeyring, escrow: SecretKey | None) -> list[Kek]:
    """What the keys of an agent of its own were derived from, as far as ``escrow`` opens it."""
    found: list[Kek] = []
    if escrow is None:
        return found
    for parent in binding.parents:
        key = _escrow_key(binding.tenant, escrow, parent)
        try:
            found.append(Kek(parent.version, unwrap(key, parent.wrapped)))
        except WrongKey:
            continue
    return found


def _wrapped_parents(opened: OpenKeyring, escrow: SecretKey) -> tuple[WrappedParent, ...]:
    tenant = opened.keyring.tenant
    return tuple(
        WrappedParent(kek.version, wrap(_escrow_key(tenant, escrow, kek), kek.key))
        for kek in opened.keks
    )


def _escrow_key(tenant: TenantId, escrow: SecretKey, of: Kek | WrappedParent) -> SecretKey:
    version = str(of.version).encode()
    return derive(escrow, "memtenant/1/keyring-escrow", str(tenant).encode(), version)


_UNWRAPPED = WrappedKey(b"", b"")


def _whole_second(now: datetime) -> datetime:
    return now.replace(microsecond=0)


def _kek_role(version: int) -> str:
    return f"kek/{version}"


def _wrapping_key(tenant: TenantId, root: SecretKey, role: str) -> SecretKey:
    return derive(root, "memtenant/1/keyring", str(tenant).encode(), role.encode())


def _wrapped(opened: OpenKeyring, root: SecretKey) -> OpenKeyring:
    """The same keys, all under ``root``."""
    tenant = opened.keyring.tenant

    def under_root(role: str, key: SecretKey) -> WrappedKey:
        return WrappedKey(commitment(key), wrap(_wrapping_key(tenant, root, role), key))

    keyring = replace(
        opened.keyring,
        root_id=commitment(root),
        keks=tuple(
            replace(version, key=under_root(_kek_role(kek.version), kek.key))
            for version, kek in zip(opened.keyring.keks, opened.keks, strict=True)
        ),
        name_key=under_root("name", opened.name_key),
        token_key=under_root("token", opened.token_key),
    )
    return replace(opened, keyring=keyring.sealed(root))


def _unwrapped(keyring: Keyring, root: SecretKey, role: str, key: WrappedKey) -> SecretKey:
    try:
        found = unwrap(_wrapping_key(keyring.tenant, root, role), key.wrapped)
    except WrongKey:
        raise _damaged(keyring.tenant) from None
    if not equal(commitment(found), key.key_id):
        raise _damaged(keyring.tenant)
    return found


def _damaged(tenant: TenantId) -> KeyInvalid:
    return KeyInvalid(
        f"The keyring of tenant {tenant} was changed by someone without its root key: restore its "
        "Secret in the home namespace from a backup. Nothing new is made in its place",
        reason="KeyringDamaged",
    )


def _found(
    keyring: Keyring, wanted: WrappedKey, candidates: Iterable[SecretKey], what: str
) -> SecretKey:
    for key in candidates:
        if equal(commitment(key), wanted.key_id):
            return key
    raise KeyUnavailable(
        f"The root key of tenant {keyring.tenant} has changed, and no binding of the tenant holds "
        f"{what}: put the former root key back. No new key is made in place of a lost one",
        reason="KeyChanged",
    )
