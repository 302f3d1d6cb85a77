"""mailward-dkim-sign in real mail: what leaves comes out signed, and two other implementations verify every signature.

Each message goes through the sender's Postfix, which does its own rewriting, our daemon, a second Postfix, OpenDKIM.
"""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.mail.delivered import OpenDkimResult, assert_signed, assert_unsigned
from tests.mail.domains import EXAMPLE_COM, EXAMPLE_ORG
from tests.mail.installation import ALICE, BOB, STRANGER_ADDRESS, Installation
from tests.mail.messages import SHAPES, Shape, message
from tests.support.processes import wait_until

FROM_BOB = "Bob <bob@example.org>"


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.behaviour)
def test_submitted_mail_comes_out_with_every_signature_valid(installation: Installation, shape: Shape) -> None:
    recipient = installation.submit(shape.make(), mail_from=shape.mail_from, options=shape.options)
    assert_signed(installation.delivered(recipient), shape.domain)


@pytest.mark.parametrize("body", [b"Hello.", b"Hello.\r\nNo end ", b"."], ids=["one-line", "space-at-end", "one-dot"])
def test_a_body_without_final_newline_is_signed(installation: Installation, body: bytes) -> None:
    """Only BDAT (RFC 3030) can say so in SMTP."""
    recipient = installation.new_recipient()
    with installation.submission(ALICE) as session:
        session.mail(ALICE)
        session.rcpt(recipient)
        whole = message(body=body)
        session.send(b"BDAT %d LAST\r\n" % len(whole) + whole)
        code, text = session.getreply()
    assert code == 250, text
    assert_signed(installation.delivered(recipient), EXAMPLE_COM)


def test_date_and_message_id_that_postfix_adds_are_signed(installation: Installation) -> None:
    recipient = installation.submit(b"From: alice@example.com\r\n\r\nHello.\r\n")
    delivered = installation.delivered(recipient)
    assert_signed(delivered, EXAMPLE_COM)
    for verified in delivered.dkimpy:
        assert {"date", "message-id"} <= set(verified.signed_fields)


def test_one_click_unsubscribe_is_covered_by_the_signature(installation: Installation) -> None:
    """RFC 8058 4: both fields must be in h=."""
    fields = ("List-Unsubscribe: <https://example.com/u>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click")
    delivered = installation.delivered(installation.submit(message(*fields)))
    assert_signed(delivered, EXAMPLE_COM)
    for verified in delivered.dkimpy:
        assert {"list-unsubscribe", "list-unsubscribe-post"} <= set(verified.signed_fields)


def test_several_messages_in_one_session_are_each_signed(installation: Installation) -> None:
    recipients = [installation.new_recipient() for _ in range(5)]
    with installation.submission(ALICE) as session:
        for recipient in recipients:
            session.sendmail(ALICE, [recipient], message(f"Subject: {recipient}"))
    for recipient in recipients:
        assert_signed(installation.delivered(recipient), EXAMPLE_COM)


def test_sessions_side_by_side_never_get_each_others_signatures(installation: Installation) -> None:
    authors = [(ALICE, EXAMPLE_COM), (BOB, EXAMPLE_ORG)] * 4
    recipients = [[installation.new_recipient() for _ in range(5)] for _ in authors]

    def submit_all(login: str, own_recipients: list[str]) -> None:
        with installation.submission(login) as session:
            for recipient in own_recipients:
                session.sendmail(login, [recipient], message(f"Subject: {recipient}", author=login))

    with ThreadPoolExecutor(len(authors)) as threads:
        done = [threads.submit(submit_all, login, own) for (login, _), own in zip(authors, recipients, strict=True)]
        for each in done:
            each.result()
    for (_, domain), own in zip(authors, recipients, strict=True):
        for recipient in own:
            assert_signed(installation.delivered(recipient), domain)


def test_a_message_for_two_recipients_is_signed_once(installation: Installation) -> None:
    recipients = [installation.new_recipient(), installation.new_recipient()]
    with installation.submission(ALICE) as session:
        session.sendmail(ALICE, recipients, message())
    for recipient in recipients:
        assert_signed(installation.delivered(recipient), EXAMPLE_COM)


@pytest.mark.parametrize(
    "raw",
    [message(), message(body=b"no final newline"), b"To: bob@receiver.example\n\nno From: Postfix adds it\n"],
    ids=["ordinary", "no-final-newline", "author-added-by-postfix"],
)
def test_mail_by_sendmail_is_signed(installation: Installation, raw: bytes) -> None:
    assert_signed(installation.delivered(installation.sendmail(raw)), EXAMPLE_COM)


def test_mail_on_port_25_from_our_own_network_is_signed(installation: Installation) -> None:
    recipient = installation.new_recipient()
    with installation.port_25(client="127.0.0.1") as session:
        session.sendmail(ALICE, [recipient], message())
    assert_signed(installation.delivered(recipient), EXAMPLE_COM)


def test_a_login_by_its_domain_is_signed(installation: Installation) -> None:
    recipient = installation.submit(message(author=FROM_BOB), login=BOB, mail_from=BOB)
    assert_signed(installation.delivered(recipient), EXAMPLE_ORG)


def from_a_stranger(installation: Installation) -> str:
    recipient = installation.new_recipient()
    with installation.port_25(client=STRANGER_ADDRESS) as session:
        session.sendmail(ALICE, [recipient], message())
    return recipient


UNSIGNED: dict[str, tuple[Callable[[Installation], str], str]] = {
    "foreign-client-on-port-25": (from_a_stranger, "not-authenticated"),
    "login-without-right-for-the-author-domain": (
        lambda here: here.submit(message(), login=BOB, mail_from=BOB),
        "no-right-for-domain",
    ),
    "login-without-right-though-the-envelope-agrees": (
        lambda here: here.submit(message(), login=BOB),
        "no-right-for-domain",
    ),
    "login-without-right-for-one-of-two-authors": (
        lambda here: here.submit(message("Sender: " + BOB, author=f"{BOB}, {ALICE}"), login=BOB, mail_from=BOB),
        "no-right-for-domain",
    ),
    "author-domain-that-only-ends-alike": (
        lambda here: here.submit(message(author="x@notexample.com")),
        "no-right-for-domain",
    ),
    "author-domain-without-keys": (
        lambda here: here.sendmail(message(author="x@keyless.example")),
        "no-key-for-domain",
    ),
    "author-below-a-domain-without-subdomains": (
        lambda here: here.sendmail(message(author="x@news.example.org")),
        "no-key-for-domain",
    ),
    "no-author-address": (lambda here: here.submit(message(author="undisclosed:;")), "no-author"),
    "two-from-fields": (
        lambda here: here.submit(message().replace(b"To:", b"From: x@example.com\r\nTo:", 1)),
        "several-from-fields",
    ),
}


@pytest.mark.parametrize(("send", "reason"), UNSIGNED.values(), ids=UNSIGNED.keys())
def test_mail_that_is_not_ours_to_sign_passes_unsigned(
    installation: Installation, send: Callable[[Installation], str], reason: str
) -> None:
    recipient = send(installation)
    assert_unsigned(installation.delivered(recipient))
    fields = installation.log_fields(recipient)
    assert (fields["verdict"], fields["reason"]) == ("unsigned", reason)


def test_while_the_daemon_is_away_port_25_defers_and_the_retry_is_signed(installation: Installation) -> None:
    recipient = installation.new_recipient()
    installation.signer.stop()
    try:
        with (
            installation.port_25(client="127.0.0.1") as session,
            pytest.raises(smtplib.SMTPResponseException) as refused,
        ):
            session.sendmail(ALICE, [recipient], message())
    finally:
        installation.signer.start()
    assert refused.value.smtp_code == 451
    with installation.port_25(client="127.0.0.1") as session:
        session.sendmail(ALICE, [recipient], message())
    assert_signed(installation.delivered(recipient), EXAMPLE_COM)


def test_while_the_daemon_is_away_a_login_is_deferred_not_refused(installation: Installation) -> None:
    """Postfix asks its milters before it asks Dovecot: 454, which no mail program takes for a wrong password."""
    installation.signer.stop()
    try:
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused, installation.submission(ALICE):
            pass
    finally:
        installation.signer.start()
    assert refused.value.smtp_code == 454
    assert_signed(installation.delivered(installation.submit(message())), EXAMPLE_COM)


def test_a_session_that_outlives_the_daemon_is_deferred_never_unsigned(installation: Installation) -> None:
    first, second = installation.new_recipient(), installation.new_recipient()
    with installation.submission(ALICE) as session:
        session.sendmail(ALICE, [first], message())
        installation.signer.restart()
        with pytest.raises(smtplib.SMTPResponseException) as refused:
            session.sendmail(ALICE, [second], message())
    assert refused.value.smtp_code == 451
    installation.submit_to(second, message())
    for recipient in (first, second):
        assert_signed(installation.delivered(recipient), EXAMPLE_COM)


def test_mail_by_sendmail_waits_for_the_daemon_and_is_signed(installation: Installation) -> None:
    before = len(installation.sender.log())
    installation.signer.stop()
    try:
        recipient = installation.sendmail(message())
        wait_until(
            lambda: "milter-reject" in installation.sender.log()[before:], "cleanup deferring what pickup brings"
        )
    finally:
        installation.signer.start()
    later = installation.sendmail(message())  # makes pickup look at what waits, too
    assert_signed(installation.delivered(later), EXAMPLE_COM)
    assert_signed(installation.delivered(recipient), EXAMPLE_COM)


def test_while_dns_is_away_even_a_freshly_started_daemon_signs(installation: Installation) -> None:
    """The receiver is away with it: a verifier cannot do without DNS."""
    installation.receiver.stop()
    installation.nameserver.stop()
    try:
        installation.signer.restart()
        recipient = installation.submit(message())
    finally:
        installation.nameserver.start()
        installation.receiver.start()
    installation.sender.flush()
    assert_signed(installation.delivered(recipient), EXAMPLE_COM)


def test_both_verifiers_notice_a_body_that_was_changed_on_the_way(installation: Installation) -> None:
    """Else their word in all the other tests would be worth nothing."""
    signed = installation.delivered(installation.submit(message(body=b"Pay Bob 10 EUR.\r\n")))
    recipient = installation.new_recipient()
    with smtplib.SMTP("127.0.0.1", installation.receiver_port) as session:
        changed = signed.raw.replace(b"Pay Bob 10 EUR.", b"Pay Eve 10 EUR.").replace(b"\n", b"\r\n")
        session.sendmail(ALICE, [recipient], changed)
    delivered = installation.delivered(recipient)
    assert delivered.signatures() == EXAMPLE_COM.signatures
    assert [each.passes for each in delivered.dkimpy] == [False, False]
    assert delivered.opendkim == tuple(OpenDkimResult("fail", signature) for signature in EXAMPLE_COM.signatures)


def test_postfix_had_nothing_to_warn_about_but_the_daemon_being_away(installation: Installation) -> None:
    assert installation.receiver.warnings() == []
    assert [line for line in installation.sender.warnings() if "ilter" not in line] == []
