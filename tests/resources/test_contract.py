"""What a reconcile may rely on: the same over an API server and over a folder."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memtenant.errors import InvalidResource, ResourceConflict, ResourceNotFound
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import (
    FOREIGN_SECRET,
    OWNER_LABEL,
    Declared,
    EventType,
    Kind,
    ObjectKey,
    SecretDraft,
    StoredSecret,
)
from tests.resources.declaring import Declaring

OURS = "memtenant.dev/tenant"
THEIRS = "example.com/backup"
BINDING = "servicebinding.io/redis"
SPEC: dict[str, Any] = {
    "isolation": "Moderate",
    "retentionPolicyRef": {"name": "gdpr"},
    "quota": {"memory": "512Mi"},
}
LARGER = {**SPEC, "quota": {"memory": "1Gi"}}


def acme(declaring: Declaring) -> ObjectKey:
    return ObjectKey.tenant(declaring.namespace, "acme")


def draft(declaring: Declaring, **different: Any) -> SecretDraft:
    fields: dict[str, Any] = {
        "namespace": declaring.namespace,
        "name": "acme-default",
        "owner": "acme",
        "data": {"password": b"old", "ca.crt": b"pem"},
        "type": BINDING,
    }
    return SecretDraft(**fields | different)


async def made(declaring: Declaring, **different: Any) -> StoredSecret:
    return await declaring.resources.apply_secret(draft(declaring, **different), current=None)


async def now(declaring: Declaring, name: str = "acme-default") -> StoredSecret:
    secret = await declaring.resources.get_secret(declaring.namespace, name)
    assert secret is not None
    return secret


def told(declared: Declared) -> dict[str, Any]:
    """The status without what an API server shows before anybody wrote one: Ready=Unknown."""
    conditions = [
        one for one in declared.status.get("conditions", ()) if one["reason"] != "Pending"
    ]
    rest = {name: value for name, value in declared.status.items() if name != "conditions"}
    return {**rest, **({"conditions": conditions} if conditions else {})}


async def test_what_is_declared_is_read(declaring: Declaring) -> None:
    labels, annotations = {"team": "support"}, {"note": "first"}
    before = datetime.now(UTC) - timedelta(seconds=2)
    key = acme(declaring)
    await declaring.declare(key, SPEC, labels=labels, annotations=annotations)
    read = await declaring.resources.get(key)
    assert read is not None
    assert read.key == key
    assert read.uid
    assert read.generation == 1
    assert before <= read.creation_timestamp
    assert (read.labels, read.annotations) == (labels, annotations)
    assert (read.finalizers, read.deleting, told(read)) == ((), False, {})
    assert read.spec["retentionPolicyRef"] == {"name": "gdpr"}
    assert read.spec["quota"]["memory"] == "512Mi"
    assert read in (await declaring.resources.list(Kind.TENANT)).items


async def test_cluster_scoped_objects_have_no_namespace(declaring: Declaring) -> None:
    key = ObjectKey.policy(f"gdpr-{declaring.namespace}")
    await declaring.declare(key, {"allowedNamespaces": {"from": "All"}})
    read = await declaring.resources.get(key)
    assert read is not None
    assert read.key.namespace == ""
    assert key in {policy.key for policy in await declaring.resources.list(Kind.POLICY)}


async def test_what_is_not_there_is_none(declaring: Declaring) -> None:
    resources = declaring.resources
    assert await resources.get(acme(declaring)) is None
    assert await resources.get_secret(declaring.namespace, "acme-default") is None
    assert await resources.list_secrets(declaring.namespace, {OWNER_LABEL: "acme"}) == ()


async def test_only_a_change_of_spec_makes_a_generation(declaring: Declaring) -> None:
    first = await declaring.declare(acme(declaring), SPEC)
    labelled = await declaring.declare(acme(declaring), SPEC, labels={"a": "b"})
    assert (labelled.uid, labelled.generation) == (first.uid, 1)
    assert labelled.resource_version != first.resource_version
    larger = await declaring.declare(acme(declaring), LARGER, labels={"a": "b"})
    assert (larger.uid, larger.generation) == (first.uid, 2)


async def test_the_same_manifest_again_writes_nothing(declaring: Declaring) -> None:
    declared = await declaring.declare(acme(declaring), SPEC, labels={"a": "b"})
    await declaring.resources.write_status(declared, {"observedGeneration": 1})
    first = await declaring.resources.get(acme(declaring))
    assert await declaring.declare(acme(declaring), SPEC, labels={"a": "b"}) == first


async def test_a_finalizer_is_added_once_and_is_no_new_generation(declaring: Declaring) -> None:
    declared = await declaring.declare(acme(declaring), SPEC)
    kept = await declaring.resources.add_finalizer(declared, OURS)
    assert kept.finalizers == (OURS,)
    assert kept.generation == 1
    assert await declaring.resources.get(acme(declaring)) == kept
    assert await declaring.resources.add_finalizer(kept, OURS) == kept


async def test_finalizers_of_others_survive(declaring: Declaring) -> None:
    resources = declaring.resources
    read = await declaring.declare(acme(declaring), SPEC)
    ours = await resources.add_finalizer(read, OURS)
    with pytest.raises(ResourceConflict):
        await resources.add_finalizer(read, THEIRS)
    both = await resources.add_finalizer(ours, THEIRS)
    assert both.finalizers == (OURS, THEIRS)
    with pytest.raises(ResourceConflict):
        await resources.remove_finalizer(ours, OURS)
    await resources.remove_finalizer(both, OURS)
    left = await resources.get(acme(declaring))
    assert left is not None
    assert left.finalizers == (THEIRS,)


async def test_a_status_written_meanwhile_is_no_conflict_for_a_finalizer(
    declaring: Declaring,
) -> None:
    read = await declaring.declare(acme(declaring), SPEC)
    await declaring.resources.write_status(read, {"observedGeneration": 1})
    kept = await declaring.resources.add_finalizer(read, OURS)
    assert told(kept) == {"observedGeneration": 1}


async def test_deletion_waits_for_the_last_finalizer(declaring: Declaring) -> None:
    resources = declaring.resources
    kept = await resources.add_finalizer(await declaring.declare(acme(declaring), SPEC), OURS)
    await declaring.delete(acme(declaring))
    await declaring.delete(acme(declaring))
    deleting = await resources.get(acme(declaring))
    assert deleting is not None
    assert deleting.deleting
    assert deleting.generation == kept.generation + 1
    with pytest.raises(ResourceConflict):
        await resources.add_finalizer(deleting, THEIRS)
    await resources.write_status(deleting, {"observedGeneration": deleting.generation})
    await resources.remove_finalizer(deleting, OURS)
    assert await resources.get(acme(declaring)) is None
    await resources.remove_finalizer(deleting, OURS)


async def test_without_finalizers_deletion_is_at_once(declaring: Declaring) -> None:
    await declaring.declare(acme(declaring), SPEC)
    await declaring.delete(acme(declaring))
    assert await declaring.resources.get(acme(declaring)) is None


async def test_an_object_made_again_is_another_one(declaring: Declaring) -> None:
    resources = declaring.resources
    former = await declaring.declare(acme(declaring), SPEC)
    await declaring.delete(acme(declaring))
    with pytest.raises(ResourceNotFound):
        await resources.write_status(former, {"observedGeneration": 1})
    with pytest.raises(ResourceNotFound):
        await resources.add_finalizer(former, OURS)
    again = await declaring.declare(acme(declaring), SPEC)
    assert again.uid != former.uid
    assert again.generation == 1
    with pytest.raises(ResourceConflict):
        await resources.write_status(former, {"observedGeneration": 1})
    with pytest.raises(ResourceConflict):
        await resources.add_finalizer(former, OURS)
    assert await resources.get(acme(declaring)) == again


async def test_a_status_is_replaced_whole_and_leaves_the_rest(declaring: Declaring) -> None:
    resources = declaring.resources
    read = await declaring.declare(acme(declaring), SPEC)
    version = await resources.write_status(read, {"observedGeneration": 1, "store": "eu"})
    after = await resources.get(acme(declaring))
    assert after is not None
    assert told(after) == {"observedGeneration": 1, "store": "eu"}
    assert after.resource_version == version
    assert (after.generation, after.spec) == (1, read.spec)
    await resources.write_status(read, {"observedGeneration": 1})
    after = await resources.get(acme(declaring))
    assert after is not None
    assert told(after) == {"observedGeneration": 1}


async def test_a_status_that_is_there_already_writes_nothing(declaring: Declaring) -> None:
    read = await declaring.declare(acme(declaring), SPEC)
    status = {"observedGeneration": 1, "tenantId": "support.acme", "bindings": []}
    version = await declaring.resources.write_status(read, status)
    assert await declaring.resources.write_status(read, status) == version
    after = await declaring.resources.get(acme(declaring))
    assert after is not None
    assert after.resource_version == version


async def test_a_new_declaration_leaves_status_and_finalizers(declaring: Declaring) -> None:
    read = await declaring.declare(acme(declaring), SPEC)
    await declaring.resources.add_finalizer(read, OURS)
    await declaring.resources.write_status(read, {"observedGeneration": 1})
    after = await declaring.declare(acme(declaring), LARGER)
    assert told(after) == {"observedGeneration": 1}
    assert after.finalizers == (OURS,)


async def test_a_secret_is_made_as_drafted(declaring: Declaring) -> None:
    secret = await made(declaring, labels={"a": "b"}, annotations={"c": "d"})
    assert secret == await now(declaring)
    assert secret.type == BINDING
    assert secret.data == {"password": b"old", "ca.crt": b"pem"}
    assert secret.owner == "acme"
    assert secret.labels["a"] == "b"
    assert secret.annotations == {"c": "d"}


async def test_a_secret_is_created_only_where_none_is(declaring: Declaring) -> None:
    first = await declaring.resources.create_secret(draft(declaring))
    with pytest.raises(ResourceConflict):
        await declaring.resources.create_secret(draft(declaring, data={"password": b"new"}))
    assert await now(declaring) == first


async def test_a_secret_is_replaced_only_as_it_was_read(declaring: Declaring) -> None:
    first = await made(declaring, labels={"a": "b"})
    second = await declaring.resources.replace_secret(first, {"password": b"new"})
    assert second.data == {"password": b"new"}
    assert (second.uid, second.labels, second.type) == (first.uid, first.labels, first.type)
    with pytest.raises(ResourceConflict):
        await declaring.resources.replace_secret(first, {"password": b"newer"})
    assert await now(declaring) == second
    assert await declaring.resources.replace_secret(second, {"password": b"new"}) == second


async def test_an_applied_secret_loses_what_the_draft_no_longer_has(declaring: Declaring) -> None:
    first = await made(declaring)
    second = await declaring.resources.apply_secret(
        draft(declaring, data={"password": b"new"}), current=first
    )
    assert second.data == {"password": b"new"}
    assert await now(declaring) == second


async def test_applying_the_same_again_writes_nothing(declaring: Declaring) -> None:
    owner = await declaring.declare(acme(declaring), SPEC)
    first = await made(declaring, owned_by=owner)
    again = await declaring.resources.apply_secret(
        draft(declaring, owned_by=owner), current=await now(declaring)
    )
    assert again == first == await now(declaring)


async def test_an_apply_on_what_changed_since_it_was_read_is_a_conflict(
    declaring: Declaring,
) -> None:
    first = await made(declaring)
    await declaring.resources.replace_secret(first, {"password": b"new"})
    with pytest.raises(ResourceConflict):
        await declaring.resources.apply_secret(
            draft(declaring, data={"password": b"late"}), current=first
        )
    with pytest.raises(ResourceConflict):
        await declaring.resources.apply_secret(draft(declaring), current=None)
    assert (await now(declaring)).data == {"password": b"new"}


async def test_a_secret_of_somebody_else_is_never_taken_over(declaring: Declaring) -> None:
    await declaring.user_secret("acme-default", {"mine": "yes"}, {"team": "support"})
    theirs = await now(declaring)
    assert theirs.owner is None
    with pytest.raises(ResourceConflict) as refused:
        await declaring.resources.apply_secret(draft(declaring), current=theirs)
    assert refused.value.reason == FOREIGN_SECRET
    with pytest.raises(ResourceConflict):
        await declaring.resources.apply_secret(draft(declaring), current=None)
    assert await now(declaring) == theirs


async def test_a_secret_made_for_another_owner_is_not_taken_over(declaring: Declaring) -> None:
    others = await made(declaring, owner="acme-east")
    with pytest.raises(ResourceConflict) as refused:
        await declaring.resources.apply_secret(draft(declaring), current=others)
    assert refused.value.reason == FOREIGN_SECRET


async def test_the_type_of_a_secret_does_not_change(declaring: Declaring) -> None:
    first = await made(declaring)
    with pytest.raises(InvalidResource, match="delete it"):
        await declaring.resources.apply_secret(draft(declaring, type="Opaque"), current=first)


async def test_a_deleted_secret_is_the_one_that_was_read(declaring: Declaring) -> None:
    first = await made(declaring)
    second = await declaring.resources.replace_secret(first, {"password": b"new"})
    with pytest.raises(ResourceConflict):
        await declaring.resources.delete_secret(first)
    await declaring.resources.delete_secret(second)
    await declaring.resources.delete_secret(second)
    assert await declaring.resources.get_secret(declaring.namespace, "acme-default") is None
    with pytest.raises(ResourceNotFound):
        await declaring.resources.replace_secret(second, {"password": b"late"})


async def test_secrets_are_found_by_all_of_the_labels(declaring: Declaring) -> None:
    one = await made(declaring, name="one", labels={"a": "1", "b": "1"})
    await made(declaring, name="two", labels={"a": "1", "b": "2"})
    resources = declaring.resources
    assert await resources.list_secrets(declaring.namespace, {"a": "1", "b": "1"}) == (one,)
    assert len(await resources.list_secrets(declaring.namespace, {"a": "1"})) == 2


async def test_secrets_are_found_by_the_label_that_they_lack(declaring: Declaring) -> None:
    """Of type Opaque: those of Helm are large, and none of them is meant."""
    other = await made(declaring, name="other", labels={"a": "1"}, type="Opaque")
    await made(declaring, name="marked", labels={"a": "1", "b": "1"}, type="Opaque")
    await made(declaring, name="binding", labels={"a": "1"})
    lacking = declaring.resources.list_secrets_lacking
    assert await lacking(declaring.namespace, "b", {}) == (other,)
    assert await lacking(declaring.namespace, "b", {"a": "1"}) == (other,)
    assert await lacking(declaring.namespace, "b", {"a": "2"}) == ()
    assert await lacking(declaring.namespace, "a", {}) == ()


async def test_an_owned_secret_goes_with_its_owner_and_an_unowned_one_stays(
    declaring: Declaring,
) -> None:
    owner = await declaring.declare(acme(declaring), SPEC)
    owned = await made(declaring, owned_by=owner)
    assert owned.owner_uids == (owner.uid,)
    await made(declaring, name="keyring")
    await declaring.delete(acme(declaring))
    async with asyncio.timeout(60):
        while await declaring.resources.get_secret(  # noqa: ASYNC110 -- a collector's pace
            declaring.namespace, owned.name
        ):
            await asyncio.sleep(0.1)
    await now(declaring, "keyring")


async def test_a_namespace_keeps_its_uid(declaring: Declaring) -> None:
    first = await declaring.resources.get_namespace(declaring.namespace)
    again = await declaring.resources.get_namespace(declaring.namespace)
    assert first is not None
    assert again is not None
    assert first.uid == again.uid
    assert first.labels["kubernetes.io/metadata.name"] == declaring.namespace
    assert not first.terminating


async def test_a_list_is_newer_than_what_was_deleted_before_it(declaring: Declaring) -> None:
    mirror = Mirror()
    for kind in Kind:
        mirror.replace(kind, await declaring.resources.list(kind))
    mirror.put(await declaring.declare(acme(declaring), SPEC))
    mirror.replace_namespaces(await declaring.resources.list_namespaces())
    assert mirror.synced
    assert mirror.namespace(declaring.namespace) is not None
    assert mirror.get(acme(declaring)) == await declaring.resources.get(acme(declaring))
    await declaring.delete(acme(declaring))
    gone = mirror.replace(Kind.TENANT, await declaring.resources.list(Kind.TENANT))
    assert gone == {acme(declaring)}


async def test_the_same_event_is_not_repeated(declaring: Declaring) -> None:
    read = await declaring.declare(acme(declaring), SPEC)
    for _ in range(3):
        await declaring.resources.emit_event(read, EventType.WARNING, "StoreDown", "eu is away")
    await declaring.resources.emit_event(read, EventType.NORMAL, "StoreUp", "eu is back")
    assert sorted(await declaring.events(read)) == ["eu is away", "eu is back"]


async def test_an_event_about_a_cluster_scoped_object(declaring: Declaring) -> None:
    key = ObjectKey.policy(f"gdpr-{declaring.namespace}")
    read = await declaring.declare(key, {"allowedNamespaces": {"from": "All"}})
    await declaring.resources.emit_event(read, EventType.NORMAL, "InUse", "x" * 2000)
    assert await declaring.events(read) == ["x" * 1024]


async def test_secrets_may_be_read_where_it_says_so(declaring: Declaring) -> None:
    assert await declaring.resources.can_read_secrets(declaring.namespace)


async def test_no_repr_shows_a_secret(declaring: Declaring) -> None:
    wanted = draft(declaring, data={"password": b"hunter2"})
    stored = await declaring.resources.apply_secret(wanted, current=None)
    for shown in (repr(wanted), repr(stored), f"{wanted} {stored}"):
        assert "hunter2" not in shown
        assert "password" in shown
