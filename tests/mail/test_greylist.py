"""mailward-greylist in real mail: who is put off, who comes in at once, and what a retry has to be like.

Every message goes to Postfix, with the daemon as its milter as the shipped example has it; what is accepted is delivered.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from mailward.adapters.sqlite_place import SEEN_SECONDS
from mailward.adapters.stores import open_greylist
from mailward.model.state import Durability, SqliteState
from tests.mail.conftest import stop_like_ctrl_c
from tests.mail.greylisting import (
    LISTED_CLIENT,
    LISTED_NAME,
    MESSAGE,
    POOL,
    POOL_STRANGER,
    PRETENDER,
    RECEIVER,
    Client,
    Greylisting,
    is_greylisting,
    seconds_left,
    values,
)
from tests.support.greylister import AUTHSERV_ID
from tests.support.processes import open_folder, wait_until

DELAY_SECONDS = 1.0
SENDER = "somebody@sender.example"
FIELD = re.compile(rb"delayed (\d+) seconds by " + AUTHSERV_ID.encode())
BOUNCE = b"From: MAILER-DAEMON@sender.example\r\nSubject: Undelivered Mail\r\n\r\nIt could not be delivered.\r\n"


@pytest.fixture(scope="module")
def world() -> Iterator[Greylisting]:
    with open_folder() as folder:
        before = signal.signal(signal.SIGTERM, stop_like_ctrl_c)
        with Greylisting(folder) as started:
            yield started
        signal.signal(signal.SIGTERM, before)


def passes_once(world: Greylisting, client: Client, mail_from: str, *, mode: str = "quick") -> str:
    """Have a first message of that client and sender pass, by a retry; return whom it went to."""
    recipient = world.new_recipient()
    assert world.attempt(client, mail_from, recipient, mode=mode).is_greylisted
    assert world.retry(client, mail_from, recipient, mode=mode).is_accepted
    return recipient


def test_first_try_is_deferred_and_the_retry_is_delivered_after_the_delay(world: Greylisting) -> None:
    client, recipient = world.new_client(), world.new_recipient()
    began = time.monotonic()
    assert world.attempt(client, SENDER, recipient).is_greylisted
    assert not world.has_mail(recipient)
    assert world.retry(client, SENDER, recipient).is_accepted
    assert time.monotonic() - began >= DELAY_SECONDS
    assert world.arrived(recipient).endswith(b"\nHello.\n")
    assert world.attempt(client, SENDER, recipient).is_accepted


def test_who_retries_too_early_hears_of_fewer_seconds_and_waits_no_longer_for_it(world: Greylisting) -> None:
    client, recipient = world.new_client(), world.new_recipient()

    def left() -> int:
        (reply,) = world.attempt(client, SENDER, recipient, mode="slow").recipients
        return seconds_left(reply)

    first = left()
    assert first == 60
    heard = [first]

    def has_fallen() -> bool:
        heard.append(left())
        return heard[-1] < first

    wait_until(has_fallen, "the seconds to pass")
    assert heard == sorted(heard, reverse=True)


def test_only_the_recipient_concerned_is_deferred(world: Greylisting) -> None:
    client = world.new_client()
    known = passes_once(world, client, SENDER)
    new = world.new_recipient()
    attempt = world.attempt(client, SENDER, new, known)
    assert [reply.code for reply in attempt.recipients] == [450, 250]
    assert attempt.ending is not None
    assert attempt.ending.code == 250
    assert not world.has_mail(new)
    assert world.retry(client, SENDER, new).is_accepted
    assert world.arrived(new)


def test_the_field_tells_the_delay_and_forged_ones_do_no_harm(world: Greylisting) -> None:
    client, recipient = world.new_client(), world.new_recipient()
    forged = b"X-Greylist: delayed 0 seconds by " + AUTHSERV_ID.encode() + b"\r\n" + MESSAGE
    assert world.attempt(client, SENDER, recipient, message=forged).is_greylisted
    assert world.retry(client, SENDER, recipient, message=forged).is_accepted
    ours, theirs = values(world.arrived(recipient), b"X-Greylist")
    match = FIELD.fullmatch(ours)
    assert match is not None
    assert int(match.group(1)) >= DELAY_SECONDS
    assert theirs.startswith(b"delayed 0 seconds")


def test_mail_that_was_not_delayed_gets_no_field(world: Greylisting) -> None:
    recipient = world.new_recipient()
    assert world.attempt(Client(LISTED_CLIENT, LISTED_NAME), SENDER, recipient).is_accepted
    assert values(world.arrived(recipient), b"X-Greylist") == []


def test_retry_from_the_same_network_passes(world: Greylisting) -> None:
    client, recipient = world.new_client(), world.new_recipient()
    neighbour = Client(client.address.rpartition(".")[0] + ".26")
    assert world.attempt(client, SENDER, recipient).is_greylisted
    assert world.retry(neighbour, SENDER, recipient).is_accepted


def test_retry_from_another_network_of_a_pool_passes_where_spf_does(world: Greylisting) -> None:
    sender, recipient = "news@pool.example", world.new_recipient()
    assert world.attempt(Client(POOL[0]), sender, recipient).is_greylisted
    assert world.retry(Client(POOL[1]), sender, recipient).is_accepted


def test_retry_from_elsewhere_starts_over_where_spf_does_not_pass(world: Greylisting) -> None:
    recipient = world.new_recipient()
    assert world.attempt(Client(POOL[0]), "news@pool.example", recipient).is_greylisted
    assert world.retry(Client(POOL[0]), "news@pool.example", recipient).is_accepted
    assert world.attempt(Client(POOL_STRANGER), "news@pool.example", recipient).is_greylisted


def test_retry_from_another_network_starts_over_where_there_is_no_spf(world: Greylisting) -> None:
    recipient = passes_once(world, world.new_client(), SENDER)
    assert world.attempt(world.new_client(), SENDER, recipient).is_greylisted


@pytest.mark.parametrize(
    ("client", "mail_from", "rcpt_to"),
    [
        pytest.param(Client("192.0.2.130", login="carol"), SENDER, "", id="logged-in"),
        pytest.param(Client("192.0.2.66"), SENDER, "", id="listed-network"),
        pytest.param(Client(LISTED_CLIENT, LISTED_NAME), SENDER, "", id="listed-name"),
        pytest.param(Client("192.0.2.131"), "x@listed-sender.example", "", id="listed-sender"),
        pytest.param(Client("192.0.2.132"), SENDER, f"postmaster@{RECEIVER}", id="recipient-who-opted-out"),
    ],
)
def test_passes_at_once(world: Greylisting, client: Client, mail_from: str, rcpt_to: str) -> None:
    assert world.attempt(client, mail_from, rcpt_to or world.new_recipient()).is_accepted


def test_name_that_leads_back_elsewhere_opens_nothing(world: Greylisting) -> None:
    """Its PTR record says the listed name; Postfix has not confirmed it, and calls the client unknown."""
    assert world.attempt(Client(PRETENDER), SENDER, world.new_recipient()).is_greylisted


def test_callback_with_the_null_sender_hears_that_the_address_exists(world: Greylisting) -> None:
    with world.session(world.new_client()) as session:
        for _ in range(2):
            assert session.mail("")[0] == 250
            assert session.rcpt(world.new_recipient())[0] == 250
            assert session.rset()[0] == 250


def test_real_bounce_is_deferred_at_its_end_and_delivered_later(world: Greylisting) -> None:
    client, recipient = world.new_client(), world.new_recipient()
    attempt = world.attempt(client, "", recipient, message=BOUNCE)
    assert [reply.code for reply in attempt.recipients] == [250]
    assert attempt.ending is not None
    assert is_greylisting(attempt.ending)
    assert not world.has_mail(recipient)
    assert world.retry(client, "", recipient, message=BOUNCE).is_accepted
    arrived = world.arrived(recipient)
    assert b"could not be delivered" in arrived
    assert len(values(arrived, b"X-Greylist")) == 1


def test_a_client_that_goes_on_after_a_refusal_gets_nothing_past(world: Greylisting) -> None:
    """As if nothing had been said to it: the milter must know of every message of the session, and judge it."""
    first, second = world.new_recipient(), world.new_recipient()
    with world.session(world.new_client()) as session:
        session.mail("")
        assert session.rcpt(first)[0] == 250
        assert session.data(BOUNCE)[0] == 450
        assert session.docmd("DATA")[0] == 503
        assert session.docmd(f"RCPT TO:<{second}>")[0] == 503
        session.mail(SENDER)
        assert session.rcpt(second)[0] == 450
        assert session.docmd("DATA")[0] == 554  # no valid recipients
        assert session.rcpt(first)[0] == 450
    assert not world.has_mail(first)
    assert not world.has_mail(second)


def test_shadow_mode_defers_nobody_and_counts_whom_it_would_have(world: Greylisting) -> None:
    greylister = world.greylisters["shadow"]
    name = 'shadow_total{reason="first-sighting"}'
    before = greylister.metrics()[name]
    assert world.attempt(world.new_client(), SENDER, world.new_recipient(), mode="shadow").is_accepted
    assert greylister.metrics()[name] == before + 1
    assert greylister.metrics()['recipients_total{verdict="defer"}'] == 0


def test_five_passes_of_a_network_let_all_its_mail_pass(world: Greylisting) -> None:
    client, mode = world.new_client(), "counting"
    retried = [world.new_recipient() for _ in range(5)]
    for recipient in retried:
        assert world.attempt(client, SENDER, recipient, mode=mode).is_greylisted
    counted = 0.0
    for number, recipient in enumerate(retried, 1):
        time.sleep(max(0.0, counted + 1.2 - time.monotonic()))  # no two passes are counted within a second
        assert world.retry(client, SENDER, recipient, mode=mode).is_accepted
        counted = time.monotonic()
        passes = world.attempt(client, f"new{number}@sender.example", world.new_recipient(), mode=mode).is_accepted
        assert passes == (number == 5)


def test_known_correspondent_is_not_deferred_where_spf_passes(world: Greylisting) -> None:
    write_to(world, "friend@one.example")
    recipient = world.new_recipient()
    assert world.attempt(Client("192.0.2.17"), "friend@one.example", recipient).is_accepted
    assert world.attempt(Client("192.0.2.17"), "other@one.example", recipient).is_greylisted


def test_forged_correspondent_is_deferred(world: Greylisting) -> None:
    write_to(world, "friend@one.example", "friend@sender.example")
    for sender in ("friend@one.example", "friend@sender.example"):  # SPF fails, and there is none
        assert world.attempt(world.new_client(), sender, world.new_recipient()).is_greylisted


def write_to(world: Greylisting, *addresses: str) -> None:
    """Record whom somebody here has written to, as what sees outgoing mail will."""
    store = open_greylist(SqliteState(world.greylisters["quick"].state_folder), Durability.PROCESS, 5.0)
    try:
        store.record(addresses, 86400.0)
    finally:
        store.close()
    time.sleep(2 * SEEN_SECONDS)  # the daemon looks for the file that often


def test_greylisting_is_switched_off_and_on_by_command(world: Greylisting) -> None:
    greylister = world.greylisters["slow"]

    def is_greylisting_strangers() -> bool:
        return world.attempt(world.new_client(), SENDER, world.new_recipient(), mode="slow").is_greylisted

    assert is_greylisting_strangers()
    greylister.order("off", "10m")
    try:
        wait_until(lambda: not is_greylisting_strangers(), "the order to be known")
        assert greylister.metrics()['breakers_open{breaker="switched-off"}'] == 1
    finally:
        greylister.order("on")
    wait_until(is_greylisting_strangers, "the order to be known")


def test_allow_and_deny_are_obeyed_and_forgotten_by_command(world: Greylisting) -> None:
    greylister, client, denied = world.greylisters["slow"], world.new_client(), Client("127.0.0.77")

    def passes(who: Client) -> Callable[[], bool]:
        return lambda: world.attempt(who, SENDER, world.new_recipient(), mode="slow").is_accepted

    assert not passes(client)()
    assert passes(denied)()  # the default of `networks`
    greylister.order("allow", client.address)
    greylister.order("deny", denied.address)
    wait_until(passes(client), "the client to be allowed")
    wait_until(lambda: not passes(denied)(), "the client to be denied")
    greylister.order("forget", client.address)
    wait_until(lambda: not passes(client)(), "the permission to be forgotten")


def test_worker_killed_between_first_try_and_retry_forgets_nothing(world: Greylisting) -> None:
    greylister, client, recipient = world.greylisters["quick"], world.new_client(), world.new_recipient()
    assert world.attempt(client, SENDER, recipient).is_greylisted
    over = time.monotonic() + DELAY_SECONDS
    for worker in greylister.workers():
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: greylister.metrics().get('worker_restarts_total{reason="died"}', 0) >= 1, "its death to be seen")
    wait_until(greylister.is_serving, "its replacement")
    assert passes_at(world, over, client, recipient)


def test_reload_between_first_try_and_retry_forgets_nothing(world: Greylisting) -> None:
    greylister, client, recipient = world.greylisters["quick"], world.new_client(), world.new_recipient()
    generation = greylister.metrics()["generation"]
    assert world.attempt(client, SENDER, recipient).is_greylisted
    over = time.monotonic() + DELAY_SECONDS
    greylister.signal(signal.SIGHUP)
    wait_until(lambda: greylister.metrics()["generation"] > generation, "the reload")
    assert passes_at(world, over, client, recipient)


def passes_at(world: Greylisting, over: float, client: Client, recipient: str) -> bool:
    """Say whether a single retry passes once the delay is over: a triplet that was forgotten would start over."""
    time.sleep(max(0.0, over - time.monotonic()))
    return world.attempt(client, SENDER, recipient).is_accepted


def test_while_the_daemon_is_away_mail_comes_in(world: Greylisting) -> None:
    greylister = world.greylisters["shadow"]
    greylister.stop()
    try:
        recipient = world.new_recipient()
        assert world.attempt(world.new_client(), SENDER, recipient, mode="shadow").is_accepted
        assert world.arrived(recipient)
    finally:
        greylister.start()


def test_postfix_had_nothing_to_complain_about_but_the_daemon_that_was_taken_away(world: Greylisting) -> None:
    warnings = [line for line in world.postfix.warnings() if "greylist-shadow.sock" not in line]
    assert warnings == []
