"""The declared objects: a pydantic model per kind, conditions, the CRDs and their rules offline."""

from memtenant.api.parse import KINDS, parse
from memtenant.api.policy import RetentionPolicy
from memtenant.api.quantity import Quantity
from memtenant.api.report import ComplianceReport
from memtenant.api.resource import API_VERSION, CATEGORY, GROUP, VERSION
from memtenant.api.store import MemoryStore
from memtenant.api.tenant import MemoryTenant

__all__ = [
    "API_VERSION",
    "CATEGORY",
    "GROUP",
    "KINDS",
    "VERSION",
    "ComplianceReport",
    "MemoryStore",
    "MemoryTenant",
    "Quantity",
    "RetentionPolicy",
    "parse",
]
