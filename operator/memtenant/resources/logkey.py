"""The public key of the audit log, where everybody may read it who is to check a checkpoint.

A key that comes with the archive proves nothing of it: this one is beside the private key.
"""

from __future__ import annotations

from typing import Final

from memtenant.resources.connection import APPLY, Connection, Request, path
from memtenant.resources.port import FIELD_MANAGER

__all__ = ["KEY_CONFIG_MAP", "publish_key"]

KEY_CONFIG_MAP: Final = "memtenant-log"


async def publish_key(connection: Connection, namespace: str, key: str) -> None:
    """Make the ConfigMap say the key, as text."""
    await connection.call(
        Request(
            "PATCH",
            path("api", "v1", "namespaces", namespace, "configmaps", KEY_CONFIG_MAP),
            f"ConfigMap {namespace}/{KEY_CONFIG_MAP}",
            body={
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": KEY_CONFIG_MAP, "namespace": namespace},
                "data": {"key": key},
            },
            content_type=APPLY,
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
        )
    )
