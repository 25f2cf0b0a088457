"""The ACL users of one store, the same on every node: read, set, dropped, saved, and proven."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from memtenant.rules.acl import AclUser
from memtenant.stores import acl, probe
from memtenant.stores.connection import Address, NodeClient, Reply, StoreSettings
from memtenant.stores.fence import Term
from memtenant.stores.nodes import NodeResults, on_every_node
from memtenant.stores.probe import Expectation
from memtenant.stores.together import Together
from memtenant.stores.topology import StoreNodes

__all__ = ["StoreUsers"]


class StoreUsers:
    """memtenant's own; others are not touched. ``patience`` is how long a replica may take to learn
    of a new term, ``own_keys`` as in `memtenant.stores.StoreAdmin`."""

    def __init__(
        self,
        settings: StoreSettings,
        nodes: StoreNodes,
        term: Callable[[], Term],
        *,
        patience: float,
        own_keys: bool,
    ) -> None:
        self._settings = settings
        self._nodes = nodes
        self._term = term
        self._patience = patience
        self._own_keys = own_keys
        # What every reconcile of a tenant asks, asked for all that run at the moment.
        self._getting = Together(self.get)
        self._setting = Together(self._set_all)
        self._proving = Together(self._prove_all)
        self._expecting = Together(self._expectations)

    def _patience_with(self, node: NodeClient) -> float:
        """A primary learns of a term at once; what it lacks then, waiting does not bring."""
        return 0.0 if node in self._nodes.keyspace.shards else self._patience

    async def names(self) -> NodeResults[frozenset[str]]:
        """The names of memtenant's users on each node; others are not told."""
        return await self._nodes.everywhere(acl.user_names)

    async def get(self, names: Collection[str]) -> NodeResults[dict[str, Reply]]:
        """ACL GETUSER (RESP2) of the names on each node, None for a user that does not exist."""
        return await self._nodes.everywhere(lambda node: acl.get_users(node, names))

    async def differing(
        self, users: Collection[AclUser]
    ) -> NodeResults[dict[str, tuple[str, ...]]]:
        """What differs from the wanted users on each node, by name; see `rules.acl_drift`."""
        # Only the reading is shared: what is wanted of a user is each caller's own view.
        return self._differing(users, await self._getting([user.name for user in users]))

    async def differing_on(
        self, nodes: Collection[Address], users: Collection[AclUser]
    ) -> NodeResults[dict[str, tuple[str, ...]]]:
        """As `differing`, on these nodes only."""
        names = [user.name for user in users]
        found = await on_every_node(
            nodes, lambda address: acl.get_users(self._nodes.client(address), names)
        )
        return self._differing(users, found)

    def _differing(
        self, users: Collection[AclUser], found: NodeResults[dict[str, Reply]]
    ) -> NodeResults[dict[str, tuple[str, ...]]]:
        categories = {node.address: node.categories for node in self._nodes.facts.nodes}
        return NodeResults(
            {
                address: acl.differing(users, replies, categories[address])
                for address, replies in found.results.items()
                if address in categories
            },
            found.failures,
        )

    async def set(self, users: Collection[AclUser]) -> NodeResults[acl.UsersSet]:
        """Make the users exactly so on the primary and on every replica.

        Users that others set at the same moment go along, and are counted too.
        """
        self._term()
        return await self._setting(users)

    async def _set_all(self, users: list[AclUser]) -> NodeResults[acl.UsersSet]:
        term = self._term()
        return await self._nodes.everywhere(
            lambda node: acl.set_users(node, term, users, patience=self._patience_with(node))
        )

    async def drop(self, names: Collection[str]) -> NodeResults[int]:
        """Revoke the users on every node: off, connections closed, user removed."""
        term = self._term()
        return await self._nodes.everywhere(
            lambda node: acl.drop_users(node, term, names, patience=self._patience_with(node))
        )

    async def kill(self, names: Collection[str]) -> NodeResults[int]:
        """Close the users' connections on every node; how many there were."""
        term = self._term()
        return await self._nodes.everywhere(
            lambda node: acl.kill_users(node, term, names, patience=self._patience_with(node))
        )

    async def idle(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the names that have no connection to any node.

        Empty where a node does not answer: a connection to it could not be seen.
        """
        busy = await self._nodes.everywhere(acl.busy_users)
        if not busy.complete:
            return frozenset()
        return frozenset(names).difference(*busy.results.values())

    async def save(self) -> NodeResults[acl.Saved]:
        """ACL SAVE on every node that has an aclfile. Redis 7.0 blocks while it saves many users
        (10,000 users: 44 s at first): save once after a batch, not after each change."""
        self._term()
        return await self._nodes.everywhere(acl.save_users)

    async def prove(self, users: Collection[AclUser]) -> tuple[str, ...]:
        """What is wrong with the users on any node, in words; empty if all are as they should be
        and a few DRYRUNs of each agree. Raises where a node does not answer."""
        found = (await self._proving(users)).require_all()
        return tuple(
            failure
            for failures in found.values()
            for user in users
            for failure in failures.get(user.name, ())
        )

    async def _prove_all(self, users: list[AclUser]) -> NodeResults[dict[str, tuple[str, ...]]]:
        categories = {node.address: node.categories for node in self._nodes.facts.nodes}
        return await self._nodes.everywhere(
            lambda node: probe.prove_users(
                node, users, categories[node.address], own_keys=self._own_keys
            )
        )

    async def probe(self, username: str, password: str) -> None:
        """Log in to every node as the user and hear what is allowed and what is denied.

        Whether it may write now is asked of the primary beforehand, and must be what the user's
        own connections see. Leaves nothing behind but the denials in the server's ACL LOG. Raises
        `NotProven`.
        """
        expected = (await self._expecting([username]))[username]
        found = await self._nodes.everywhere(
            lambda node: probe.probe(
                node, self._settings, username, password, expected, own_keys=self._own_keys
            )
        )
        found.require_all()

    async def _expectations(self, names: list[str]) -> dict[str, Expectation]:
        return await probe.expectations(self._nodes.keyspace, names)
