"""Whom Postfix asks who logs in, as the plan for Dovecot wants to know it. No I/O but for Cyrus SASL's own file."""

from __future__ import annotations

from pathlib import Path

from postmaster.setup.change import MainSetting, Plan
from postmaster.setup.dovecot import DovecotFacts, PostfixSide
from postmaster.setup.dovecot_has import is_known
from postmaster.setup.postfix_facts import PostfixFacts
from postmaster.setup.postfix_roles import roles

_CYRUS = (Path("/etc/postfix/sasl/smtpd.conf"), Path("/etc/sasl2/smtpd.conf"), Path("/usr/lib/sasl2/smtpd.conf"))
_DELIVERIES = ("mailbox_transport", "mailbox_command", "local_transport", "virtual_transport")
_WHY_TYPE = "Dovecot says who logs in, and not Cyrus SASL, of which there is no configuration here"
_WHY_PATH = "where Dovecot answers, in Postfix's queue directory"


def postfix_side(facts: PostfixFacts, *, has_cyrus: bool | None = None) -> PostfixSide:
    """Return what Dovecot's part wants to know; `has_cyrus` None: look for its file."""
    has_cyrus = any(path.exists() for path in _CYRUS) if has_cyrus is None else has_cyrus
    pipes = tuple(service.command for service in facts.services if service.program == "pipe")
    kind, path = _sasl(facts, has_cyrus=has_cyrus)
    return PostfixSide(
        queue=Path(facts.value("queue_directory")),
        sasl_type=kind,
        sasl_path=path,
        deliveries=(*(facts.expanded(facts.main[name]) for name in _DELIVERIES if facts.main.get(name)), *pipes),
    )


def can_answer(dovecot: DovecotFacts) -> bool:
    """Tell whether Dovecot can be made to answer Postfix."""
    return is_known(dovecot.version) and dovecot.reads_conf_d


def plan_sasl(side: PostfixSide, facts: PostfixFacts, path: str) -> Plan:
    """Return what makes Postfix ask Dovecot, at `path`, where nobody is asked yet."""
    if side.sasl_type:
        return Plan()
    wanted = {"smtpd_sasl_type": ("dovecot", _WHY_TYPE), "smtpd_sasl_path": (path, _WHY_PATH)}
    changes = tuple(
        MainSetting(name, facts.main.get(name), new, why)
        for name, (new, why) in wanted.items()
        if facts.main.get(name) != new
    )
    return Plan(changes, reloads=("postfix",) if changes else ())


def _sasl(facts: PostfixFacts, *, has_cyrus: bool) -> tuple[str, str]:
    """Return the type and path of those services that set them, or main.cf's; a default is nobody's choice."""
    for where in (None, *(service for service, _ in roles(facts))):
        own = facts.main if where is None else where.options
        if "smtpd_sasl_type" in own:
            return own["smtpd_sasl_type"], facts.expanded(facts.value("smtpd_sasl_path", where))
    return ("cyrus", "") if has_cyrus else ("", "")
