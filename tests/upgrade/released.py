"""A former release, as its users have it: the wheel and the chart that were shipped."""

import hashlib
import subprocess
import tomllib
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).parent / "releases"


@dataclass(frozen=True)
class Release:
    """One release. Both files are what the manifest says, or nothing is made of them."""

    version: str
    commit: str
    wheel_digest: str
    chart_digest: str

    @cached_property
    def wheel(self) -> Path:
        """The Python package."""
        return self._checked(f"memtenant-{self.version}-py3-none-any.whl", self.wheel_digest)

    @cached_property
    def chart(self) -> Path:
        """The Helm chart."""
        return self._checked(f"memtenant-{self.version}.tgz", self.chart_digest)

    def unpack(self, folder: Path) -> Path:
        """Install the package into a folder that goes before all others in PYTHONPATH. It runs
        with the dependencies that are installed."""
        with zipfile.ZipFile(self.wheel) as wheel:
            wheel.extractall(folder)
        return folder

    def run(self, code: str, python: str) -> str:
        """What a program prints that has this release's package."""
        answer = subprocess.run(
            [python, "-c", code],
            env={"PYTHONPATH": str(self.wheel)},
            capture_output=True,
            text=True,
            check=True,
        )
        return answer.stdout

    def _checked(self, name: str, digest: str) -> Path:
        path = FOLDER / name
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        assert found == digest, f"{path} is not what was released"
        return path


def releases() -> list[Release]:
    """All that are kept, the latest last."""
    manifest = tomllib.loads((FOLDER / "releases.toml").read_text())
    return [
        Release(one["version"], one["commit"], one["wheel"], one["chart"])
        for one in manifest["release"]
    ]
