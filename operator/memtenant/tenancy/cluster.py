"""How an agent finds its primary in a Cluster."""

from __future__ import annotations

from dataclasses import dataclass

from memtenant.tenancy.endpoint import endpoint_text

__all__ = ["ClusterAccess"]


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """Some nodes, each of which tells where a key is. ``server_name`` is the name in all the nodes'
    certificates, where there is TLS: what nodes tell is addresses."""

    endpoints: tuple[tuple[str, int], ...]
    server_name: str = ""

    def to_fields(self) -> dict[str, str]:
        """Its fields in a binding."""
        fields = {"clusterEndpoints": ",".join(endpoint_text(*one) for one in self.endpoints)}
        return fields | ({"tlsServerName": self.server_name} if self.server_name else {})
