"""The public key of the audit log, where everybody may read it who is to check a checkpoint.

A key that comes with the archive proves nothing of it: this one is beside the private key.
"""

from __future__ import annotations

from typing import Final

from memtenant.crypto.signing import VerifyingKey
from memtenant.errors import ResourceNotFound
from memtenant.resources.collection import APIKind, Collection
from memtenant.resources.connection import Connection

__all__ = ["LOG_NAME", "publish_key", "published_key"]

LOG_NAME: Final = "memtenant-log"
"""In the audit namespace: the Secret with the key that seals the log, and the ConfigMap with its
public half."""

_CONFIG_MAP = APIKind("ConfigMap", "v1", "configmaps")
_FIELD = "key"


async def publish_key(connection: Connection, namespace: str, key: VerifyingKey) -> None:
    """Make the ConfigMap say the key."""
    await Collection(connection, _CONFIG_MAP, namespace).apply(
        {
            "apiVersion": _CONFIG_MAP.version,
            "kind": _CONFIG_MAP.name,
            "metadata": {"name": LOG_NAME, "namespace": namespace},
            "data": {_FIELD: str(key)},
        }
    )


async def published_key(connection: Connection, namespace: str) -> VerifyingKey:
    """What the ConfigMap says; `ResourceNotFound` or `KeyInvalid` where it says no key."""
    found = await Collection(connection, _CONFIG_MAP, namespace).get(LOG_NAME)
    if found is None:
        raise ResourceNotFound(f"ConfigMap {namespace}/{LOG_NAME} does not exist")
    return VerifyingKey.parse(str(found.get("data", {}).get(_FIELD, "")))
