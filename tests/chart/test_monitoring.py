"""Alerts and dashboard speak of metrics that there are, and each alert has a runbook."""

import json
import re
from typing import Any

import pytest
import yaml

from memtenant.api.conditions import ConditionType
from memtenant.api.tenant import AccessMode
from memtenant.controller import series
from memtenant.controller.metrics import Metrics, Round
from memtenant.controller.sealer_metrics import SealerMetrics
from memtenant.reconcile.outcome import Lane
from tests.chart.rendered import CHART, ROOT, objects, of_kind, one

ALERTS: list[dict[str, Any]] = yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"][
    0
]["rules"]
DASHBOARD = json.loads((CHART / "dashboards/memtenant.json").read_text())

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


def _metrics() -> set[str]:
    """Every name that /metrics may show."""
    found = {f"memtenant_{name}" for name in series._HELP}
    for registry in (Metrics().registry, SealerMetrics().registry):
        for family in registry.collect():
            found |= {family.name + suffix for suffix in _SUFFIXES.get(family.type, ())}
    return found


def _expressions() -> list[str]:
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    return [*(alert["expr"] for alert in ALERTS), *shown]


def _values(label: str) -> set[str]:
    """Every value that an expression compares a label with."""
    texts = re.findall(rf'\b{label}(?:=~|!=|=)"([^"$]*)"', " ".join(_expressions()))
    return {value for text in texts for value in text.split("|")}


def test_every_metric_that_is_asked_for_exists() -> None:
    asked = set(re.findall(r"\bmemtenant_[a-z_]+", " ".join(_expressions())))
    assert asked
    assert asked <= _metrics()


def test_every_label_value_that_is_asked_for_exists() -> None:
    assert _values("condition") <= set(ConditionType)
    assert _values("mode") <= set(AccessMode)
    assert _values("round") <= set(Round)
    assert _values("lane") <= {lane.name.lower() for lane in Lane}
    assert _values("status") | _values("ready") <= {"True", "False", "Unknown"}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_what_how_bad_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"].keys() == {"summary", "description"}
    assert f"\n### {alert['alert']}\n" in (ROOT / "docs/install.md").read_text()


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.cluster
def test_the_chart_ships_alerts_and_dashboard_when_asked() -> None:
    found = objects("-f", CHART / "ci/production-values.yaml")
    (rule,) = of_kind(found, "PrometheusRule")
    (group,) = rule["spec"]["groups"]
    assert [each["alert"] for each in group["rules"]] == [each["alert"] for each in ALERTS]
    assert [each["expr"] for each in group["rules"]] == [each["expr"] for each in ALERTS]
    links = {each["annotations"]["runbook_url"].rpartition("#")[2] for each in group["rules"]}
    assert links == {each["alert"].lower() for each in ALERTS}
    shown = one(found, "ConfigMap", "memtenant-dashboard")["data"]["memtenant.json"]
    assert json.loads(shown) == DASHBOARD
    assert not of_kind(objects(), "PrometheusRule")
    assert not of_kind(objects(), "ServiceMonitor")
