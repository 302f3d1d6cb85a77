"""What an import reads, whatever file it is from: records, or why something is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mailward.model.greylist import Entry, OriginRecord, TripletRecord


class Kind(Enum):
    """What a record is of, as the summary names it."""

    ENTRY = "entries"
    ORIGIN = "origins"
    CORRESPONDENT = "correspondents"
    TRIPLET = "triplets"
    FILE = "lines"  # what could not even be told apart


@dataclass(frozen=True, slots=True)
class Correspondent:
    """An address that somebody here has written to."""

    address: str
    expires: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was not taken; `reason` is one of a few, so that they can be counted."""

    kind: Kind
    reason: str


Record = TripletRecord | OriginRecord | Correspondent | Entry
Item = Record | Skipped
