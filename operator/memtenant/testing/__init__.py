"""Fixtures for the tests of agents: ``pytest_plugins = ["memtenant.testing"]`` in conftest.py.

They run an embedded Valkey and make a tenant a test, with the users, quotas and keys that a cluster
has. Need ``pip install memtenant[dev]`` and pytest.
"""

from memtenant.testing.fixtures import (
    memtenant_binding,
    memtenant_spec,
    memtenant_state,
    memtenant_tenant,
)

__all__ = ["memtenant_binding", "memtenant_spec", "memtenant_state", "memtenant_tenant"]
