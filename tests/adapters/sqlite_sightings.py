"""Greylisting's SQLite store as its tests use it: triplets by number, sightings by seconds since a beginning."""

from __future__ import annotations

from pathlib import Path

from mailward.adapters.sqlite_greylist import SqliteGreylist
from mailward.model.greylist import Memory, Triplet, TripletRecord, Windows
from mailward.model.state import Durability

WINDOWS = Windows()
START = 1_700_000_000.0
GENEROUS = 30.0
PAGE = 4096


def open_store(folder: Path, timeout: float = GENEROUS, durability: Durability = Durability.PROCESS) -> SqliteGreylist:
    return SqliteGreylist(folder, durability, timeout)


def triplet(number: int) -> Triplet:
    return Triplet(f"{number}.example", f"ann@{number}.example", "bob@here.example")


def sight(store: SqliteGreylist, number: int, at: float, *, is_vouched: bool = False) -> Memory:
    sighted = triplet(number)
    correspondent = sighted.mail_from if is_vouched else ""
    return store.sight(sighted, WINDOWS, correspondent=correspondent, now=START + at).memory


def put_expired(store: SqliteGreylist, numbers: range) -> None:
    store.put_triplets(TripletRecord(triplet(number), START, 0.0, START + 60) for number in numbers)


def size_of(path: Path) -> int:
    return path.stat().st_size
