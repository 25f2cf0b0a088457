"""``host:port``, as it stands in bindings."""

from __future__ import annotations

import re

__all__ = ["endpoint_from", "endpoint_text"]

_ENDPOINT = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([0-9A-Za-z._-]+)):([1-9][0-9]{0,4})")


def endpoint_from(text: str) -> tuple[str, int]:
    """The host and port of ``host:port`` or ``[address]:port``; ``ValueError`` for another text."""
    found = _ENDPOINT.fullmatch(text)
    if found is None or int(found[3]) > 65_535:
        raise ValueError("not host:port")
    return found[1] or found[2], int(found[3])


def endpoint_text(host: str, port: int) -> str:
    """The same as a text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
