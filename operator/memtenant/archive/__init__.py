"""The archive of the audit log: what writes it, reads it and verifies it.

The sealer writes (`LogWriter`), everybody else reads (`ArchiveReader`), and whoever trusts neither
verifies (`verify`). docs/audit-format.md has every byte of it.
"""

from memtenant.archive.cursor import Finding
from memtenant.archive.folder import ArchiveFolder
from memtenant.archive.intake import MacKeys
from memtenant.archive.port import Archive, Part, Space
from memtenant.archive.proofs import (
    ConsistencyProof,
    InclusionProof,
    parse_proof,
    prove,
    prove_consistency,
)
from memtenant.archive.readback import READ_BACK, Allowance
from memtenant.archive.reader import (
    ArchiveReader,
    Place,
    SealedEntry,
    SealedGap,
    SealedWindow,
)
from memtenant.archive.reads import is_sealed_now, note_read
from memtenant.archive.signer import FolderSigner, SignedHead, SignerState
from memtenant.archive.verify import Result, Verification, VerifiedLog, verify
from memtenant.archive.writer import Batch, Kept, LogWriter, Sealed, Taken

__all__ = [
    "READ_BACK",
    "Allowance",
    "Archive",
    "ArchiveFolder",
    "ArchiveReader",
    "Batch",
    "ConsistencyProof",
    "Finding",
    "FolderSigner",
    "InclusionProof",
    "Kept",
    "LogWriter",
    "MacKeys",
    "Part",
    "Place",
    "Result",
    "Sealed",
    "SealedEntry",
    "SealedGap",
    "SealedWindow",
    "SignedHead",
    "SignerState",
    "Space",
    "Taken",
    "Verification",
    "VerifiedLog",
    "is_sealed_now",
    "note_read",
    "parse_proof",
    "prove",
    "prove_consistency",
    "verify",
]
