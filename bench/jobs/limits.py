"""Rate limits: our daemon, with SQLite and with Redis, beside policyd-rate-limit."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.driver import Load, Measurement
from bench.jobs.sign import Measurements, cpu_of, median, median_ratio, rate_of, row, warning
from bench.policy_servers import PolicyServer, running
from bench.report import Target, at_least, at_most, table, target_table
from bench.workbench import CONNECTIONS, Workbench

OURS, OURS_REDIS, PEER = PROGRAMS = ("mailward", "mailward, Redis", "policyd-rate-limit")
HEADER = ("program", "requests a second", "p50 ms", "p99 ms", "CPU us a request", "PSS MB", "elsewhere")
ACCOUNTS = 1000
WARM = 300
SHARE = {OURS: 5.0, OURS_REDIS: 2.5}  # of the requests: a run of ours shall take as long as one of the peer's
SETTLE_SECONDS = 1.0
ATTRIBUTES = (  # what Postfix 3.7 asks at RCPT, of a client that has logged in
    *("protocol_state=RCPT", "protocol_name=ESMTP"),
    *("client_address=192.0.2.9", "client_name=client.example.net", "client_port=40000"),
    *("reverse_client_name=client.example.net", "server_address=198.51.100.25", "server_port=587"),
    *("helo_name=client.example.net", "sender=user%m@example.org", "recipient=rcpt%d@example.net"),
    *("recipient_count=0", "queue_id=", "instance=4711.6920b0a3.%d.0", "size=4096", "etrn_domain=", "stress="),
    *("sasl_method=PLAIN", "sasl_username=user%m@example.org", "sasl_sender="),
    *("ccert_subject=", "ccert_issuer=", "ccert_fingerprint=", "ccert_pubkey_fingerprint="),
    *("encryption_protocol=TLSv1.3", "encryption_cipher=TLS_AES_256_GCM_SHA384", "encryption_keysize=256"),
    "policy_context=submission",
)
NOTE = f"""\
Each request is one recipient of a message of its own, by one of {ACCOUNTS:,} accounts that have logged in, and is counted against
three limits of that account (a minute, an hour, a day), which nobody reaches. A run counts only if every request was answered
DUNNO. One UNIX socket, {CONNECTIONS} connections, 100 requests on each, as an smtpd keeps one over its sessions. Mailward writes
a line of log a request and answers once its counters are committed (`durability = "process"`); policyd-rate-limit commits as
SQLite does by default, with its debugging output off. Where there is Redis its CPU and memory count; it takes no snapshots."""


def run(workbench: Workbench) -> str:
    """Measure ours and the peer in turn."""
    measured: Measurements = {name: [] for name in PROGRAMS}
    for _ in range(workbench.options.rounds):
        for name, rounds in measured.items():
            folder = workbench.folder_of(f"{name.replace(', ', '-')}-limits")
            with running(name, folder) as server:
                rounds.append(measure(server, name, workbench))
    parts = [table(HEADER, [row(*it) for it in measured.items()]), target_table(targets(measured)), NOTE]
    return warning(measured) + "\n\n".join(parts)


def measure(server: PolicyServer, name: str, workbench: Workbench) -> Measurement:
    """Ask one server."""
    time.sleep(SETTLE_SECONDS)
    load = Load(
        workbench.messages.small(),
        round(workbench.options.messages * SHARE.get(name, 1.0)),
        WARM,
        CONNECTIONS,
        author_domains=ACCOUNTS,
        attributes=ATTRIBUTES,
    )
    return workbench.driver.greylist(server.socket, server.pids, load, ("DUNNO", "dunno"))


def targets(measured: Measurements) -> Sequence[Target]:
    """Return what we want to reach."""
    ours, redis, peer = measured[OURS], measured[OURS_REDIS], measured[PEER]
    return [
        at_least("rate / policyd-rate-limit's", median_ratio(ours, peer, rate_of), 10.0),
        at_most("99th percentile / its median", median_ratio_p99(ours, peer), 1.0),
        at_least("with Redis: rate / policyd-rate-limit's", median_ratio(redis, peer, rate_of), 5.0),
        at_most("CPU a request / policyd-rate-limit's", median_ratio(ours, peer, cpu_of), 1.0),
    ]


def median_ratio_p99(ours: Sequence[Measurement], peer: Sequence[Measurement]) -> float:
    """Return our 99th percentile divided by the peer's median."""
    return median(ours, lambda it: it.p99_ms) / median(peer, lambda it: it.p50_ms)
