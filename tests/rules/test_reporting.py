"""The CronJob of a policy's reports, and when a report counts as missing."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.api.conditions import ConditionStatus
from memtenant.api.reporting import Reporting
from memtenant.rules.manifest import differences
from memtenant.rules.reporting import (
    cron_job,
    cron_job_name,
    missed_report,
    scheduled_since,
    stale_finding,
)

_SINCE = datetime(2026, 11, 28, 12, tzinfo=UTC)
_DAILY = Reporting(schedule="0 3 * * *")
_TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"team": "platform"}},
    "spec": {
        "activeDeadlineSeconds": 1800,
        "template": {
            "metadata": {"labels": {"team": "platform"}},
            "spec": {
                "containers": [
                    {
                        "name": "report",
                        "image": "memtenant:1",
                        "args": ["report", "run"],
                        "resources": {"limits": {"memory": "1024Mi", "cpu": "0.5"}},
                    }
                ]
            },
        },
    },
}
_NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
_REPORTING = st.builds(
    Reporting,
    schedule=st.sampled_from(["0 3 * * *", "@hourly", "*/15 * * * MON"]),
    time_zone=st.sampled_from(["Etc/UTC", "Europe/Berlin"]),
    suspend=st.booleans(),
)


def _made(reporting: Reporting = _DAILY, since: datetime = _SINCE) -> dict[str, Any]:
    return cron_job("gdpr", "uid-1", reporting, _TEMPLATE, namespace="home", since=since)


@given(name=_NAMES, other=_NAMES)
def test_names_fit_and_differ(name: str, other: str) -> None:
    assert len(cron_job_name(name)) <= 52
    assert (cron_job_name(name) == cron_job_name(other)) is (name == other)


@given(reporting=_REPORTING, name=_NAMES)
def test_the_policy_owns_a_job_that_runs_alone_and_is_told_the_policy(
    reporting: Reporting, name: str
) -> None:
    before = copy.deepcopy(_TEMPLATE)

    made = cron_job(name, "uid-1", reporting, _TEMPLATE, namespace="home", since=_SINCE)

    spec, metadata = made["spec"], made["metadata"]
    pod = spec["jobTemplate"]["spec"]["template"]
    assert (spec["schedule"], spec["timeZone"], spec["suspend"], spec["concurrencyPolicy"]) == (
        *(reporting.schedule, reporting.time_zone, reporting.suspend),
        "Forbid",
    )
    assert pod["spec"]["containers"][0]["args"] == ["report", "run", "--policy", name]
    assert [(one["kind"], one["name"], one["uid"]) for one in metadata["ownerReferences"]] == [
        ("RetentionPolicy", name, "uid-1")
    ]
    for labels in (metadata["labels"], spec["jobTemplate"]["metadata"]["labels"]):
        assert labels["memtenant.dev/policy"] == name
    assert pod["metadata"]["labels"]["team"] == "platform"
    assert before == _TEMPLATE


@given(reporting=_REPORTING)
def test_what_the_server_adds_is_no_difference(reporting: Reporting) -> None:
    made = _made(reporting)
    stored = copy.deepcopy(made)
    stored["metadata"] |= {"uid": "u", "resourceVersion": "5", "managedFields": []}
    stored["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    container = stored["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    container["resources"]["limits"] = {"memory": "1Gi", "cpu": "500m"}

    assert not differences(made, stored)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in _leaves(one, (*path, key))]
    if isinstance(value, list):
        return [leaf for index, one in enumerate(value) for leaf in _leaves(one, (*path, index))]
    return [path]


@pytest.mark.parametrize("path", _leaves(_made()), ids=lambda it: ".".join(map(str, it)))
@pytest.mark.parametrize("gone", [True, False], ids=["removed", "changed"])
def test_every_field_that_somebody_changes_is_a_difference(
    path: tuple[Any, ...], gone: bool
) -> None:
    stored = copy.deepcopy(_made())
    place = stored
    for step in path[:-1]:
        place = place[step]
    if gone:
        del place[path[-1]]
    else:
        place[path[-1]] = "changed"

    assert differences(_made(), stored)


@given(reporting=_REPORTING, later=_REPORTING)
def test_a_schedule_counts_from_its_last_change(reporting: Reporting, later: Reporting) -> None:
    now = _SINCE + timedelta(days=1)

    since = scheduled_since(_made(reporting), later, now)

    assert since == (_SINCE if reporting == later else now)
    assert scheduled_since(None, later, now) == now


_DUE = datetime(2026, 11, 29, 3, tzinfo=UTC)
_LATE = _DUE + timedelta(seconds=600 + 1800)


@pytest.mark.parametrize(
    ("now", "last", "stale"),
    [
        (_DUE, None, False),
        (_LATE - timedelta(seconds=1), None, False),
        (_LATE, None, True),
        (_LATE, _DUE - timedelta(hours=5), True),
        (_LATE, _DUE + timedelta(minutes=2), False),
        (_LATE + timedelta(days=9), _DUE + timedelta(minutes=2), True),
    ],
)
def test_a_report_is_missing_when_the_job_can_no_longer_bring_it(
    now: datetime, last: datetime | None, stale: bool
) -> None:
    missed = missed_report(_DAILY, _TEMPLATE, since=_SINCE, last=last)

    finding = stale_finding(missed, "gdpr", "home/memtenant-report-gdpr", now)

    assert (finding.status is ConditionStatus.TRUE) is stale


def test_the_words_stay_while_more_runs_are_missed() -> None:
    missed = missed_report(_DAILY, _TEMPLATE, since=_SINCE, last=None)

    words = {
        stale_finding(missed, "gdpr", "home/x", _LATE + timedelta(days=days)).message
        for days in range(5)
    }

    assert len(words) == 1
    assert "due at 2026-11-29T03:00:00Z" in words.pop()


def test_nothing_is_missing_while_reports_are_suspended() -> None:
    suspended = Reporting(schedule="0 3 * * *", suspend=True)

    assert missed_report(suspended, _TEMPLATE, since=_SINCE, last=None) is None
