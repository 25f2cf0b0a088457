"""The SDK without asyncio: ``from memtenant.sync import Tenant``."""

from memtenant.memory._sync.context import SharedContext
from memtenant.memory._sync.conversation import Conversation
from memtenant.memory._sync.tenant import Tenant

__all__ = ["Conversation", "SharedContext", "Tenant"]
