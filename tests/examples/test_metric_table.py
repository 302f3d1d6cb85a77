"""METRICS.md is made from the code, and says what running daemons serve: no more, no less."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mailward.daemon.program import Program
from tests.examples.expressions import FOLDER
from tests.examples.suite import Suite
from tools.metric_table import PROGRAMS, Row, rows, table, unit_of


def served(page: str, word: str) -> dict[str, str]:
    """Return what a page says of each metric after "# HELP" or "# TYPE"."""
    lines = [line.split(" ", 3) for line in page.splitlines() if line.startswith(f"# {word} ")]
    return {name: text for _, _, name, text in lines}


def test_the_table_is_what_the_code_says() -> None:
    made = (FOLDER / "METRICS.md").read_text()
    assert made == table(), "run: python3 -m tools.metric_table > examples/prometheus/METRICS.md"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_running_daemon_serves_what_the_table_says(suite: Suite, program: Program) -> None:
    page = suite.page(program.name)
    expected = {f"{program.metric_prefix}_{row.name}": row for row in rows(program)}
    assert served(page, "TYPE") == {name: row.type for name, row in expected.items()}
    assert served(page, "HELP") == {name: row.meaning for name, row in expected.items()}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_running_daemon_has_the_labels_of_the_table(suite: Suite, program: Program) -> None:
    by_name = {f"{program.metric_prefix}_{row.name}".removesuffix("_total"): row for row in rows(program)}
    for family in text_string_to_metric_families(suite.page(program.name)):
        row = by_name[family.name]
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "le"}
            assert set(labels) <= {row.label}, sample
            assert not row.values or set(labels.values()) <= set(row.values), sample


def test_every_label_is_bounded() -> None:
    for program in PROGRAMS:
        metrics = rows(program)
        assert len(metrics) > 10
        assert sum(max(1, len(row.values)) for row in metrics) < 300


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        pytest.param("seconds", "seconds", id="all of the name"),
        pytest.param("start_time_seconds", "seconds", id="the end of the name"),
        pytest.param("state_bytes", "octets", id="octets"),
        pytest.param("state_fill_ratio", "0 to 1", id="a part"),
        pytest.param("messages_total", "", id="a number of things"),
    ],
)
def test_the_unit_is_at_the_end_of_the_name(name: str, unit: str) -> None:
    assert unit_of(Row(name, "gauge", "", (), "")) == unit
