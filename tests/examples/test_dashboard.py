"""The dashboard is one that Grafana 9 and newer take: what its queries give is told by test_prometheus.py."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from tests.examples.expressions import dashboard

COLUMNS = 24
PANELS: list[dict[str, Any]] = dashboard()["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]
BUILT_IN = {"__rate_interval", "__range"}


def area(panel: dict[str, Any]) -> set[tuple[int, int]]:
    place = panel["gridPos"]
    return {
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    }


def test_it_is_of_a_schema_that_grafana_9_knows() -> None:
    assert dashboard()["schemaVersion"] == 37
    assert dashboard()["uid"] == "mailward"
    assert "id" not in dashboard(), "it is Grafana that gives ids"


def test_each_panel_has_its_own_number_and_place() -> None:
    assert max(Counter(panel["id"] for panel in PANELS).values()) == 1
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= COLUMNS for panel in PANELS)
    assert [(one["title"], other["title"]) for one, other in combinations(PANELS, 2) if area(one) & area(other)] == []


def test_each_panel_has_its_own_title() -> None:
    assert max(Counter(panel["title"] for panel in PANELS).values()) == 1


@pytest.mark.parametrize("panel", CHARTS, ids=lambda panel: panel["title"])
def test_a_panel_asks_the_chosen_prometheus_of_the_chosen_daemons(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"stat", "timeseries"}
    assert panel["targets"]
    for query in (panel, *panel["targets"]):
        assert query["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert target["expr"].count("{") == target["expr"].count('instance=~"$instance"')


def test_every_variable_is_declared() -> None:
    declared = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert declared == {"datasource", "instance"}
    used = {name for panel in CHARTS for target in panel["targets"] for name in re.findall(r"\$(\w+)", target["expr"])}
    assert used <= declared | BUILT_IN
