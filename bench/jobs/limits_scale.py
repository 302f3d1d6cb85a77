"""Counters in SQLite with a million known accounts: what charging a request costs beside a hundred accounts."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping

from bench.jobs.greylist_scale import percentile
from bench.limits_rows import HOURS, LIMITS, filled, request
from bench.report import Target, at_most, spread, table, target_table
from bench.workbench import Workbench
from mailward.adapters.sqlite_counters import FILE, SqliteLimits
from mailward.model.state import Durability
from tests.support.processes import ProgramError

FEW, MANY = 100, 1_000_000
ACTIVE = 100  # accounts that send, while the others are known
# Requests that are charged together (those of one turn of policyd's loop), and whether it is only some that send.
CASES = ((8, True), (1, True), (8, False))
TURN = 25  # calls with one store, then with the other
WANTED = 1.25

NOTE = f"""\
A request is charged to {len(LIMITS)} counters, of two windows each, of an account that was charged once an hour for {HOURS}
hours. Those that send are {ACTIVE} anywhere among those known, or all, each as likely as any other: then nearly every request
is to a page that has to be read, and is written alone. `charge()` is called from the outside, in one process; both stores in
turn, {TURN} calls each, and a step of housekeeping after each turn, which empties the log into the file. "All in" has its time,
too. The files are in the kernel's memory, as they were just written."""

Case = tuple[int, bool]
Costs = dict[Case, list[list[float]]]  # microseconds a request: for each round a list


def run(workbench: Workbench) -> str:
    """Fill, and charge."""
    now = time.time()
    folders = {FEW: workbench.folder_of("limits-few"), MANY: workbench.folder_of("limits-many")}
    began = time.monotonic()
    for count, folder in folders.items():
        filled(folder, count, now)
    filling_seconds = time.monotonic() - began
    sizes = {count: (folder / FILE).stat().st_size for count, folder in folders.items()}
    stores = {count: SqliteLimits(folder, Durability.PROCESS, 30.0) for count, folder in folders.items()}
    for store in stores.values():
        walk(store)
    charged: dict[int, Costs] = {count: {case: [] for case in CASES} for count in stores}
    all_in: dict[int, Costs] = {count: {case: [] for case in CASES} for count in stores}
    for number in range(workbench.options.rounds):
        for case in CASES:
            charge(stores, case, workbench.options.messages, number, charged, all_in)
    for store in stores.values():
        store.close()
    filling = f"Filling took {filling_seconds:.0f} s."
    parts = [cost_table(charged, all_in), size_table(sizes), filling, target_table(targets(charged, all_in)), NOTE]
    return "\n\n".join(parts)


def walk(store: SqliteLimits) -> None:
    """Let the housekeeping look at all rows, which it does once an hour: that takes its time, whatever is charged."""
    store.tend()
    while not store.upkeep.is_at_rest:
        store.tend()


def charge(
    stores: Mapping[int, SqliteLimits],
    case: Case,
    requests: int,
    seed: int,
    charged: Mapping[int, Costs],
    all_in: Mapping[int, Costs],
) -> None:
    """Charge so many requests in batches of one size with both stores in turn; keep what each took."""
    (size, is_some), randomness = case, random.Random(seed)
    spent = dict.fromkeys(stores, 0.0)
    turns = max(1, requests // (TURN * size))
    for count in stores:
        charged[count][case].append([])
    for _ in range(turns):
        for count, store in stores.items():
            senders = ACTIVE if is_some else count
            chosen = (randomness.randrange(senders) * (count // senders) for _ in range(size * TURN))
            requests_ahead = [request(number) for number in chosen]
            batches = [requests_ahead[at : at + size] for at in range(0, len(requests_ahead), size)]
            began = time.perf_counter()
            for batch in batches:
                before = time.perf_counter()
                outcomes = store.charge(batch)
                charged[count][case][-1].append((time.perf_counter() - before) / size * 1e6)
                if not all(outcome.is_charged for outcome in outcomes):
                    raise ProgramError("a request was refused that no limit stops")
            store.tend()
            spent[count] += time.perf_counter() - began
    for count, seconds in spent.items():
        all_in[count][case].append([seconds / (turns * TURN * size) * 1e6])


def cost_table(charged: Mapping[int, Costs], all_in: Mapping[int, Costs]) -> str:
    """Format what requests took."""
    rows = [
        (
            f"{count:,} accounts, {named(case)}",
            spread([statistics.median(each) for each in charged[count][case]], 1),
            spread([percentile(each, 0.99) for each in charged[count][case]], 1),
            spread([statistics.mean(each) for each in all_in[count][case]], 1),
        )
        for case in CASES
        for count in charged
    ]
    return table(("a request with", "median us", "p99 us", "all in, mean us"), rows)


def size_table(sizes: Mapping[int, int]) -> str:
    """Format what the files weigh."""
    rows = [(f"{count:,}", f"{size / 1e6:,.1f}", f"{size / count:.0f}") for count, size in sizes.items()]
    return table(("accounts", "MB", "octets an account"), rows)


def named(case: Case) -> str:
    """Return a case in words."""
    size, is_some = case
    return f"{size} at once, {f'{ACTIVE} send' if is_some else 'all send'}"


def targets(charged: Mapping[int, Costs], all_in: Mapping[int, Costs]) -> list[Target]:
    """Return how much more a request costs where many accounts are known, and as many send."""
    return [
        at_most(f"{named(case)}, {name}: with {MANY:,} known / with {FEW:,}", ratio(costs, case), WANTED)
        for case in CASES
        if case[1]
        for name, costs in (("median", charged), ("all in", all_in))
    ]


def ratio(costs: Mapping[int, Costs], case: Case) -> float:
    """Return the median of the rounds' ratios of medians."""
    rounds = zip(costs[FEW][case], costs[MANY][case], strict=True)
    return statistics.median(statistics.median(many) / statistics.median(few) for few, many in rounds)
