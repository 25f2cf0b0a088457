"""Where a store's keys are: on one primary, or on the primaries of a Cluster.

What works on keys takes a `Keyspace`. One node is its own; `memtenant.stores.cluster` has the
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from memtenant.stores.connection import Address, Argument, Command, NodeClient, Reply

__all__ = ["Keyspace", "Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """Those of several commands, by their places, that one node runs in one transaction."""

    node: NodeClient
    places: tuple[int, ...]


class Keyspace(Protocol):
    """Commands to wherever their keys are. ``address`` is for messages."""

    @property
    def address(self) -> Address:
        """Of one of the nodes."""

    @property
    def shards(self) -> tuple[NodeClient, ...]:
        """The nodes that hold keys, each other ones."""

    async def run(self, commands: Iterable[Command], *, wait: float | None = None) -> list[Reply]:
        """Pipeline the commands; a command's own error is its reply (a `ResponseError`)."""

    async def call(self, *command: Argument, wait: float | None = None) -> Reply:
        """One command; its error is raised as `StoreRefused` or `StoreUnavailable`."""

    def parts(self, commands: Sequence[Command]) -> list[Part]:
        """The commands by where their keys are, and what may be in one transaction there."""

    async def steady(self) -> str:
        """Changes when keys may have moved from one node to another. Raises `StoreUnavailable`
        (``SlotsMoving``) while they do: a pass could miss some."""
