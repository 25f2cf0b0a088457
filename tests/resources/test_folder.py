"""What a state folder promises beyond the contract: its files, one writer, and crashes."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memtenant.errors import InvalidResource, ResourceConflict, ResourceUnavailable
from memtenant.resources.folder import FolderResources, Outcome
from memtenant.resources.port import FOREIGN_SECRET, EventType, Kind, ObjectKey, SecretDraft

ACME = ObjectKey.tenant("support", "acme")
SPEC: dict[str, Any] = {"retentionPolicyRef": {"name": "gdpr"}}
BINDING = SecretDraft(
    namespace="support",
    name="acme-default",
    owner="acme",
    data={"password": b"old", "ca.crt": b"pem"},
    type="servicebinding.io/redis",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def folder(root: Path) -> Iterator[FolderResources]:
    with FolderResources.open(root) as opened:
        yield opened


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def found(root: Path, pattern: str) -> list[Path]:
    return sorted(root.glob(pattern))


def changed(binding: SecretDraft, data: dict[str, bytes]) -> SecretDraft:
    return SecretDraft(binding.namespace, binding.name, binding.owner, data, binding.type)


async def test_everything_is_there_after_a_restart(root: Path) -> None:
    with FolderResources.open(root) as folder:
        folder.declare(ACME, SPEC, labels={"a": "b"})
        tenant = await folder.get(ACME)
        assert tenant is not None
        await folder.add_finalizer(tenant, "memtenant.dev/tenant")
        await folder.write_status(tenant, {"store": "eu"})
        secret = await folder.create_secret(BINDING)
        before = await folder.get(ACME), secret, await folder.get_namespace("support")
    with FolderResources.open(root) as folder:
        after = (
            await folder.get(ACME),
            await folder.get_secret("support", "acme-default"),
            await folder.get_namespace("support"),
        )
    assert before[:2] == after[:2]
    assert before[2] is not None
    assert after[2] is not None
    assert before[2].uid == after[2].uid


async def test_versions_grow_from_process_to_process(root: Path) -> None:
    with FolderResources.open(root) as folder:
        first, _ = folder.declare(ACME, SPEC)
        folder.delete(ACME)
    with FolderResources.open(root) as folder:
        assert int((await folder.list(Kind.TENANT)).resource_version) > int(first.resource_version)
        again, _ = folder.declare(ACME, SPEC)
    assert int(again.resource_version) > int(first.resource_version)


def test_outcomes_are_kubectls_words(folder: FolderResources) -> None:
    assert folder.declare(ACME, SPEC)[1] is Outcome.CREATED
    assert folder.declare(ACME, SPEC)[1] is Outcome.UNCHANGED
    assert folder.declare(ACME, {**SPEC, "residency": "eu"})[1] is Outcome.CONFIGURED
    assert folder.delete(ACME)
    assert not folder.delete(ACME)


def test_one_process_writes_and_others_may_read(root: Path, folder: FolderResources) -> None:
    folder.declare(ACME, SPEC)
    with pytest.raises(ResourceConflict) as refused, FolderResources.open(root):
        pass
    assert refused.value.reason == "StateLocked"
    with FolderResources.open(root, writable=False) as reader:
        assert asyncio.run(reader.get(ACME)) is not None
        with pytest.raises(ResourceConflict, match="reading only"):
            reader.declare(ACME, {**SPEC, "residency": "eu"})


def test_reading_makes_no_folder(root: Path) -> None:
    with FolderResources.open(root, writable=False) as reader:
        assert len(asyncio.run(reader.list(Kind.TENANT))) == 0
    assert not root.exists()


async def test_only_the_owner_may_read_secrets_and_bindings(
    root: Path, folder: FolderResources
) -> None:
    previous = os.umask(0)
    try:
        await folder.create_secret(BINDING)
    finally:
        os.umask(previous)
    for private in (root / "secrets", root / "bindings"):
        assert mode(private) == 0o700
        for path in private.rglob("*"):
            assert mode(path) == (0o700 if path.is_dir() else 0o600), path


async def test_a_binding_is_a_folder_for_service_binding_root(
    root: Path, folder: FolderResources
) -> None:
    mounted = root / "bindings" / "support" / "acme-default"
    first = await folder.create_secret(BINDING)
    assert (mounted / "password").read_bytes() == b"old"
    await folder.apply_secret(changed(BINDING, {"password": b"new"}), current=first)
    assert (mounted / "password").read_bytes() == b"new"
    visible = [entry.name for entry in mounted.iterdir() if not entry.name.startswith("..")]
    assert visible == ["password"]
    stored = await folder.get_secret("support", "acme-default")
    assert stored is not None
    await folder.delete_secret(stored)
    assert not mounted.exists()


async def test_other_secrets_are_no_bindings(root: Path, folder: FolderResources) -> None:
    await folder.create_secret(SecretDraft("support", "keyring", "acme", {"k": b"v"}))
    assert not (root / "bindings").exists()


async def test_binding_files_that_a_crash_left_behind_are_mended(root: Path) -> None:
    mounted = root / "bindings" / "support" / "acme-default"
    with FolderResources.open(root) as folder:
        await folder.create_secret(BINDING)
    (mounted / "password").unlink()
    with FolderResources.open(root):
        assert (mounted / "password").read_bytes() == b"old"


async def test_a_secret_left_by_a_crash_goes_when_its_owner_is_gone(root: Path) -> None:
    with FolderResources.open(root) as folder:
        owner, _ = folder.declare(ACME, SPEC)
        owned = SecretDraft("support", "owned", "acme", {"k": b"v"}, owned_by=owner)
        await folder.create_secret(owned)
    (root / "objects" / "memorytenants" / "support" / "acme.json").unlink()
    with FolderResources.open(root) as folder:
        assert await folder.get_secret("support", "owned") is None


@pytest.mark.parametrize("place", ["objects/memorytenants/support/acme.json", "meta.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"metadata": 1, "uid": 7}'])
def test_a_damaged_file_is_named(root: Path, place: str, content: str) -> None:
    with FolderResources.open(root) as folder:
        folder.declare(ACME, SPEC)
    (root / place).write_text(content)
    with pytest.raises(InvalidResource, match=place), FolderResources.open(root):
        pass


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "Upper", ".hidden", "a/b", "..", "x\n"])
async def test_no_name_leaves_the_folder(folder: FolderResources, name: str) -> None:
    with pytest.raises(InvalidResource, match="no name of Kubernetes"):
        folder.declare(ObjectKey.policy(name), {})
    with pytest.raises(InvalidResource, match="no name of Kubernetes"):
        await folder.create_secret(SecretDraft("support", name, "acme", {"k": b"v"}))


@pytest.mark.parametrize("key", ["../up", "", "..", ".", "..data", "a/b", "k\n"])
async def test_no_key_of_a_secret_leaves_its_folder(folder: FolderResources, key: str) -> None:
    with pytest.raises(InvalidResource, match="no key of a Secret"):
        await folder.create_secret(changed(BINDING, {key: b"v"}))


async def test_a_users_secret_is_declared_and_never_in_place_of_ours(
    folder: FolderResources,
) -> None:
    assert folder.declare_secret("support", "key", {"root": b"1"}) is Outcome.CREATED
    assert folder.declare_secret("support", "key", {"root": b"1"}) is Outcome.UNCHANGED
    assert folder.declare_secret("support", "key", {"root": b"2"}) is Outcome.CONFIGURED
    ours = await folder.create_secret(BINDING)
    with pytest.raises(ResourceConflict) as refused:
        folder.declare_secret("support", "acme-default", {"password": b"mine"})
    assert refused.value.reason == FOREIGN_SECRET
    assert await folder.get_secret("support", "acme-default") == ours


async def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("in the way")
    with pytest.raises(ResourceUnavailable, match="cannot be used"), FolderResources.open(file):
        pass


async def test_the_log_of_events_is_bounded(root: Path, folder: FolderResources) -> None:
    tenant, _ = folder.declare(ACME, SPEC)
    for number in range(2500):
        message = f"{number} " + "x" * 1000
        await folder.emit_event(tenant, EventType.NORMAL, "Talkative", message)
    logs = found(root, "events.log*")
    assert len(logs) == 2
    assert all(log.stat().st_size < 1024 * 1024 + 2048 for log in logs)


_WRITER = """
import asyncio, sys
from pathlib import Path
from memtenant.resources.folder import FolderResources
from memtenant.resources.port import ObjectKey, SecretDraft

async def write(root):
    with FolderResources.open(Path(root)) as folder:
        print("open", flush=True)
        number = 0
        while True:
            number += 1
            tenant = ObjectKey.tenant("support", f"t{number % 7}")
            declared, _ = folder.declare(tenant, {"number": number})
            await folder.write_status(declared, {"number": number})
            current = await folder.get_secret("support", "binding")
            data = {"one": b"%d" % number, "two": b"%d" % number}
            draft = SecretDraft("support", "binding", "x", data, "servicebinding.io/redis")
            await folder.apply_secret(draft, current=current)
            if number % 3 == 0:
                folder.delete(tenant)

asyncio.run(write(sys.argv[1]))
"""


async def test_a_writer_killed_at_any_point_leaves_whole_files(root: Path) -> None:
    newest = 0
    for pause in (0.0, 0.013, 0.031, 0.052, 0.071, 0.11):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, str(root), stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"open\n"
        await asyncio.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        await writer.wait()
        with FolderResources.open(root) as folder:
            for tenant in await folder.list(Kind.TENANT):
                assert tenant.status.get("number") in {None, *range(tenant.spec["number"] + 1)}
            binding = await folder.get_secret("support", "binding")
            if binding is not None:
                assert binding.data["one"] == binding.data["two"]
                mounted = root / "bindings" / "support" / "binding"
                files = {key: (mounted / key).read_bytes() for key in ("one", "two")}
                assert files == binding.data
            declared, _ = folder.declare(ObjectKey.policy("marker"), {"pause": pause})
            assert int(declared.resource_version) > newest
            newest = int(declared.resource_version)
        assert found(root, "**/.*.tmp") == []
