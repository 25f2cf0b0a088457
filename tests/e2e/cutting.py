"""A TCP proxy that cuts connections in the middle: after a random number of bytes, for a while."""

import asyncio
import random
from typing import Self

from tests.support.relay import Proxy, Target


class CuttingProxy(Proxy):
    """Resets every connection after at most so many bytes (both ways), until `heal`."""

    def __init__(self, target: Target, chance: random.Random, most_bytes: int) -> None:
        self._chance = chance
        self._most = most_bytes
        self._broken = False
        self.cuts = 0
        super().__init__(target)

    @classmethod
    def before(cls, host: str, port: int, chance: random.Random, most_bytes: int) -> Self:
        """A proxy before `host:port`; it works until `break_`."""
        return cls(Target(host, port), chance, most_bytes)

    def break_(self) -> None:
        """Begin to cut."""
        self._broken = True

    def heal(self) -> None:
        """Cut no more."""
        self._broken = False

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        left = self._chance.randrange(1, self._most)
        while chunk := await source.read(1 << 16):
            if self._broken:
                part = chunk[:left]
                left -= len(part)
                sink.write(part)
                await sink.drain()
                if not left:
                    self.cuts += 1
                    raise ConnectionResetError("cut by the test")
                continue
            sink.write(chunk)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
