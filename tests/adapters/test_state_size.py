"""How much room a program's state takes on this machine, and how it becomes a metric."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailward.adapters.memory_counters import MemoryLimits
from mailward.adapters.memory_greylist import MemoryGreylist
from mailward.adapters.redis_counters import RedisLimits
from mailward.adapters.redis_greylist import RedisGreylist
from mailward.adapters.sqlite_counters import SqliteLimits
from mailward.adapters.sqlite_greylist import SqliteGreylist
from mailward.daemon.state_size import size_collector
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.greylist import TripletRecord
from mailward.model.ports import CounterStore, TripletStore
from mailward.model.state import Durability, RedisState, RedisTopology
from tests.adapters.sqlite_sightings import triplet

BUDGET = 30.0
BOUND = 4 * 1024 * 1024
NOWHERE = RedisState(RedisTopology.ALONE, (("127.0.0.1", 1),))


def test_a_file_that_takes_more_is_larger_and_fuller(folder: Path) -> None:
    store = SqliteGreylist(folder, Durability.PROCESS, BUDGET, BOUND)
    small = store.size()
    store.put_triplets(TripletRecord(triplet(number), 1.0, 1.0, 1e10, False) for number in range(5_000))
    large = store.size()
    on_disk = sum((folder / name).stat().st_size for name in ("greylist.sqlite", "greylist.sqlite-wal"))
    store.close()
    assert small is not None
    assert large is not None
    assert 0 < small.fill < 0.05 < large.fill < 1
    assert large.octets > small.octets + 200_000
    assert large.octets == on_disk


def test_the_log_counts(folder: Path) -> None:
    store = SqliteLimits(folder, Durability.PROCESS, BUDGET)
    store.put_note("a", "b")
    size, log = store.size(), folder / "policyd.sqlite-wal"
    assert size is not None
    assert size.octets == (folder / "policyd.sqlite").stat().st_size + log.stat().st_size
    assert log.stat().st_size > 0
    store.close()


@pytest.mark.parametrize(
    "store",
    [
        pytest.param(MemoryGreylist(), id="memory, greylisting"),
        pytest.param(MemoryLimits(), id="memory, limits"),
        pytest.param(RedisGreylist(NOWHERE, 0.1), id="Redis, greylisting: it is not even asked"),
        pytest.param(RedisLimits(NOWHERE, 0.1), id="Redis, limits"),
    ],
)
def test_what_takes_no_room_here_has_no_size(store: TripletStore | CounterStore) -> None:
    assert store.size() is None


@pytest.mark.parametrize("opened", [SqliteGreylist, SqliteLimits])
def test_a_folder_that_is_not_there_is_a_failure_of_the_stores(
    folder: Path, opened: type[SqliteGreylist | SqliteLimits]
) -> None:
    with pytest.raises(StoreError) as raised:
        opened(folder / "missing", Durability.PROCESS, BUDGET).size()
    assert raised.value.failure is StoreFailure.AWAY


@pytest.mark.parametrize(
    ("notes", "samples"),
    [
        pytest.param({}, {"state_bytes": None, "state_fill_ratio": None}, id="nobody has told it yet"),
        pytest.param(
            {"state_bytes": "8192", "state_fill_ratio": "0.2500", "key a": "published"},
            {"state_bytes": 8192.0, "state_fill_ratio": 0.25},
            id="told, among other notes",
        ),
    ],
)
def test_notes_become_gauges(notes: dict[str, str], samples: dict[str, float | None]) -> None:
    found = {family.name: family for family in size_collector("mailward_greylist")(notes)}
    values = {name: [sample.value for sample in family.samples] for name, family in found.items()}
    assert values == {f"mailward_greylist_{name}": [] if v is None else [v] for name, v in samples.items()}
