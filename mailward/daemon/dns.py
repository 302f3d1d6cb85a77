"""The resolver of a daemon's worker, wired from `[dns]` to the worker's metrics and log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mailward.adapters.dns_servers import CACHE_HITS, FAILURES, HEDGED, OPEN, OPENED, QUERIES, REASONS, STALE
from mailward.adapters.dns_wire import RESOLV_CONF
from mailward.adapters.resolver import Resolver, nameserver_labels
from mailward.daemon.late import put_off
from mailward.daemon.log import LogEvents
from mailward.daemon.metrics import NAMED_AT_LOAD, Counter, Gauge, Spec
from mailward.daemon.program import WorkerTools
from mailward.daemon.shown import Part, Shown, Tone
from mailward.model.dns import Failure
from mailward.model.domain import normalize
from mailward.settings.common import Dns
from mailward.settings.values import nameserver

put_off("dns.resolver")  # before dkimpy and pyspf import it; the daemons' own is mailward.adapters.resolver

LABEL = "nameserver"

# Part of the metrics of every daemon that has a resolver.
DNS_METRICS: tuple[Spec, ...] = (
    Counter(QUERIES, "Queries put to a nameserver.", LABEL, NAMED_AT_LOAD),
    Counter(FAILURES, "Queries to which a nameserver gave no useful answer.", LABEL, NAMED_AT_LOAD),
    Counter(REASONS, "The same failures, by why.", "reason", tuple(failure.value for failure in Failure)),
    Counter(HEDGED, "Questions put to a further nameserver because the one before was late."),
    Counter(CACHE_HITS, "Questions answered from memory."),
    Counter(STALE, "Questions answered with what is too old, because every nameserver was away."),
    Counter(OPENED, "Times a nameserver was found away and left alone.", LABEL, NAMED_AT_LOAD),
    Gauge(OPEN, "Workers that leave a nameserver alone because it is away.", LABEL, NAMED_AT_LOAD),
)

DNS_SHOWN = Shown(
    "Questions to the DNS",
    (Part("answered from memory", CACHE_HITS, ("",), Tone.GOOD), Part("put to nameservers", QUERIES, (), Tone.PLAIN)),
)


def dns_label_values(dns: Dns) -> Mapping[str, Sequence[str]]:
    """Return what a configuration names for the metrics (Loaded.label_values): its nameservers, or those of the system."""
    return {LABEL: nameserver_labels(_configured(dns))}


def dns_files(dns: Dns) -> Sequence[Path]:
    """Return which files of the system have been read for it (Loaded.watched)."""
    return () if dns.nameservers else (RESOLV_CONF,)


def make_resolver(dns: Dns, tools: WorkerTools, *, is_hasty: bool = False) -> Resolver:
    """Make a worker's resolver; `start` it once the worker is complete.

    `is_hasty`: it finds a DNS that is away within half a second, and may be wrong for one. For who loses by waiting, and
    loses little by being told too soon that nothing can be known.
    """
    return Resolver(
        _configured(dns),
        dns.timeout,
        dns.deadline,
        queries=dns.queries,
        control="" if dns.control == "." else normalize(dns.control),
        is_hasty=is_hasty,
        cache_entries=dns.cache,
        counts=tools.metrics,
        on_event=LogEvents(tools.log),
    )


def _configured(dns: Dns) -> Sequence[tuple[str, int]]:
    return [nameserver(item) for item in dns.nameservers]
