"""A container's root: the machine's own with the pod's volumes in it, also without privilege."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kubelet import sandbox


@pytest.mark.parametrize(
    "user", [[], ["--user", "--map-root-user"]], ids=["plain", "user-namespace"]
)
def test_mount_points_appear_in_the_sandbox_alone(tmp_path: Path, user: list[str]) -> None:
    if not user and not _is_root():
        pytest.skip("only root makes a mount namespace without a user namespace")
    volume, hosts, root = tmp_path / "volume", tmp_path / "hosts", tmp_path / "root"
    volume.mkdir()
    root.mkdir()
    (volume / "file").write_text("content ")
    hosts.write_text("127.0.0.1 neighbour\n")
    targets = ["/bindings/db", "/etc/sandboxed/deep", "/var/run/sandboxed/token"]
    mounts = [{"source": str(volume), "target": t, "read_only": True} for t in targets]
    mounts.append({"source": str(hosts), "target": "/etc/hosts", "read_only": False})
    script = f"cat {' '.join(f'{t}/file' for t in targets)} /etc/hosts; touch /etc/x || hostname"
    spec = {
        "root": str(root),
        "directory": "/",
        "hostname": "pod-1",
        "argv": ["sh", "-c", script],
        "env": {"PATH": "/usr/bin:/bin"},
        "read_only": True,
        "mounts": mounts,
    }
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec))
    unshare = ["unshare", "--mount", "--uts", "--propagation", "private", *user]
    answer = subprocess.run(
        [*unshare, sys.executable, sandbox.__file__, file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout == "content content content 127.0.0.1 neighbour\npod-1\n", answer.stderr
    assert not any(Path(target).parent.exists() for target in targets)
    assert not file.exists()


def _is_root() -> bool:
    return Path("/proc/self").stat().st_uid == 0
