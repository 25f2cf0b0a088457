"""A TCP proxy that cuts connections in the middle: after a random number of bytes, for a while."""

import asyncio
import random
from typing import Self

from tests.support.relay import Proxy, Readable, Target


class CuttingProxy(Proxy):
    """Resets every connection after at most so many bytes (each way), between `break_` and `heal`.
    What else a proxy does to connections it does too."""

    def __init__(self, target: Target, chance: random.Random, most_bytes: int) -> None:
        self._chance = chance
        self._most = most_bytes
        self.broken = False
        self.cuts = 0
        super().__init__(target)

    @classmethod
    def before(cls, host: str, port: int, chance: random.Random, most_bytes: int) -> Self:
        """A proxy before `host:port`; it works until `break_`."""
        return cls(Target(host, port), chance, most_bytes)

    def break_(self) -> None:
        """Begin to cut."""
        self.broken = True

    def heal(self) -> None:
        """Cut no more."""
        self.broken = False

    async def _pump(self, source: Readable, sink: asyncio.StreamWriter) -> None:
        await super()._pump(_Rationed(source, self._chance.randrange(1, self._most), self), sink)


class _Rationed:
    """One direction of a connection. While the proxy cuts, it ends after ``left`` bytes."""

    def __init__(self, source: Readable, left: int, proxy: CuttingProxy) -> None:
        self._source = source
        self._left = left
        self._proxy = proxy

    async def read(self, most: int) -> bytes:
        if self._proxy.broken and not self._left:
            self._proxy.cuts += 1
            raise ConnectionResetError("cut by the test")
        chunk = await self._source.read(most)
        if self._proxy.broken:
            chunk = chunk[: self._left]
            self._left -= len(chunk)
        return chunk
