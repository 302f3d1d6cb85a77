"""A worker's resolver as `[dns]` describes it: what it counts is what /metrics shows, what it tells is in the log."""

from __future__ import annotations

import pytest
from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import generate_latest

from mailward.daemon import log as logging
from mailward.daemon.dns import DNS_METRICS, dns_label_values, make_resolver
from mailward.daemon.metrics import Metrics, check_specs
from mailward.daemon.program import WorkerTools
from mailward.model.dns import AnswerStatus, Question, RecordType
from mailward.settings.common import Dns
from mailward.settings.values import Duration
from tests.support.odd_nameserver import OddNameserver, by_name, denied, found, ns_of_root, with_code
from tests.support.processes import wait_until


class Silent:
    """No other worker."""

    def note(self, key: str, value: str) -> None:
        raise AssertionError

    suggest = note

    def known(self, key: str) -> str:
        return ""


class Source:
    def __init__(self, metrics: Metrics) -> None:
        self.collect = metrics.collect


def scraped(metrics: Metrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(Source(metrics))  # type: ignore[arg-type]
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name.removeprefix("mailward_test_"): float(value) for name, _, value in pairs}


def test_the_metrics_make_sense() -> None:
    check_specs(DNS_METRICS)
    Metrics("mailward_test", DNS_METRICS)


def test_a_workers_resolver(capfd: pytest.CaptureFixture[str]) -> None:
    with OddNameserver(by_name({"bad.example": with_code(2)})) as server:
        label = f"127.0.0.1:{server.address[1]}"
        dns = Dns(nameservers=(label,), timeout=Duration(0.5), queries=3)
        metrics = Metrics("mailward_test", DNS_METRICS)
        for name, values in dns_label_values(dns).items():
            metrics.name_values(name, values)
        logging.configure()
        resolver = make_resolver(dns, WorkerTools(metrics.row(0), Silent(), logging.get("test")))
        resolver.start()
        try:
            message = resolver.for_message()
            names = ["a.example", "a.example", "bad.example", "b.example", "c.example"]
            answers = [message.ask(Question(name, RecordType.TXT)) for name in names]
            assert [answer.status is AnswerStatus.FOUND for answer in answers] == [True, True, False, True, False]
            server.control = with_code(2)
            resolver.ask(Question("bad2.example", RecordType.TXT))
            server.silence()
            wait_until(lambda: scraped(metrics)[f'dns_nameservers_open{{nameserver="{label}"}}'] == 1, "the outage")
            server.reply, server.control = found, ns_of_root
            wait_until(lambda: scraped(metrics)[f'dns_nameservers_open{{nameserver="{label}"}}'] == 0, "the end of it")
        finally:
            resolver.close()
        numbers = scraped(metrics)
    assert numbers["dns_cache_hits_total"] == 1
    assert numbers['dns_failure_reasons_total{reason="SERVFAIL"}'] == 1
    assert numbers[f'dns_breaker_opened_total{{nameserver="{label}"}}'] == 1
    assert numbers[f'dns_queries_total{{nameserver="{label}"}}'] >= 5
    assert numbers[f'dns_failures_total{{nameserver="{label}"}}'] >= 3
    lines = [line for line in capfd.readouterr().err.splitlines() if f"nameserver={label}" in line]
    words = [line.split()[1].removeprefix("level=") + " " + line.split()[3].removeprefix("event=") for line in lines]
    assert words == ["warning nameserver-away", "error dns-away", "info nameserver-back", "info dns-back"]


@pytest.mark.parametrize(
    ("control", "asked"),
    [
        pytest.param(".", ".", id="the root"),
        pytest.param("Example.COM.", "example.com.", id="a domain"),
        pytest.param("b\u00fccher.example", "xn--bcher-kva.example.", id="a domain in U-labels"),
    ],
)
def test_the_control_question_is_the_operators(control: str, asked: str) -> None:
    names: list[str] = []

    def take(question: object) -> bytes:
        names.append(str(question.question[0].name))  # type: ignore[attr-defined]
        return ns_of_root(question)  # type: ignore[arg-type]

    with OddNameserver(take, control=take, deep=denied()) as server:
        dns = Dns(nameservers=(f"127.0.0.1:{server.address[1]}",), control=control)
        metrics = Metrics("mailward_test", DNS_METRICS)
        resolver = make_resolver(dns, WorkerTools(metrics.row(0), Silent(), logging.get("test")))
        resolver.start()
        wait_until(lambda: bool(names), "the control question")
        resolver.close()
    assert names == [asked]


def test_without_nameservers_those_of_the_system_are_named() -> None:
    assert dns_label_values(Dns())["nameserver"]
