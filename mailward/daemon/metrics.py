"""Counters, gauges and histograms of one program, shared by all of its workers.

Each metric and each of its label values is declared before the first fork, so that a worker's numbers are a row of
doubles in shared memory: counting is an addition, nothing is sent, and the total over the workers is a sum over rows.
A row outlives its worker and is handed on with what it has counted: counters never run backwards, whoever dies.
A label value is a word from a closed set; an address, a domain or an IP never is one.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

MAX_ROWS = 256  # workers alive at once: three generations of at most 64, and those that are being replaced

# Seconds: from what a warm message takes to what a look-up behind a slow resolver takes.
LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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
        width = 0
        for spec in specs:
            for value in spec.values if isinstance(spec, Counter) else ("",):
                self._offsets[spec.name, value] = width
                width += len(spec.bounds) + 2 if isinstance(spec, Histogram) else 1
        self._width = width
        self._cells: memoryview[float] = memoryview(mmap.mmap(-1, max(1, MAX_ROWS * width) * 8)).cast("d")

    def row(self, number: int) -> Row:
        """Return row `number` for writing; a row has one writing process at a time."""
        bounds = {spec.name: spec.bounds for spec in self._specs if isinstance(spec, Histogram)}
        start = number * self._width
        return Row(self._cells[start : start + self._width], self._offsets, bounds)

    def forget_gauges(self, number: int) -> None:
        """Set the gauges of row `number` to zero: its worker is dead."""
        for spec in self._specs:
            if isinstance(spec, Gauge):
                self._cells[number * self._width + self._offsets[spec.name, ""]] = 0.0

    def collect(self) -> Iterable[Metric]:
        """Yield the totals over all rows as prometheus-client's metric families."""
        totals = [sum(self._cells[at :: self._width]) for at in range(self._width)]
        for spec in self._specs:
            name = f"{self._prefix}_{spec.name}"
            if isinstance(spec, Counter):
                yield self._counter(name, spec, totals)
            elif isinstance(spec, Gauge):
                yield GaugeMetricFamily(name, spec.help, totals[self._offsets[spec.name, ""]])
            else:
                yield self._histogram(name, spec, totals)

    def _counter(self, name: str, spec: Counter, totals: Sequence[float]) -> Metric:
        family = CounterMetricFamily(name, spec.help, labels=[spec.label] if spec.label else [])
        for value in spec.values:
            family.add_metric([value] if spec.label else [], totals[self._offsets[spec.name, value]])
        return family

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
        at = self._offsets[name, value]
        with self._lock:
            self._cells[at] += amount

    def observe(self, name: str, measure: float) -> None:
        """Add one measure to a histogram."""
        at, bounds = self._offsets[name, ""], self._bounds[name]
        with self._lock:
            self._cells[at + bisect_left(bounds, measure)] += 1.0
            self._cells[at + len(bounds) + 1] += measure


def check_specs(specs: Sequence[Spec]) -> None:
    """Raise ValueError where two metrics share a name or a histogram's bounds do not grow."""
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise ValueError("two metrics share a name")
    for spec in specs:
        if isinstance(spec, Histogram) and any(low >= high for low, high in pairwise(spec.bounds)):
            raise ValueError(f"the bounds of {spec.name} do not grow")
