"""Counters in shared memory: totals over workers, nothing lost between threads or processes, output Prometheus reads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mailward.daemon.metrics import (
    MAX_ROWS,
    NAMED_AT_LOAD,
    NAMED_SLOTS,
    OTHER,
    Counter,
    Gauge,
    Histogram,
    Metrics,
    Row,
    Spec,
    check_specs,
    told_gauges,
)

SPECS = (
    Counter("messages", "Messages.", "outcome", ("signed", "unsigned")),
    Counter("bugs", "Bugs."),
    Gauge("sessions", "Sessions open."),
    Histogram("seconds", "Time.", (0.1, 1.0)),
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("mailward_test", SPECS)


class _Source:
    def __init__(self, metrics: Metrics) -> None:
        self.collect = metrics.collect


def scraped(metrics: Metrics) -> dict[str, float]:
    """Return what Prometheus reads: its samples, by name and label."""
    registry = CollectorRegistry()
    registry.register(_Source(metrics))  # type: ignore[arg-type]
    samples = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            samples[" ".join([sample.name.removeprefix("mailward_test_"), *sample.labels.values()])] = sample.value
    return samples


ZERO = {
    "messages_total signed": 0.0,
    "messages_total unsigned": 0.0,
    "bugs_total": 0.0,
    "sessions": 0.0,
    "seconds_bucket 0.1": 0.0,
    "seconds_bucket 1.0": 0.0,
    "seconds_bucket +Inf": 0.0,
    "seconds_count": 0.0,
    "seconds_sum": 0.0,
}


def test_every_series_is_there_from_the_start(metrics: Metrics) -> None:
    assert scraped(metrics) == ZERO


def test_the_output_names_type_and_help(metrics: Metrics) -> None:
    families = {family.name: family for family in metrics.collect()}
    assert {name: (family.type, family.documentation) for name, family in families.items()} == {
        "mailward_test_messages": ("counter", "Messages."),
        "mailward_test_bugs": ("counter", "Bugs."),
        "mailward_test_sessions": ("gauge", "Sessions open."),
        "mailward_test_seconds": ("histogram", "Time."),
    }


def test_totals_are_over_all_rows(metrics: Metrics) -> None:
    for number in (0, 1, MAX_ROWS - 1):
        row = metrics.row(number)
        row.count("messages", "signed", amount=number + 1.0)
        row.count("bugs")
        row.count("sessions", amount=2)
        row.observe("seconds", 0.5)
    assert scraped(metrics) == ZERO | {
        "messages_total signed": 1.0 + 2.0 + MAX_ROWS,
        "bugs_total": 3.0,
        "sessions": 6.0,
        "seconds_bucket 1.0": 3.0,
        "seconds_bucket +Inf": 3.0,
        "seconds_count": 3.0,
        "seconds_sum": 1.5,
    }


@pytest.mark.parametrize(
    ("measure", "buckets"),
    [
        pytest.param(0.0, (1, 1, 1), id="nothing"),
        pytest.param(0.1, (1, 1, 1), id="a bound belongs to its bucket"),
        pytest.param(0.11, (0, 1, 1), id="just above"),
        pytest.param(1.0, (0, 1, 1), id="the last bound"),
        pytest.param(7.0, (0, 0, 1), id="beyond all bounds"),
    ],
)
def test_buckets_are_cumulative(metrics: Metrics, measure: float, buckets: tuple[int, int, int]) -> None:
    metrics.row(3).observe("seconds", measure)
    found = scraped(metrics)
    assert tuple(found[f"seconds_bucket {bound}"] for bound in ("0.1", "1.0", "+Inf")) == buckets
    assert (found["seconds_count"], found["seconds_sum"]) == (1, measure)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.05, 0.1, 0.5, 1.0, 3.0])), max_size=20))
def test_any_measures_in_any_rows_add_up(measures: list[tuple[int, float]]) -> None:
    metrics = Metrics("mailward_test", SPECS)
    for number, measure in measures:
        metrics.row(number).observe("seconds", measure)
    found, values = scraped(metrics), [measure for _, measure in measures]
    assert found["seconds_bucket 0.1"] == sum(value <= 0.1 for value in values)
    assert found["seconds_bucket 1.0"] == sum(value <= 1.0 for value in values)
    assert found["seconds_bucket +Inf"] == found["seconds_count"] == len(values)
    assert found["seconds_sum"] == pytest.approx(sum(values))


def test_counters_survive_a_row_handed_on(metrics: Metrics) -> None:
    metrics.row(0).count("bugs")
    metrics.row(0).observe("seconds", 0.5)
    metrics.forget_gauges(0)
    metrics.row(0).count("bugs")
    found = scraped(metrics)
    assert (found["bugs_total"], found["seconds_count"], found["seconds_sum"]) == (2, 1, 0.5)


def test_a_dead_workers_gauges_are_forgotten_and_only_its_own(metrics: Metrics) -> None:
    for number in range(3):
        metrics.row(number).count("sessions", amount=number + 1)
    metrics.forget_gauges(1)
    assert scraped(metrics)["sessions"] == 1 + 3
    metrics.row(1).count("sessions")
    assert scraped(metrics)["sessions"] == 1 + 1 + 3


def test_an_undeclared_name_or_value_is_our_bug(metrics: Metrics) -> None:
    row = metrics.row(0)
    with pytest.raises(KeyError):
        row.count("messages", "b.example")
    with pytest.raises(KeyError):
        row.count("messages")
    with pytest.raises(KeyError):
        row.observe("bugs", 1.0)
    assert scraped(metrics) == ZERO


def test_a_row_that_does_not_exist_is_our_bug_and_touches_no_other(metrics: Metrics) -> None:
    with pytest.raises(IndexError):
        metrics.row(MAX_ROWS).count("bugs")
    assert scraped(metrics) == ZERO


NAMED = (
    Counter("queries", "Queries.", "server", NAMED_AT_LOAD),
    Gauge("open", "Left alone.", "server", NAMED_AT_LOAD),
    Counter("bugs", "Bugs."),
)


def test_a_label_that_the_configuration_names_shows_the_names_and_nothing_else() -> None:
    metrics = Metrics("mailward_test", NAMED)
    assert scraped(metrics) == {"bugs_total": 0.0}
    metrics.name_values("server", ["9.9.9.9", "[::1]:53"])
    row = metrics.row(0)
    row.count("queries", "[::1]:53", amount=3)
    row.count("open", "9.9.9.9")
    assert scraped(metrics) == {
        "bugs_total": 0.0,
        "queries_total 9.9.9.9": 0.0,
        "queries_total [::1]:53": 3.0,
        "open 9.9.9.9": 1.0,
        "open [::1]:53": 0.0,
    }


def test_a_name_keeps_what_it_has_counted_through_other_configurations() -> None:
    metrics = Metrics("mailward_test", NAMED)
    metrics.name_values("server", ["a", "b"])
    metrics.row(0).count("queries", "b")
    metrics.name_values("server", ["c"])
    metrics.row(1).count("queries", "c", amount=2)
    metrics.name_values("server", ["b", "a"])
    metrics.row(0).count("queries", "b")
    found = scraped(metrics)
    assert [found[f"queries_total {name}"] for name in "abc"] == [0, 2, 2]


def test_names_beyond_the_slots_share_one() -> None:
    metrics = Metrics("mailward_test", NAMED)
    names = [f"n{number}" for number in range(NAMED_SLOTS + 3)]
    metrics.name_values("server", names)
    for name in [*names, "never named"]:
        metrics.row(0).count("queries", name)
    found = scraped(metrics)
    assert [found[f"queries_total {name}"] for name in names[:NAMED_SLOTS]] == [1] * NAMED_SLOTS
    assert found["queries_total other"] == 4
    assert not [name for name in found if f"n{NAMED_SLOTS}" in name]


def test_a_name_like_that_of_the_rest_counts_with_the_rest() -> None:
    metrics = Metrics("mailward_test", NAMED)
    metrics.name_values("server", ["a", OTHER])
    for name in ("a", OTHER, "never named"):
        metrics.row(0).count("queries", name)
    samples = [sample.labels["server"] for family in metrics.collect() for sample in family.samples if sample.labels]
    assert samples == ["a", OTHER, "a"]
    assert scraped(metrics)["queries_total other"] == 2


def test_a_gauge_of_what_is_no_longer_configured_is_gone_once_it_is_zero() -> None:
    metrics = Metrics("mailward_test", NAMED)
    metrics.name_values("server", ["a", "b"])
    metrics.row(0).count("open", "a")
    metrics.name_values("server", ["c"])
    assert {name: value for name, value in scraped(metrics).items() if name.startswith("open")} == {
        "open a": 1,
        "open c": 0,
    }
    metrics.forget_gauges(0)
    found = scraped(metrics)
    assert {name for name in found if name.startswith("open")} == {"open c"}
    assert {name for name in found if name.startswith("queries")} == {f"queries_total {name}" for name in "abc"}


@pytest.mark.parametrize(("told", "shown"), [("7", [7.0]), ("0.25", [0.25]), ("", []), ("1 MB", []), ("\0", [])])
def test_a_gauge_that_is_told_no_number_has_no_sample(told: str, shown: list[float]) -> None:
    (family,) = told_gauges("mailward_test", [Gauge("room", "Room.")], {"room": told})
    assert [sample.value for sample in family.samples] == shown


def test_a_dead_workers_gauges_are_forgotten_under_every_name() -> None:
    metrics = Metrics("mailward_test", NAMED)
    metrics.name_values("server", ["a", "b"])
    for number in (0, 1):
        for name in ("a", "b", "unknown"):
            metrics.row(number).count("open", name)
            metrics.row(number).count("queries", name)
    metrics.forget_gauges(0)
    found = scraped(metrics)
    assert [found[f"open {name}"] for name in ("a", "b", "other")] == [1, 1, 1]
    assert [found[f"queries_total {name}"] for name in ("a", "b", "other")] == [2, 2, 2]


def test_a_name_given_before_the_fork_is_known_to_the_worker() -> None:
    metrics = Metrics("mailward_test", NAMED)
    row = metrics.row(0)  # made before the name, as the next generation's rows are handed on
    metrics.name_values("server", ["a"])
    assert os.waitpid(in_child(lambda: row.count("queries", "a", amount=5)), 0)[1] == 0
    assert scraped(metrics)["queries_total a"] == 5


ADDITIONS = 5_000


class Slow(float):
    """A number that takes its time to be added, so that threads meet between a read and its write."""

    def __radd__(self, other: float) -> float:
        time.sleep(0.001)
        return float(other) + float(self)


def add(row: Row) -> None:
    for _ in range(ADDITIONS):
        row.count("bugs")
        row.observe("seconds", 0.5)


def in_child(act: Callable[[], None]) -> int:
    """Run `act` in a forked process; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        act()
        status = 0
    finally:
        os._exit(status)


def test_forked_workers_add_at_the_same_time_and_nothing_is_lost(metrics: Metrics) -> None:
    children = [in_child(partial(add, metrics.row(number))) for number in range(4)]
    add(metrics.row(4))
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    found = scraped(metrics)
    assert (found["bugs_total"], found["seconds_count"], found["seconds_sum"]) == (
        5 * ADDITIONS,
        5 * ADDITIONS,
        2.5 * ADDITIONS,
    )


def test_threads_of_a_worker_lose_nothing(metrics: Metrics) -> None:
    row = metrics.row(0)

    def add_slowly() -> None:
        for _ in range(20):
            row.count("bugs", amount=Slow(1.0))
            row.observe("seconds", Slow(0.5))

    threads = [threading.Thread(target=add_slowly) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = scraped(metrics)
    assert (found["bugs_total"], found["seconds_count"], found["seconds_sum"]) == (80, 80, 40)


def test_a_worker_killed_in_mid_count_leaves_what_it_counted(metrics: Metrics) -> None:
    def die() -> None:
        metrics.row(0).count("bugs", amount=7)
        os.kill(os.getpid(), 9)

    assert os.waitpid(in_child(die), 0)[1] == 9
    assert scraped(metrics)["bugs_total"] == 7


@pytest.mark.parametrize(
    ("specs", "why"),
    [
        pytest.param((Counter("a", ""), Gauge("a", "")), "share a name", id="a name twice"),
        pytest.param((Histogram("h", "", (1.0, 1.0)),), "bounds of h", id="a bound twice"),
        pytest.param((Histogram("h", "", (1.0, 0.5)),), "bounds of h", id="bounds that shrink"),
    ],
)
def test_metrics_that_make_no_sense_are_refused(specs: tuple[Spec, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_specs(specs)


def test_good_metrics_are_not_refused() -> None:
    check_specs(SPECS)
