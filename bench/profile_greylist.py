"""Tell where the time of a greylisted message goes: the filter in this process, the DNS in its cache, and no milter.

    python -m bench.profile_greylist [--messages 3000] [--redis PORT] [--functions]

Fresh triplets, as in the job `greylist`: every one is deferred, and SQLite remembers it (or Redis on a port of 127.0.0.1, whose
memory gets filled). The stages are timed one at a time, each in a run of its own with everything warm, in CPU microseconds,
and in those that went by (half of one more for each call: the timing). `--functions` adds cProfile's list, whose figures are far
too high but right in order.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from bench.incoming import CLIENT_ADDRESS, HELO, zones
from bench.keys import rsa_key
from bench.profile_verify import log_to, microseconds, resolver_that_knows, stage_microseconds
from bench.report import table
from mailward.daemon import log
from mailward.daemon.dns import DNS_METRICS
from mailward.daemon.metrics import Metrics
from mailward.daemon.program import WorkerTools
from mailward.model.message import Envelope, Transaction
from milters.greylist import __main__ as daemon
from milters.greylist.filter import METRICS
from tests.support.processes import open_folder

DOMAINS = 50
STAGES = (  # module, and what is timed in it; indented ones are part of the one above
    ("mailward.policy.exemptions", "Exemptions.find", "exemptions"),
    ("mailward.auth.spf", "check_mail_from", "SPF of MAIL FROM"),
    ("mailward.adapters.resolver", "MessageQueries.ask", "  questions to the cache"),
    ("mailward.inbound.greylisting", "Incoming._triplet", "triplet made"),
    ("mailward.adapters.guarded_greylist", "GuardedGreylist.sight", "the store, behind its breaker"),
    ("milters.greylist.filter", "GreylistMessage._count", "counted"),
    ("milters.greylist.filter", "GreylistMessage._log", "logged"),
)


class NoNotes:
    """Tells nobody anything, and knows nothing."""

    def note(self, key: str, value: str) -> None:
        """Tell nobody."""

    suggest = note

    def known(self, _key: str) -> str:
        """Know nothing."""
        return ""


def main() -> None:
    """Profile, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile_greylist")
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--redis", type=int, default=0)
    parser.add_argument("--functions", action="store_true")
    chosen = parser.parse_args()
    with open_folder("mailward-profile-") as folder:
        judging = judging_of(folder, chosen.redis)
        with log_to(folder / "log"):
            for _ in range(2 * DOMAINS):
                judging()  # fills the caches
            whole, went_by = microseconds(judging, chosen.messages), elapsed(judging, chosen.messages)
            rows = [("the whole message", f"{whole:.1f}", f"{went_by:.1f}", "")]
            for module, name, label in STAGES:
                spent, calls = stage_microseconds(module, name, judging, chosen.messages)
                took, _ = stage_microseconds(module, name, judging, chosen.messages, time.perf_counter)
                rows.append((label, f"{spent:.1f}", f"{took:.1f}", f"{calls:g}"))
            profile = cProfile.Profile()
            profile.runcall(lambda: [judging() for _ in range(chosen.messages)])
    print(table(("stage", "CPU us a message", "us that went by", "calls"), rows))
    if chosen.functions:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)


def judging_of(folder: Path, redis_port: int) -> Callable[[], None]:
    """Return what takes one more fresh triplet through the filter, as the milter edge does."""
    log.configure()
    (folder / "state").mkdir()
    state = f"redis://127.0.0.1:{redis_port}/0" if redis_port else f"sqlite:{folder}/state"
    configuration = folder / "mailward.toml"
    configuration.write_text(f'state = "{state}"\n[greylist]\n')
    resolver = resolver_that_knows(zones(rsa_key(folder, "2026a"), DOMAINS))
    resolver.start = lambda: None  # type: ignore[method-assign]  # it would find nobody, and everything would pass
    daemon.make_resolver = lambda *_, **__: resolver  # type: ignore[attr-defined]
    metrics = Metrics("mailward_greylist", (*METRICS, *DNS_METRICS)).row(0)
    serving = daemon.load(configuration).make_serving(WorkerTools(metrics, NoNotes(), log.get("greylist")))
    start = serving._program.start  # type: ignore[attr-defined]
    numbers = count()

    def judging() -> None:
        number = next(numbers)
        envelope = Envelope(CLIENT_ADDRESS, HELO, "smtpd", HELO.encode())
        envelope.mail_from = f"sender@d{number % DOMAINS}.example".encode()
        of_message = start(Transaction("1", envelope))
        envelope.rcpt_to.append(f"rcpt{number}@example.net".encode())
        assert of_message.recipient(envelope.rcpt_to[0]) is not None

    return judging


def elapsed(act: Callable[[], object], number: int) -> float:
    """Return the microseconds that one call takes."""
    started = time.perf_counter()
    for _ in range(number):
        act()
    return (time.perf_counter() - started) / number * 1e6


if __name__ == "__main__":
    main()
