"""Every kind of fault, one module a family."""

from tests.chaos.faults import (
    api,
    clusters,
    instances,
    links,
    people,
    processes,
    sentinels,
    standalone,
    stores,
)
from tests.chaos.faults.breakage import Breakage
from tests.chaos.world import DEDICATED

__all__ = ["ALL", "OF_SHAPE"]

_OF_EVERY_SHAPE = (*processes.FAMILY, *stores.FAMILY, *api.FAMILY, *people.FAMILY)

_OF_STANDALONE = (*_OF_EVERY_SHAPE, *standalone.FAMILY, *links.FAMILY)

OF_SHAPE: dict[str, tuple[Breakage, ...]] = {
    "standalone": _OF_STANDALONE,
    "sentinel": (*_OF_EVERY_SHAPE, *sentinels.FAMILY),
    "cluster": (*_OF_EVERY_SHAPE, *clusters.FAMILY),
    DEDICATED: (*_OF_STANDALONE, *instances.FAMILY),
}
"""What can be done to a platform whose store has this shape."""

ALL: dict[str, Breakage] = {one.kind.name: one for faults in OF_SHAPE.values() for one in faults}
"""By name."""
