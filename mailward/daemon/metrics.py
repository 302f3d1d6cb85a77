"""Counters, gauges and histograms of one program, shared by all of its workers.

Each metric and each of its label values is declared before the first fork, so that a worker's numbers are a row of
doubles in shared memory: counting is an addition, nothing is sent, and the total over the workers is a sum over rows.
A row outlives its worker and is handed on with what it has counted: counters never run backwards, whoever dies.
A label value is a word from a closed set; an address, a domain or an IP never is one. The one exception are names from the
operator's configuration: a metric has slots for them, and each gets one when the configuration that names it is loaded.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

MAX_ROWS = 256  # workers alive at once: three generations of at most 64, and those that are being replaced
SUPERVISOR_ROW = 0  # no worker's
NAMED_SLOTS = 16  # names that the configurations of a supervisor's whole life may give a label; the rest share one
OTHER = "other"

# Seconds: from what a warm message takes to what a look-up behind a slow resolver takes.
LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


# The values of a label that the configuration names.
NAMED_AT_LOAD = (*(f"#{slot}" for slot in range(NAMED_SLOTS)), OTHER)


@dataclass(frozen=True, slots=True)
class Counter:
    """A number that only grows; one for each label value where `label` is given."""

    name: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ("",)


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that goes up and down; the workers' numbers are added, and a dead worker's is forgotten."""

    name: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ("",)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often a measure fell under each bound, in base units."""

    name: str
    help: str
    bounds: tuple[float, ...] = LATENCY_BUCKETS


Spec = Counter | Gauge | Histogram


class Metrics:
    """The shared rows, and how they are laid out. Made once, by the supervisor, before it forks."""

    def __init__(self, prefix: str, specs: Sequence[Spec]) -> None:
        self._prefix = prefix
        self._specs = tuple(specs)
        self._offsets: dict[tuple[str, str], int] = {}
        self._names: dict[str, list[str]] = {}  # label -> the names that have a slot, in the slots' order
        self._current: dict[str, frozenset[str]] = {}  # label -> what the last configuration named
        self._rows = 1  # that have ever been somebody's: the first so many
        width = 0
        for spec in specs:
            for value in _values(spec):
                self._offsets[spec.name, value] = width
                width += len(spec.bounds) + 2 if isinstance(spec, Histogram) else 1
        self._width = width
        self._cells: memoryview[float] = memoryview(mmap.mmap(-1, max(1, MAX_ROWS * width) * 8)).cast("d")

    def row(self, number: int) -> Row:
        """Return row `number` for writing; a row has one writing process at a time. Called before the fork of that process."""
        self._rows = max(self._rows, number + 1)
        bounds = {spec.name: spec.bounds for spec in self._specs if isinstance(spec, Histogram)}
        start = number * self._width
        return Row(self._cells[start : start + self._width], self._offsets, bounds)

    def name_values(self, label: str, names: Collection[str]) -> None:
        """Give each name a slot, if it has none yet; called before the fork of those who count under it.

        `names` are all that a configuration has for the label. A name keeps its slot, and what was counted, for good: counters
        never run backwards. What is called as the rest is called counts with the rest: two samples of one name are an error.
        """
        known = self._names.setdefault(label, [])
        self._current[label] = frozenset(names)
        for name in names:
            if name not in (*known, OTHER) and len(known) < NAMED_SLOTS:
                known.append(name)
                for spec in self._specs:
                    if _is_named_at_load(spec) and spec.label == label:
                        self._offsets[spec.name, name] = self._offsets[spec.name, NAMED_AT_LOAD[len(known) - 1]]

    def forget_gauges(self, number: int) -> None:
        """Set the gauges of row `number` to zero: its worker is dead."""
        for spec in self._specs:
            if isinstance(spec, Gauge):
                for value in spec.values:
                    self._cells[number * self._width + self._offsets[spec.name, value]] = 0.0

    def collect(self) -> Iterable[Metric]:
        """Yield the totals over all rows as prometheus-client's metric families."""
        totals = self.totals()
        for spec in self._specs:
            name = f"{self._prefix}_{spec.name}"
            if isinstance(spec, Histogram):
                yield self._histogram(name, spec, totals)
            else:
                yield self._numbers(name, spec, totals)

    def totals(self) -> list[float]:
        """Return every number there is, summed over the rows; cell() says which is which."""
        cells = self._cells[: self._rows * self._width]
        return [sum(cells[at :: self._width]) for at in range(self._width)]

    def cell(self, name: str, value: str = "") -> int:
        """Return the place in the totals of a counter or a gauge; of a histogram the first bucket's, its sum being the last."""
        return self._offsets[name, value]

    def shown_values(self, name: str, totals: Sequence[float]) -> Sequence[str]:
        """Return the values of a metric's label that are shown; one empty value where it has no label."""
        spec = next(spec for spec in self._specs if spec.name == name)
        return ("",) if isinstance(spec, Histogram) else self._shown_values(spec, totals)

    @property
    def specs(self) -> Sequence[Spec]:
        """What is counted."""
        return self._specs

    def gauge_cells(self) -> frozenset[int]:
        """Return the places in the totals of what goes up and down."""
        gauges = [spec for spec in self._specs if isinstance(spec, Gauge)]
        return frozenset(self._offsets[spec.name, value] for spec in gauges for value in spec.values)

    def _numbers(self, name: str, spec: Counter | Gauge, totals: Sequence[float]) -> Metric:
        kind = CounterMetricFamily if isinstance(spec, Counter) else GaugeMetricFamily
        family = kind(name, spec.help, labels=[spec.label] if spec.label else [])
        for value in self._shown_values(spec, totals):
            family.add_metric([value] if spec.label else [], totals[self._offsets[spec.name, value]])
        return family

    def _shown_values(self, spec: Counter | Gauge, totals: Sequence[float]) -> Sequence[str]:
        """Return the label's values; of one that the configuration names, those it has named, and the rest if it was needed.

        A gauge of what is no longer configured is gone once it is zero: a nameserver that nobody asks any more is not there.
        """
        if not _is_named_at_load(spec):
            return spec.values
        names = self._names.get(spec.label, [])
        if isinstance(spec, Gauge):
            current = self._current.get(spec.label, frozenset())
            names = [name for name in names if name in current or totals[self._offsets[spec.name, name]]]
        return [*names, OTHER] if totals[self._offsets[spec.name, OTHER]] else names

    def _histogram(self, name: str, spec: Histogram, totals: Sequence[float]) -> Metric:
        at = self._offsets[spec.name, ""]
        cumulated, buckets = 0.0, []
        for bound, count in zip((*spec.bounds, float("inf")), totals[at : at + len(spec.bounds) + 1], strict=True):
            cumulated += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), cumulated))
        family = HistogramMetricFamily(name, spec.help)
        family.add_metric([], buckets, totals[at + len(spec.bounds) + 1])
        return family


class Row:
    """One worker's numbers. Its threads take turns by a lock: an addition is a read and a write."""

    def __init__(
        self, cells: memoryview[float], offsets: Mapping[tuple[str, str], int], bounds: Mapping[str, tuple[float, ...]]
    ) -> None:
        self._cells = cells
        self._offsets = offsets
        self._bounds = bounds
        self._lock = threading.Lock()

    def count(self, name: str, value: str = "", amount: float = 1.0) -> None:
        """Add to a counter, or to a gauge (where `amount` may be negative)."""
        at = self._offsets.get((name, value))
        if at is None:  # a name beyond the slots; with any other label our bug
            at = self._offsets[name, OTHER]
        with self._lock:
            self._cells[at] += amount

    def count_each(self, values: Iterable[tuple[str, str]]) -> None:
        """Add one to each of several counters, given as name and label value; with one lock for all of them."""
        offsets = [self._offsets[value] for value in values]
        with self._lock:
            for at in offsets:
                self._cells[at] += 1.0

    def observe(self, name: str, measure: float) -> None:
        """Add one measure to a histogram."""
        at, bounds = self._offsets[name, ""], self._bounds[name]
        with self._lock:
            self._cells[at + bisect_left(bounds, measure)] += 1.0
            self._cells[at + len(bounds) + 1] += measure


def told_gauges(prefix: str, gauges: Sequence[Gauge], notes: Mapping[str, str]) -> Iterable[Metric]:
    """Yield gauges whose number a worker tells for all, in a note of the gauge's name; there is no sample until one does."""
    for gauge in gauges:
        family = GaugeMetricFamily(f"{prefix}_{gauge.name}", gauge.help)
        with contextlib.suppress(ValueError):  # a worker that tells no number must not take the other metrics away
            if gauge.name in notes:
                family.add_metric([], float(notes[gauge.name]))
        yield family


def _values(spec: Spec) -> tuple[str, ...]:
    return ("",) if isinstance(spec, Histogram) else spec.values


def _is_named_at_load(spec: Spec) -> TypeGuard[Counter | Gauge]:
    return not isinstance(spec, Histogram) and spec.values is NAMED_AT_LOAD


def check_specs(specs: Sequence[Spec]) -> None:
    """Raise ValueError where two metrics share a name or a histogram's bounds do not grow."""
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise ValueError("two metrics share a name")
    for spec in specs:
        if isinstance(spec, Histogram) and any(low >= high for low, high in pairwise(spec.bounds)):
            raise ValueError(f"the bounds of {spec.name} do not grow")
