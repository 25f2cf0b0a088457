"""How the real thing is broken for each check, and how its evidence is taken away.

A check that is not named here fails `test_controls`.
"""

import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from memtenant import Message
from memtenant.clock import rfc3339
from memtenant.crypto.audit_keys import INSTALLATION_LOG
from memtenant.functions.passes import Passes
from memtenant.tenancy import keys
from tests.reports.conftest import ACME, Scene

PREFIX = keys.prefix(ACME)

Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Break:
    """What is done, and what the report then says of it. Those of one ``scene`` are done
    together."""

    check: str
    says: str
    act: Act
    scene: str
    declares: Mapping[str, Any] | None = None


def content(admin: Any) -> bytes:
    """The list of the one conversation."""
    (found,) = admin.scan_iter(f"{keys.records(ACME)}*:l")
    return bytes(found)


async def a_plaintext_record(scene: Scene) -> None:
    with scene.server.admin() as admin:
        admin.rpush(content(admin), "hello, I am plain")


async def a_verification_code(scene: Scene) -> None:
    with scene.server.admin() as admin:
        admin.set(f"{keys.records(ACME)}note", "card 4111 1111 1111 1111, CVV: 123")


async def an_address(scene: Scene) -> None:
    with scene.server.admin() as admin:
        admin.set(f"{keys.records(ACME)}who", "ada@example.org")


async def an_old_record(scene: Scene) -> None:
    with scene.server.admin() as admin:
        name = content(admin)
        entry = bytes(admin.lindex(name, 0))
        then = int((scene.now() - timedelta(days=4000)).timestamp() * 1000)
        admin.lset(name, 0, entry[:6] + then.to_bytes(6, "big") + entry[12:])


async def records_of_times_that_cannot_be(scene: Scene) -> None:
    """Of one itself, of one its writer's, and one that its writer was too old for."""
    with scene.server.admin() as admin:
        name = content(admin)
        entry = bytes(admin.lindex(name, 1))
        time, writer = int.from_bytes(entry[6:12], "big"), int.from_bytes(entry[33:37], "big")
        for header, opened in (
            (time + 86_400_000, writer),
            (time, writer + 3 * 86_400),
            (time, writer - 3 * 86_400),
        ):
            dated = entry[:6] + header.to_bytes(6, "big") + entry[12:33]
            admin.rpush(name, dated + opened.to_bytes(4, "big") + entry[37:])
        yesterday = (writer - 86_400) * 1000
        admin.set(keys.passes(ACME), Passes().and_then(yesterday, yesterday).to_bytes())


async def anybody_gets_in(scene: Scene) -> None:
    with scene.server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "+ping")
        admin.execute_command("ACL", "SETUSER", "guest", "on", "nopass", "+ping")


async def a_user_may_more(scene: Scene) -> None:
    with scene.server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "mt.support.acme.default.a", "+keys")


async def the_sealers_user_is_gone(scene: Scene) -> None:
    with scene.server.admin() as admin:
        admin.execute_command("ACL", "DELUSER", "mt.sealer")


async def a_quota_that_nobody_feels(scene: Scene) -> None:
    """Twice what is declared, while the store says that all is well."""
    agents = [{"name": "default", "access": "Steward"}]
    scene.ground.tenant("acme", quota={"memory": "1Mi"}, agents=agents)
    await scene.ground.settle()
    with scene.server.admin() as admin:
        admin.set(f"{keys.records(ACME)}much", bytes(2 * 1024 * 1024))
        admin.hset(keys.limits(ACME), "conversations", "999999")


async def a_store_by_a_name_of_another_machine(scene: Scene) -> None:
    """A name that nobody can tell to be this machine's; it is."""
    scene.ground.store(endpoint=f"127.1:{scene.server.port}")
    await scene.ground.settle()


async def the_audit_is_off(scene: Scene) -> None:
    with scene.server.admin() as admin:
        admin.hset(keys.limits(ACME), "audit", "0")


async def a_retired_version(scene: Scene) -> None:
    with scene.server.admin() as admin:
        name = next(admin.scan_iter(f"{keys.prefix(ACME)}k:*"))
        stored = bytes(admin.hget(name, "dek"))
        admin.hset(name, "dek", (9).to_bytes(4, "big") + stored[4:])


async def a_forged_event(scene: Scene) -> None:
    with scene.server.admin() as admin:
        await scene.agent().conversation("s", user="ada").append(Message.human("one more"))
        entry = bytes(admin.lindex(keys.audit_queue(ACME), -1))
        admin.rpush(keys.audit_queue(ACME), entry[:40] + b"\x55" + entry[41:])
    await scene.seal()


async def an_event_that_was_taken(scene: Scene) -> None:
    await scene.agent().conversation("t", user="ada").append(Message.human("unseen"))
    with scene.server.admin() as admin:
        admin.rpop(keys.audit_queue(ACME))


async def a_record_that_was_taken(scene: Scene) -> None:
    with scene.server.admin() as admin:
        for name in admin.scan_iter(f"{keys.records(ACME)}*:l"):
            if admin.llen(name) > 1:
                admin.lpop(name)


async def a_byte_of_the_archive(scene: Scene) -> None:
    (segment,) = (scene.archive / "logs" / str(ACME)).glob("*.log")
    data = bytearray(segment.read_bytes())
    data[40] ^= 1
    segment.write_bytes(data)


async def the_log_of_a_tenant(scene: Scene) -> None:
    shutil.rmtree(scene.archive / "logs" / str(ACME))


async def time_goes_by(scene: Scene) -> None:
    scene.ahead = timedelta(days=500)


async def a_person_asks_to_be_forgotten(scene: Scene) -> None:
    await scene.agent().forget("ada", consent_reference="letter")


async def a_request_and_its_receipt_are_taken(scene: Scene) -> None:
    await scene.agent().forget("ada", consent_reference="letter")
    await scene.seal()
    with scene.server.admin() as admin:
        admin.delete(keys.erasure_requests(ACME), keys.erasure_receipts(ACME))
    scene.ahead = timedelta(minutes=2)


async def an_erased_person_is_put_back(scene: Scene) -> None:
    with scene.server.admin() as admin:
        records = content(admin)
        kept = admin.dump(records)
        people = {bytes(one): admin.hget(one, "dek") for one in admin.scan_iter(f"{PREFIX}k:*")}
        await scene.agent().forget("ada", consent_reference="letter")
        await scene.seal()
        for _ in range(3):
            await scene.ground.settle()
        (ada,) = (one for one in people if admin.hexists(one, "erased"))
        admin.hset(ada, "dek", people[ada])
        admin.hdel(ada, "erased")
        admin.rpush(f"{PREFIX}i:{ada.decode().rpartition(':')[2]}", "_:somewhere")
        admin.restore(records, 0, kept)
    scene.ahead = timedelta(minutes=2)


async def a_second_reader(scene: Scene) -> None:
    (scene.signer / "key").chmod(0o644)


async def an_edited_record(scene: Scene) -> None:
    scene.decrypt = True
    with scene.server.admin() as admin:
        name = content(admin)
        entry = bytearray(admin.lindex(name, 0))
        entry[-1] ^= 1
        admin.lset(name, 0, bytes(entry))


async def a_pruned_year(scene: Scene) -> None:
    await scene.agent().conversation("s", user="ada").append(Message.human("later"))
    audit = {"mode": "Required", "reads": "Required"}
    scene.ground.policy(frameworks=list(scene.frameworks), audit=audit, legalBasis="another")
    await scene.ground.settle()
    await scene.seal(prune=[str(ACME), INSTALLATION_LOG])


async def earlier_reports_are_gone_and_changed(scene: Scene) -> None:
    removed = await scene.keep()
    scene.ahead = timedelta(hours=2)
    changed = await scene.keep()
    scene.ahead = timedelta(hours=4)
    await scene.keep()
    await scene.seal()
    shutil.rmtree(removed.folder)
    (changed.folder / "report.html").write_text("all is well")


async def nothing(_scene: Scene) -> None:
    """The declaration is enough."""


async def a_changed_spec(scene: Scene) -> None:
    scene.ground.tenant("acme", quota={"memory": "64Mi"})


async def a_changed_store(scene: Scene) -> None:
    scene.ground.store(default=True)


def held() -> dict[str, Any]:
    since = rfc3339(datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    return {"legalHolds": [{"matter": "SEC-1", "since": since, "tenantSelector": {}}]}


BACK = (an_erased_person_is_put_back, "put back")

BREAKS = (
    Break("Encrypted", "values in clear", a_plaintext_record, "store"),
    Break("NoForbiddenData", "CardVerification", a_verification_code, "store"),
    Break("PersonalDataMasked", "Email that is not masked", an_address, "store"),
    Break("KeptWithinPeriod", "records of content older than", an_old_record, "store"),
    Break("KeptWithinPeriod", "cannot have: 3 (", records_of_times_that_cannot_be, "store"),
    Break("DefaultUserOff", "default on", anybody_gets_in, "store"),
    Break("DefaultUserOff", "guest on", anybody_gets_in, "store"),
    Break("UniqueUsers", "a user for anybody", anybody_gets_in, "store"),
    Break("LeastPrivilege", "+keys", a_user_may_more, "store"),
    Break("LeastPrivilege", "mt.sealer on", the_sealers_user_is_gone, "store"),
    Break("LeastPrivilege", "its users may write, and", a_quota_that_nobody_feels, "quota"),
    Break("LeastPrivilege", "another conversations", a_quota_that_nobody_feels, "quota"),
    Break("TransportEncrypted", "127.1:", a_store_by_a_name_of_another_machine, "transport"),
    Break("Audited", "leave no event", the_audit_is_off, "store"),
    Break("KeysRotated", "data keys under version 9", a_retired_version, "store"),
    Break("AuditCovers", "no events of the agent", a_forged_event, "log"),
    Break("AuditCovers", "records without an event: 1/", an_event_that_was_taken, "log"),
    Break("AuditCovers", "that are gone", a_record_that_was_taken, "log"),
    Break("LogVerifies", "support.acme", a_byte_of_the_archive, "archive"),
    Break("LogVerifies", "were sealed", the_log_of_a_tenant, "archive gone"),
    Break("ErasuresCompleted", "not within 1mo", a_person_asks_to_be_forgotten, "time"),
    Break("ErasuresCompleted", "nor a receipt: 1", a_request_and_its_receipt_are_taken, "erasure"),
    Break("ErasuresCompleted", "of a person who was erased is there (mt:", *BACK),
    Break("ErasuresCompleted", "was erased names 1 places (mt:{support.acme}:i:", *BACK),
    Break("ErasuresCompleted", "the tombstone of erasure", *BACK),
    Break("ErasuresCompleted", "before they were forgotten: 1, and 0", *BACK),
    Break("ErasuresCompleted", "(2 records, as in r:…:", *BACK),
    Break("CredentialsRotated", "over 90d old", time_goes_by, "time"),
    Break("KeysRotated", "over 1y old", time_goes_by, "time"),
    Break("SealerLive", "the last seal is of", time_goes_by, "time"),
    Break("LogKeySeparate", "everybody on this machine", a_second_reader, "key"),
    Break("ChangesRecorded", "generation 2", a_changed_spec, "key"),
    Break("ChangesRecorded", "MemoryStore/shared: generation", a_changed_store, "key"),
    Break("RecordsAuthentic", "do not open (RecordTampered): 1/", an_edited_record, "decrypt"),
    Break("LogKept", "support.acme: the log begins at", a_pruned_year, "kept"),
    Break("LogKept", "installation: the log begins at", a_pruned_year, "kept"),
    Break("RevisionsKept", "what the policy said before was removed", a_pruned_year, "kept"),
    Break("ReportsKept", "they were removed", earlier_reports_are_gone_and_changed, "reports"),
    Break("ReportsKept", "is not the file", earlier_reports_are_gone_and_changed, "reports"),
    Break("PeriodJustified", "state spec.legalBasis", nothing, "declared"),
    Break("NothingDeletedUnderHold", "SEC-1", a_record_that_was_taken, "hold"),
    Break("NothingRemovedUnderMinimum", ": 1 (1 of r:…:", a_record_that_was_taken, "minimum"),
)

POLICIES: Mapping[str, dict[str, Any]] = {
    "minimum": {"legalBasis": "contract", "retention": {"content": {"min": "1y"}}},
    "hold": held(),
    "declared": {"retention": {"content": {"default": "8y"}}},
}
"""Of the scenes that declare more than a legal basis."""


async def the_reporters_user(scene: Scene) -> None:
    with scene.server.admin() as admin:
        admin.execute_command("ACL", "DELUSER", "mt.reporter")


async def the_archive(scene: Scene) -> None:
    shutil.rmtree(scene.archive)


async def the_tree(scene: Scene) -> None:
    """What tells which leaves there are; the leaves are there."""
    for segment in (scene.archive / "tree").glob("*.log"):
        segment.unlink()
        segment.mkdir()


async def the_log_key(scene: Scene) -> None:
    shutil.rmtree(scene.signer)


async def a_tenant_of_which_nothing_is_known(scene: Scene) -> None:
    scene.ground.tenant("new")


UNSEEN: Mapping[str, tuple[Act, ...]] = {
    "AuditCovers": (the_archive, the_reporters_user),
    "Audited": (the_reporters_user, the_archive),
    "ChangesRecorded": (the_archive,),
    "CredentialsRotated": (a_tenant_of_which_nothing_is_known,),
    "DefaultUserOff": (the_reporters_user,),
    "Encrypted": (the_reporters_user,),
    "ErasuresCompleted": (the_reporters_user, the_archive),
    "KeptWithinPeriod": (the_reporters_user, the_archive),
    "KeysRotated": (the_reporters_user,),
    "LeastPrivilege": (the_reporters_user,),
    "LogKept": (the_archive, the_tree),
    "LogKeySeparate": (the_log_key,),
    "LogVerifies": (the_archive, the_tree),
    "NoForbiddenData": (the_reporters_user,),
    "NothingDeletedUnderHold": (the_archive,),
    "NothingRemovedUnderMinimum": (the_archive,),
    "PeriodJustified": (a_tenant_of_which_nothing_is_known,),
    "PersonalDataMasked": (the_reporters_user,),
    "RecordsAuthentic": (the_reporters_user,),
    "ReportsKept": (the_archive, the_tree),
    "RevisionsKept": (the_archive, the_tree),
    "SealerLive": (the_archive, the_reporters_user, the_tree),
    "TransportEncrypted": (the_reporters_user,),
    "UniqueUsers": (the_reporters_user,),
}
"""What takes evidence of each check away."""
