"""A Postfix as values for the tests of `mailward setup`, and the command itself, with its backups in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from postmaster.__main__ import main
from postmaster.setup.change import FileText, MainSetting, Plan, ServiceSetting, Wanted, Weight
from postmaster.setup.files import settle
from postmaster.setup.postfix import plan_postfix
from postmaster.setup.postfix_facts import PostfixFacts, Service, read_postfix
from postmaster.setup.staging import FILES
from tests.support.postfix import Postfix
from tests.support.processes import require_binary, run

SIGN, VERIFY, GREYLIST, POLICYD = ALL = ("dkim-sign", "auth-verify", "greylist", "policyd")
QUEUE = "/var/spool/postfix"
SOCKETS = {daemon: f"unix:{QUEUE}/mailward/{daemon}.sock" for daemon in ALL}

# What holds in a Postfix of Debian's where main.cf says nothing.
DEFAULTS = {
    "compatibility_level": "3.6",
    "config_directory": "/etc/postfix",
    "disable_mime_output_conversion": "no",
    "mail_version": "3.7.11",
    "queue_directory": QUEUE,
    "smtp_line_length_limit": "998",
    "smtpd_relay_before_recipient_restrictions": "yes",
    "smtpd_sasl_auth_enable": "no",
}
PORT_25: Mapping[str, Mapping[str, str]] = {"smtp/inet": {}}
SUBMISSION: Mapping[str, Mapping[str, str]] = {
    "submission/inet": {
        "syslog_name": "postfix/submission",
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_relay_restrictions": "permit_sasl_authenticated,reject",
    }
}


def postfix(
    main: Mapping[str, str] | None = None,
    services: Mapping[str, Mapping[str, str]] | None = None,
    programs: Mapping[str, str] | None = None,
    *,
    is_chrooted: bool = True,
    defaults: Mapping[str, str] | None = None,
) -> PostfixFacts:
    """Return facts: main.cf, services with their own settings, and the programs of those that are no smtpd."""
    services = {**PORT_25, **SUBMISSION} if services is None else services
    programs = programs or {}
    made = tuple(
        Service(name, programs.get(name, "smtpd"), programs.get(name, "smtpd"), is_chrooted, options)
        for name, options in services.items()
    )
    return PostfixFacts(Path("/etc/postfix"), main or {}, {**DEFAULTS, **(defaults or {})}, made)


def plan(
    facts: PostfixFacts, *daemons: str, sockets: Mapping[str, str] | None = None, is_replacing: bool = False
) -> Plan:
    """Return the plan for some daemons, or all of them."""
    daemons = daemons or ALL
    listening = {daemon: {**SOCKETS, **(sockets or {})}[daemon] for daemon in daemons}
    return plan_postfix(facts, Wanted(daemons, listening, is_replacing=is_replacing))


def new_values(made: Plan) -> dict[str, str]:
    """Return what the plan sets, by `name` or `service name`."""
    changes = [each for each in made.changes if not isinstance(each, FileText)]
    return {title(each): each.new or "" for each in changes}


def title(change: MainSetting | ServiceSetting) -> str:
    return f"{change.service} {change.name}" if isinstance(change, ServiceSetting) else change.name


def findings(made: Plan, weight: Weight) -> str:
    """Return all that is said with a weight, as one text."""
    return "\n".join(finding.text for finding in made.findings if finding.weight is weight)


def after(facts: PostfixFacts, made: Plan) -> PostfixFacts:
    """Return what Postfix would be with the plan applied."""
    main = dict(facts.main)
    options = {service.name: dict(service.options) for service in facts.services}
    for change in made.changes:
        assert not isinstance(change, FileText)
        into = options[change.service] if isinstance(change, ServiceSetting) else main
        assert into.get(change.name) == change.old
        into.pop(change.name, None)
        if change.new is not None:
            into[change.name] = change.new
    services = tuple(
        Service(each.name, each.program, each.command, each.is_chrooted, options[each.name]) for each in facts.services
    )
    return PostfixFacts(facts.folder, main, facts.defaults, services)


MASTER_OF_DEBIAN = """\
# as Debian has it
smtp      inet  n       -       n       -       -       smtpd
#smtp      inet  n       -       n       -       1       postscreen
submission inet n       -       n       -       -       smtpd
  -o syslog_name=postfix/submission
# a comment in between
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
"""


class SettingUp:
    """`mailward setup` on a Postfix in a folder, with its backups there; no Dovecot, unless a configuration is given."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        services: str = MASTER_OF_DEBIAN,
        ports: Sequence[int] = (),
    ) -> None:
        self.folder = folder
        self.postfix = Postfix(folder / "postfix", settings=settings or {}, services=[services], ports=ports)
        self.etc = self.postfix.etc
        self.backups = folder / "backups"
        self.settle()
        self.config = folder / "mailward" / "mailward.toml"
        self.config.parent.mkdir()
        (self.config.parent / "conf.d").mkdir()
        sockets = folder / "postfix" / "spool" / "mailward"
        self.config.write_text("".join(f'[{daemon}]\nsocket = "unix:{sockets}/{daemon}.sock"\n' for daemon in ALL))
        self.dovecot = folder / "no-dovecot.conf"

    def settle(self) -> None:
        """Let the files be old: Postfix's programs wait two seconds for whoever may not be done with a fresh one."""
        for name in FILES:
            settle(self.etc / name)

    def run(self, *options: str, status: int = 0) -> str:
        """Run the command, which must end with that status; return what it prints."""
        where = ["-c", str(self.etc), "--dovecot-config", str(self.dovecot), "--config", str(self.config)]
        done = CliRunner().invoke(main, ["setup", *options, *where], terminal_width=80)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == status, done.output
        return done.output

    def json(self, *options: str, status: int = 0) -> Any:
        """Run the command; return its one JSON object."""
        return json.loads(self.run("--json", *options, status=status))

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Return everything in the configurations, with its mode."""
        paths = [path for top in (self.etc, self.config.parent) for path in top.rglob("*") if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mode) for path in paths}

    def postconf(self, *arguments: str) -> str:
        """Run postconf on it."""
        self.settle()
        printed = run([require_binary("postconf", "postfix"), "-c", str(self.etc), *arguments])
        self.settle()
        return printed

    def add(self, name: str, text: str) -> None:
        """Add lines to main.cf or master.cf."""
        with (self.etc / name).open("a") as opened:
            opened.write(text)
        self.settle()

    def facts(self) -> PostfixFacts:
        """Read it as the command does."""
        facts = read_postfix(self.etc)
        assert facts is not None
        return facts
