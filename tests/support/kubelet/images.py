"""What an image name stands for on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Image:
    """The programs behind all image names that begin alike.

    entrypoint and command are what a pod's `command` and `args` replace; env is the image's own
    environment (its PATH, say), where `{address}` is the pod's loopback address; folders of this
    machine stay visible where a volume covers them (a checkout in /tmp, in a pod that mounts /tmp).
    """

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()

    def argv(self, container: Mapping[str, list[str]]) -> list[str]:
        """A container's command line, combined as Kubernetes does."""
        command, args = container.get("command"), container.get("args")
        if command:
            return [*command, *(args or ())]
        return [*self.entrypoint, *(args or self.command)]


def find(images: Mapping[str, Image], name: str) -> Image | None:
    """The image with the longest prefix of `name`."""
    prefixes = [prefix for prefix in images if name.startswith(prefix)]
    return images[max(prefixes, key=len)] if prefixes else None
