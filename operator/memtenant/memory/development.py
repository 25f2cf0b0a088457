"""A tenant for development: `memtenant apply` as a subprocess, which starts the embedded server
where it does not run, and the binding that it made.

A subprocess, because the program needs pydantic and more, which the SDK never imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from memtenant.errors import UsageError

__all__ = ["binding_of", "stop"]

_STATE_VARIABLE = "MEMTENANT_STATE"
_DEFAULT_STATE = ".memtenant"
_PROGRAM = (sys.executable, "-c", "import sys; from memtenant.cli import main; sys.exit(main())")


def binding_of(
    name: str, namespace: str, state: Path | None = None, spec: dict[str, object] | None = None
) -> Path:
    """The folder of the binding of the tenant's agent, after making what is not there.

    ``spec`` adds to the MemoryTenant's, which names a policy of its own. Raises `UsageError`.
    """
    state = state or Path(os.environ.get(_STATE_VARIABLE) or _DEFAULT_STATE)
    folder = state.absolute() / "bindings" / namespace
    policy = f"{name}-development"
    manifests = [
        _manifest("RetentionPolicy", {"name": policy}, {}),
        _manifest(
            "MemoryTenant",
            {"name": name, "namespace": namespace},
            {"retentionPolicyRef": {"name": policy}, **(spec or {})},
        ),
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix="memtenant-") as file:
        # JSON is YAML.
        file.write("\n---\n".join(json.dumps(one) for one in manifests))
        file.flush()
        _run("apply", "-f", file.name, "--state", str(state))
    found = sorted(folder.glob(f"{name}-*"))
    if not found:
        raise UsageError(
            f"`memtenant apply` made no binding of {namespace}/{name} in {folder}: look with "
            f"`memtenant get --state {state}`"
        )
    return found[0]


def stop(state: Path) -> None:
    """Stop the server of a state folder; its data stays."""
    _run("local", "stop", "--state", str(state))


def _run(*words: str) -> None:
    ended = subprocess.run(  # noqa: S603 - our own program
        [*_PROGRAM, *words], capture_output=True, text=True, check=False
    )
    if ended.returncode == 0:
        return
    said = (ended.stderr or ended.stdout).strip()
    if "'memtenant[cli]'" in said:
        raise UsageError(
            "Tenant.dev needs the program and an embedded server: pip install 'memtenant[dev]'"
        )
    raise UsageError(f"`memtenant {' '.join(words)}` ended with {ended.returncode}: {said}")


def _manifest(kind: str, metadata: dict[str, str], spec: dict[str, object]) -> dict[str, object]:
    return {
        "apiVersion": "memtenant.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }
