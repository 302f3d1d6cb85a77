"""A postmaster with the state of mailward-policyd somewhere: what the tests of `mailward limits` stand on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from mailward.model.limits import Charge, Charging, CounterKey, Force, Kind, Sent, Window
from mailward.model.ports import LimitRecords
from mailward.policy.ratelimit import item_of
from postmaster.__main__ import main

DAY = 86400.0
HOUR = 3600.0
ALICE, BOB = "alice@example.com", "bob@example.com"
# What holds where the configuration names no limits.
RECIPIENTS = (Window(200, HOUR), Window(1000, DAY))


class Limiting:
    """The command, its configuration, and the state it works on."""

    def __init__(self, folder: Path, open_store: Callable[[], LimitRecords]) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        self.config = folder / "mailward.toml"
        self.configure("")
        self.store = open_store()
        self.now = time.time()

    def configure(self, text: str) -> None:
        """Let the configuration say something more."""
        self.config.write_text(f'state = "sqlite:{self.state}"\n{text}')

    def run(self, *arguments: str | Path, env: dict[str, str] | None = None) -> Result:
        """Run `mailward limits`; `output` is stdout and stderr, in one with every click."""
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(main, ["limits", words[0], "--config", str(self.config), *words[1:]], env=env)

    def succeed(self, *arguments: str | Path) -> str:
        """Run it, and return what it printed; AssertionError if it failed."""
        done = self.run(*arguments)
        assert done.exit_code == 0, (done.output, done.exception)
        assert done.output.isascii()
        return done.output

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        """Run it with --json, and return the object."""
        tree = json.loads(self.succeed(*arguments, "--json"), parse_constant=_refuse)
        assert isinstance(tree, dict)
        return tree

    def send(self, account: str, recipients: int, queue_id: str = "") -> None:
        """Let an account have sent to so many recipients just now, whatever its limit is."""
        key = CounterKey(f"sasl_username={account}", "account-recipients")
        charge = Charge(key, RECIPIENTS, recipients, force=Force.FORCED)
        self._charge(Charging((charge,), Sent(account, queue_id) if queue_id else None))

    def write_to(self, account: str, *addresses: str) -> None:
        """Let an account have written to addresses for the first time."""
        key = CounterKey(f"sasl_username={account}", "account-first-time")
        for address in addresses:
            charge = Charge(key, (Window(200, DAY),), 1, Kind.FIRST_TIME, item_of(address))
            self._charge(Charging((charge,)))

    def log_in_from(self, account: str, *networks: str) -> None:
        """Let an account have logged in from networks."""
        for network in networks:
            key = CounterKey(f"login={account}", "login-networks")
            charge = Charge(key, (Window(10, DAY),), 1, Kind.DISTINCT, item_of(network), Force.FORCED)
            self._charge(Charging((charge,)))

    def used(self, account: str) -> dict[tuple[str, float], int]:
        """Return what `show` says is used of each window."""
        gauges = self.json("show", account)["limits"]
        return {(gauge["limit"], gauge["seconds"]): gauge["used"] for gauge in gauges}

    def actions(self, account: str = "") -> list[str]:
        """Return what the audit log has, the oldest first."""
        return [entry.action for entry in reversed(self.store.audit_log(account))]

    def _charge(self, charging: Charging) -> None:
        (outcome,) = self.store.charge([charging])
        assert outcome.is_charged


def _refuse(constant: str) -> object:
    raise AssertionError(f"{constant} is no JSON")
