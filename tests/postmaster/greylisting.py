"""A postmaster with greylisting's memory somewhere: what the tests of `mailward greylist` stand on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from mailward.model.greylist import OriginRecord, Triplet, TripletRecord, Windows
from mailward.model.ports import GreylistRecords
from postmaster.__main__ import main

DAY = 86400.0
WINDOWS = Windows()


class Greylisting:
    """The command, its configuration, and the memory it works on."""

    def __init__(self, folder: Path, open_store: Callable[[], GreylistRecords]) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        self.config = folder / "mailward.toml"
        self.config.write_text(f'state = "sqlite:{self.state}"\n')
        self.store = open_store()
        self.now = time.time()

    def run(self, *arguments: str | Path, standard_input: str | None = None) -> Result:
        """Run `mailward greylist`; `output` is stdout and stderr, in one with every click."""
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(
            main, ["greylist", words[0], "--config", str(self.config), *words[1:]], input=standard_input
        )

    def succeed(self, *arguments: str | Path) -> str:
        """Run it, and return what it printed; AssertionError if it failed."""
        done = self.run(*arguments)
        assert done.exit_code == 0, (done.output, done.exception)
        assert done.output.isascii()
        return done.output

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        """Run it with --json, and return the object."""
        tree = json.loads(self.succeed(*arguments, "--json"))
        assert isinstance(tree, dict)
        return tree

    def learn(self, *records: TripletRecord | OriginRecord) -> None:
        """Let the memory hold records."""
        self.store.put_triplets(record for record in records if isinstance(record, TripletRecord))
        self.store.put_origins(record for record in records if isinstance(record, OriginRecord))

    def waiting(self, origin: str, mail_from: str, rcpt_to: str, ago: float = 10.0) -> TripletRecord:
        """Return a triplet that was seen first so long ago, and waits."""
        first_seen = self.now - ago
        return TripletRecord(Triplet(origin, mail_from, rcpt_to), first_seen, 0.0, first_seen + WINDOWS.retry_window)

    def passed(self, origin: str, mail_from: str, rcpt_to: str, ago: float = DAY) -> TripletRecord:
        """Return a triplet that passed so long ago."""
        at = self.now - ago
        return TripletRecord(Triplet(origin, mail_from, rcpt_to), at - 300, at, at + WINDOWS.remember)

    def origin(self, name: str, passes: int, ago: float = DAY) -> OriginRecord:
        """Return an origin whose last pass was counted so long ago."""
        at = self.now - ago
        return OriginRecord(name, passes, at, at + WINDOWS.remember)

    def triplets(self) -> dict[Triplet, TripletRecord]:
        """Return what the memory holds."""
        return {record.triplet: record for record in self.store.triplets()}

    def origins(self) -> dict[str, OriginRecord]:
        """Return what the memory holds."""
        return {record.origin: record for record in self.store.origins()}

    def entries(self) -> dict[str, bool]:
        """Return the subjects of the entries, and whether they allow."""
        return {entry.subject: entry.is_allowed for entry in self.store.orders().entries}
