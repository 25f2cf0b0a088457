"""What the operator makes of what the sealer says of itself."""

from memtenant.api.conditions import ConditionStatus, Finding
from memtenant.rules.sealing import (
    LogReport,
    SealerReport,
    SealView,
    log_finding,
    store_finding,
)
from memtenant.tenancy.identity import TenantId

ACME, GLOBEX = TenantId("support", "acme"), TenantId("sales", "globex")
NOW = 1_800_000_000_000
DAY = 86_400_000
ALIVE = SealerReport("memtenant.dev/here", 7, 42, "ab" * 32, NOW - 30_000, NOW - 5_000)


def view(sealer: SealerReport | None = ALIVE, **logs: LogReport) -> SealView:
    named = {"acme": ACME, "globex": GLOBEX}
    return SealView(NOW, sealer, {named[name]: log for name, log in logs.items()})


def told(finding: Finding | None) -> tuple[ConditionStatus, str]:
    assert finding is not None
    return finding.status, finding.reason


def test_a_store_on_which_nobody_is_audited_has_no_condition() -> None:
    assert store_finding(view(None)) is None
    assert store_finding(view(ALIVE)) is None
    assert log_finding(view(acme=LogReport()), GLOBEX) is None


def test_a_sealer_that_was_never_there_or_says_nothing_for_a_minute_is_stale() -> None:
    silent = SealerReport("memtenant.dev/here", beat_at=NOW - 60_001)
    for sealer in (None, silent):
        found = view(sealer, acme=LogReport())
        assert told(store_finding(found)) == (ConditionStatus.FALSE, "SealerStale")
        assert told(log_finding(found, ACME)) == (ConditionStatus.FALSE, "SealerStale")
    late = SealerReport("memtenant.dev/here", beat_at=NOW - 60_000)
    assert told(store_finding(view(late, acme=LogReport()))) == (ConditionStatus.TRUE, "Sealed")


def test_a_stale_sealer_says_what_keeps_it() -> None:
    full = SealerReport(beat_at=NOW - 90_000, trouble="the archive is full")
    found = store_finding(view(full, acme=LogReport()))
    assert found is not None
    assert "the archive is full" in found.message


def test_gaps_and_bad_entries_are_told_for_a_day() -> None:
    for log, reason in (
        (LogReport(gaps=2, irregular_at=NOW - DAY), "AuditGaps"),
        (LogReport(dropped=3, irregular_at=NOW), "AuditGaps"),
        (LogReport(gaps=2, bad=1, irregular_at=NOW), "BadMACs"),
    ):
        found = view(acme=log, globex=LogReport())
        assert told(store_finding(found)) == (ConditionStatus.FALSE, reason)
        assert told(log_finding(found, ACME)) == (ConditionStatus.FALSE, reason)
        assert told(log_finding(found, GLOBEX)) == (ConditionStatus.TRUE, "Sealed")
    old = LogReport(gaps=2, irregular_at=NOW - DAY - 1)
    assert told(store_finding(view(acme=old))) == (ConditionStatus.TRUE, "Sealed")


def test_a_log_that_is_read_back_is_told_once_its_agents_are_refused() -> None:
    for since, told_as in ((NOW - 60_001, "LogReadBack"), (NOW - 60_000, "Sealed")):
        found = view(acme=LogReport(read_back_since=since), globex=LogReport())
        assert [told(one)[1] for one in (store_finding(found), log_finding(found, ACME))] == [
            told_as,
            told_as,
        ]
        assert told(log_finding(found, GLOBEX)) == (ConditionStatus.TRUE, "Sealed")


def test_reports_are_read_as_they_were_written_and_nonsense_counts_nothing() -> None:
    log = LogReport(1, 2, 3, 4, 5, 6, 7, read_back_since=8)
    assert LogReport.from_fields(log.to_fields()) == log
    assert SealerReport.from_fields(ALIVE.to_fields()) == ALIVE
    assert LogReport.from_fields({"size": "-1", "gaps": "many", "bad": "9" * 30}) == LogReport()
