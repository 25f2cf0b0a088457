"""The tiers of the test suite: what a test needs decides when it runs."""

import enum
import os
from collections.abc import Iterable
from typing import NoReturn

import pytest


class Tier(enum.Enum):
    """From the cheapest to the dearest; a test belongs to the dearest that it needs."""

    UNIT = "unit"
    REDIS = "redis"
    CLUSTER = "cluster"
    E2E = "e2e"

    @property
    def needs_control_plane(self) -> bool:
        """Whether it runs where the control plane is built."""
        return self in (Tier.CLUSTER, Tier.E2E)


_MEANING = {
    Tier.UNIT: "needs nothing but Python",
    Tier.REDIS: "needs a real Redis or Valkey server",
    Tier.CLUSTER: "needs the Kubernetes API server (`make control-plane`)",
    Tier.E2E: "needs the Kubernetes API server, and operators as processes of their own",
}

_FIXTURES = {
    Tier.E2E: {"scene", "fragile_scene", "stage"},
    Tier.CLUSTER: {"cluster"},  # `namespace` and `kubelet` ask for it
    Tier.REDIS: {
        "redis_clusters",
        "redis_sentinels",
        "session_replicas",
        "session_servers",
        "start_server",
    },
}


def register_markers(config: pytest.Config) -> None:
    """Make each tier a marker, so that `pytest -m redis` selects it."""
    for tier, meaning in _MEANING.items():
        config.addinivalue_line("markers", f"{tier.value}: {meaning}")


def mark(items: Iterable[pytest.Item]) -> None:
    """Give every test the marker of its tier: its own mark, else by the fixtures it asks for."""
    for item in items:
        item.add_marker(tier_of(item).value)


def tier_of(item: pytest.Item) -> Tier:
    """The dearest tier among a test's own marks and the fixtures that it uses."""
    fixtures = set(getattr(item, "fixturenames", ()))
    for tier in (Tier.E2E, Tier.CLUSTER, Tier.REDIS):
        if item.get_closest_marker(tier.value) or fixtures & _FIXTURES[tier]:
            return tier
    return Tier.UNIT


def everything_required() -> bool:
    """Whether a tier that cannot run is a failure (CI) and not a skip."""
    return os.environ.get("MEMTENANT_REQUIRE") == "all"


def cannot_run(missing: str) -> NoReturn:
    """Skip the test with one line that says what is missing; a failure where all is required."""
    if everything_required():
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
