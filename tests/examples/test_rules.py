"""The rules for Prometheus are sound, and each alert has been seen to fire, and not to fire, by Prometheus's own tool."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from postmaster.__main__ import main as command
from tests.examples.expressions import FOLDER, RULE_FILES, rules
from tests.support.prometheus import promtool

CASES = Path(__file__).parent / "rules"
FILES = sorted(CASES.glob("*.yml"))
ALERTS = [rule["alert"] for rule in rules("alerts.yml")]
SEVERITIES = {"critical", "warning", "info"}
COMMAND = re.compile(r"\bmailward ([a-z]+)(?: ([a-z]+))?")
NO_SUBCOMMANDS: dict[str, Any] = {}


def cases() -> list[dict[str, Any]]:
    return [case for file in FILES for case in yaml.safe_load(file.read_text())["tests"]]


def expectations(alert: str) -> list[bool]:
    """Return, for every moment that a case of this alert looks at, whether the alert is expected to fire then."""
    return [
        any(f'alertname="{alert}"' in sample["labels"] for sample in moment["exp_samples"])
        for case in cases()
        if case["name"].startswith(f"{alert}:")
        for moment in case["promql_expr_test"]
        if "ALERTS" in moment["expr"]
    ]


def test_the_configuration_is_sound() -> None:
    assert "2 rule files found" in promtool("check", "config", FOLDER / "prometheus.yml")


@pytest.mark.parametrize("file", RULE_FILES)
def test_the_rules_are_sound(file: str) -> None:
    assert f"{len(rules(file))} rules found" in promtool("check", "rules", FOLDER / file)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", file)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_seen_to_fire_and_not_to_fire(alert: str) -> None:
    assert set(expectations(alert)) == {True, False}


def test_every_case_is_of_an_alert_there_is() -> None:
    names = {case["name"].partition(":")[0] for case in cases()}
    assert names - {"No alert"} == set(ALERTS)


@pytest.mark.parametrize("rule", rules("alerts.yml"), ids=ALERTS)
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description"}
    assert len(rule["annotations"]["summary"]) < 120
    assert re.match("Mailward[A-Z]", rule["alert"])


@pytest.mark.parametrize("rule", rules("alerts.yml"), ids=ALERTS)
def test_an_alert_names_commands_that_exist(rule: dict[str, Any]) -> None:
    for text in rule["annotations"].values():
        for name, below in COMMAND.findall(text):
            found: Any = command
            for word in filter(None, (name, below)):
                subcommands: dict[str, Any] = getattr(found, "commands", NO_SUBCOMMANDS)
                assert word in subcommands, f"mailward {name} {below}"
                found = subcommands[word]
