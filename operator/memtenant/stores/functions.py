"""The Functions on a store's primary: loaded, compared, and old versions of our own removed.

Replicas get them by replication. Never FUNCTION FLUSH (it is not ours alone, and it crashes Redis
7.4 and 8.2 after certain errors), never a library that memtenant did not name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis.exceptions import ResponseError

from memtenant.errors import StoreRefused
from memtenant.functions.library import LIBRARY_PREFIX, Library, version_of
from memtenant.stores.connection import Command, NodeClient, Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.refusals import shown, translated

__all__ = ["FunctionsState", "load_functions", "loaded_functions"]


@dataclass(frozen=True, slots=True)
class FunctionsState:
    """What was done: names of libraries. Both empty where everything was as it should be."""

    loaded: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return bool(self.loaded or self.removed)


async def loaded_functions(node: NodeClient) -> Mapping[str, str]:
    """Memtenant's own libraries on the node: name → SHA-256 of the code, in hex."""
    reply = await node.call("FUNCTION", "LIST", "LIBRARYNAME", f"{LIBRARY_PREFIX}*", "WITHCODE")
    found: dict[str, str] = {}
    for library in reply if isinstance(reply, list) else ():
        fields = _fields(library)
        name, code = fields.get(b"library_name"), fields.get(b"library_code")
        if isinstance(name, bytes) and isinstance(code, bytes):
            text = name.decode("utf-8", "replace")
            if version_of(text) is not None:
                found[text] = hashlib.sha256(code).hexdigest()
    return found


async def load_functions(
    primary: NodeClient, term: Term, libraries: Sequence[Library]
) -> FunctionsState:
    """Make the libraries those of the store, fenced; a no-op writes nothing.

    Older versions of our own go; newer ones, which another operator loaded before it was rolled
    back, stay: agents may call them. Afterwards the digests are read back: `StoreRefused`
    (``FunctionsNotLoaded``) where they differ, `StoreUnavailable`, `FencedOut`.
    """
    found = await loaded_functions(primary)
    missing = [one for one in libraries if found.get(one.name) != one.digest]
    oldest = min(one.version for one in libraries)
    outdated = sorted(name for name in found if (version_of(name) or 0) < oldest)
    commands: list[Command] = [
        *(("FUNCTION", "LOAD", "REPLACE", one.code) for one in missing),
        *(("FUNCTION", "DELETE", name) for name in outdated),
    ]
    for reply in await run_fenced(primary, term, commands, patience=0):
        if isinstance(reply, ResponseError):
            raise _not_loaded(primary, reply)
    if missing:
        found = await loaded_functions(primary)
        if any(found.get(one.name) != one.digest for one in libraries):
            raise StoreRefused(
                f"{primary.address} does not hold the Functions that were just loaded: another "
                "program replaces them",
                reason="FunctionsNotLoaded",
            )
    return FunctionsState(tuple(one.name for one in missing), tuple(outdated))


def _not_loaded(primary: NodeClient, reply: ResponseError) -> Exception:
    if "already exists" in str(reply):
        return StoreRefused(
            f"{primary.address}: a Function library of somebody else has a Function of the same "
            f"name as memtenant's: {shown(reply)}. Remove it with FUNCTION DELETE",
            reason="FunctionsNotLoaded",
        )
    return translated(reply, str(primary.address))


def _fields(library: Reply) -> dict[object, object]:
    if not isinstance(library, list):
        return {}
    return dict(zip(library[::2], library[1::2], strict=False))
