"""Where Postfix is to ask the three milters, and in which order with those that are there. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from postmaster.setup.change import Weight
from postmaster.setup.peers import GREYLIST, SIGN, VERIFY
from postmaster.setup.postfix_draft import Draft
from postmaster.setup.postfix_facts import Service
from postmaster.setup.postfix_lists import joined, words
from postmaster.setup.postfix_roles import (
    Role,
    filters_returning_by_sendmail,
    has_postscreen,
    is_for_programs,
    roles,
    takes_logins,
)
from postmaster.setup.shipped import Lines

FIRST, LAST = (VERIFY, GREYLIST), (SIGN,)
MILTERS = {daemon: f"$mailward_{daemon.replace('-', '_')}" for daemon in (*FIRST, *LAST)}
_NEEDS_CONTENT = (SIGN, VERIFY)
_WHY_DEFINED = {
    SIGN: "where Postfix finds the signer; while it is away mail waits, and nothing leaves unsigned",
    VERIFY: "where Postfix finds the verifier; while it is away mail waits, for it would come in unjudged",
    GREYLIST: "where Postfix finds greylisting; while it is away mail comes in without it",
}
_WHY = {
    "internal_mail_filter_classes": "bounces are signed as well; the signer never rejects, as Postfix demands here",
    "smtp_line_length_limit": "Postfix cuts longer lines when it sends them, after they were signed: that breaks signatures",
    "disable_mime_output_conversion": "8-bit mail that is converted after it was signed has a broken signature",
    "message_strip_characters": "a milter sees a header field up to its first NUL; what stands behind it nobody would judge",
}
_INSTEAD = "; the others are main.cf's own, whose list this takes the place of"
_ADDED_TO = ("internal_mail_filter_classes", "message_strip_characters")


def plan_milters(draft: Draft, shipped: Lines) -> None:
    """Put the milters that are wanted into main.cf and into each smtpd."""
    wanted = [daemon for daemon in (*FIRST, *LAST) if draft.wants(daemon)]
    for daemon in wanted:
        draft.definitions(shipped[daemon], daemon, _WHY_DEFINED[daemon])
    if SIGN in wanted:
        _sign_local_mail(draft)
    for daemon in wanted:
        _plain_settings(draft, shipped[daemon])
    if not wanted:
        return
    found = roles(draft.facts)
    _without_replaced(draft)
    for service, role in found:
        _plan_service(draft, service, role, has_submission=any(each is Role.SUBMISSION for _, each in found))
    _tell_of_services(draft, found)


def _sign_local_mail(draft: Draft) -> None:
    """Sign what sendmail(1) takes; the signer is last, for whatever others add shall be signed."""
    kept = _others(draft, draft.facts.value("non_smtpd_milters"), (SIGN,))
    if returning := filters_returning_by_sendmail(draft.facts):
        draft.set_main("non_smtpd_milters", joined(kept), "strangers' mail comes back this way, and must not be signed")
        draft.find(
            Weight.WARNING,
            f"mail of sendmail(1), and bounces, are not signed: the content filter {', '.join(returning)} gives strangers' mail "
            "back by sendmail(1), and who forges your users' addresses would get your signature. Let it give mail back to an "
            "smtpd of its own at loopback (Postfix's FILTER_README), or be a milter",
        )
        return
    draft.set_main(
        "non_smtpd_milters", joined([*kept, MILTERS[SIGN]]), "mail of programs on this machine: sendmail(1), cron"
    )
    pickup = next((service for service in draft.facts.services if service.program == "pickup"), None)
    if pickup is not None and _has_no_milters(draft, pickup):
        draft.find(
            Weight.WARNING,
            f"{pickup.name}: receive_override_options has no_milters: mail of sendmail(1) is not signed",
        )


def _plain_settings(draft: Draft, lines: Mapping[str, str]) -> None:
    for name, line in lines.items():
        if name == "internal_mail_filter_classes" and filters_returning_by_sendmail(draft.facts):
            continue  # they would meet non_smtpd_milters, where the signer is not
        if name in _ADDED_TO:
            _add_to(draft, name, line)
        elif name in _WHY and draft.facts.main.get(name, line) == line:
            draft.set_main(name, line, _WHY[name])
        elif name in _WHY:
            old = draft.facts.main[name]
            draft.find(Weight.WARNING, f"{name} = {old} stays as you have it; {line} is better: {_WHY[name]}")


def _add_to(draft: Draft, name: str, line: str) -> None:
    old = draft.facts.value(name)
    if name == "message_strip_characters":  # escapes, one after the other
        draft.set_main(name, old if line in old else old + line, _WHY[name])
        return
    others = [token for token in draft.items(draft.facts.value("non_smtpd_milters")) if not draft.daemon_of(token)]
    if others and line not in words(old) and not all(_is_replaced(draft, token, (SIGN,)) for token in others):
        draft.find(
            Weight.NOTE,
            f"{name} stays as it is, and bounces are not signed: other milters would see them as well, and must not reject "
            f'them. If yours never do: postconf -e "{name} = {line}"',
        )
        return
    draft.set_main(name, joined(dict.fromkeys([*words(old), line])), _WHY[name])


def _without_replaced(draft: Draft) -> None:
    """With --replace take peers out of main.cf's list, too, which services take over that are not ours to change."""
    old = draft.facts.value("smtpd_milters")
    kept = [token for token in draft.items(old) if draft.daemon_of(token) or not _is_replaced(draft, token, ())]
    if kept != draft.items(old):
        draft.set_main("smtpd_milters", joined(kept), "what is replaced is asked nowhere else either")


def _plan_service(draft: Draft, service: Service, role: Role, *, has_submission: bool) -> None:
    """Decide on one smtpd's list of milters."""
    old = draft.facts.value("smtpd_milters", service)
    present = {draft.daemon_of(token): token for token in draft.items(old)}
    takes_own_mail = role is Role.STRANGERS and (
        SIGN in present or takes_logins(service, draft.facts) or not has_submission
    )
    fitting = {
        Role.STRANGERS: {*FIRST, *LAST} if takes_own_mail else {*FIRST},
        Role.SUBMISSION: {*LAST},
        Role.FILTERED: set[str](),
    }[role]
    if is_for_programs(service, draft.facts):
        fitting -= {*FIRST}
    # What --only leaves out stays where it is.
    here = {each: MILTERS[each] for each in (*FIRST, *LAST) if each in fitting and draft.wants(each)}
    here |= {each: token for each, token in present.items() if each in MILTERS and not draft.wants(each)}
    for each in _without_content(draft, service, set(here)):
        del here[each]
    kept = _others(draft, old, _jobs_at(role, takes_own_mail=takes_own_mail))
    new = [*(here[each] for each in FIRST if each in here), *kept, *(here[each] for each in LAST if each in here)]
    why = _why(role, set(here), has_logins=takes_logins(service, draft.facts)) + (
        _INSTEAD if kept and "smtpd_milters" not in service.options else ""
    )
    draft.set_service(service, "smtpd_milters", joined(new), why)
    if SIGN in here and role is Role.SUBMISSION and "milter_macro_daemon_name" not in service.options:
        draft.set_service(
            service, "milter_macro_daemon_name", "ORIGINATING", "tells milters that this is mail of your users"
        )


def _jobs_at(role: Role, *, takes_own_mail: bool) -> tuple[str, ...]:
    """Return whose peers --replace takes out of a list: a program that signs and verifies does there what the mail needs."""
    if role is Role.SUBMISSION:
        return LAST
    return (*FIRST, *LAST) if role is Role.FILTERED or takes_own_mail else FIRST


def _others(draft: Draft, old: str, jobs: Iterable[str]) -> list[str]:
    """Return a list's milters that are not ours and stay."""
    return [token for token in draft.items(old) if not draft.daemon_of(token) and not _is_replaced(draft, token, jobs)]


def _is_replaced(draft: Draft, token: str, jobs: Iterable[str]) -> bool:
    """Tell whether a milter goes: what it is there for is done by ours, or all that it may be there for."""
    peer = draft.peer_of(token)
    if peer is None or not draft.wanted.is_replacing or not peer.is_replaceable:
        return False
    done = {job for job in peer.jobs if draft.wants(job)}
    return done == peer.jobs or bool(done & set(jobs))


def _why(role: Role, here: set[str], *, has_logins: bool) -> str:
    if role is Role.FILTERED:
        return "mail that comes back from a content filter has been judged and signed already"
    if role is Role.SUBMISSION:
        return "your users' mail is signed; the signer is last, for what others add shall be signed, too"
    texts = {
        VERIFY: "strangers' mail is judged, before another milter changes what was signed",
        GREYLIST: "strangers are put off once" + (", behind the verifier" if VERIFY in here else ""),
        SIGN: "users who log in here are signed for" if has_logins else "mail from the signer's `networks` is signed",
    }
    return "; ".join(text for daemon, text in texts.items() if daemon in here) or "nothing of ours belongs here"


def _without_content(draft: Draft, service: Service, here: set[str]) -> set[str]:
    """Return the milters that would see nothing there, and say so."""
    if here and _has_no_milters(draft, service):
        draft.find(Weight.WARNING, f"{service.name}: receive_override_options has no_milters: no milter is asked there")
    blind = {each for each in _NEEDS_CONTENT if each in here and draft.wants(each)}
    if blind and draft.facts.expanded(draft.facts.value("smtpd_proxy_filter", service)):
        draft.find(
            Weight.WARNING,
            f"{service.name} hands mail to smtpd_proxy_filter before it is queued, and milters get no content there: "
            f"{' and '.join(sorted(blind))} cannot work at this service. Make that filter a content_filter, or a milter",
        )
        return blind
    return set()


def _has_no_milters(draft: Draft, service: Service) -> bool:
    return "no_milters" in words(draft.facts.expanded(draft.facts.value("receive_override_options", service)))


def _tell_of_services(draft: Draft, found: list[tuple[Service, Role]]) -> None:
    """Say past whom mail goes."""
    facts = draft.facts
    strangers = [service for service, role in found if role is Role.STRANGERS]
    if draft.wants(*FIRST) and strangers and all(is_for_programs(service, facts) for service in strangers):
        draft.find(
            Weight.NOTE,
            f"inet_interfaces = {facts.value('inet_interfaces')}: no stranger reaches this Postfix; nobody is judged or put off",
        )
    if has_postscreen(facts) and not any(service.kind == "pass" for service in strangers):
        draft.find(Weight.WARNING, "postscreen has no `smtpd pass` behind it in master.cf: it can hand mail to nobody")
    if draft.wants(GREYLIST) and has_postscreen(facts) and _has_deep_tests(draft):
        draft.find(
            Weight.NOTE,
            "postscreen's deep protocol tests put strangers off already: with greylisting leave one of them off",
        )
    if draft.wants(VERIFY) and facts.value("smtpd_milter_maps"):
        draft.find(
            Weight.WARNING,
            "smtpd_milter_maps: clients that it gives DISABLE bring their forged Authentication-Results fields in; list them "
            "in `networks` of [auth-verify] instead",
        )
    if draft.wants(SIGN):
        _tell_of_signing(draft, found, strangers)


def _tell_of_signing(draft: Draft, found: list[tuple[Service, Role]], strangers: list[Service]) -> None:
    facts = draft.facts
    signs_sendmail = not filters_returning_by_sendmail(facts)
    has_submission = any(role is Role.SUBMISSION for _, role in found)
    if not has_submission and not any(takes_logins(service, facts) for service in strangers):
        draft.find(
            Weight.NOTE,
            "nobody can log in: no submission service is in master.cf, and port 25 takes no logins. Mail from the signer's "
            f"`networks`{' and of sendmail(1)' if signs_sendmail else ''} is signed. A submission service: "
            "examples/postfix/dkim-sign.master.cf",
        )
    if has_submission and strangers and not any(takes_logins(service, facts) for service in strangers):
        draft.find(
            Weight.NOTE,
            "programs that hand mail to port 25 without a login, from mynetworks, are not signed for: let them use a "
            f"submission service{' or sendmail(1)' if signs_sendmail else ''}",
        )
    users = [None, *(service for service, role in found if role is Role.SUBMISSION)]
    filters = dict.fromkeys(each for where in users if (each := facts.expanded(facts.value("content_filter", where))))
    if filters:
        draft.find(
            Weight.NOTE,
            f"content_filter = {', '.join(filters)}: mail is signed before the filter sees it; a filter that changes text or "
            "signed fields (a footer, a new Subject) breaks signatures"
            + (", and amavisd signs a second time with $enable_dkim_signing" if "amavis" in "".join(filters) else ""),
        )


def _has_deep_tests(draft: Draft) -> bool:
    tests = ("pipelining", "non_smtp_command", "bare_newline")
    return any(draft.facts.value(f"postscreen_{test}_enable") == "yes" for test in tests)
