"""The SDK for asyncio; the source from which ``_sync`` is generated."""
