"""Where Postfix is to ask the policy server: each smtpd's list of restrictions, and where in it. No I/O."""

from __future__ import annotations

from postmaster.setup.change import Weight
from postmaster.setup.peers import POLICYD
from postmaster.setup.postfix_draft import Draft
from postmaster.setup.postfix_facts import Service
from postmaster.setup.postfix_lists import called_servers, with_call, without_calls, words
from postmaster.setup.postfix_roles import Role, roles, takes_logins
from postmaster.setup.shipped import Lines

PORT_25, SUBMISSION = "$mailward_policyd", "$mailward_policyd_submission"
RECIPIENTS, WHOLE = "smtpd_recipient_restrictions", "smtpd_end_of_data_restrictions"
_LISTS = (
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    RECIPIENTS,
    "smtpd_data_restrictions",
    WHOLE,
)
_WHY_DEFINED = (
    "how Postfix asks the policy server: once, for at most 3 seconds; while it is away mail goes on without limits"
)
_WHY_RECIPIENTS = "limits count each recipient, and stop a suspended account; asked before a permit ends the list"
_WHY_LATE = "port 25; asked late, for what is refused afterwards has been counted by then"
_WHY_WHOLE = "limits of octets want the whole message; and by its queue id an account's mail is found in the queue"
_WHY_FILTERED = (
    "mail that comes back here, from a content filter or a quarantine, has been counted already: what main.cf had until now "
    "stays here"
)


def plan_policy(draft: Draft, shipped: Lines) -> None:
    """Ask the policy server for the mail of users, and on port 25; and take peers out, where that is wanted."""
    replaced = _without_replaced(draft)
    if not draft.wants(POLICYD):
        return
    draft.definitions(shipped[POLICYD], POLICYD, _WHY_DEFINED)
    found = roles(draft.facts)
    _plan_port_25(draft, [service for service, role in found if role is Role.STRANGERS], replaced)
    for service, role in found:
        if role is Role.SUBMISSION:
            _plan_submission(draft, service, replaced)
        if role is Role.FILTERED:
            _plan_filtered(draft, service, replaced)
    if draft.facts.expanded(draft.facts.value("smtpd_relay_before_recipient_restrictions")) == "no":
        _tell_of_relaying(draft)


def _plan_port_25(draft: Draft, services: list[Service], replaced: dict[str, str]) -> None:
    """Ask in main.cf's list, or in a service's own; before a permit where users can log in, or they would never be counted."""
    inheriting = [service for service in services if RECIPIENTS not in service.options]
    for service in services:
        if service not in inheriting:
            logs_in = takes_logins(service, draft.facts)
            old = _text(draft, service, RECIPIENTS, replaced)
            new = _asking(draft, old, PORT_25, before_permits=logs_in)
            draft.set_service(service, RECIPIENTS, new, _WHY_RECIPIENTS if logs_in else _WHY_LATE)
    if inheriting:
        logs_in = any(takes_logins(service, draft.facts) for service in inheriting)
        new = _asking(draft, _text(draft, inheriting[0], RECIPIENTS, replaced), PORT_25, before_permits=logs_in)
        draft.set_main(RECIPIENTS, new, _WHY_RECIPIENTS if logs_in else _WHY_LATE)


def _tell_of_relaying(draft: Draft) -> None:
    """Say that strangers who try to relay are counted, unless main.cf's list refuses them before it asks."""
    found = words(draft.main_after(RECIPIENTS))
    before = found[: found.index(PORT_25)] if PORT_25 in found else []
    if PORT_25 in found and not {"reject_unauth_destination", "defer_unauth_destination"} & set(before):
        draft.find(
            Weight.NOTE,
            "smtpd_relay_before_recipient_restrictions = no, the default with a compatibility_level below 3.6: strangers who "
            "try to relay are counted before they are refused",
        )


def _plan_submission(draft: Draft, service: Service, replaced: dict[str, str]) -> None:
    for name, why in ((RECIPIENTS, _WHY_RECIPIENTS), (WHOLE, _WHY_WHOLE)):
        old = _text(draft, service, name, replaced)
        new = _asking(draft, without_calls(old, lambda server: server == PORT_25), SUBMISSION, before_permits=True)
        if name not in service.options and old:
            why += "; the rest is main.cf's own list, which this takes the place of"
        draft.set_service(service, name, new, why)


def _plan_filtered(draft: Draft, service: Service, replaced: dict[str, str]) -> None:
    for name in (RECIPIENTS, WHOLE):
        new = without_calls(_text(draft, service, name, replaced), lambda server: draft.daemon_of(server) == POLICYD)
        draft.set_service(service, name, new, _WHY_FILTERED)


def _asking(draft: Draft, old: str, server: str, *, before_permits: bool) -> str:
    """Return a list that asks; where it does already, at a place where it is asked, it stays as it is."""
    base = without_calls(old, lambda each: draft.daemon_of(each) == POLICYD)
    new = with_call(base, server, before_permits=before_permits, expanded=draft.facts.meaning)
    if base == old.rstrip(" ,"):
        return new
    is_in_time = old.find(server) <= new.find(server)
    return old if server in called_servers(old) and is_in_time else new


def _text(draft: Draft, service: Service, name: str, replaced: dict[str, str]) -> str:
    """Return what a list is without those that are replaced."""
    if name in service.options:
        return replaced.get(f"{service.name}/{name}", service.options[name])
    return replaced.get(name, draft.facts.value(name))


def _without_replaced(draft: Draft) -> dict[str, str]:
    """With --replace take peers' policy calls out of every list; return what the lists are then, by `name` or `service/name`."""

    def is_replaced(server: str) -> bool:
        peer = draft.peer_of(server)
        return peer is not None and peer.is_replaceable and all(draft.wants(job) for job in peer.jobs)

    replaced: dict[str, str] = {}
    if not draft.wanted.is_replacing:
        return replaced
    why = "what is replaced is asked no more"
    for name in _LISTS:
        old = draft.facts.main.get(name, "")
        if (new := without_calls(old, is_replaced)) != old.rstrip(" ,"):
            replaced[name] = new
            draft.set_main(name, new, why)
        for service, _ in roles(draft.facts):
            own = service.options.get(name, "")
            if (new := without_calls(own, is_replaced)) != own.rstrip(" ,"):
                replaced[f"{service.name}/{name}"] = new
                draft.set_service(service, name, new, why)
    return replaced
