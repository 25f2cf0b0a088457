"""The SDK: what an agent imports to remember and to share, inside its tenant.

``_async`` is the source; ``_sync`` is generated from it (`memtenant.memory.generate`). What needs
no I/O is here, and both use it.
"""
