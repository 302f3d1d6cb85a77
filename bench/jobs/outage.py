"""The DNS away: what a message takes while no nameserver answers, while one of two does not, and after their return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.driver import Report
from bench.incoming import IncomingMail
from bench.nameservers import open_nameservers
from bench.outages import (
    DOMAINS,
    LEAST_OUTAGE_SECONDS,
    MESSAGES,
    METHODS,
    NOTICED_SECONDS,
    OURS,
    PEER_BURST,
    QUICK_MS,
    TEXTS,
    AllSilent,
    OneSilent,
    Watch,
)
from bench.report import Target, at_most, spread, table, target_table
from bench.workbench import CONNECTIONS, Workbench

PEERS = ("opendkim", "opendmarc", "rspamd")
REPLIES = {
    "a": "accepted",
    "c": "accepted",
    "t": "4xx",
    "4": "4xx",
    "y": "4xx or 5xx",
    "r": "REJECTED",
    "d": "DISCARDED",
}
NOTE = f"""\
Every message is from a domain of its own, so that no answer is in any cache. In a silent nameserver's place are sockets
that are bound and never answer. Mailward has {CONNECTIONS} connections: {CONNECTIONS} messages meet the silence, then come
batches of {CONNECTIONS} until all of one take under {QUICK_MS:.0f} ms, then {MESSAGES:,} messages. Peers get {PEER_BURST}
messages at once, and {PEER_BURST} more; one round, as a time-out does not vary. OpenDMARC is alone: it gets no DKIM result
and looks up SPF and DMARC. With one of two silent, "later" is {NOTICED_SECONDS:.0f} s after. Ours has been without DNS for
{LEAST_OUTAGE_SECONDS:.0f} s when the nameservers return; the time is until a message passes again, and until all of a batch
do (every worker has noticed)."""


def run(workbench: Workbench) -> str:
    """Take the DNS away from ours in every round, and from each peer once."""
    mail = IncomingMail(workbench.folder_of("incoming"), workbench.rsa)
    one: dict[str, list[OneSilent]] = {name: [] for name in (OURS, *PEERS)}
    every: dict[str, list[AllSilent]] = {name: [] for name in (OURS, *PEERS)}
    folder = workbench.folder_of("outage-dns")
    with open_nameservers(folder, workbench.rsa, count=2, domains=DOMAINS) as nameservers:
        for round_ in range(workbench.options.rounds):
            for name in (OURS, *PEERS) if round_ == 0 else (OURS,):
                watch = Watch(name, mail, nameservers, workbench)
                one[name].append(watch.one_silent())
                every[name].append(watch.all_silent())
    parts = [
        "### Every nameserver silent",
        silence_table(every),
        table(("program", "replies", "results written"), [written_row(*it) for it in every.items()]),
        "### The first of two nameservers silent",
        one_silent_table(one),
        "### The nameservers' return",
        recovery_table(every),
        target_table(targets(one[OURS], every[OURS])),
        NOTE,
    ]
    return "\n\n".join(parts)


def silence_table(seen: Mapping[str, Sequence[AllSilent]]) -> str:
    """Format what messages took while nobody answered."""
    rows = [
        (
            name,
            spread([it.first.max_ms / 1000 for it in rounds], 1),
            spread([it.quick_after for it in rounds], 1) if name == OURS else "never",
            spread([it.later.measurement.p50_ms for it in rounds], 1),
            spread([it.later.measurement.p99_ms for it in rounds], 1),
            spread([it.later.max_ms for it in rounds], 1),
        )
        for name, rounds in seen.items()
    ]
    header = ("program", "the first messages take s", "quick after s", "later ones p50 ms", "p99 ms", "slowest ms")
    return table(header, rows)


def written_row(name: str, rounds: Sequence[AllSilent]) -> Sequence[str]:
    """Return how a program answered the messages of the outage, and what it wrote on them."""
    reports = [report for it in rounds for report in it.reports()]
    replies: dict[str, int] = {}
    for report in reports:
        for letter, count in report.replies.items():
            reply = REPLIES.get(letter, letter)
            replies[reply] = replies.get(reply, 0) + count
    results = {text: sum(report.added_with[text] for report in reports) for text in TEXTS}
    told = ", ".join(f"{text} {count:,}" for text, count in results.items() if count)
    return (name, ", ".join(f"{reply} {count:,}" for reply, count in replies.items()), told or "nothing")


def one_silent_table(seen: Mapping[str, Sequence[OneSilent]]) -> str:
    """Format what messages took with both nameservers, and with one of them silent."""
    rows = []
    for name, rounds in seen.items():
        for label in ("healthy", "first", "later"):
            reports: list[Report] = [getattr(it, label) for it in rounds]
            what = {"healthy": "both answer", "first": "one silent, from the first message on"}.get(label, "later")
            rows.append(
                (
                    f"{name}: {what}",
                    f"{sum(sum(report.replies.values()) for report in reports):,}",
                    spread([report.measurement.p50_ms for report in reports], 1),
                    spread([report.measurement.p99_ms for report in reports], 1),
                    spread([report.max_ms for report in reports], 1),
                )
            )
    return table(("program", "messages", "p50 ms", "p99 ms", "slowest ms"), rows)


def recovery_table(seen: Mapping[str, Sequence[AllSilent]]) -> str:
    """Format how long the programs took to notice."""
    rows = [
        (name, spread([it.pass_after for it in rounds], 1), spread([it.all_pass_after for it in rounds], 1))
        for name, rounds in seen.items()
    ]
    return table(("program", "a message passes again after s", "all of a batch after s"), rows)


def targets(one: Sequence[OneSilent], every: Sequence[AllSilent]) -> list[Target]:
    """Return what we want to reach; of several rounds the worst counts."""
    reports = [report for it in every for report in it.reports()] + [
        report for it in one for report in (it.first, it.later)
    ]
    refused = sum(count for report in reports for letter, count in report.replies.items() if letter not in "ac")
    failed = sum(report.added_with[f"{method}=fail"] for report in reports for method in METHODS)
    return [
        at_most("every one silent, later: p99", max(it.later.measurement.p99_ms for it in every), QUICK_MS, " ms"),
        at_most("the slowest of them", max(it.later.max_ms for it in every), QUICK_MS, " ms"),
        at_most("messages not accepted", refused, 0),
        at_most("results that are fail", failed, 0),
        at_most(
            "one of two silent, from the first on: p99 / healthy p99", max(p99_ratio(it, it.first) for it in one), 2
        ),
        at_most("later: p99 / healthy p99", max(p99_ratio(it, it.later) for it in one), 2),
        at_most("seconds until all messages pass again", max(it.all_pass_after for it in every), 30, " s"),
    ]


def p99_ratio(seen: OneSilent, report: Report) -> float:
    """Return how much longer the slowest hundredth takes than with both nameservers."""
    return report.measurement.p99_ms / seen.healthy.measurement.p99_ms
