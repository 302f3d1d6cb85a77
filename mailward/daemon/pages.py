"""What the supervisor shows over HTTP: /metrics, /healthz, /readyz and a page for people at /."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import mailward
from mailward.daemon.generation import Phase
from mailward.daemon.history import History
from mailward.daemon.metrics import Metrics
from mailward.daemon.program import Program
from mailward.daemon.status import Response
from mailward.daemon.status_page.assets import policy
from mailward.daemon.status_page.cards import Numbers
from mailward.daemon.status_page.document import Moment, page
from mailward.daemon.status_page.tables import Measure
from mailward.daemon.supervisor import Supervisor

LOOK_SECONDS = 10.0  # how long a gauge may be up without the history seeing it

_OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Pages(Collector):
    """Makes each page from the supervisor's state."""

    def __init__(self, program: Program, supervisor: Supervisor, metrics: Metrics) -> None:
        self._program = program
        self._supervisor = supervisor
        self._metrics = metrics
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._began = time.monotonic()  # the time of day may jump
        self._history = History(len(metrics.totals()), metrics.gauge_cells(), self._began)
        self._next_look = 0.0
        self._policy = policy()

    def respond(self, path: str, accept: str) -> Response:
        """Answer a request for `path`; `accept` chooses between Prometheus's text formats."""
        if path == "/metrics":
            # The library gets one of two words of ours, never the client's own: some of its versions raise on odd ones.
            encode, content_type = choose_encoder(_OPENMETRICS if "application/openmetrics-text" in accept else "")
            return Response(200, encode(self._registry), content_type)
        if path == "/healthz":
            return Response(200, b"ok\n")
        if path == "/readyz":
            return Response(200, b"ready\n") if self._supervisor.is_ready else Response(503, b"no worker serves\n")
        if path == "/":
            return Response(200, self._page().encode(), "text/html; charset=utf-8", self._policy)
        return Response(404, b"here are /, /metrics, /healthz and /readyz\n")

    def remember(self, now: float) -> None:
        """Keep what was counted up to `now`, in monotonic seconds; called several times a second, looks less often."""
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._history.take(self._metrics.totals(), now)

    def _page(self) -> str:
        now = time.monotonic()
        moment = Moment(now, time.time(), now - self._began)
        totals = self._metrics.totals()
        self._history.take(totals, moment.monotonic)
        numbers = Numbers(self._metrics, self._history, totals)
        return page(self._program, self._supervisor, numbers, self._measures(), moment)

    def _measures(self) -> list[Measure]:
        """Return every counter and gauge as the page knows them."""
        return [
            Measure(family.name, family.type == "counter", family.documentation, sample.labels, sample.value)
            for family in self.collect()
            if family.type in ("counter", "gauge")
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: prometheus-client would collect at registration, before there is a worker."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield every metric: the workers' totals, the program's own, the supervisor's."""
        yield from self._metrics.collect()
        yield from self._program.collect(self._supervisor.notes)
        yield from self._supervision()

    def _supervision(self) -> Iterable[Metric]:
        prefix, supervisor, tally = self._program.metric_prefix, self._supervisor, self._supervisor.tally
        serving = supervisor.serving
        yield GaugeMetricFamily(
            f"{prefix}_workers",
            "Workers that serve.",
            sum(w.is_ready for w in serving.workers.values()) if serving else 0,
        )
        yield GaugeMetricFamily(
            f"{prefix}_generation",
            "Number of the configuration that serves; each reload has the next.",
            serving.number if serving else 0,
        )
        yield GaugeMetricFamily(
            f"{prefix}_generations_draining",
            "Old generations that finish their sessions.",
            sum(generation.phase is Phase.DRAINING for generation in supervisor.generations),
        )
        restarts = CounterMetricFamily(f"{prefix}_worker_restarts", "Workers replaced, by why.", labels=["reason"])
        restarts.add_metric(["died"], tally.died)
        restarts.add_metric(["silent"], tally.silent)
        yield restarts
        reloads = CounterMetricFamily(f"{prefix}_reloads", "Reloads asked for, by how they ended.", labels=["result"])
        reloads.add_metric(["done"], tally.reloads)
        reloads.add_metric(["refused"], tally.failed_reloads)
        yield reloads
        yield GaugeMetricFamily(
            f"{prefix}_last_reload_successful",
            "1 where the last reload, if there was one, was done; 0 while the old configuration goes on.",
            not tally.was_last_refused,
        )
        yield GaugeMetricFamily(f"{prefix}_start_time_seconds", "When the supervisor started.", supervisor.started)
        info = GaugeMetricFamily(f"{prefix}_info", "Always 1; the version is the label.", labels=["version"])
        info.add_metric([mailward.__version__], 1)
        yield info
