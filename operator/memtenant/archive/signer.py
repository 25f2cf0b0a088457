"""What the signer of a log remembers outside of the archive, so that it never signs two histories.

The state is moved before a checkpoint is published, by compare-and-set: of two sealers one wins,
and an archive that was rolled back or rewritten does not fit what was signed, and is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from memtenant.audit.merkle import HASH_BYTES
from memtenant.crypto.signing import SigningKey
from memtenant.errors import ArchiveUnavailable, KeyInvalid, KeyUnavailable, SignerConflict
from memtenant.files import make_folder, open_plain, read_plain, sync_folder
from memtenant.tenancy.document import DocumentInvalid, canonical_json, read_json

__all__ = ["FolderSigner", "SignedHead", "SignerState"]


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The last that was signed: size and root of the tree, and the number of the window."""

    size: int
    root: bytes
    window: int

    def to_json(self) -> bytes:
        """Canonical."""
        return canonical_json({"size": self.size, "root": self.root.hex(), "window": self.window})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises `KeyInvalid`: it is kept beside the key."""
        try:
            fields = read_json(data, limit=4096)
            root = bytes.fromhex(fields.text("root", 2 * HASH_BYTES))
            head = cls(fields.integer("size", 1), root, fields.integer("window", 1))
            fields.no_more()
            if len(root) != HASH_BYTES:
                raise fields.wrong("root", "a hash")
        except (DocumentInvalid, ValueError) as error:
            why = error if isinstance(error, DocumentInvalid) else "root is not hexadecimal"
            raise KeyInvalid(
                f"What the log signed last cannot be read: {why}. Restore it from a backup: "
                "without it nothing is signed"
            ) from None
        return head


class SignerState(Protocol):
    """Where the last that was signed is kept. Called from one thread; may wait."""

    def load(self) -> SignedHead | None:
        """What was signed last; None before the first."""

    def advance(self, before: SignedHead | None, after: SignedHead) -> None:
        """Make it ``after`` if it is ``before``; `SignerConflict` if it is not."""


class FolderSigner:
    """The key and the state of a log in a folder of its own, mode 0700: without a cluster.

    `SignerState` over the file ``head``; only the holder of the archive's lock moves it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, origin: str) -> SigningKey:
        """The log's key, made at the first call with the name ``origin``; later it has the name
        that it was made with. `KeyUnavailable` where it is gone although it signed something."""
        try:
            make_folder(self._folder, 0o700)
            if not self._file("key").exists():
                if self._file("head").exists():
                    raise KeyUnavailable(
                        f"{self._file('key')} is gone, and something was signed with it: restore "
                        "it from a backup. No new key is made in its place: nobody would know "
                        "whose log it is"
                    )
                self._write("origin", origin.encode())
                self._write("key", SigningKey.new(origin).secret)
            return SigningKey(self._read("origin").decode(), self._read("key"))
        except OSError as error:
            raise self._unavailable(error) from error

    def load(self) -> SignedHead | None:
        """What was signed last; None before the first."""
        try:
            return SignedHead.parse(self._read("head"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error) from error

    def advance(self, before: SignedHead | None, after: SignedHead) -> None:
        """Make it ``after`` if it is ``before``; `SignerConflict` if it is not."""
        if self.load() != before:
            raise SignerConflict("Another process sealed the log meanwhile: read it anew")
        try:
            self._write("head", after.to_json())
        except OSError as error:
            raise self._unavailable(error) from error

    def _file(self, name: str) -> Path:
        return self._folder / name

    def _read(self, name: str) -> bytes:
        return read_plain(self._file(name))

    def _write(self, name: str, data: bytes) -> None:
        beside = self._folder / f".{name}.new"
        opened = open_plain(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(opened, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(opened)
        beside.replace(self._file(name))
        sync_folder(self._folder)

    def _unavailable(self, error: OSError) -> ArchiveUnavailable:
        where = error.filename or self._folder
        return ArchiveUnavailable(f"{where} cannot be used: {error.strerror or error}")
