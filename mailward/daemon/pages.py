"""What the supervisor shows over HTTP: /metrics, /healthz, /readyz and a page for people at /.

Everything that is not a word of ours is escaped.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import mailward
from mailward.daemon.generation import Generation, Phase
from mailward.daemon.metrics import Metrics
from mailward.daemon.program import Program
from mailward.daemon.status import Response
from mailward.daemon.supervisor import Supervisor

# The labels of the gauges that say what is away.
AWAY_LABELS = frozenset({"nameserver", "breaker"})

_OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1b1f24;background:#fff}"
    "h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #d0d7de;vertical-align:top}"
    ".good{color:#116329}.bad{color:#a40e26}"
    "@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th,td{border-color:#30363d}"
    ".good{color:#56d364}.bad{color:#ff7b72}}"
)


class Pages(Collector):
    """Makes each page from the supervisor's state."""

    def __init__(self, program: Program, supervisor: Supervisor, metrics: Metrics) -> None:
        self._program = program
        self._supervisor = supervisor
        self._metrics = metrics
        self._registry = CollectorRegistry()
        self._registry.register(self)

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
            return Response(200, self._page().encode(), "text/html; charset=utf-8")
        return Response(404, b"here are /, /metrics, /healthz and /readyz\n")

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
        yield GaugeMetricFamily(f"{prefix}_start_time_seconds", "When the supervisor started.", supervisor.started)
        info = GaugeMetricFamily(f"{prefix}_info", "Always 1; the version is the label.", labels=["version"])
        info.add_metric([mailward.__version__], 1)
        yield info

    def _page(self) -> str:
        program, supervisor = self._program, self._supervisor
        ready = '<b class="good">serving</b>' if supervisor.is_ready else '<b class="bad">not serving</b>'
        up = _duration(time.time() - supervisor.started)
        parts = [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>mailward-{program.name}</title><style>{_STYLE}</style><h1>mailward-{program.name}</h1>"
            f"<p>{ready}, version {mailward.__version__}, up {up}. "
            f'<a href="/metrics">metrics</a> · <a href="/healthz">health</a> · <a href="/readyz">readiness</a></p>',
            "<h2>Workers</h2><table><tr><th>generation<th>state<th>process<th>serves<th>age<th>last heard",
        ]
        for generation in supervisor.generations:
            parts += _worker_rows(generation, time.monotonic())
        families = list(self.collect())
        away = list(self._away_rows(families))
        if away:
            parts += ["</table><h2>Away</h2><table><tr><th>what<th>where", *away]
        parts.append("</table><h2>Counters</h2><table><tr><th>what<th>number")
        parts += self._counter_rows(families)
        parts.append("</table>")
        if supervisor.notes:
            parts.append("<h2>Known to the workers</h2><table><tr><th>what<th>state")
            for key, value in sorted(supervisor.notes.items())[:500]:
                parts.append(f"<tr><td>{html.escape(key)}<td>{html.escape(value)}")
            parts.append("</table>")
        return "\n".join(parts)

    def _counter_rows(self, families: Sequence[Metric]) -> Iterable[str]:
        for family in families:
            for sample in family.samples:
                if family.type == "counter" and sample.name.endswith("_total") and sample.value:
                    yield self._row(sample.name, sample.labels, f"<td>{sample.value:.0f}")

    def _away_rows(self, families: Sequence[Metric]) -> Iterable[str]:
        """Yield what is left alone, or stands aside: the gauges that count in how many workers that is so."""
        for family in families:
            for sample in family.samples:
                if family.type == "gauge" and not AWAY_LABELS.isdisjoint(sample.labels) and sample.value:
                    yield self._row(sample.name, sample.labels, f'<td class="bad">in {sample.value:.0f} workers')

    def _row(self, sample: str, labels: Mapping[str, str], cell: str) -> str:
        name = html.escape(sample.removeprefix(self._program.metric_prefix + "_"))
        return f"<tr><td>{name} {' '.join(html.escape(value) for value in labels.values())}{cell}"


def _worker_rows(generation: Generation, now: float) -> Iterable[str]:
    for record in generation.workers.values():
        yield (
            f"<tr><td>{generation.number}<td>{generation.phase.value}<td>{record.pid}<td>{'yes' if record.is_ready else 'no'}"
            f"<td>{_duration(now - record.started)}<td>{now - record.last_heard:.1f} s ago"
        )


def _duration(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {int(seconds) % 60} s"
