"""mailward-greylist as Postfix sees it: the milter protocol, octet by octet, and what happens to its processes meanwhile."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from tests.support.greylister import Greylister
from tests.support.milter_client import (
    NO_BODY,
    NO_END_OF_HEADER,
    NO_HEADER,
    NR_RCPT,
    Dropped,
    MilterSession,
    Outcome,
)
from tests.support.odd_nameserver import OddNameserver, denied
from tests.support.processes import ProgramError, open_folder, wait_until

DELAY_SECONDS = 1.0
SETTINGS = 'delay = "1s"\nworker_timeout = "5s"'
GREYLISTED = re.compile(r"450 4\.7\.1 Greylisted[,;] try again in \d+ seconds?")
_NUMBERS = count(1)


class Starter:
    """Starts daemons in a folder, beside a nameserver that knows no names."""

    def __init__(self, folder: Path, nameserver: OddNameserver, stack: ExitStack) -> None:
        self.folder = folder
        self._nameserver = nameserver
        self._stack = stack

    def make(self, settings: str = SETTINGS, *, workers: int = 2, state: str = "") -> Greylister:
        """Return a daemon that is not started."""
        endpoint = f"127.0.0.1:{self._nameserver.address[1]}"
        name = f"greylist-{next(_NUMBERS)}"
        return Greylister(self.folder, settings, nameservers=[endpoint], name=name, workers=workers, state=state)

    def start(self, settings: str = SETTINGS, *, workers: int = 2) -> Greylister:
        """Start a daemon; it is stopped in the end."""
        greylister = self.make(settings, workers=workers)
        greylister.start()
        self._stack.callback(greylister.stop)
        return greylister


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    with open_folder() as folder, OddNameserver(denied()) as nameserver, ExitStack() as stack:
        yield Starter(folder, nameserver, stack)


@pytest.fixture(scope="module")
def greylister(starter: Starter) -> Greylister:
    return starter.start()


@contextmanager
def session(
    greylister: Greylister, client: str, *, mail_from: bytes = b"a@b.example", login: bytes = b""
) -> Iterator[MilterSession]:
    """Open a session and say MAIL FROM."""
    opened = MilterSession(greylister.socket_path)
    try:
        opened.connect(client)
        opened.helo()
        assert opened.mail(mail_from, login=login) == "c"
        yield opened
    finally:
        opened.close()


def attempt(
    greylister: Greylister,
    client: str,
    rcpt_to: bytes = b"c@d.example",
    *,
    mail_from: bytes = b"a@b.example",
    login: bytes = b"",
) -> Outcome:
    """Say who sends to whom, and return the answer to RCPT."""
    with session(greylister, client, mail_from=mail_from, login=login) as opened:
        return opened.recipient(rcpt_to)


def new_client() -> str:
    number = next(_NUMBERS)
    return f"10.{number // 250}.{number % 250}.25"


def is_greylisted(outcome: Outcome) -> bool:
    return outcome.reply == "y" and GREYLISTED.fullmatch(outcome.text) is not None


def passes(outcome: Outcome) -> bool:
    return outcome.reply == "c"


def test_it_wants_no_content_and_answers_each_recipient(greylister: Greylister) -> None:
    opened = MilterSession(greylister.socket_path)
    assert opened.steps & NO_HEADER
    assert opened.steps & NO_END_OF_HEADER
    assert opened.steps & NO_BODY
    assert not opened.steps & NR_RCPT
    opened.close()


@pytest.mark.parametrize("client", ["192.0.2.10", "2001:db8::25", "::ffff:198.51.100.1"])
def test_first_try_is_deferred_and_the_retry_passes_after_the_delay(greylister: Greylister, client: str) -> None:
    began = time.monotonic()
    assert is_greylisted(attempt(greylister, client))
    wait_until(lambda: passes(attempt(greylister, client)), "the delay to be over")
    assert time.monotonic() - began >= DELAY_SECONDS
    assert passes(attempt(greylister, client))


def test_only_the_recipient_concerned_is_deferred(greylister: Greylister) -> None:
    client = new_client()
    attempt(greylister, client, b"known@d.example")
    wait_until(lambda: passes(attempt(greylister, client, b"known@d.example")), "the delay to be over")
    with session(greylister, client) as opened:
        assert is_greylisted(opened.recipient(b"first@d.example"))
        assert passes(opened.recipient(b"known@d.example"))
        assert is_greylisted(opened.recipient(b"last@d.example"))
        assert opened.data().reply == "a"


def test_null_sender_is_deferred_at_the_end_of_its_message_only(greylister: Greylister) -> None:
    client = new_client()

    def answers() -> tuple[Outcome, Outcome, Outcome]:
        with session(greylister, client, mail_from=b"") as opened:
            return opened.recipient(b"c@d.example"), opened.data(), opened.end_of_message()

    at_rcpt, at_data, at_end = answers()
    assert passes(at_rcpt)
    assert at_data.reply == "c"
    assert is_greylisted(at_end)
    wait_until(lambda: answers()[2].reply == "a", "the delay to be over")


def test_messages_of_one_session_are_judged_each_for_itself(greylister: Greylister) -> None:
    client = new_client()
    attempt(greylister, client)
    wait_until(lambda: passes(attempt(greylister, client)), "the delay to be over")
    with session(greylister, client, mail_from=b"new@b.example") as opened:
        assert is_greylisted(opened.recipient(b"c@d.example"))
        opened.abort()
        opened.mail(b"a@b.example")
        assert passes(opened.recipient(b"c@d.example"))
        assert opened.data().reply == "a"
        opened.mail(b"")
        assert passes(opened.recipient(b"c@d.example"))
        assert opened.data().reply == "c"
        assert is_greylisted(opened.end_of_message())


def test_who_logged_in_passes(greylister: Greylister) -> None:
    assert passes(attempt(greylister, new_client(), login=b"carol"))


def test_the_field_tells_the_delay(starter: Starter) -> None:
    greylister = starter.start(SETTINGS + "\nfield = true", workers=1)
    client = new_client()
    attempt(greylister, client)
    fields: list[bytes] = []

    def has_field() -> bool:
        with session(greylister, client) as opened:
            if not passes(opened.recipient(b"c@d.example")) or opened.data().reply != "c":
                return False
            fields.extend(opened.end_of_message().inserted("X-Greylist"))
        return True

    wait_until(has_field, "the retry to pass")
    assert len(fields) == 1
    assert re.fullmatch(rb" delayed \d+ seconds by \S+", fields[0])
    with session(greylister, client) as opened:  # it was not delayed this time
        assert passes(opened.recipient(b"c@d.example"))
        assert opened.data().reply == "a"


HOSTILE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"@", id="at"),
    pytest.param(b"\xff\xfe@\x80.example", id="no-utf-8"),
    pytest.param("пошта@приклад.example".encode(), id="utf-8"),
    pytest.param(b"x" * 2000 + b"@" + b"y." * 1000 + b"example", id="long"),
    pytest.param(b"a'; DROP TABLE triplets; --@b.example", id="sql"),
    pytest.param(b'"a b\\"c"@b.example', id="quoted"),
    pytest.param(b"a\r\nevent=forged\t\x1b[31m@b.example", id="control-characters"),
    pytest.param(b"a@[IPv6:::1]", id="address-literal"),
    pytest.param(b"a%" * 100 + b"@" * 100, id="many-ats"),
]


@pytest.mark.parametrize("address", HOSTILE)
def test_any_octets_are_greylisted_and_hit_no_bug(greylister: Greylister, address: bytes) -> None:
    bugs = len(greylister.log_lines("own-bug"))
    client = new_client()
    with session(greylister, client, mail_from=address or b"a@b.example") as opened:
        assert is_greylisted(opened.recipient(address))
    assert len(greylister.log_lines("own-bug")) == bugs
    assert not greylister.log_lines("forged")
    assert greylister.metrics()['messages_total{verdict="own-bug"}'] == 0


def test_after_all_workers_were_killed_nothing_is_forgotten(greylister: Greylister) -> None:
    waiting, known = new_client(), new_client()
    attempt(greylister, known)
    wait_until(lambda: passes(attempt(greylister, known)), "the delay to be over")
    attempt(greylister, waiting)
    over = time.monotonic() + DELAY_SECONDS
    killed = greylister.workers()
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: len(set(greylister.workers()) - set(killed)) == len(killed), "their replacements")
    wait_until(greylister.is_serving, "the replacements to serve")
    assert passes(attempt(greylister, known))
    time.sleep(max(0.0, over - time.monotonic()))
    assert passes(attempt(greylister, waiting))  # once: what was forgotten would start over


def test_restart_forgets_nothing(starter: Starter) -> None:
    greylister, client = starter.start(workers=1), new_client()
    attempt(greylister, client)
    wait_until(lambda: passes(attempt(greylister, client)), "the delay to be over")
    greylister.restart()
    assert passes(attempt(greylister, client))


@dataclass(slots=True)
class Tally:
    """What happened to the recipients under load."""

    passed: int = 0
    greylisted: int = 0
    broken: list[str] = field(default_factory=list)


@contextmanager
def under_load(greylister: Greylister, clients: int = 4) -> Iterator[Tally]:
    """Have clients send from ever new networks while the block runs."""
    tally, stop, lock = Tally(), threading.Event(), threading.Lock()

    def send() -> None:
        while not stop.is_set():
            try:
                outcome = attempt(greylister, new_client())
            except (OSError, Dropped) as error:
                with lock:
                    tally.broken.append(repr(error))
                continue
            with lock:
                tally.passed += passes(outcome)
                tally.greylisted += is_greylisted(outcome)

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def settle(tally: Tally, more: int = 30) -> None:
    """Wait until some more were greylisted."""
    target = tally.greylisted + more
    wait_until(lambda: tally.greylisted >= target, "more recipients to be greylisted")


def wait_for_generation(greylister: Greylister, generation: int) -> None:
    wait_until(lambda: greylister.metrics().get("generation", 0) >= generation, "the reload")


def test_five_reloads_under_load_refuse_no_connection_and_let_nobody_through(starter: Starter) -> None:
    greylister = starter.start()
    with under_load(greylister) as tally:
        settle(tally)
        for generation in range(2, 7):
            greylister.signal(signal.SIGHUP)
            wait_for_generation(greylister, generation)
            settle(tally)
    assert tally.broken == []
    assert tally.passed == 0


def test_a_reload_brings_the_new_delay_to_those_who_wait(starter: Starter) -> None:
    greylister, client = starter.start('delay = "1h"', workers=1), new_client()
    assert is_greylisted(attempt(greylister, client))
    greylister.configure(SETTINGS)
    greylister.signal(signal.SIGHUP)
    wait_until(lambda: passes(attempt(greylister, client)), "the new delay to be over")


def test_sessions_beyond_the_limit_pass(starter: Starter) -> None:
    greylister = starter.start(SETTINGS + "\nmax_sessions = 1", workers=1)
    with session(greylister, new_client()) as first, session(greylister, new_client()) as second:
        assert is_greylisted(first.recipient(b"c@d.example"))
        assert second.recipient(b"c@d.example").reply in "ca"
    assert greylister.metrics()['messages_total{verdict="too-many-sessions"}'] == 1


def test_the_log_tells_of_each_recipient_what_was_decided_and_why(greylister: Greylister) -> None:
    client = new_client()
    attempt(greylister, client)
    (line,) = [line for line in greylister.log_lines("recipient") if line["client"] == client]
    assert (line["verdict"], line["reason"]) == ("defer", "first-sighting")
    assert (line["mail_from"], line["rcpt_to"]) == ("a@b.example", "c@d.example")
    assert line["origin"] == client.rpartition(".")[0] + ".0/24"


def test_the_counters_tell_of_every_recipient(starter: Starter) -> None:
    greylister, client = starter.start(workers=1), new_client()
    attempt(greylister, client)
    attempt(greylister, client, login=b"carol")
    metrics = greylister.metrics()
    assert metrics['recipients_total{verdict="defer"}'] == 1
    assert metrics['recipients_total{verdict="pass"}'] == 1
    assert metrics['reasons_total{reason="first-sighting"}'] == 1
    assert metrics['reasons_total{reason="authenticated"}'] == 1


def test_wrong_configuration_ends_with_78_and_every_mistake(starter: Starter) -> None:
    greylister = starter.make('dely = "1m"\nretry_window = "1y"\nstore_timeout = "never"')
    with pytest.raises(ProgramError, match="status 78"):
        greylister.start()
    for key in ("greylist.dely", "greylist.retry_window", "greylist.store_timeout"):
        assert key in greylister.output()


def check(greylister: Greylister) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*greylister.command, "--check"], cwd=greylister.working_folder, capture_output=True, text=True
    )


def test_check_says_that_the_configuration_is_good(starter: Starter) -> None:
    done = check(starter.make())
    assert (done.returncode, "good" in done.stdout, "warning" in done.stderr) == (0, True, False)


def test_check_warns_of_what_is_not_there(starter: Starter, tmp_path: Path) -> None:
    greylister = starter.make('socket_group = "no-such-group"', state=f"sqlite:{tmp_path}/nowhere")
    text = greylister.configuration.read_text()
    greylister.configuration.write_text(text.replace('metrics = "127.0.0.1:', 'metrics = "192.0.2.1:'))
    done = check(greylister)
    assert done.returncode == 0
    assert "metrics: this machine does not have the address 192.0.2.1" in done.stderr
    assert 'socket_group: there is no group "no-such-group"' in done.stderr
    assert f"state: away: {tmp_path}/nowhere/greylist.sqlite" in done.stderr
