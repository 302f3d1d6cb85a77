"""The outage, replayed: mail through a real Postfix into the greylister while what it stands on is taken away.

Each scenario takes other things away. What we want is that nobody is deferred because of it, that Postfix does not notice,
and that greylisting is back by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from math import floor
from pathlib import Path

from bench.greylist_nights import PEER, SCENARIOS, Scenario, taken_away
from bench.greylisters import Greylister, Task, running
from bench.launch import CHECKOUT
from bench.machine import process_tree
from bench.nameservers import open_nameservers
from bench.plots import Panel, Plot, Series, draw
from bench.pump import (
    CHUNK,
    FRESH,
    KNOWN,
    PROCESS_LIMIT,
    SAMPLE_SECONDS,
    SESSIONS,
    Pump,
    Sample,
    Watch,
    by_second,
    postfix,
)
from bench.report import Target, at_least, at_most, table, target_table
from bench.workbench import Workbench
from tests.support.nameserver import Nameserver
from tests.support.processes import ProgramError

LANES = 10  # of each stream
RAMP_SECONDS, HEALTHY_SECONDS, AFTER_SECONDS = 8.0, 20.0, 25.0
DELAY_SECONDS = 5
DNS_TTL = 60
DOMAINS = 1500  # the fresh stream's chunks have one each
HEADER = (
    *(
        "scenario",
        "known deferred",
        "fresh deferred, greylisting aside",
        "messages a second, healthy",
        "in the outage",
        "after",
    ),
    *(
        "ratio",
        "longest gap s",
        "smtpd: healthy",
        "in the outage",
        "aside after s",
        "defers again after s",
        "workers replaced",
    ),
)
NOTE = f"""\
`smtp-source` in {2 * LANES} lanes of {SESSIONS} sessions sends to a private Postfix (default_process_limit {PROCESS_LIMIT},
discard transport, milter_default_action = accept). A session waits a second, sends a message of 2 kB, leaves, and comes again,
accepted or deferred: {2 * LANES * SESSIONS} messages a second are offered whatever becomes of them, and if they took half a
second each, Postfix would be at its limit. Half of the lanes repeat triplets that passed before the run: none of these may ever
be deferred. The others are fresh triplets: deferred when all is well, passing while greylisting stands aside, each
{SESSIONS * CHUNK} of them from a domain of their own, so that two domains a second are looked up that are in no cache; the TTL
is {DNS_TTL} s. A message counts as one whether it was accepted or deferred; a deferred one ends at RCPT and is the cheaper one,
so the outage, in which all are accepted, is more work for the same number. A gap is a time in which no message came to an end,
to {SAMPLE_SECONDS} s. "Aside" is greylisting in all workers at once; smtpd processes are those there are, idle ones too. Each
scenario ran once, with the default configuration but for `delay` ({DELAY_SECONDS} s). All at once is two runs, as one daemon has
one store. rspamd decides on the whole message, and smtp-source's have one body, which it knows: it defers none here, and is
shown for what becomes of Postfix."""


@dataclass(frozen=True, slots=True)
class Replay:
    """One run: its samples, and its moments of time.monotonic()."""

    scenario: Scenario
    samples: Sequence[Sample]
    complaints: Sequence[str]
    started: float
    away: float
    back: float
    ended: float
    replaced: int

    def between(self, start: float, end: float) -> list[Sample]:
        """Return the samples of a time."""
        return [sample for sample in self.samples if start <= sample.at < end]

    def rate(self, start: float, end: float) -> float:
        """Return messages a second, either way."""
        return sum(sample.counts.ended for sample in self.between(start, end)) / (end - start)

    @property
    def healthy_rate(self) -> float:
        """Return messages a second before the outage."""
        return self.rate(self.started, self.away)

    @property
    def ratio(self) -> float:
        """Return the outage's rate by the healthy one."""
        return self.rate(self.away, self.back) / self.healthy_rate

    @property
    def known_deferred(self) -> int:
        """Return how many known triplets were deferred, at any time."""
        return sum(sample.counts.deferred[KNOWN] for sample in self.between(self.started, self.ended))

    @property
    def aside_at(self) -> float:
        """Return when as many workers stood aside as ever did; the outage's end if none did."""
        outage = self.between(self.away, self.back)
        most = max(sample.open_in for sample in outage)
        return next(sample.at for sample in outage if sample.open_in == most) if most else self.back

    @property
    def deferred_while_aside(self) -> int:
        """Return how many were deferred once every worker stood aside."""
        return sum(sum(sample.counts.deferred.values()) for sample in self.between(self.aside_at, self.back))

    @property
    def defers_again_after(self) -> float:
        """Return the seconds from the end of the outage until no worker stands aside and a fresh triplet was deferred."""
        after = self.between(self.back, self.ended)
        last_aside = max((sample.at for sample in after if sample.open_in), default=self.back)
        deferring = (sample.at for sample in after if sample.at > last_aside and sample.counts.deferred[FRESH])
        return next(deferring, float("inf")) - self.back

    @property
    def longest_gap(self) -> float:
        """Return the longest time in which no message came to an end."""
        moments = [sample.at for sample in self.between(self.started, self.ended) if sample.counts.ended]
        moments = [self.started, *moments, self.ended]
        return max(later - earlier for earlier, later in pairwise(moments))

    def most_smtpds(self, start: float, end: float) -> int:
        """Return the most smtpd processes there were."""
        return max(sample.smtpds for sample in self.between(start, end))


def run(workbench: Workbench) -> str:
    """Replay every scenario once, and draw it."""
    workbench.options.plots.mkdir(exist_ok=True)
    folder = workbench.folder_of("greylist-outage-dns")
    replays = []
    with open_nameservers(folder, workbench.rsa, count=2, domains=DOMAINS, ttl=DNS_TTL) as nameservers:
        for scenario in chosen(workbench.options.scenarios):
            replays.append(replay(scenario, nameservers, workbench))
    plots = [keep_plot(it, workbench.options.plots) for it in replays]
    return "\n\n".join([table(HEADER, [row(it) for it in replays]), target_table(targets(replays)), NOTE, *plots])


def chosen(names: Sequence[str]) -> Sequence[Scenario]:
    """Return the scenarios of these names, all where there are none. Raises ProgramError."""
    unknown = set(names) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        raise ProgramError(f"no such scenario: {', '.join(sorted(unknown))}")
    return [scenario for scenario in SCENARIOS if not names or scenario.name in names]


def replay(scenario: Scenario, nameservers: Sequence[Nameserver], workbench: Workbench) -> Replay:
    """Pump, take things away, and bring them back."""
    task = Task(
        workbench.folder_of(f"greylist-outage-{scenario.name}"),
        [nameserver.address for nameserver in nameservers],
        DELAY_SECONDS,
        is_durable=True,
    )
    with ExitStack() as stack:
        greylister = stack.enter_context(running(scenario.program, task))
        instance, port = stack.enter_context(postfix(task.folder / "postfix", greylister.socket))
        pump = Pump(port, LANES, LANES)
        pump.send_known()
        time.sleep(DELAY_SECONDS + 1)
        pump.send_known()
        watch = stack.enter_context(Watch(instance, standing_aside(greylister)))
        stack.enter_context(pump)
        time.sleep(RAMP_SECONDS)
        workers, started = set(process_tree(greylister.program.pid)), time.monotonic()
        time.sleep(HEALTHY_SECONDS)
        away = time.monotonic()
        with taken_away(scenario, greylister, nameservers, task.folder):
            time.sleep(scenario.seconds)
            back = time.monotonic()  # what it takes them to start counts as a part of the recovery
        time.sleep(AFTER_SECONDS)
        replaced = len(workers - set(process_tree(greylister.program.pid)))
        ended = time.monotonic()
    return Replay(scenario, watch.samples, watch.complaints, started, away, back, ended, replaced)


def standing_aside(greylister: Greylister) -> Callable[[], int]:
    """Return what tells in how many workers greylisting stands aside."""
    if not greylister.metrics_address:
        return lambda: 0

    def count() -> int:
        try:
            samples = greylister.metrics()
        except OSError:
            return 0
        return round(max(value for name, value in samples.items() if name.startswith("breakers_open{")))

    return count


def row(it: Replay) -> Sequence[str]:
    """Return a scenario's row under HEADER."""
    is_ours = it.scenario.program != PEER
    return (
        it.scenario.title,
        f"{it.known_deferred}",
        f"{it.deferred_while_aside}" if is_ours else "-",
        f"{it.healthy_rate:.0f}",
        f"{it.rate(it.away, it.back):.0f}",
        f"{it.rate(it.back, it.ended):.0f}",
        f"{it.ratio:.2f}",
        f"{it.longest_gap:.1f}",
        f"{it.most_smtpds(it.started, it.away)}",
        f"{it.most_smtpds(it.away, it.ended)}",
        f"{it.aside_at - it.away:.1f}" if is_ours else "never",
        f"{it.defers_again_after:.1f}" if is_ours else "-",
        f"{it.replaced}",
    )


def targets(replays: Sequence[Replay]) -> Sequence[Target]:
    """Return what we want of ours; the worst scenario counts."""
    ours = [it for it in replays if it.scenario.program != PEER]
    return [
        at_most("known triplets deferred", sum(it.known_deferred for it in ours), 0),
        at_most("messages deferred while greylisting stood aside", sum(it.deferred_while_aside for it in ours), 0),
        at_least("messages a second in the outage / healthy", min(it.ratio for it in ours), 0.8),
        at_most("smtpd processes", max(it.most_smtpds(it.away, it.ended) for it in ours), PROCESS_LIMIT - 1),
        at_most("workers replaced", sum(it.replaced for it in ours), 0),
        at_most("warnings and errors of Postfix", sum(len(it.complaints) for it in ours), 0),
        at_most("greylisting defers again after", max(it.defers_again_after for it in ours), 15, " s"),
    ]


def keep_plot(it: Replay, folder: Path) -> str:
    """Write the plot of a scenario, and return the Markdown that shows it."""
    path = folder / f"greylist-outage-{it.scenario.name}.svg"
    path.write_text(draw(plot_of(it)))
    shown = path.relative_to(CHECKOUT / "bench") if path.is_relative_to(CHECKOUT) else path
    return f"![{it.scenario.title}: messages a second]({shown})"


def plot_of(it: Replay) -> Plot:
    """Return what happened in each second."""
    seconds = int(it.ended - it.started)

    def series(name: str, figure: Callable[[Sample], float]) -> Series:
        return Series(name, by_second(it.samples, it.started, seconds, figure))

    panels = (
        Panel(
            "messages a second",
            [
                series("known, accepted", lambda sample: sample.counts.accepted[KNOWN]),
                series("fresh, accepted", lambda sample: sample.counts.accepted[FRESH]),
                series("deferred", lambda sample: sum(sample.counts.deferred.values())),
            ],
            height=220,
        ),
        Panel(
            f"smtpd processes (limit {PROCESS_LIMIT})",
            [Series("smtpd processes", most_by_second(it, seconds))],
            height=80,
            is_line=True,
            limit=PROCESS_LIMIT,
            first_colour=3,
        ),
    )
    name = it.scenario.title if it.scenario.program == PEER else f"Mailward: {it.scenario.title}"
    words = f"{it.ratio:.2f} of the healthy rate in the outage; {it.known_deferred} known triplets deferred"
    return Plot(name, words, panels, (it.away - it.started, it.back - it.started), "outage")


def most_by_second(it: Replay, seconds: int) -> list[float]:
    """Return the most smtpd processes of each second."""
    most = [0.0] * seconds
    for sample in it.between(it.started, it.started + seconds):
        second = floor(sample.at - it.started)
        most[second] = max(most[second], float(sample.smtpds))
    return most
