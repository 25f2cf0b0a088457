"""What changed since the report before: which control turned, and what came and went."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from memtenant.clock import rfc3339
from memtenant.reports.checks import Status
from memtenant.reports.report import Report, Row

__all__ = ["difference"]

_ORDER: Final = {status: place for place, status in enumerate(Status)}


def difference(before: Report, after: Report) -> Row:
    """``after`` against ``before``. Better and worse go by the order of `Status`."""
    then = {
        (framework.id, one.control.id): one
        for framework in before.frameworks
        for one in framework.controls
    }
    now = {
        (framework.id, one.control.id): one
        for framework in after.frameworks
        for one in framework.controls
    }
    turned = [
        {
            "framework": framework,
            "control": control,
            "title": now[framework, control].control.title,
            "before": then[framework, control].judgement.status.value,
            "after": now[framework, control].judgement.status.value,
            "better": _ORDER[now[framework, control].judgement.status]
            > _ORDER[then[framework, control].judgement.status],
        }
        for framework, control in sorted(now.keys() & then.keys())
        if now[framework, control].judgement.status is not then[framework, control].judgement.status
    ]
    return {
        "since": rfc3339(before.made),
        "turned": turned,
        "controlsAdded": [f"{one} {two}" for one, two in sorted(now.keys() - then.keys())],
        "controlsGone": [f"{one} {two}" for one, two in sorted(then.keys() - now.keys())],
        "tenantsAdded": sorted(_names(after.tenants) - _names(before.tenants)),
        "tenantsGone": sorted(_names(before.tenants) - _names(after.tenants)),
        "generationBefore": before.generation,
    }


def _names(rows: Iterable[Row]) -> set[str]:
    return {str(row.get("tenant", "")) for row in rows}
