"""Reading everything that `mailward setup` concerns, and one plan of it for Mailward's own part, Dovecot and Postfix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from postmaster.setup.change import Finding, Plan, Wanted, Weight
from postmaster.setup.dovecot import offered_sasl, plan_dovecot, read_dovecot
from postmaster.setup.own import plan_own
from postmaster.setup.postfix import plan_postfix
from postmaster.setup.postfix_facts import PostfixFacts, read_postfix
from postmaster.setup.postfix_sasl import can_answer, plan_sasl, postfix_side
from postmaster.setup.running import Programs, answers
from postmaster.setup.undo import is_asked

# Each daemon by the folder of its own modules: who has that has it installed.
PROGRAMS = Path(__file__).parents[2]
FOLDERS = {
    "dkim-sign": PROGRAMS / "milters" / "dkim_sign",
    "auth-verify": PROGRAMS / "milters" / "auth_verify",
    "greylist": PROGRAMS / "milters" / "greylist",
    "policyd": PROGRAMS / "policyd",
}

_WAITED_FOR = ("dkim-sign", "auth-verify")  # mail waits while they are away


@dataclass(frozen=True, slots=True)
class Places:
    """Where the configurations are; None: where their programs look."""

    config: Path
    postfix: Path | None
    dovecot: Path | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read, and the plan that was made of it."""

    facts: PostfixFacts
    programs: Programs
    plan: Plan


def installed() -> tuple[str, ...]:
    """Return the daemons that are installed."""
    return tuple(daemon for daemon, folder in FOLDERS.items() if (folder / "__main__.py").is_file())


def look(places: Places, daemons: tuple[str, ...], *, is_replacing: bool) -> Seen | None:
    """Read everything and make the plan: our own part first, then Dovecot, and Postfix, which begins to ask, last.

    None where Postfix is not installed. Raises ProgramFailed.
    """
    facts = read_postfix(places.postfix)
    if facts is None:
        return None
    dovecot = read_dovecot(places.dovecot)
    wanted, plan = plan_own(Wanted(daemons, {}, is_replacing=is_replacing), places.config, dovecot)
    if dovecot is None:
        plan += Plan(findings=(Finding(Weight.NOTE, "Dovecot is not installed: only Postfix is set up"),))
    else:
        side = postfix_side(facts)
        plan += plan_dovecot(dovecot, wanted, side)
        if {"dkim-sign", "policyd"} & set(daemons) and can_answer(dovecot):
            plan += plan_sasl(side, facts, offered_sasl(dovecot, side.queue))
    programs = Programs(facts.folder, places.dovecot, dovecot is not None)
    plan += plan_postfix(facts, wanted) + _absent(wanted, facts, programs) + _gone(facts)
    return Seen(facts, programs, plan)


def _absent(wanted: Wanted, facts: PostfixFacts, programs: Programs) -> Plan:
    """Return what there is to say of daemons that do not listen: of those that mail waits for, Postfix is not to know yet."""
    findings = []
    for daemon, address in wanted.sockets.items():
        if answers(address):
            continue
        stops_mail = daemon in _WAITED_FOR and f"mailward_{daemon.replace('-', '_')}" not in facts.main
        is_refused = stops_mail and programs.is_postfix_running()
        text = f"mailward-{daemon} does not listen at {address}" + (
            "; mail would wait for it: start it first" if stops_mail else "; start it"
        )
        findings.append(Finding(Weight.REFUSAL if is_refused else Weight.WARNING, text))
    return Plan(findings=tuple(findings))


def _gone(facts: PostfixFacts) -> Plan:
    """Return what there is to say of daemons that Postfix still asks, and that are not installed any more."""
    findings = []
    for daemon in (each for each in FOLDERS if each not in installed()):
        if is_asked(facts, f"mailward_{daemon.replace('-', '_')}"):
            then = "mail waits for it" if daemon in _WAITED_FOR else "mail goes on without it"
            text = f"mailward-{daemon} is not installed, and Postfix still asks it: {then}. Take it out by --undo, then --apply"
            findings.append(Finding(Weight.WARNING, text))
    return Plan(findings=tuple(findings))
