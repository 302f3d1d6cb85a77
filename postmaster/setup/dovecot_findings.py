"""What is seen in the operator's Dovecot, left alone, and worth knowing where policyd is asked about logins. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from postmaster.setup.change import Finding, Weight
from postmaster.setup.dovecot_facts import DovecotFacts
from postmaster.setup.dovecot_has import (
    asks_policy_server,
    has_doveadm,
    hidden_password_mechanisms,
    quota_status_answers_ok,
    remembers_passwords,
)

MAX_SHOWN = 200


def find_about_logins(facts: DovecotFacts, *, is_asking: bool) -> tuple[Finding, ...]:
    """Return the findings; `is_asking`: Dovecot will ask policyd."""
    found = [*_about_other_server(facts), *_about_quota_status(facts)]
    if is_asking:
        found += [*_about_doveadm(facts), *_about_mechanisms(facts), *_about_cache(facts)]
    return tuple(found)


def _about_other_server(facts: DovecotFacts) -> Iterator[Finding]:
    url = asks_policy_server(facts.settings)
    if url:
        yield Finding(
            Weight.WARNING,
            f"Dovecot asks another policy server about logins, {_shown(url)}, and can ask only one: policyd hears of none",
        )


def _about_quota_status(facts: DovecotFacts) -> Iterator[Finding]:
    if quota_status_answers_ok(facts.settings):
        yield Finding(
            Weight.NOTE,
            "quota-status answers OK, which ends the list it stands in: it must be the last in smtpd_recipient_restrictions, "
            "behind policyd, or answer DUNNO (quota_status_success)",
        )


def _about_doveadm(facts: DovecotFacts) -> Iterator[Finding]:
    if has_doveadm(facts.settings):
        yield Finding(
            Weight.NOTE,
            "doveadm has an HTTP listener or a key already, which stays as it is. To let policyd end the sessions of "
            "suspended accounts, give its address and key to `doveadm` and `doveadm_key_file` of [policyd.incidents]",
        )


def _about_mechanisms(facts: DovecotFacts) -> Iterator[Finding]:
    mechanisms = hidden_password_mechanisms(facts.settings)
    if mechanisms:
        yield Finding(
            Weight.NOTE,
            f"auth_mechanisms has {_shown(', '.join(mechanisms))}, which hides the password from Dovecot: all wrong passwords "
            "of such logins look like one to policyd",
        )


def _about_cache(facts: DovecotFacts) -> Iterator[Finding]:
    """Name what doveadm's HTTP API cannot do from 2.4 on."""
    if facts.version >= (2, 4) and remembers_passwords(facts.settings):
        yield Finding(
            Weight.NOTE,
            "auth_cache_size is set: once the password of a suspended account is another, run "
            "`doveadm auth cache flush LOGIN` before `mailward limits resume LOGIN`",
        )


def _shown(text: str) -> str:
    """Return a text of the configuration's as a finding shows it: printable, and without a password."""
    _, at, rest = text.rpartition("@")
    return ascii((f"...@{rest}" if at else text)[:MAX_SHOWN])[1:-1]
