"""Administration of Redis and Valkey stores: nodes, ACL users, fencing, usage, proof."""

from memtenant.stores.acl import Saved, UsersSet
from memtenant.stores.admin import Fence, StoreAdmin
from memtenant.stores.admin_acl import admin_rules, instance_rules
from memtenant.stores.connection import Address, StoreSettings, StoreTls
from memtenant.stores.data_keys import StoredDataKey
from memtenant.stores.erasure import StoreErasure
from memtenant.stores.erasure_calls import TenantCalls
from memtenant.stores.erasure_search import Finding, Sought
from memtenant.stores.expiry import CutOffs, Tally
from memtenant.stores.expiry_pass import ExpiryScan
from memtenant.stores.fence import Term
from memtenant.stores.functions import FunctionsState
from memtenant.stores.matrix import MatrixProof
from memtenant.stores.nodes import Flavour, NodeFacts, NodeResults, Role, StoreFacts
from memtenant.stores.owner import StoreOwner
from memtenant.stores.pace import Pace
from memtenant.stores.purge import LatestRecord
from memtenant.stores.scan import ScanPosition
from memtenant.stores.sentinel import SentinelSettings
from memtenant.stores.tenant_state import StateChange, TenantState
from memtenant.stores.untold import Untold
from memtenant.stores.usage import UsageScan

__all__ = [
    "Address",
    "CutOffs",
    "ExpiryScan",
    "Fence",
    "Finding",
    "Flavour",
    "FunctionsState",
    "LatestRecord",
    "MatrixProof",
    "NodeFacts",
    "NodeResults",
    "Pace",
    "Role",
    "Saved",
    "ScanPosition",
    "SentinelSettings",
    "Sought",
    "StateChange",
    "StoreAdmin",
    "StoreErasure",
    "StoreFacts",
    "StoreOwner",
    "StoreSettings",
    "StoreTls",
    "StoredDataKey",
    "Tally",
    "TenantCalls",
    "TenantState",
    "Term",
    "Untold",
    "UsageScan",
    "UsersSet",
    "admin_rules",
    "instance_rules",
]
