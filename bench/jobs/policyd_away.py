"""Mail through a real Postfix while the policy server it asks is away, with what the shipped example says of that.

Postfix asks twice a message, at RCPT and at its end, as on the shipped submission service. What we want is that mail flows on.
"""

from __future__ import annotations

import os
import signal
import smtplib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.launch import CHECKOUT
from bench.machine import process_tree
from bench.policy_servers import PolicyServer, running
from bench.report import Target, at_least, at_most, spread, table, target_table
from bench.workbench import Workbench
from tests.support.postfix import Postfix, smtpd_service
from tests.support.processes import ProgramError, free_port, require_binary
from tests.support.processes import run as run_command

EXAMPLE = CHECKOUT / "examples" / "postfix" / "policyd.main.cf"
SHIPPED = "mailward_policyd_submission"
SHIPPED_SOCKET = "unix:mailward/policyd.sock"
TIMEOUT_SECONDS = 3  # of a question, in the shipped example
PROCESS_LIMIT = 100
SESSIONS, MESSAGE_BYTES = 20, 4000
WARM = 200
OFFERED_A_SECOND, OFFERED_SECONDS = 10, 20
HEALTHY, ENDED, KILLED, HUNG = STATES = (
    "there",
    "ended: its socket is gone",
    "killed: its socket is there, and nobody listens",
    "stopped (SIGSTOP): it accepts connections and answers nothing",
)
MESSAGE = b"From: sender@example.com\r\nSubject: hello\r\n\r\nHello.\r\n"
NOTE = f"""\
`smtp-source` sends messages of {MESSAGE_BYTES} octets in {SESSIONS} sessions, each as soon as the one before is done, to a
private Postfix (discard transport, default_process_limit {PROCESS_LIMIT}) that asks at RCPT and at the end of the message, with
the settings of examples/postfix/policyd.main.cf. While the server is away Postfix logs two warnings a question, through its own
postlogd: they are what is slower then. A server that answers nothing costs each smtpd process one time-out,
{TIMEOUT_SECONDS} s; its connection is broken by that, and what it asks afterwards fails at once, until the process has served
100 sessions and another takes its place. The second table is mail that comes whether the last one was answered or not,
{OFFERED_A_SECOND} messages a second for {OFFERED_SECONDS} s, from the moment on at which the server is away. Mailward's own
supervisor replaces a process that hangs: here all are stopped at once, the supervisor too."""


@dataclass(frozen=True, slots=True)
class Offered:
    """Mail that came at its own pace: how many of how many messages were accepted, and the seconds each of those took."""

    messages: int
    seconds: Sequence[float]

    @property
    def ratio(self) -> float:
        """Return the part that was accepted."""
        return len(self.seconds) / self.messages


def run(workbench: Workbench) -> str:
    """Send while the server is there and while it is away, in each way, in every round."""
    rates: dict[str, list[float]] = {state: [] for state in STATES}
    offered: dict[str, list[Offered]] = {HEALTHY: [], HUNG: []}
    folder = workbench.folder_of("policyd-away")
    for number in range(workbench.options.rounds):
        with running("mailward", folder) as server, postfix(folder / f"postfix-{number}", server.socket) as port:
            pump(port, WARM)
            for state in STATES:
                with AWAY[state](server):
                    if state in offered:
                        offered[state].append(offer(port))
                    rates[state].append(pump(port, workbench.options.messages))
    parts = [rate_table(rates), offered_table(offered), target_table(targets(rates, offered[HUNG])), NOTE]
    return "\n\n".join(parts)


@contextmanager
def postfix(folder: Path, socket: Path) -> Iterator[int]:
    """Run a Postfix that asks the server as shipped, and throws away what it accepts; yield its port."""
    port = free_port()
    call = "check_policy_service " + shipped_call().replace(SHIPPED_SOCKET, f"unix:{socket}")
    settings = {
        "default_process_limit": str(PROCESS_LIMIT),
        "smtpd_peername_lookup": "no",
        "relay_domains": "example.net",
        "relay_transport": "discard",
        "default_transport": "discard",
        "smtpd_recipient_restrictions": call,
        "smtpd_end_of_data_restrictions": call,
        "myhostname": "mx.example.net",
    }
    instance = Postfix(folder, settings=settings, services=[smtpd_service(port)], ports=[port])
    instance.start()
    try:
        yield port
    finally:
        instance.stop()


def shipped_call() -> str:
    """Return the server as the shipped example has it."""
    for line in EXAMPLE.read_text().splitlines():
        name, _, value = line.partition(" = ")
        if name == SHIPPED and SHIPPED_SOCKET in value:
            return value
    raise ProgramError(f"{EXAMPLE} has no {SHIPPED} at {SHIPPED_SOCKET}")


@contextmanager
def ended(server: PolicyServer) -> Iterator[None]:
    """Have it end as it does when it is told to."""
    server.program.stop()
    server.socket.unlink(missing_ok=True)
    yield
    server.program.start()


@contextmanager
def killed(server: PolicyServer) -> Iterator[None]:
    """Have it dead, its socket left behind."""
    for pid in process_tree(server.program.pid):
        with suppress(ProcessLookupError):  # it ends with the first of them
            os.kill(pid, signal.SIGKILL)
    server.program.stop()
    yield
    server.program.start()


@contextmanager
def hung(server: PolicyServer) -> Iterator[None]:
    """Have all of its processes stopped."""
    pids = process_tree(server.program.pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(list(pids)):
            os.kill(pid, signal.SIGCONT)


AWAY: dict[str, Callable[[PolicyServer], AbstractContextManager[None]]] = {
    HEALTHY: lambda _server: nullcontext(),
    ENDED: ended,
    KILLED: killed,
    HUNG: hung,
}


def pump(port: int, messages: int) -> float:
    """Send as fast as it goes; return messages a second."""
    command = [require_binary("smtp-source", "postfix"), "-s", str(SESSIONS), "-m", str(messages)]
    command += ["-l", str(MESSAGE_BYTES), "-f", "sender@example.com", "-t", "rcpt@example.net"]
    began = time.monotonic()
    run_command([*command, f"inet:127.0.0.1:{port}"], seconds=None)
    return messages / (time.monotonic() - began)


def offer(port: int) -> Offered:
    """Send at a pace that waits for no answer."""
    count = OFFERED_A_SECOND * OFFERED_SECONDS
    began = time.monotonic()
    with ThreadPoolExecutor(PROCESS_LIMIT) as senders:
        sent = []
        for number in range(count):
            time.sleep(max(0.0, began + number / OFFERED_A_SECOND - time.monotonic()))
            sent.append(senders.submit(send, port))
    seconds = [each.result() for each in sent]
    return Offered(count, [each for each in seconds if each is not None])


def send(port: int) -> float | None:
    """Send one message; return how many seconds that took, or None if it was not accepted."""
    began = time.monotonic()
    try:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=60) as session:
            session.sendmail("sender@example.com", ["rcpt@example.net"], MESSAGE)
    except (smtplib.SMTPException, OSError):
        return None
    return time.monotonic() - began


def rate_table(rates: dict[str, list[float]]) -> str:
    """Format what went through."""
    rows = [
        (state, spread(rates[state]), spread(ratios(rates, state), 2) if state != HEALTHY else "") for state in STATES
    ]
    return table(("the policy server is", "messages a second", "of those with it"), rows)


def offered_table(offered: dict[str, list[Offered]]) -> str:
    """Format what became of mail that came at its own pace."""
    rows = [
        (
            state,
            spread([100 * it.ratio for it in rounds]),
            spread([max(it.seconds, default=float("inf")) for it in rounds], 1),
        )
        for state, rounds in offered.items()
    ]
    return table((f"the policy server is ({OFFERED_A_SECOND} messages a second come)", "accepted %", "slowest s"), rows)


def ratios(rates: dict[str, list[float]], state: str) -> list[float]:
    """Return the rates of a state by the healthy ones of their rounds."""
    return [rate / healthy for rate, healthy in zip(rates[state], rates[HEALTHY], strict=True)]


def targets(rates: dict[str, list[float]], hung: Sequence[Offered]) -> Sequence[Target]:
    """Return what we want: of rates the median of the rounds' ratios, of what comes at its own pace the worst round."""
    return [
        at_least("messages a second with it ended / with it there", median(ratios(rates, ENDED)), 0.8),
        at_least("with it killed / with it there", median(ratios(rates, KILLED)), 0.8),
        at_least("accepted of what comes while it answers nothing", min(it.ratio for it in hung), 1.0),
        at_most(
            "the slowest of these",
            max(max(it.seconds, default=float("inf")) for it in hung),
            2 * TIMEOUT_SECONDS + 1,
            " s",
        ),
    ]
