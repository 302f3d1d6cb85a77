"""The expressions of examples/prometheus, each with where it stands, and the series that they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FOLDER = Path(__file__).parents[2] / "examples" / "prometheus"
RULE_FILES = ("recording.yml", "alerts.yml")
DASHBOARD = "grafana-dashboard.json"

# What Grafana puts in beside what has been chosen: a rate over some scrapes, the range that is shown.
VARIABLES = {"$__rate_interval": "10m", "$__range": "6h"}

# A name, or braces with one in them: a series is named by either. Names of ours have a colon or begin so, or are `up`.
_SERIES = re.compile(r"(?:\bmailward[a-z0-9_:]*|\bup\b)(?:\{[^}]*\})?|\{__name__[^}]*\}")


class Panel(NamedTuple):
    """One query of the dashboard."""

    title: str
    reference: str
    expression: str


def rules(file: str) -> list[dict[str, Any]]:
    """Return the rules of a file."""
    return [rule for group in yaml.safe_load((FOLDER / file).read_text())["groups"] for rule in group["rules"]]


@cache
def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    found: dict[str, Any] = json.loads((FOLDER / DASHBOARD).read_text())
    return found


def panels(instance: str = ".*") -> Iterator[Panel]:
    """Yield each panel's queries as Grafana would put them where these daemons are chosen."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield Panel(panel["title"], target["refId"], _with_variables(target["expr"], instance))


def _with_variables(expression: str, instance: str) -> str:
    for name, value in {**VARIABLES, "$instance": instance}.items():
        expression = expression.replace(name, value)
    return expression


def series_of(expression: str) -> list[str]:
    """Return the selectors of an expression.

    >>> series_of('sum by (le) (rate(mailward_a_total{b="c"}[5m])) > 0 or up{job="x"} == 0 and {__name__=~"mailward_(b|c)"}')
    ['mailward_a_total{b="c"}', 'up{job="x"}', '{__name__=~"mailward_(b|c)"}']
    """
    return [found.group() for found in _SERIES.finditer(expression)]


def every_series() -> dict[str, str]:
    """Return every selector of the rules and the dashboard, with where it was seen first."""
    places: dict[str, str] = {}
    for file in RULE_FILES:
        for rule in rules(file):
            for series in series_of(rule["expr"]):
                places.setdefault(series, str(rule.get("alert") or rule["record"]))
    for panel in panels():
        for series in series_of(panel.expression):
            places.setdefault(series, panel.title)
    return places
