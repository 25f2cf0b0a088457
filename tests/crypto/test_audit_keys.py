"""Audit keys: one for each agent and binding, from a root that opens nothing else."""

from __future__ import annotations

from memtenant.crypto.audit_keys import INSTALLATION_LOG, audit_mac_key, audit_root
from memtenant.crypto.primitives import SecretKey, new_key
from memtenant.rules.keymaterial import operator_made_root

TENANT = "support.acme"


def test_the_audit_key_is_of_one_agent_and_one_binding_version() -> None:
    root = new_key()
    keys = [
        audit_mac_key(root, TENANT, "triage", 1),
        audit_mac_key(root, TENANT, "triage", 2),
        audit_mac_key(root, TENANT, "billing", 1),
        audit_mac_key(root, "sales.acme", "triage", 1),
        audit_mac_key(root, INSTALLATION_LOG, "triage", 1),
        audit_mac_key(new_key(), TENANT, "triage", 1),
    ]
    assert len({key.secret for key in keys}) == len(keys)
    assert audit_mac_key(root, TENANT, "triage", 1) == keys[0]


def test_who_holds_the_audit_root_has_no_tenants_root() -> None:
    installation = SecretKey(bytes(range(32)))
    root = audit_root(installation)
    assert root not in (installation, operator_made_root(installation, "uid"))
    assert operator_made_root(root, "uid") != operator_made_root(installation, "uid")
