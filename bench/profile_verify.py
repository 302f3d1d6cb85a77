"""Tell where the time of a verified message goes: the filter in this process, with all answers cached, and no milter.

    python -m bench.profile_verify [--messages 3000] [--functions]

The 4 kB message of the job `verify`. The stages are timed one at a time, each in a run of its own with everything warm, in CPU
microseconds (half of one more for each call: the timing). `--functions` adds cProfile's list, whose figures are far too high
but right in order.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.incoming import CLIENT_ADDRESS, HELO, IncomingMail, zones
from bench.keys import rsa_key
from bench.report import table
from mailward.adapters.resolver import Resolver
from mailward.daemon import log
from mailward.daemon.dns import DNS_METRICS
from mailward.daemon.metrics import Metrics
from mailward.inbound.judge import Judge
from mailward.model.dns import Answer, Question, RecordType
from mailward.model.message import Envelope, HeaderField, Transaction
from mailward.policy.enforcement import Reason
from milters.auth_verify.filter import METRICS, Verifier, VerifyMessage
from tests.support.processes import open_folder
from tests.support.zone import Zone

STAGES = (  # module, and what is timed in it; indented ones are part of the one above
    ("mailward.inbound.judge", "Verification", "header read, signatures parsed"),
    ("mailward.auth.evaluate", "ReceivedHeader", "  fields by name"),
    ("mailward.auth.evaluate", "author_domains", "  author domains"),
    ("mailward.auth.dkim_verify", "parse_signatures", "  DKIM-Signature fields"),
    ("mailward.auth.arc", "parse_chain", "  ARC fields"),
    ("mailward.auth.body_hash", "BodyHash.update", "body hashed"),
    ("mailward.auth.evaluate", "Verification.evaluate", "evaluation"),
    ("mailward.auth.body_hash", "BodyHash.finish", "  body hash finished"),
    ("mailward.auth.dmarc", "Policies", "  DMARC policies looked up"),
    ("mailward.auth.dkim_verify", "verify", "  DKIM verified"),
    ("mailward.auth.keys", "PublicKey.verify", "    of it RSA"),
    ("mailward.auth.spf", "check_mail_from", "  SPF of MAIL FROM"),
    ("mailward.auth.spf", "check_helo", "  SPF of HELO"),
    ("mailward.auth.dmarc", "Policies.evaluate", "  DMARC evaluated"),
    ("mailward.auth.arc", "verify_chain", "  ARC verified"),
    ("mailward.auth.iprev", "check_iprev", "  iprev"),
    ("mailward.inbound.judge", "decide", "decision"),
    ("mailward.inbound.judge", "Incoming.cleaning", "forged fields looked for"),
    ("mailward.inbound.judge", "Incoming._own_fields", "our field written"),
    ("milters.auth_verify.filter", "VerifyMessage._count", "counted"),
    ("milters.auth_verify.filter", "VerifyMessage._log", "logged"),
    ("mailward.adapters.resolver", "MessageQueries.ask", "all questions to the cache, a part of the above"),
)
BODY_CHUNK = 65535  # as Postfix sends it


def main() -> None:
    """Profile, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile_verify")
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--functions", action="store_true")
    chosen = parser.parse_args()
    with open_folder("mailward-profile-") as folder:
        key = rsa_key(folder, "2026a")
        message = IncomingMail(folder, key).small().read_bytes()
        judging = judging_of(message, zones(key, 0))
        with log_to(folder / "log"):
            judging()  # fills the caches
            rows = [("the whole message", f"{microseconds(judging, chosen.messages):.1f}", "")]
            for module, name, label in STAGES:
                spent, calls = stage_microseconds(module, name, judging, chosen.messages)
                rows.append((label, f"{spent:.1f}", f"{calls:g}"))
            profile = cProfile.Profile()
            profile.runcall(lambda: [judging() for _ in range(chosen.messages)])
    print(table(("stage", "us a message", "calls"), rows))
    if chosen.functions:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)


def judging_of(message: bytes, records: Mapping[str, str]) -> Callable[[], None]:
    """Return what takes the message once through the filter, as the milter edge does."""
    head, _, body = message.partition(b"\r\n\r\n")
    header = [HeaderField(*line.split(b":", 1)) for line in re.split(rb"\r\n(?![ \t])", head)]
    chunks = [body[start : start + BODY_CHUNK] for start in range(0, len(body), BODY_CHUNK)]
    log.configure()
    verifier = Verifier(
        Judge("mail.example.net", frozenset({"mail.example.net"})),
        resolver_that_knows(records),
        Metrics("mailward_auth_verify", (*METRICS, *DNS_METRICS)).row(0),
        log.get("auth-verify"),
        accepts_after_own_bug=False,
    )

    def judging() -> None:
        envelope = Envelope(CLIENT_ADDRESS, HELO, "smtpd", HELO.encode())
        envelope.mail_from = b"sender@example.com"
        of_message = VerifyMessage(verifier, Transaction("1", envelope, list(header), "4QABCDEF12"))
        of_message.end_of_header()
        for chunk in chunks:
            of_message.body(chunk)
        assert of_message.end_of_message().reason == Reason.PASS.value

    return judging


def resolver_that_knows(records: Mapping[str, str]) -> Resolver:
    """Return a resolver that finds every answer in its cache, and would ask nobody."""
    zone = Zone()
    for origin, text in records.items():
        for line in filter(None, text.splitlines()):
            name, _, kind, value = line.split(None, 3)
            octets = "".join(re.findall(r'"([^"]*)"', value)) if kind == "TXT" else value
            zone.add(origin if name == "@" else f"{name}.{origin}", RecordType(kind), [octets.encode()])
    resolver = Resolver([("127.0.0.1", 9)], 0.1, 0.1)

    def ask_cold(question: Question, _message: object) -> Answer:
        resolver.cache.keep(question, zone(question), time.monotonic())
        return zone(question)

    resolver.ask_cold = ask_cold  # type: ignore[method-assign,assignment]
    return resolver


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Have the log, which goes to stderr, in a file for a while."""
    stderr = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def microseconds(act: Callable[[], object], count: int) -> float:
    """Return the CPU time of one call, the median of ten series."""
    series = []
    for _ in range(10):
        started = time.process_time()
        for _ in range(max(1, count // 10)):
            act()
        series.append((time.process_time() - started) / max(1, count // 10) * 1e6)
    return sorted(series)[5]


def stage_microseconds(
    module: str, name: str, judging: Callable[[], None], count: int, clock: Callable[[], float] = time.thread_time
) -> tuple[float, float]:
    """Return the time a message spends in one function or class, and how often it is called."""
    spent: list[float] = []
    with timed(module, name, spent, clock):
        for _ in range(count):
            judging()
    return sum(spent) / count * 1e6, len(spent) / count


@contextmanager
def timed(module: str, name: str, spent: list[float], clock: Callable[[], float]) -> Iterator[None]:
    """Have every call of a function or method add its time to `spent`, for a while."""
    holder: Any = import_module(module)
    *classes, last = name.split(".")
    for part in classes:
        holder = getattr(holder, part)
    original = getattr(holder, last)

    def timing(*arguments: Any, **named: Any) -> Any:
        started = clock()
        result = original(*arguments, **named)
        spent.append(clock() - started)
        return result

    with ExitStack() as stack:
        setattr(holder, last, timing)
        stack.callback(setattr, holder, last, original)
        yield


if __name__ == "__main__":
    main()
