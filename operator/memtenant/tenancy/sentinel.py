"""How an agent finds the primary of a store that Sentinels watch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["SentinelAccess", "endpoint_from"]

_ENDPOINT = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([0-9A-Za-z._-]+)):([1-9][0-9]{0,4})")


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
            "sentinelEndpoints": ",".join(_text(*endpoint) for endpoint in self.endpoints),
            "sentinelMaster": self.master,
            "sentinelUsername": self.username,
            "sentinelPassword": self.password,
        }
        return fields | ({"tlsServerName": self.server_name} if self.server_name else {})


def endpoint_from(text: str) -> tuple[str, int]:
    """The host and port of ``host:port`` or ``[address]:port``; ``ValueError`` for another text."""
    found = _ENDPOINT.fullmatch(text)
    if found is None or int(found[3]) > 65_535:
        raise ValueError("not host:port")
    return found[1] or found[2], int(found[3])


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
