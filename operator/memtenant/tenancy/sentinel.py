"""How an agent finds the primary of a store that Sentinels watch."""

from __future__ import annotations

from dataclasses import dataclass, field

from memtenant.tenancy.endpoint import endpoint_text

__all__ = ["SentinelAccess"]


@dataclass(frozen=True, slots=True)
class SentinelAccess:
    """Whom to ask, about which primary, and as whom.

    The user is the agents' own on the Sentinels: it may ask for the primary's address and nothing
    else. ``server_name`` is the name in all the store's certificates, the Sentinels' included,
    where there is TLS: what Sentinels tell is addresses.
    """

    endpoints: tuple[tuple[str, int], ...]
    master: str
    username: str
    password: str = field(repr=False)
    server_name: str = ""

    def to_fields(self) -> dict[str, str]:
        """Its fields in a binding."""
        fields = {
            "sentinelEndpoints": ",".join(endpoint_text(*endpoint) for endpoint in self.endpoints),
            "sentinelMaster": self.master,
            "sentinelUsername": self.username,
            "sentinelPassword": self.password,
        }
        return fields | ({"tlsServerName": self.server_name} if self.server_name else {})
