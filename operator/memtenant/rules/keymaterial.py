"""Which keys a tenant works with now: made once, opened ever after, never remade.

The root is the user's Secret, or derived from the installation's own root. A user who replaces
the bytes of the Secret takes the old root away; the keys are then taken from the bindings, which
hold them, and `memtenant.rules.keymotion` wraps them under the new root together with a new
version. A Secret that vanished changes nothing: agents go on with the bindings they have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from memtenant.crypto.agent_keyring import AgentKeyring
from memtenant.crypto.keyring import OpenKeyring, new_keyring, open_keyring, recover
from memtenant.crypto.keyring_record import Keyring
from memtenant.crypto.primitives import SecretKey, derive
from memtenant.errors import KeyUnavailable
from memtenant.tenancy.identity import TenantId

__all__ = ["KeyState", "Roots", "operator_made_root", "settle_keys"]


@dataclass(frozen=True, slots=True)
class Roots:
    """The roots at hand. ``declared`` is the one that the tenant should be under now: None while
    the Secret that its spec names is not there. ``operator_made`` may still open what was wrapped
    before the spec named a Secret. ``secret`` names the Secret in messages."""

    declared: SecretKey | None
    operator_made: SecretKey
    secret: str = ""


@dataclass(frozen=True, slots=True)
class KeyState:
    """The open keyring. ``root`` is the one that it should be under now, None while its Secret is
    not there; ``new``: it was made just now; ``replaced``: it is still under another root."""

    opened: OpenKeyring
    root: SecretKey | None
    new: bool = False
    replaced: bool = False


def operator_made_root(installation_root: SecretKey, incarnation: str) -> SecretKey:
    """The root of a tenant that brings none: destroying its keyring destroys its keys, because
    the KEKs in there are random."""
    return derive(installation_root, "memtenant/1/tenant-root", incarnation.encode())


def settle_keys(
    tenant: TenantId,
    stored: bytes,
    roots: Roots,
    bindings: Iterable[AgentKeyring],
    now: datetime,
    *,
    per_agent: bool = False,
) -> KeyState:
    """Open the tenant's keyring, or make the first.

    ``stored`` is the record's keyring, empty for a tenant that never had one; ``per_agent`` decides
    what the first is like. Raises
    `KeyUnavailable` where keys exist that nothing at hand opens, or where the Secret for the first
    keys is not there; `KeyInvalid` where the record was changed.
    """
    if not stored:
        if roots.declared is None:
            raise KeyUnavailable(
                f"{roots.secret} does not exist: create it with 32 random bytes, or remove "
                "spec.encryption.keySecretRef",
                reason="KeySecretMissing",
            )
        made = new_keyring(tenant, roots.declared, now=now, per_agent=per_agent)
        return KeyState(made, roots.declared, new=True)
    keyring = Keyring.from_json(stored, tenant)
    if roots.declared is not None and keyring.opens_with(roots.declared):
        return KeyState(open_keyring(keyring, roots.declared), roots.declared)
    if keyring.opens_with(roots.operator_made):
        former = open_keyring(keyring, roots.operator_made)
    else:
        former = recover(keyring, bindings, roots.operator_made)
    return KeyState(former, roots.declared, replaced=roots.declared is not None)
