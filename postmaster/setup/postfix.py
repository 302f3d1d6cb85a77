"""`mailward setup`, Postfix's part: what main.cf and master.cf need to ask the daemons that are wanted. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from postmaster.setup.change import Plan, Wanted, Weight
from postmaster.setup.peers import Peer
from postmaster.setup.postfix_draft import Draft
from postmaster.setup.postfix_facts import PostfixFacts
from postmaster.setup.postfix_lists import called_servers, words
from postmaster.setup.postfix_milters import plan_milters
from postmaster.setup.postfix_policy import plan_policy
from postmaster.setup.postfix_roles import roles
from postmaster.setup.shipped import Lines, read_shipped

_OLDEST = (3, 7)


def plan_postfix(facts: PostfixFacts, wanted: Wanted, shipped: Lines | None = None) -> Plan:
    """Return what is to be changed so that the daemons are asked, as the examples have it (`shipped`; None: read them)."""
    shipped = read_shipped(wanted.daemons) if shipped is None else shipped
    draft = Draft(facts, wanted)
    plan_milters(draft, shipped)
    plan_policy(draft, shipped)
    _tell_of_postfix(draft)
    _tell_of_classes(draft)
    for peer in dict.fromkeys(_peers(draft)):
        if peer.jobs & set(wanted.daemons) and not (wanted.is_replacing and peer.is_replaceable):
            draft.find(
                Weight.WARNING if peer.is_replaceable else Weight.NOTE, f"{peer.name} is asked, too: {peer.advice}"
            )
    return draft.plan()


def _tell_of_postfix(draft: Draft) -> None:
    facts = draft.facts
    if facts.version < _OLDEST:
        draft.find(Weight.REFUSAL, f"Postfix {facts.value('mail_version')} is too old: 3.7 or newer is needed")
    if others := facts.value("multi_instance_directories"):
        draft.find(Weight.NOTE, f"other instances stay as they are: {others}; each has --postfix-config FOLDER")
    if not roles(facts):
        draft.find(Weight.REFUSAL, f"{facts.folder}/master.cf has no smtpd")


def _tell_of_classes(draft: Draft) -> None:
    """Name the peers that a class of the operator's asks; a class that is taken apart may be left with nothing in it."""
    facts = draft.facts
    for name in words(facts.expanded(facts.value("smtpd_restriction_classes"))):
        for server in called_servers(facts.value(name)):
            peer = draft.peer_of(server)
            if peer is not None and peer.jobs & set(draft.wanted.daemons):
                draft.find(
                    Weight.WARNING,
                    f"{peer.name} is asked, too, by {name} of smtpd_restriction_classes: take it out there",
                )


def _peers(draft: Draft) -> Iterator[Peer]:
    """Yield whoever else is asked, milters and policy servers."""
    facts = draft.facts
    for where in (None, *(service for service, _ in roles(facts))):
        for name in {**facts.main, **facts.defaults, **(where.options if where else {})}:
            value = facts.value(name, where)
            if name.endswith("_milters"):
                asked = draft.items(value)
            elif name.endswith("_restrictions"):
                asked = called_servers(value)
            else:
                continue
            yield from (peer for token in asked if (peer := draft.peer_of(token)) is not None)
