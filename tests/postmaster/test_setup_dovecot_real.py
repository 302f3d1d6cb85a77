"""A real Dovecot, set up as `mailward setup` plans it, with a real policyd beside it: what works then, and what is left after."""

from __future__ import annotations

import base64
import imaplib
import smtplib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mailward.model.errors import ConfigError
from postmaster.setup.apply import NotApplied, apply_plan
from postmaster.setup.change import FileText, Plan, Wanted
from postmaster.setup.dovecot import INCLUDED, PostfixSide, plan_dovecot
from postmaster.setup.dovecot_facts import DovecotFacts, read_dovecot
from postmaster.setup.own import FILE, HEAD, plan_own
from postmaster.setup.running import Programs
from postmaster.setup.undo import undo_all
from tests.support.dovecot import CONFIGURATION_2_3, CONFIGURATION_2_4, LMTP, major_and_minor
from tests.support.dovecot_doveadm import imap_session
from tests.support.policy_server import PolicyServer
from tests.support.processes import (
    Program,
    answers_on,
    answers_on_socket,
    free_port,
    open_folder,
    read_text,
    require_binary,
    run,
    wait_until,
)

ALICE, BOB, PASSWORD = "alice@example.com", "bob@example.com", "correct-horse"
SESSION_SECONDS = 60.0
IMAP = """\
listen = 127.0.0.1
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
auth_failure_delay = 0
!include conf.d/*.conf
"""
QUARANTINED = "X-Mailward-Quarantine: dmarc\r\nFrom: forged@bank.example\r\nSubject: pay\r\n\r\nnow\r\n"


class Machine:
    """A Dovecot of an operator's, with his own files in conf.d, and where Mailward's configuration and Postfix's queue are."""

    def __init__(self, folder: Path) -> None:
        binary = require_binary("dovecot", "dovecot-core")
        require_binary("sievec", "dovecot-sieve")
        self.folder, self.etc, self.queue = folder, folder / "etc", folder / "spool"
        for each in ("etc/conf.d", "run", "state", "mail", "mailward/conf.d", "spool/private"):
            (folder / each).mkdir(parents=True)
        folder.chmod(0o755)
        (folder / "mail").chmod(0o777)
        self.imap, self.lmtp = free_port(), folder / "run" / "lmtp-for-postfix"
        (folder / "logins").write_text("".join(f"{login}:{PASSWORD}::::::\n" for login in (ALICE, BOB)))
        (folder / "logins").chmod(0o644)
        self.is_2_4 = major_and_minor(run([binary, "--version"])) >= (2, 4)
        text = (CONFIGURATION_2_4 if self.is_2_4 else CONFIGURATION_2_3) + LMTP + IMAP
        places = {"folder": folder, "socket": folder / "run" / "sasl", "lmtp": self.lmtp, "imap": self.imap}
        self.config = self.etc / "dovecot.conf"
        self.config.write_text(text.format(**places, protocols="imap lmtp"))
        (self.etc / "conf.d" / "10-operator.conf").write_text("auth_verbose = yes\n")
        self.dovecot = Program(
            "dovecot", [binary, "-F", "-c", str(self.config)], folder, is_ready=lambda: answers_on(self.imap)
        )
        self.policyd = PolicyServer(folder / "mailward")
        self.own_ports()

    def own_ports(self) -> None:
        """Have ports of this test's in the file that a run of before has left, for those of everybody may be in use."""
        lines = [f'dovecot = "127.0.0.1:{free_port()}"', f'doveadm = "http://127.0.0.1:{free_port()}/doveadm/v1"']
        (self.folder / "mailward" / "conf.d" / FILE).write_text(HEAD + "".join(f"# {line}\n{line}\n" for line in lines))

    @property
    def side(self) -> PostfixSide:
        return PostfixSide(self.queue, deliveries=(f"lmtp:unix:{self.lmtp}",))

    def facts(self) -> DovecotFacts:
        facts = read_dovecot(self.config)
        assert facts is not None
        return facts

    def plan(self, *daemons: str) -> Plan:
        facts = self.facts()
        wanted = Wanted(daemons or ("dkim-sign", "auth-verify", "policyd"), {})
        wanted, plan = plan_own(wanted, self.policyd.configuration, facts)
        return plan + plan_dovecot(facts, wanted, self.side)

    def apply(self, plan: Plan) -> None:
        for change in plan.changes:
            assert isinstance(change, FileText)
            change.path.parent.mkdir(exist_ok=True)
            if change.new is None:
                change.path.unlink()
                continue
            change.path.write_bytes(change.new)
            change.path.chmod(change.mode)
            if change.then:
                run(change.then)
                assert all(made.exists() for made in change.makes)

    def undo(self, plan: Plan) -> None:
        for change in plan.changes:
            assert isinstance(change, FileText)
            for path in (change.path, *change.makes):
                path.unlink()
            if change.old is not None:
                change.path.write_bytes(change.old)

    def configured(self) -> str:
        """Return all that Dovecot reads, as it prints it."""
        return run(["doveconf", "-P", "-n", "-c", str(self.config)])

    def reload(self) -> None:
        run(["doveadm", "-c", str(self.config), "reload"])

    def log_in(self, login: str, password: str = PASSWORD) -> imaplib.IMAP4:
        return imap_session(self.imap, login, password)

    def log(self) -> str:
        return read_text(self.folder / "dovecot.log")


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with open_folder() as folder:
        machine = Machine(folder)
        machine.dovecot.start()
        try:
            yield machine
        finally:
            machine.dovecot.stop()


@pytest.fixture(scope="module")
def before(machine: Machine) -> str:
    return machine.configured()


@pytest.fixture(scope="module")
def set_up(machine: Machine, before: str) -> Iterator[Plan]:
    """Set up the running Dovecot, and start policyd."""
    plan = machine.plan()
    machine.apply(plan)
    machine.policyd.start()
    try:
        machine.reload()
        wait_until(lambda: answers_on_socket(machine.queue / "private" / "auth"), f"SASL\n{machine.log()}", seconds=60)
        yield plan
    finally:
        machine.policyd.stop()


def test_a_login_is_reported_to_policyd(machine: Machine, set_up: Plan) -> None:
    def is_reported() -> bool:
        machine.log_in(ALICE).shutdown()
        return bool(machine.policyd.log_lines("login"))

    wait_until(is_reported, f"a login in policyd's log\n{machine.log()}", seconds=60)
    assert machine.policyd.log_lines("login")[0]["login"] == ALICE


def test_postfix_can_ask_who_logs_in(machine: Machine, set_up: Plan) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SESSION_SECONDS)
        connection.connect(str(machine.queue / "private" / "auth"))
        credentials = base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode()).decode()
        asked = f"VERSION\t1\t1\nCPID\t4242\nAUTH\t1\tPLAIN\tservice=smtp\tresp={credentials}\n"
        connection.sendall(asked.encode())
        said = connection.makefile("rb")
        lines = iter(lambda: said.readline(8192), b"")
        answer = next(line for line in lines if line.startswith((b"OK\t1", b"FAIL\t1")))
    assert f"user={ALICE}".encode() in answer, answer


def test_quarantined_mail_is_filed_by_the_compiled_script(machine: Machine, set_up: Plan) -> None:
    with smtplib.LMTP(str(machine.lmtp)) as delivery:
        delivery.sendmail("forged@bank.example", [BOB], QUARANTINED)
    junk = machine.folder / "mail" / "bob" / "Maildir" / ".Junk" / "new"
    wait_until(lambda: junk.is_dir() and len(list(junk.iterdir())) == 1, f"it is in Junk\n{machine.log()}", seconds=60)
    assert "pre-compiled" not in machine.log()
    assert "failed" not in machine.log()


def test_the_sessions_of_a_suspended_account_end(machine: Machine, set_up: Plan) -> None:
    session = machine.log_in(BOB)
    try:
        machine.policyd.order("suspend", BOB)
        machine.policyd.wait_for_log("sessions-ended", account=BOB, result="kicked")
        with pytest.raises(imaplib.IMAP4.error):
            machine.log_in(BOB)
        machine.log_in(ALICE).shutdown()
    finally:
        session.shutdown()


def test_a_second_run_changes_nothing(machine: Machine, set_up: Plan) -> None:
    assert machine.plan() == Plan()
    assert machine.plan("greylist") == Plan()


def test_who_is_not_root_reads_no_secret(machine: Machine, set_up: Plan) -> None:
    secrets = [each for each in set_up.changes if isinstance(each, FileText) and each.is_secret]
    assert sorted(each.path.name for each in secrets) == ["doveadm.key", "dovecot-policy.key", "mailward-keys.conf"]
    assert [each.path.name for each in secrets if each.path.stat().st_mode & 0o007] == []


def test_undone_dovecot_reads_what_it_read_before(machine: Machine, set_up: Plan, before: str) -> None:
    assert machine.configured() != before
    machine.undo(set_up)
    assert machine.configured() == before
    assert sorted(path.name for path in (machine.etc / "conf.d").iterdir()) == ["10-operator.conf"]
    machine.apply(machine.plan("auth-verify"))
    assert machine.configured() != before
    machine.reload()
    wait_until(lambda: "mailward" in machine.configured(), "set up again", seconds=60)


def test_another_policy_server_is_seen_where_it_is_configured() -> None:
    with open_folder() as folder:
        machine = Machine(folder)
        machine.apply(machine.plan())
        own = machine.etc / "conf.d" / "99-own.conf"
        own.write_text("auth_policy_server_url = http://127.0.0.1:8084/\nauth_policy_hash_nonce = salt\n")
        plan = machine.plan()
        gone = [each.path.name for each in plan.changes if isinstance(each, FileText) and each.new is None]
        assert {"96-mailward-auth-policy.conf", "97-mailward-doveadm.conf", "mailward-keys.conf", FILE} <= {*gone}
        assert "127.0.0.1:8084" in plan.findings[0].text
        machine.apply(plan)
        assert machine.plan().changes == ()
        run(["doveconf", "-n", "-c", str(machine.config)])


def test_the_script_is_compiled_when_it_is_applied_and_goes_away_when_that_is_undone() -> None:
    with open_folder() as folder:
        machine = Machine(folder)
        before, programs = machine.configured(), Programs(None, machine.config, has_dovecot=True)
        plan = plan_dovecot(machine.facts(), Wanted(("auth-verify",), {}), machine.side)
        apply_plan(plan, programs, folder / "backups", time.time())
        compiled = machine.facts().ours.compiled
        assert compiled.stat().st_mtime_ns > compiled.with_suffix(".sieve").stat().st_mtime_ns
        assert plan_dovecot(machine.facts(), Wanted(("auth-verify",), {}), machine.side) == Plan()
        assert undo_all(programs, folder / "backups").left == []
        assert machine.configured() == before
        assert not compiled.parent.exists()


def test_a_script_that_cannot_be_compiled_is_taken_back() -> None:
    with open_folder() as folder:
        machine = Machine(folder)
        before, programs = machine.configured(), Programs(None, machine.config, has_dovecot=True)
        plan = plan_dovecot(machine.facts(), Wanted(("auth-verify",), {}), machine.side)
        broken = [
            replace(each, new=b"if {") if isinstance(each, FileText) and each.then else each for each in plan.changes
        ]
        with pytest.raises(NotApplied, match="mailward-quarantine"):
            apply_plan(replace(plan, changes=tuple(broken)), programs, folder / "backups", time.time())
        assert machine.configured() == before
        assert not (machine.etc / "sieve").exists()


def test_a_configuration_that_dovecot_does_not_read_is_named() -> None:
    with open_folder() as folder:
        machine = Machine(folder)
        (machine.etc / "conf.d" / "20-wrong.conf").write_text("no_such_setting = \x1b[31m\n")
        with pytest.raises(ConfigError, match="no_such_setting") as caught:
            machine.facts()
        assert "\x1b" not in str(caught.value)
        machine.config.unlink()
        assert read_dovecot(machine.config) is None


def test_what_dovecot_includes_is_found() -> None:
    with open_folder() as folder:
        machine = Machine(folder)
        assert machine.facts().reads_conf_d
        text = machine.config.read_text()
        machine.config.write_text(text.replace("!include conf.d/*.conf", f"!include_try {machine.etc}/conf.d/*.conf"))
        assert machine.facts().reads_conf_d
        machine.config.write_text(text.replace("!include conf.d/*.conf", f"!include_try {INCLUDED}"))
        assert machine.facts().reads_conf_d
        for other in ("#!include conf.d/*.conf", "!include conf.d/10-*.conf", "!include_try iredmail/*.conf"):
            machine.config.write_text(text.replace("!include conf.d/*.conf", other))
            assert not machine.facts().reads_conf_d


def test_what_is_ours_is_left_out_where_it_is_included_by_its_whole_path() -> None:
    with open_folder() as folder:
        machine = Machine(folder)
        text = machine.config.read_text()
        machine.config.write_text(text.replace("!include conf.d/*.conf", f"!include {machine.etc}/conf.d/*.conf"))
        ours = machine.facts().ours
        ours.logins.write_text("auth_policy_server_url = http://127.0.0.1:9465/\n")
        assert machine.facts().settings.get("auth_policy_server_url") == ""
        assert machine.facts().settings.get("auth_verbose") == "yes"
        assert machine.facts().files == {ours.logins: ours.logins.read_bytes()}
