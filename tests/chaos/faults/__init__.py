"""Every kind of fault, one module a family."""

from tests.chaos.faults import api, links, people, processes, stores
from tests.chaos.faults.breakage import Breakage

__all__ = ["ALL", "Breakage"]

ALL: dict[str, Breakage] = {
    one.kind.name: one
    for family in (processes, stores, links, api, people)
    for one in family.FAMILY
}
"""By name."""
