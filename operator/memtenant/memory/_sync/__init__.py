"""The SDK without asyncio, generated from ``_async`` by ``make generate`` but for ``link``."""
