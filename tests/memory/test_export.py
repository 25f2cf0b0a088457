"""What is kept of a person, read back from the files that an export wrote."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from memtenant import ContextBudget, Message, Tenant, ToolCall
from memtenant.errors import PortabilityNotPermitted, RecordInvalid, SubjectErased, UsageError
from memtenant.memory.exports import ExportKind
from memtenant.memory.summaries import SummaryRequest
from memtenant.tenancy.policy import (
    AgentAccess,
    EncryptionMode,
    Isolation,
    SubjectRights,
    TenantPolicy,
)
from tests.memory.bindings import Provisioned
from tests.memory.conftest import Open

RIGHTS = SubjectRights(erasure=True, portability=True)


@pytest.fixture
def policy() -> TenantPolicy:
    return TenantPolicy(access=AgentAccess.STEWARD, rights=RIGHTS)


def lines(folder: Path, kind: ExportKind) -> list[dict[str, Any]]:
    """A file's lines, after its hash was compared with the manifest's."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (told,) = (one for one in manifest["files"] if one["name"] == f"{kind}.jsonl")
    data = (folder / told["name"]).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (told["bytes"], told["sha256"])
    found = [json.loads(line) for line in data.splitlines()]
    assert len(found) == told["lines"]
    return found


async def fill(tenant: Tenant) -> None:
    chat = tenant.conversation("ticket", user="ada", title="Lost parcel")
    await chat.extend([Message.human(f"message {number}") for number in range(600)])
    await chat.append(Message.ai("", tool_calls=[ToolCall("1", "find", {"parcel": 7})]))
    await chat.remove(3)
    await tenant.conversation("empty", user="ada").append(Message.human("gone"))
    await tenant.conversation("empty", user="ada").delete()
    await tenant.conversation("ticket", user="bob").append(Message.human("bob's own"))
    case = tenant.shared_context("case")
    await case.create({"state": "open", "owner": {"name": "ada"}}, about=[])
    await case.update({"owner": {"name": "Ada"}}, about=["ada"])


async def test_an_export_reads_back(tenant: Tenant, tmp_path: Path) -> None:
    await fill(tenant)
    manifest = await tenant.export("ada", tmp_path / "ada")
    (conversation,) = lines(tmp_path / "ada", ExportKind.CONVERSATION)
    assert (conversation["session"], conversation["title"]) == ("ticket", "Lost parcel")
    messages = lines(tmp_path / "ada", ExportKind.MESSAGE)
    assert manifest.count(ExportKind.MESSAGE) == len(messages) == 600
    assert [one["sequence"] for one in messages] == [n for n in range(1, 602) if n != 3]
    assert messages[1]["message"] == {"role": "human", "text": "message 1"}
    assert messages[-1]["message"]["calls"][0]["args"] == {"parcel": 7}
    (value,) = lines(tmp_path / "ada", ExportKind.VALUE)
    assert (value["name"], value["value"]) == ("owner", {"name": "Ada"})
    assert (tmp_path / "ada").stat().st_mode & 0o777 == 0o700
    assert [name for name in os.listdir(tmp_path) if "ada" in name] == ["ada"]  # noqa: PTH208


async def test_an_export_goes_line_by_line_too(tenant: Tenant) -> None:
    await fill(tenant)
    kinds = [item.kind async for item in tenant.exported("ada")]
    assert kinds[0] is ExportKind.CONVERSATION
    assert kinds.count(ExportKind.MESSAGE) == 600
    assert kinds[-1] is ExportKind.VALUE


async def test_an_export_that_is_cut_short_leaves_nothing(
    on_valkey: Provisioned, opened: Open, tmp_path: Path
) -> None:
    tenant = opened(on_valkey)
    await fill(tenant)
    with on_valkey.server.admin() as admin:
        (name,) = (one for one in admin.scan_iter("*:l") if admin.llen(one) > 2)
        entry = admin.lindex(name, 500) or b""
        admin.lset(name, 500, entry[:-1] + bytes((entry[-1] ^ 1,)))
    with pytest.raises(RecordInvalid):
        await tenant.export("ada", tmp_path / "ada")
    assert not any("ada" in name for name in os.listdir(tmp_path))  # noqa: PTH208


async def test_what_is_there_is_not_overwritten(
    on_valkey: Provisioned, opened: Open, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="exists already"):
        await opened(on_valkey).export("ada", tmp_path)
    with pytest.raises(UsageError, match="No folder can be made"):
        await opened(on_valkey).export("ada", tmp_path / "none" / "ada")


async def test_nothing_kept_is_an_export_of_nothing(
    on_valkey: Provisioned, opened: Open, tmp_path: Path
) -> None:
    manifest = await opened(on_valkey).export("nobody", tmp_path / "nobody")
    assert [one.lines for one in manifest.files] == [0, 0, 0, 0]


async def test_a_person_who_was_forgotten_is_not_exported(
    on_valkey: Provisioned, opened: Open, tmp_path: Path
) -> None:
    tenant = opened(on_valkey)
    await tenant.conversation("s", user="ada").append(Message.human("Hello"))
    await tenant.forget("ada")
    with pytest.raises(SubjectErased):
        await tenant.export("ada", tmp_path / "ada")


@pytest.mark.parametrize("isolation", [Isolation.MINIMAL, Isolation.MODERATE])
async def test_only_the_persons_own_messages_are_exported(
    isolation: Isolation, on_valkey: Provisioned, opened: Open
) -> None:
    on_valkey.policy = TenantPolicy(
        isolation, EncryptionMode.DISABLED, access=AgentAccess.STEWARD, rights=RIGHTS
    )
    tenant = opened(on_valkey)
    for user in ("ada", "bob", "ada"):
        await tenant.conversation("s", user=user).append(Message.human(user))
    found = [item async for item in tenant.exported("ada") if item.kind is ExportKind.MESSAGE]
    assert [item.fields["message"]["text"] for item in found] == ["ada", "ada"]


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (TenantPolicy(access=AgentAccess.READ_WRITE, rights=RIGHTS), "needs Steward"),
        (TenantPolicy(rights=RIGHTS), "tells no access"),
        (TenantPolicy(access=AgentAccess.STEWARD), "portability.mode: Forbidden"),
    ],
)
async def test_who_may_not_export_is_told_before_any_io(
    told: str, on_valkey: Provisioned, opened: Open, tmp_path: Path
) -> None:
    tenant = opened(on_valkey, port=1)
    with pytest.raises(PortabilityNotPermitted, match=told):
        await tenant.export("ada", tmp_path / "ada")
    with pytest.raises(PortabilityNotPermitted, match=told):
        tenant.exported("ada")


async def test_summaries_are_exported_with_what_they_cover(
    on_valkey: Provisioned, opened: Open, tmp_path: Path
) -> None:
    async def says(request: SummaryRequest) -> dict[str, object]:
        return {"summary": "A parcel is lost.", "facts": ["It is AB-1."]}

    chat = opened(on_valkey).conversation("s", user="ada", summariser=says)
    await chat.extend([Message.human(f"Message {n:02} {'x' * 20}") for n in range(20)])
    made = (await chat.summarise(ContextBudget(400, summary_tokens=120, counter=len))).summary
    assert made is not None
    await opened(on_valkey).export("ada", tmp_path / "ada")
    (summary,) = lines(tmp_path / "ada", ExportKind.SUMMARY)
    assert (summary["text"], summary["facts"]) == ("A parcel is lost.", ["It is AB-1."])
    assert (summary["first"], summary["last"]) == (made.lineage.first, made.lineage.last)
