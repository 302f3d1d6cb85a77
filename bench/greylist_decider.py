"""A process that decides on fresh triplets all the time: `python -m bench.greylist_decider FOLDER OUTPUT PAUSE`.

Each line of OUTPUT is when a decision began (monotonic seconds), and the milliseconds it took.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

from bench.greylist_rows import triplet
from mailward.adapters.sqlite_greylist import SqliteGreylist
from mailward.model.greylist import Windows
from mailward.model.state import Durability


def main(folder: Path, output: Path, pause: float) -> None:
    """Decide until it is ended."""
    store = SqliteGreylist(folder, Durability.PROCESS, 30.0)
    store.probe()
    with output.open("w", buffering=1) as times:
        for number in itertools.count():
            began = time.monotonic()
            store.sight(triplet("decided", number), Windows())
            times.write(f"{began:.6f} {(time.monotonic() - began) * 1000:.3f}\n")
            time.sleep(pause)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
