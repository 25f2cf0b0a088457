"""Mounts Secrets as the kubelet does, a moment after each change: bindings, and the sealer's."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.scene import Scene, data_of
from tests.memory.bindings import mount_data

__all__ = ["Mounts"]

_LAG = 0.2
"""Seconds between two looks. A kubelet takes up to two minutes; the operators here are told that it
takes two seconds."""


@dataclass
class Mounts:
    """The folders below ``root`` follow the Secrets. What is deleted stays mounted, as in a pod."""

    scene: Scene
    root: Path
    _known: dict[tuple[str, str], str] = field(default_factory=dict)
    _wanted: set[tuple[str, str]] = field(default_factory=set)
    _closing: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def folder(self, namespace: str, name: str) -> Path:
        """Where a Secret is mounted, now or as soon as there is one."""
        self._wanted.add((namespace, name))
        return self.root / f"{namespace}.{name}"

    def start(self) -> None:
        """Begin to follow."""
        self._thread = threading.Thread(target=self._follow, name="mounts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Follow no more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        while not self._closing.wait(_LAG):
            for namespace, name in self._wanted.copy():
                secret = self.scene.witness.latest("secrets", namespace, name)
                if secret is None:
                    continue
                version = secret["metadata"]["resourceVersion"]
                if self._known.get((namespace, name)) == version:
                    continue
                mount_data(self.folder(namespace, name), data_of(secret))
                self._known[namespace, name] = version
