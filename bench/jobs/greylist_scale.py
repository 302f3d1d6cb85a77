"""Greylisting's memory in SQLite with ten million triplets: what a decision costs, and that forgetting does not disturb it."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.greylist_rows import LIFETIME, filled, triplet
from bench.machine import CHECKOUT
from bench.report import Target, at_most, spread, table, target_table
from bench.workbench import Workbench
from mailward.adapters.sqlite_greylist import FILE, SqliteGreylist
from mailward.model.greylist import Memory, TripletRecord, Windows
from mailward.model.state import Durability
from tests.support.processes import Program, ProgramError, read_text

FEW, MANY, EXPIRED = 10_000, 10_000_000, 1_000_000
BATCH = 100  # decisions with one store, then with the other
WINDOWS = Windows()
KINDS = {Memory.NEW: 0.0, Memory.RETRIED: 61.0, Memory.PASSED: 62.0}  # when each is sighted
TEND_PAUSE = 0.02  # between two steps; a daemon leaves 200 ms, and would take most of an hour
DECISION_PAUSE = 0.002  # some hundred messages a second, as on a busy server
QUIET_SECONDS = 15.0  # of decisions before the pruning begins

NOTE = f"""\
Decisions are `sight()`, from the outside, in one process; both stores in turn, {BATCH} decisions each. Fresh ones are
written; retries pass and are written; what passed before is read. The files are in the kernel's memory, as they were just
written. Pruning: one process forgets what has expired, pausing {TEND_PAUSE * 1000:.0f} ms between steps, a tenth of what a
daemon does; another decides on fresh triplets all the time, pausing {DECISION_PAUSE * 1000:.0f} ms. Then as many triplets
are written again as were forgotten, as `mailward greylist import` writes them."""


Costs = dict[Memory, list[list[float]]]  # microseconds of decisions: of each kind, a list for each round


@dataclass(frozen=True, slots=True)
class Pruned:
    """What forgetting a million took: the file's octets over time, and milliseconds of decisions before and meanwhile."""

    seconds: float
    put_seconds: float
    before: int
    after: int
    refilled: int
    quiet: Sequence[float]
    meanwhile: Sequence[float]


def run(workbench: Workbench) -> str:
    """Fill, decide, prune, fill again."""
    now = time.time()
    folders = {FEW: workbench.folder_of("greylist-few"), MANY: workbench.folder_of("greylist-many")}
    began = time.monotonic()
    for count, folder in folders.items():
        filled(folder, count, EXPIRED if count == MANY else 0, now)
    filling_seconds = time.monotonic() - began
    sizes = {count: (folder / FILE).stat().st_size for count, folder in folders.items()}
    stores = {count: SqliteGreylist(folder, Durability.PROCESS, 30.0) for count, folder in folders.items()}
    costs: dict[int, Costs] = {count: {kind: [] for kind in KINDS} for count in stores}
    for number in range(workbench.options.rounds):
        decide(stores, costs, f"round{number}", workbench.options.messages, now)
    for store in stores.values():
        store.close()
    pruned = prune(folders[MANY], now)
    parts = [
        cost_table(costs),
        size_table(sizes, filling_seconds),
        pruning_table(pruned),
        target_table([*ratios(costs), *bounds(pruned)]),
        NOTE,
    ]
    return "\n\n".join(parts)


def decide(stores: dict[int, SqliteGreylist], costs: dict[int, Costs], name: str, messages: int, now: float) -> None:
    """Let each triplet be sighted three times, with both stores in turn; keep their time."""
    for kind, at in KINDS.items():
        for count in stores:
            costs[count][kind].append([])
        for first in range(0, messages, BATCH):
            for count, store in stores.items():
                store.tend(now - 60.0)  # by this clock nothing has expired yet
                for number in range(first, first + BATCH):
                    micros = timed(store, name, number, now + at, kind) * 1e6
                    costs[count][kind][-1].append(micros)


def timed(store: SqliteGreylist, name: str, number: int, now: float, expected: Memory) -> float:
    """Return how many seconds a decision took; ProgramError if it is not the expected one."""
    sighted = triplet(name, number)
    began = time.perf_counter()
    memory = store.sight(sighted, WINDOWS, now=now).memory
    seconds = time.perf_counter() - began
    if memory is not expected:
        raise ProgramError(f"a sighting was {memory.value}, not {expected.value}")
    return seconds


def prune(folder: Path, now: float) -> Pruned:
    """Forget what has expired while another process decides; then write as much again."""
    file = folder / FILE
    store = SqliteGreylist(folder, Durability.PROCESS, 30.0)
    before, wanted = file.stat().st_size, store.count_triplets() - EXPIRED
    with deciding(folder) as times:
        time.sleep(QUIET_SECONDS)
        began = time.monotonic()
        store.tend(now)
        while not store.upkeep.is_at_rest:
            time.sleep(TEND_PAUSE)
            store.tend(now)
        ended = time.monotonic()
        decided = list(times())
    after, left = file.stat().st_size, store.count_triplets()
    if not 0.9 * wanted < left < 1.1 * wanted:
        raise ProgramError(f"{left:,} triplets are left after pruning, not about {wanted:,}")
    refilled = (TripletRecord(triplet("new", number), now, 0.0, now + LIFETIME) for number in range(EXPIRED))
    put_began = time.monotonic()
    store.put_triplets(refilled)
    put_seconds = time.monotonic() - put_began
    store.close()
    return Pruned(
        seconds=ended - began,
        put_seconds=put_seconds,
        before=before,
        after=after,
        refilled=file.stat().st_size,
        quiet=[took for at, took in decided if at < began],
        meanwhile=[took for at, took in decided if began <= at < ended],
    )


@contextmanager
def deciding(folder: Path) -> Iterator[Callable[[], Iterator[tuple[float, float]]]]:
    """Run a process that decides; yield what tells when each decision began, and the milliseconds it took."""
    output = folder / "decisions"
    command = [sys.executable, "-m", "bench.greylist_decider", str(folder), str(output), str(DECISION_PAUSE)]
    decider = Program("decider", command, folder, is_ready=lambda: bool(read_text(output)), working_folder=CHECKOUT)

    def times() -> Iterator[tuple[float, float]]:
        for line in read_text(output).splitlines()[:-1]:  # the last may not be whole
            at, took = line.split()
            yield float(at), float(took)

    decider.start()
    try:
        yield times
    finally:
        decider.stop()


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which `part` of them are.

    >>> percentile([1, 2, 3, 4], 0.5), percentile([1, 2, 3, 4], 0.99)
    (3, 4)
    """
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def cost_table(costs: Mapping[int, Costs]) -> str:
    """Format what decisions took."""
    rows = [
        (
            f"{count:,} triplets: {kind.value}",
            spread([statistics.median(each) for each in costs[count][kind]]),
            spread([percentile(each, 0.99) for each in costs[count][kind]]),
        )
        for kind in KINDS
        for count in costs
    ]
    return table(("a decision with", "median us", "p99 us"), rows)


def size_table(sizes: Mapping[int, int], filling_seconds: float) -> str:
    """Format what the files weigh."""
    rows = [(f"{count:,}", f"{size / 1e6:,.0f}", f"{size / count:.0f}") for count, size in sizes.items()]
    return f"{table(('triplets', 'MB', 'octets a triplet'), rows)}\n\nFilling took {filling_seconds:.0f} s."


def pruning_table(pruned: Pruned) -> str:
    """Format what forgetting did to decisions, and to the file."""
    decisions = [
        (name, f"{len(each):,}", f"{percentile(each, 0.5):.2f}", f"{percentile(each, 0.99):.2f}", f"{max(each):.1f}")
        for name, each in (("before", pruned.quiet), ("meanwhile", pruned.meanwhile))
    ]
    sizes = [
        ("full", f"{pruned.before / 1e6:,.0f}", ""),
        (f"{EXPIRED:,} forgotten", f"{pruned.after / 1e6:,.0f}", f"{pruned.seconds:.0f}"),
        ("as many written again", f"{pruned.refilled / 1e6:,.0f}", f"{pruned.put_seconds:.0f}"),
    ]
    header = ("decisions while a million is forgotten", "number", "median ms", "p99 ms", "slowest ms")
    return table(header, decisions) + "\n\n" + table(("the file", "MB", "seconds"), sizes)


def ratios(costs: Mapping[int, Costs]) -> list[Target]:
    """Return how much more a decision costs with many triplets; the median of the rounds' ratios."""
    return [
        at_most(
            f"{kind.value}: median with {MANY:,} / with {FEW:,}",
            statistics.median(
                statistics.median(many) / statistics.median(few)
                for few, many in zip(costs[FEW][kind], costs[MANY][kind], strict=True)
            ),
            2,
        )
        for kind in KINDS
    ]


def bounds(pruned: Pruned) -> list[Target]:
    """Return what forgetting may do."""
    return [
        at_most(f"p99 of decisions while {EXPIRED:,} are forgotten", percentile(pruned.meanwhile, 0.99), 20, " ms"),
        at_most("the file when it is full again / before", pruned.refilled / pruned.before, 1.05),
    ]
