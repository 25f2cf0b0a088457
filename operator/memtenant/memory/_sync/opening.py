# Generated from _async/opening.py by `make generate`: change it there.
"""Opening a connection to the server that has a tenant's keys, wherever it is now."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from memtenant.memory._sync.link import Link
from memtenant.memory.options import Options
from memtenant.memory.topology import (
    MOST_MOVES,
    Endpoint,
    Way,
    asking_for_primary,
    asking_for_slot,
    moved_to,
    primary_from,
)
from memtenant.memory.wire import led_to_primary, logged_in, login
from memtenant.tenancy.binding import Binding
from memtenant.tenancy.cluster import ClusterAccess
from memtenant.tenancy.sentinel import SentinelAccess

__all__ = ["Opening"]


@dataclass(frozen=True, slots=True)
class Opening:
    """With one generation of the binding. ``way`` remembers whom to ask first."""

    binding: Binding
    options: Options
    context: ssl.SSLContext | None
    generation: int
    way: Way

    def primary(self) -> Link:
        """Connect to the primary, and log in. Raises `LoginFailed` or ``OSError``."""
        binding = self.binding
        try:
            if binding.cluster is not None:
                return self._with_slot(binding.cluster)
            where = (binding.host, binding.port)
            if binding.sentinel is not None:
                where = self._told_by(binding.sentinel)
            link = self.at(where)
        except BaseException:
            self.way.turn()
            raise
        return link

    def at(self, where: Endpoint) -> Link:
        """Connect to this server, and log in; to a replica only in a Cluster."""
        link = self._connected(where)
        try:
            replies = link.exchange(login(self.binding.username, self.binding.password))
            logged_in(replies)
            if self.binding.cluster is None:
                led_to_primary(replies)
        except BaseException:
            link.drop()
            raise
        link.opened()
        return link

    def _told_by(self, access: SentinelAccess) -> Endpoint:
        """Where the first Sentinel that answers says that the primary is."""
        problem: OSError = ConnectionRefusedError("no Sentinel is named")
        for sentinel in self.way.sentinels(access):
            try:
                link = self._connected(sentinel)
                try:
                    return primary_from(link.exchange(asking_for_primary(access)))
                finally:
                    link.drop()
            except OSError as error:
                problem = error
        raise problem

    def _with_slot(self, access: ClusterAccess) -> Link:
        """The node that has the tenant's slot, by what the first one says that answers."""
        problem: OSError = ConnectionRefusedError("no node of its Cluster is named")
        for node in self.way.nodes(access.endpoints):
            try:
                return self._followed(node)
            except OSError as error:
                problem = error
        raise problem

    def _followed(self, node: Endpoint) -> Link:
        where = node
        for _ in range(MOST_MOVES):
            link = self.at(where)
            try:
                (reply,) = link.exchange([asking_for_slot(self.binding)])
                instead = moved_to(reply, where)
            except BaseException:
                link.drop()
                raise
            if instead is None:
                self.way.led(where)
                return link
            link.close()
            where = instead
        raise ConnectionRefusedError("the nodes of its Cluster send from one to another")

    def _connected(self, where: Endpoint) -> Link:
        access = self.binding.cluster or self.binding.sentinel
        name = self.binding.host if access is None else access.server_name
        return Link.connect(where, name or where[0], self.options, self.context, self.generation)
