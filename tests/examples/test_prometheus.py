"""Every expression of the rules and the dashboard, put to a real Prometheus that has scraped real daemons with real mail."""

from __future__ import annotations

import math

import pytest

from tests.examples.expressions import Panel, every_series, panels, rules
from tests.examples.suite import REFUSED, Suite
from tests.support.processes import wait_until

EVERY_SERIES = every_series()
PANELS = list(panels())

# What panels must say of the mail that was sent, by title and reference; each label's value, or the one number.
STATS = {
    "Daemons that do not answer": 0,
    "Away or aside": 0,
    "Incidents open": 1,
    "Accounts suspended": 1,
    "Keys not in the DNS": 1,
    "Bugs of ours": 0,
}
ABOVE_ZERO = {
    ("Leaving: messages a minute", "A"): {"signed", "no-key-for-domain", "no-right-for-domain"},
    ("Coming in: messages a minute", "A"): {"accept", "reject"},
    ("Greylisting: recipients a minute", "A"): {"defer", "pass"},
    ("Limits: answers a minute", "A"): {"dunno", "defer", "reject"},
    ("Half of the answers took less than", "A"): {"dkim-sign", "auth-verify", "greylist", "policyd"},
    ("All but one in a hundred took less than", "A"): {"dkim-sign", "auth-verify", "greylist", "policyd"},
    ("Signatures a minute", "A"): {"rsa-sha256"},
    ("Signed, of what may be, by domain", "A"): {"example.com"},
    ("Keys", "A"): {"published", "missing"},
    ("DMARC: results a minute", "A"): {"pass", "fail", "none"},
    ("SPF: results a minute", "A"): {"pass", "fail"},
    ("DKIM: results a minute", "A"): {"pass", "none"},
    ("Let through, and forged: a minute", "B"): {""},
    ("Why: recipients a minute", "A"): {"first-sighting", "retried", "passed-before"},
    ("How long those waited who came back", "A"): {""},
    ("Beyond a limit: requests a minute", "A"): {"recipients"},
    ("Beyond a limit: requests a minute", "B"): {"watched"},
    ("Incidents", "A"): {""},
    ("Incidents", "B"): {""},
    ("Logins: answers a minute", "A"): {"ordinary"},
    ("Logins: what became of them, a minute", "A"): {"succeeded", "failed"},
    ("Requests a minute, by stage", "A"): {"rcpt"},
    ("Workers that serve", "A"): {"dkim-sign", "auth-verify", "greylist", "policyd"},
}
# Until a limit is reached for the first time, nothing is open: what fires, or is about to, after that mail.
ALERTS = {
    ("MailwardKeyUnpublished", "missing"),
    ("MailwardNothingSignedForDomain", REFUSED),
    ("MailwardIncidentOpen", ""),
    ("MailwardAccountSuspended", ""),
}
PROGRAMS = ("dkim-sign", "auth-verify", "greylist", "policyd")
TOLD_BY = ("state", "domain", "breaker", "nameserver", "method")


def key(panel: Panel) -> str:
    return f"{panel.title} {panel.reference}"


def raised(suite: Suite) -> set[tuple[str, str]]:
    """Return the alerts that are pending or firing, each with the label that tells it from others of its name."""
    return {
        (alert["labels"]["alertname"], next((alert["labels"][name] for name in TOLD_BY if name in alert["labels"]), ""))
        for alert in suite.prometheus.alerts()
    }


@pytest.mark.parametrize("series", EVERY_SERIES, ids=[f"{place}: {series}" for series, place in EVERY_SERIES.items()])
def test_every_series_that_is_named_is_there(suite: Suite, series: str) -> None:
    wait_until(lambda: bool(suite.prometheus.query(series)), f"{series} in Prometheus")


@pytest.mark.parametrize("panel", PANELS, ids=key)
def test_every_panel_shows_something(suite: Suite, panel: Panel) -> None:
    def is_shown() -> bool:
        values = [sample.value for sample in suite.prometheus.query(panel.expression)]
        return bool(values) and all(math.isfinite(value) and value >= 0 for value in values)

    wait_until(is_shown, f"{panel.title} to show numbers")


@pytest.mark.parametrize("panel", [each for each in PANELS if each.title in STATS], ids=key)
def test_what_is_to_be_seen_at_a_glance(suite: Suite, panel: Panel) -> None:
    wait_until(lambda: suite.prometheus.number(panel.expression) == STATS[panel.title], f"{panel.title} to be so")


@pytest.mark.parametrize("program", PROGRAMS)
def test_where_one_daemon_is_chosen_or_installed_no_panel_fails_and_bugs_are_still_told(
    suite: Suite, program: str
) -> None:
    instance = f"127.0.0.1:{suite.ports[program]}"
    for panel in panels(instance):
        samples = suite.prometheus.query(panel.expression)
        if panel.title == "Bugs of ours":
            assert [sample.value for sample in samples] == [0.0]


@pytest.mark.parametrize("panel", [each for each in PANELS if (each.title, each.reference) in ABOVE_ZERO], ids=key)
def test_panels_show_the_mail_that_was_sent(suite: Suite, panel: Panel) -> None:
    expected = ABOVE_ZERO[panel.title, panel.reference]

    def is_shown() -> bool:
        samples = suite.prometheus.query(panel.expression)
        return {next(iter(sample.labels.values()), "") for sample in samples if sample.value} >= expected

    wait_until(is_shown, f"{panel.title} to show {sorted(expected)}")


def test_every_expectation_is_of_a_panel() -> None:
    titles = {(panel.title, panel.reference) for panel in PANELS}
    assert set(ABOVE_ZERO) <= titles
    assert {(title, "A") for title in STATS} <= titles


def test_every_rule_is_evaluated_without_an_error(suite: Suite) -> None:
    wait_until(
        lambda: all(rule["health"] != "unknown" for rule in suite.prometheus.rules()), "all rules to be evaluated"
    )
    found = suite.prometheus.rules()
    assert len(found) == len(rules("recording.yml")) + len(rules("alerts.yml"))
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []


def test_what_is_recorded_is_what_was_counted(suite: Suite) -> None:
    prometheus = suite.prometheus
    wait_until(lambda: prometheus.number('mailward:workers{program="dkim-sign"}') == 3, "the signer's workers")
    wait_until(lambda: prometheus.number('mailward:verdicts:rate5m{verdict="signed"}') > 0, "a rate of what was signed")
    wait_until(
        lambda: 0 < prometheus.number('mailward:deferred:ratio1h{program="greylist"}') < 1, "a part of what was put off"
    )
    no_temperrors = 'mailward_auth_verify:temperrors:ratio15m{method="dmarc"} == 0'
    wait_until(lambda: bool(prometheus.query(no_temperrors)), "a part of temperrors, which is none")
    wait_until(lambda: prometheus.number('mailward:seconds:p50_5m{program="policyd"}') > 0, "the time of an answer")


def test_the_alerts_are_about_what_is_wrong_and_nothing_else(suite: Suite) -> None:
    wait_until(lambda: raised(suite) == ALERTS, "the alerts of that mail", seconds=60)
    for alert in suite.prometheus.alerts():
        assert not [text for text in alert["annotations"].values() if "<" in text or "{{" in text]


def test_the_dashboards_list_of_daemons(suite: Suite) -> None:
    instances = {sample.labels["instance"] for sample in suite.prometheus.query('up{job="mailward"}')}
    assert instances == {f"127.0.0.1:{port}" for port in suite.ports.values()}


def test_what_goes_away_is_told(suite: Suite) -> None:
    """The last test with these daemons, for it breaks them."""
    suite.nameserver.stop()
    away = {
        ("MailwardNameserverAway", suite.nameserver.address),
        ("MailwardDnsAway", ""),
        ("MailwardBreakerOpen", "dns-away"),
    }

    def is_told() -> bool:
        suite.ask_strangers()
        return raised(suite) >= away

    wait_until(is_told, "the nameserver to be missed", seconds=60)
    suite.verifier.stop()
    wait_until(lambda: ("MailwardDown", "") in raised(suite), "the verifier to be missed", seconds=60)
    assert suite.prometheus.number("sum(up)") == 3
    (missing,) = [panel.expression for panel in PANELS if panel.title == "Daemons that do not answer"]
    assert suite.prometheus.number(missing) == 1
