"""What each smtpd of a Postfix is for: mail from strangers, from users who log in, or back from a content filter. No I/O.

Like a filter's counts a port for mynetworks alone at which the operator has switched off all milters: mail let out of a
quarantine, a watchdog's.
"""

from __future__ import annotations

import enum

from postmaster.setup.postfix_facts import PostfixFacts, Service
from postmaster.setup.postfix_lists import words

_SUBMISSION_PORTS = {"submission", "587", "submissions", "smtps", "465"}
_SMTP_PORTS = {"smtp", "25"}
_LOGIN_LISTS = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions", "smtpd_client_restrictions")
# Settings that the manuals of content filters give the smtpd behind them, and that nobody else has a reason for.
_SIGNS_OF_A_FILTER = {"content_filter", "receive_override_options", "smtpd_authorized_xforward_hosts"}
_LOOPBACK = ("127.", "localhost:", "[::1]:", "localhost]:")


class Role(enum.Enum):
    """Whose mail an smtpd takes."""

    STRANGERS = "strangers"
    SUBMISSION = "submission"
    FILTERED = "filtered"


def roles(facts: PostfixFacts) -> list[tuple[Service, Role]]:
    """Return every smtpd with its role, in master.cf's order."""
    return [(service, _role(service, facts)) for service in facts.services if service.program == "smtpd"]


def takes_logins(service: Service, facts: PostfixFacts) -> bool:
    """Tell whether users can log in there."""
    return facts.expanded(facts.value("smtpd_sasl_auth_enable", service)).strip() == "yes"


def is_for_programs(service: Service, facts: PostfixFacts) -> bool:
    """Tell whether no stranger reaches a port, as of a null client: but through a proxy of this machine's he may."""
    is_loopback = facts.expanded(facts.value("inet_interfaces")).strip() in ("loopback-only", "localhost")
    return is_loopback and not facts.value("smtpd_upstream_proxy_protocol", service)


def has_postscreen(facts: PostfixFacts) -> bool:
    """Tell whether postscreen answers a port."""
    return any(service.program == "postscreen" and service.kind == "inet" for service in facts.services)


def filters_returning_by_sendmail(facts: PostfixFacts) -> list[str]:
    """Return the content filters of smtpd that give mail back by sendmail(1), among what programs here send.

    A filter that pipe(8) runs says so in its command; of a script it is to be assumed where no smtpd takes mail back.
    """
    found = roles(facts)
    has_return = any(role is Role.FILTERED for _, role in found)
    values = (facts.value("content_filter", service) for service in (None, *(service for service, _ in found)))
    transports = dict.fromkeys(facts.expanded(value).partition(":")[0] for value in values)
    piped = {service.place: service.command for service in facts.services if service.program == "pipe"}
    return [each for each in transports if each in piped and ("sendmail" in piped[each] or not has_return)]


def _role(service: Service, facts: PostfixFacts) -> Role:
    port = service.place.rpartition(":")[2]
    if port in _SUBMISSION_PORTS:
        return Role.SUBMISSION
    is_inside = service.kind == "inet" and port not in _SMTP_PORTS and _is_for_networks(service, facts)
    # Before all else: a filter may give users' mail back at a port of its own, which calls it ORIGINATING.
    if is_inside and (service.options.get("content_filter") == "" or service.options.get("smtpd_milters") == ""):
        return Role.FILTERED
    if _is_for_logins(service, facts):
        return Role.SUBMISSION
    if service.kind != "inet" or port in _SMTP_PORTS:
        return Role.STRANGERS
    is_told = bool(set(service.options) & _SIGNS_OF_A_FILTER)
    if service.place.startswith(_LOOPBACK):
        return Role.FILTERED if is_told or _has_filter(facts) else Role.STRANGERS
    # A filter on another machine, or in a container. Judged again there the mail would lose its first verdict.
    return Role.FILTERED if is_told and is_inside else Role.STRANGERS


def _is_for_logins(service: Service, facts: PostfixFacts) -> bool:
    """Tell whether a service at an unusual port is for those who log in, by what it sets itself."""
    own = service.options
    if own.get("smtpd_tls_wrappermode") == "yes" or own.get("milter_macro_daemon_name") == "ORIGINATING":
        return True
    lists = [words(facts.expanded(own.get(name, ""))) for name in _LOGIN_LISTS]
    ends = any("permit_sasl_authenticated" in each and each[-1] == "reject" for each in lists)
    return takes_logins(service, facts) and (ends or "smtpd_sasl_auth_enable" in own)


def _is_for_networks(service: Service, facts: PostfixFacts) -> bool:
    """Tell whether nobody but mynetworks may send there, by what it sets itself."""
    lists = [words(facts.expanded(service.options.get(name, ""))) for name in _LOGIN_LISTS]
    return any(each == ["permit_mynetworks", "reject"] for each in lists)


def _has_filter(facts: PostfixFacts) -> bool:
    names = ("content_filter", "smtpd_proxy_filter")
    return any(facts.value(name, service) for service in (None, *facts.services) for name in names)
