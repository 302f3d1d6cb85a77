"""Greylisting: our daemon, with SQLite and with Redis, beside postgrey and beside rspamd with Redis."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.driver import Load, Measurement
from bench.greylisters import DELAY_SECONDS, Greylister, Task, running
from bench.incoming import CLIENT_ADDRESS, DOMAINS_ZONE, HELO
from bench.jobs.sign import HEADER, Measurements, cpu_of, median, median_ratio, rate_of, row, warning
from bench.nameservers import open_nameservers
from bench.report import Target, at_least, at_most, table, target_table
from bench.workbench import CONNECTIONS, Workbench
from tests.support.nameserver import Nameserver
from tests.support.processes import ProgramError

OURS = "mailward"
PEER = "postgrey"
PROGRAMS = (OURS, "mailward, Redis", PEER, "rspamd, Redis")
DOMAINS = 50  # of the senders; the warm-up has looked all of them up
WARM = 300
SETTLE_SECONDS = 1.0  # what a program still does after its first answer
ENVELOPE_DOMAIN = f"%m.{DOMAINS_ZONE}"
ATTRIBUTES = (  # what Postfix 3.7 asks at RCPT, of a client that has said nothing but EHLO, MAIL and RCPT
    *("protocol_state=RCPT", "protocol_name=ESMTP"),
    *(f"client_address={CLIENT_ADDRESS}", f"client_name={HELO}", "client_port=40000", f"reverse_client_name={HELO}"),
    *("server_address=198.51.100.25", "server_port=25", f"helo_name={HELO}"),
    *(f"sender=sender@d{ENVELOPE_DOMAIN}", "recipient=rcpt%d@example.net", "recipient_count=0", "queue_id="),
    *("instance=4711.6920b0a3.%d.0", "size=4096", "etrn_domain=", "stress="),
    *("sasl_method=", "sasl_username=", "sasl_sender="),
    *("ccert_subject=", "ccert_issuer=", "ccert_fingerprint=", "ccert_pubkey_fingerprint="),
    *("encryption_protocol=", "encryption_cipher=", "encryption_keysize=0", "policy_context="),
)
NOTE = f"""\
Every message has a recipient of its own, and a sender in one of {DOMAINS} domains, whose SPF records vouch for the client; the
warm-up has looked all of them up. A run counts only if every fresh triplet was deferred, every one passed when it came again
after the delay ({DELAY_SECONDS} s here; all else is each program's default), and passed once more, which is the second table. All
begin with an empty memory. postgrey speaks Postfix's policy protocol, 100 requests on a connection, as an smtpd keeps one over
its sessions, and looks at no SPF; the others are milters, a connection for each message, as Postfix opens one for each session.
Mailward defers at RCPT and lets what passes go at DATA; rspamd sees the whole message, of 4 kB, and runs its modules spf,
dkim, dmarc and greylist, with a score that greylists everything. Where there is Redis its CPU and memory count; it takes no
snapshots."""


@dataclass(frozen=True, slots=True)
class Course:
    """One program's run: fresh triplets, and the same ones when they had passed before."""

    fresh: Measurement
    known: Measurement


def run(workbench: Workbench) -> str:
    """Measure ours and the peers in turn."""
    count = WARM + workbench.options.messages
    messages = different_messages(workbench, count)
    courses: dict[str, list[Course]] = {name: [] for name in PROGRAMS}
    with open_nameservers(workbench.folder_of("greylist-dns"), workbench.rsa, domains=DOMAINS) as (nameserver,):
        for _ in range(workbench.options.rounds):
            for name, rounds in courses.items():
                task = Task(workbench.folder_of(f"{name.replace(', ', '-')}-greylist"), [nameserver.address])
                with running(name, task) as greylister:
                    rounds.append(measure(greylister, messages, nameserver, workbench))
    fresh: Measurements = {name: [it.fresh for it in rounds] for name, rounds in courses.items()}
    known: Measurements = {name: [it.known for it in rounds] for name, rounds in courses.items()}
    parts = [
        "### Fresh triplets: every one is deferred",
        table(HEADER, [row(*it) for it in fresh.items()]),
        target_table(targets(fresh)),
        "### Known triplets: every one passes",
        table(HEADER, [row(*it) for it in known.items()]),
        NOTE,
    ]
    return warning({**fresh, **{f"{name}, known": rounds for name, rounds in known.items()}}) + "\n\n".join(parts)


def measure(greylister: Greylister, messages: Path, nameserver: Nameserver, workbench: Workbench) -> Course:
    """Send every message three times: deferred, passing for the first time, and passing again."""
    time.sleep(SETTLE_SECONDS)
    load = Load(
        messages,
        workbench.options.messages,
        WARM,
        CONNECTIONS,
        author_domains=DOMAINS,
        mail_from=f"sender@d{ENVELOPE_DOMAIN}",
        rcpt_to="rcpt%d@example.net",
        helo=HELO,
        nameservers=[nameserver.program.pid],
        attributes=ATTRIBUTES if greylister.is_policy else (),
    )
    every = replace(load, count=load.count + WARM, warm=0)
    driver, socket, pids = workbench.driver, greylister.socket, greylister.pids
    fresh = driver.greylist(socket, pids, load, greylister.deferrals)
    time.sleep(DELAY_SECONDS + 1)  # rspamd and postgrey count whole seconds
    driver.greylist(socket, pids, every, greylister.passes)
    known = driver.greylist(socket, pids, load, greylister.passes)
    if greylister.metrics_address:
        see_that_spf_counted(greylister, every.count)
    return Course(fresh, known)


def see_that_spf_counted(greylister: Greylister, triplets: int) -> None:
    """Raise ProgramError unless every origin is a domain that SPF vouched for."""
    text = greylister.program.output()
    passed = sum(" spf=pass " in line and " origin=d" in line for line in text.splitlines()[-3 * triplets :])
    if passed < triplets:
        raise ProgramError(f"SPF vouched for {passed} of {3 * triplets} messages")


def different_messages(workbench: Workbench, count: int) -> Path:
    """Return a folder of 4 kB messages with different bodies, which rspamd remembers too."""
    folder = workbench.folder_of("greylist-mail")
    text = workbench.messages.small_of(f"d%d.{DOMAINS_ZONE}").read_bytes()
    for number in range(count):
        (folder / f"{number:06}.eml").write_bytes(text + f"Number {number}\r\n".encode())
    return folder


def targets(measured: Measurements) -> Sequence[Target]:
    """Return what we want to reach with fresh triplets."""
    ours, peer = measured[OURS], measured[PEER]
    rate = median_ratio(ours, peer, rate_of)
    return [
        at_least("rate / postgrey's", rate, 1.5),
        at_least("the goal after that: rate / postgrey's", rate, 2.0),
        at_most("CPU a message / postgrey's", median_ratio(ours, peer, cpu_of), 1.3),
        at_most("memory, the whole daemon", median(ours, lambda it: it.memory_kb) / 1024, 60, " MB"),
    ]
