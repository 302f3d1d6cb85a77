"""`mailward setup`, Dovecot's part: what it needs to ask policyd, to answer Postfix, and to file what is quarantined. No I/O.

All of it is in files of ours, made of the shipped examples; what the operator has configured stays, and wins: where there is a
policy server, a socket for Postfix or a listener of doveadm's already, ours is left out and a finding says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from postmaster.setup.change import Change, FileText, Finding, Plan, Wanted, Weight
from postmaster.setup.dovecot_facts import DovecotFacts, read_dovecot
from postmaster.setup.dovecot_findings import find_about_logins
from postmaster.setup.dovecot_has import asks_policy_server, delivers_by, has_doveadm, is_known, sockets_of_auth
from postmaster.setup.dovecot_made import (
    make_doveadm,
    make_logins,
    make_sasl,
    make_script,
    make_secrets,
    make_sieve,
)

__all__ = ["DovecotFacts", "PostfixSide", "can_ask", "can_listen", "offered_sasl", "plan_dovecot", "read_dovecot"]

SASL_PATH = "private/auth"
UNIT = "dovecot"
INCLUDED = "conf.d/9?-mailward-*.conf"

_WHY = {
    "sasl": "Postfix asks Dovecot who logs in: without that nobody can send through the submission services",
    "logins": "Dovecot asks policyd before each login: who guesses is slowed down, who is suspended is denied",
    "doveadm": "policyd ends the sessions of a suspended account through this",
    "secrets": "the nonce and the keys for it, which root alone may read",
    "script": "files what auth-verify has quarantined into the folder for junk",
    "sieve": "the script runs before each account's own",
}


@dataclass(frozen=True, slots=True)
class PostfixSide:
    """What Dovecot's part wants to know of Postfix.

    `sasl_type` is who is asked about logins, "dovecot" or "cyrus", and empty where no service of Postfix asks anybody;
    `sasl_path` is smtpd_sasl_path. `deliveries` are the values of mailbox_transport, mailbox_command, local_transport and
    virtual_transport, and the commands of pipe(8) in master.cf, where they are set; None: not known.
    """

    queue: Path = Path("/var/spool/postfix")
    sasl_type: str = ""
    sasl_path: str = ""
    deliveries: tuple[str, ...] | None = None


def plan_dovecot(facts: DovecotFacts, wanted: Wanted, postfix: PostfixSide = PostfixSide()) -> Plan:
    """Return what is to be changed in Dovecot; `wanted` is plan_own's. What belongs to daemons that are not wanted stays."""
    if not is_known(facts.version):
        return _found(Weight.WARNING, f"Dovecot {facts.version[0]}.{facts.version[1]} is not known: it stays as it is")
    if not facts.reads_conf_d:
        return _found(
            Weight.WARNING,
            f"{facts.config} does not read conf.d/*.conf, where ours would be: it stays as it is. With the line `!include_try "
            f"{INCLUDED}` at its end it reads ours and nothing else; run this again then",
        )
    plan = Plan()
    if {"dkim-sign", "policyd"} & set(wanted.daemons):
        plan += _plan_sasl(facts, postfix)
    if "policyd" in wanted.daemons:
        plan += _plan_logins(facts, wanted)
    if "auth-verify" in wanted.daemons:
        plan += _plan_quarantine(facts, postfix)
    return plan + Plan(reloads=(UNIT,)) if plan.changes else plan


def can_ask(facts: DovecotFacts) -> bool:
    """Say whether Dovecot can be made to ask policyd about logins."""
    return is_known(facts.version) and facts.reads_conf_d and not asks_policy_server(facts.settings)


def can_listen(facts: DovecotFacts) -> bool:
    """Say whether doveadm can be made to listen to policyd."""
    return can_ask(facts) and not has_doveadm(facts.settings)


def offered_sasl(facts: DovecotFacts, queue: Path) -> str:
    """Return the smtpd_sasl_path under which Postfix reaches Dovecot, once the plan is applied."""
    for socket in sockets_of_auth(facts.settings):
        if socket.is_relative_to(queue):
            return str(socket.relative_to(queue))
    return SASL_PATH


def _plan_sasl(facts: DovecotFacts, postfix: PostfixSide) -> Plan:
    """Let Dovecot listen where Postfix asks, unless it does, or Postfix asks somebody else."""
    # Those of other instances stay: their users would not log in any more.
    others = [socket for socket in facts.listeners if not socket.is_relative_to(postfix.queue)]
    if postfix.sasl_type not in ("", "dovecot"):
        plan = _found(
            Weight.NOTE,
            f"Postfix asks {postfix.sasl_type} SASL who logs in, and not Dovecot: policyd counts what these logins send, but "
            "hears of no wrong password there",
        )
        return _changed([_sasl_file(facts, others)]) + plan
    path = postfix.sasl_path if postfix.sasl_type == "dovecot" else offered_sasl(facts, postfix.queue)
    socket = postfix.queue / path
    is_there = socket in sockets_of_auth(facts.settings) or not socket.is_relative_to(postfix.queue) or ":" in path
    return _changed([_sasl_file(facts, others if is_there else [*others, socket])])


def _sasl_file(facts: DovecotFacts, sockets: Sequence[Path]) -> FileText | None:
    text = make_sasl(facts, sorted(sockets)) if sockets else None
    return _file(facts, facts.ours.sasl, text, "sasl")


def _plan_logins(facts: DovecotFacts, wanted: Wanted) -> Plan:
    """Let Dovecot ask policyd, and listen to it, where neither is configured otherwise."""
    ours = facts.ours
    is_asking = bool(wanted.dovecot) and can_ask(facts)
    is_listening = is_asking and bool(wanted.doveadm) and can_listen(facts)
    texts = {
        "secrets": make_secrets(facts, wanted, is_listening) if is_asking else None,
        "logins": make_logins(facts, wanted.dovecot) if is_asking else None,
        "doveadm": make_doveadm(facts, wanted.doveadm) if is_listening else None,
    }
    return _changed(
        [
            _file(facts, ours.secrets, texts["secrets"], "secrets", mode=0o600, is_secret=True),
            _file(facts, ours.logins, texts["logins"], "logins"),
            _file(facts, ours.doveadm, texts["doveadm"], "doveadm"),
        ]
    ) + Plan(findings=find_about_logins(facts, is_asking=is_asking))


def _plan_quarantine(facts: DovecotFacts, postfix: PostfixSide) -> Plan:
    """Let Dovecot file quarantined mail, where it is Dovecot that delivers, and has Sieve."""
    ours, ways = facts.ours, delivers_by(facts.settings, postfix.deliveries)
    in_words = "quarantined mail stays in the inbox, marked by its field X-Mailward-Quarantine"
    if not ways:
        advice = "deliver with Dovecot (package dovecot-lmtpd; mailbox_transport = lmtp:unix:private/dovecot-lmtp)"
        plan = _found(Weight.NOTE, f'it is not Dovecot that delivers: {in_words}; {advice}, or set quarantine = "hold"')
    elif not facts.pigeonhole or not facts.sievec:
        plan = _found(Weight.NOTE, f"Dovecot has no Sieve here: {in_words}; install dovecot-sieve and run this again")
    else:
        script = make_script(facts)
        changes = [
            _file(
                facts,
                ours.script,
                script,
                "script",
                then=(facts.sievec, "-c", str(facts.config), str(ours.script)),
                makes=(ours.compiled,),
            ),
            _file(facts, ours.sieve, make_sieve(facts, ways), "sieve"),
        ]
        is_compiled = facts.files.get(ours.script) != script or ours.compiled in facts.files
        lacks = _found(Weight.WARNING, f"{ours.script} is not compiled; run: sievec {ours.script}")
        return _changed(changes) + (Plan() if is_compiled else lacks)
    return (
        _changed(
            [_file(facts, ours.sieve, None, "sieve"), _file(facts, ours.script, None, "script", makes=(ours.compiled,))]
        )
        + plan
    )


def _file(
    facts: DovecotFacts,
    path: Path,
    text: bytes | None,
    why: str,
    *,
    mode: int = 0o644,
    is_secret: bool = False,
    then: tuple[str, ...] = (),
    makes: tuple[Path, ...] = (),
) -> FileText | None:
    """Return the change that makes a file of ours that text, or None where it is so already."""
    old = facts.files.get(path)
    return (
        None if old == text else FileText(path, old, text, _WHY[why], mode, is_secret=is_secret, then=then, makes=makes)
    )


def _changed(changes: Sequence[Change | None]) -> Plan:
    return Plan(tuple(change for change in changes if change is not None))


def _found(weight: Weight, text: str) -> Plan:
    return Plan(findings=(Finding(weight, text),))
