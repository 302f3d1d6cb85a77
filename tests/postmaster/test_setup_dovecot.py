"""What `mailward setup` would change in Dovecot: as tables, for what operators of 2.3 and of 2.4 have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postmaster.setup.change import FileText, Plan, Wanted, Weight
from postmaster.setup.dovecot import PostfixSide, offered_sasl, plan_dovecot
from postmaster.setup.dovecot_facts import EXAMPLES, DovecotFacts, listeners_in
from postmaster.setup.dovecot_made import make_sasl
from postmaster.setup.dovecot_text import parse_configuration

CONFIG = Path("/etc/dovecot/dovecot.conf")
QUEUE = Path("/var/spool/postfix")
ALL = ("dkim-sign", "auth-verify", "greylist", "policyd")
SHIPPED = {path.name: path.read_text() for path in EXAMPLES.iterdir()}
SASL, LOGINS, DOVEADM, SIEVE = (
    f"{number}-mailward-{name}.conf"
    for number, name in ((95, "sasl"), (96, "auth-policy"), (97, "doveadm"), (98, "sieve"))
)
KEYS, SCRIPT = "mailward-keys.conf", "mailward-quarantine.sieve"

# As Debian installs them, with the packages of IMAP, LMTP and Sieve.
DEBIAN_12 = """\
mail_location = mbox:~/mail:INBOX=/var/mail/%u
namespace inbox {
  inbox = yes
  location =
  mailbox Junk {
    special_use = \\Junk
  }
  prefix =
}
passdb {
  driver = pam
}
plugin {
  sieve = file:~/sieve;active=~/.dovecot.sieve
}
protocols = " imap lmtp"
"""
DEBIAN_13 = """\
dovecot_config_version = 2.4.0
protocols {
  imap = yes
  lmtp = yes
}
namespace inbox {
  inbox = yes
  mailbox Junk {
    special_use = "\\\\Junk"
  }
}
service auth {
  unix_listener auth-userdb {
  }
}
"""
VERSIONS = pytest.mark.parametrize("version", [(2, 3), (2, 4)], ids=["Dovecot 2.3", "Dovecot 2.4"])


def facts_of(version: tuple[int, int], more: str = "", **others: object) -> DovecotFacts:
    text = (DEBIAN_12 if version == (2, 3) else DEBIAN_13) + more
    known: dict[str, object] = {
        "pigeonhole": "0.5",
        "sievec": "/usr/bin/sievec",
        "examples": SHIPPED,
        "nonce": "e" * 64,
        **others,
    }
    return DovecotFacts(version, CONFIG, parse_configuration(text), **known)  # type: ignore[arg-type]


def wanting(*daemons: str, dovecot: str = "127.0.0.1:9465", doveadm: str = "127.0.0.1:9466") -> Wanted:
    return Wanted(daemons or ALL, {}, dovecot, doveadm, "k" * 40, "d" * 40)


def files(plan: Plan) -> dict[str, str | None]:
    """Return the files by name, with the lines that say something; None: it goes away."""
    found = {}
    for change in plan.changes:
        assert isinstance(change, FileText)
        text = None if change.new is None else change.new.decode()
        found[change.path.name] = text and "\n".join(
            line for line in text.splitlines() if not re.match(r"\s*#|$", line)
        )
    return found


def after(facts: DovecotFacts, plan: Plan) -> DovecotFacts:
    """Return the facts once the plan is applied."""
    there = dict(facts.files)
    for change in plan.changes:
        assert isinstance(change, FileText)
        assert there.get(change.path) == change.old
        there.pop(change.path, None)
        if change.new is not None:
            there[change.path] = change.new
        for made in change.makes:
            there.pop(made, None)
            if change.new is not None:
                there[made] = b"compiled"
    return DovecotFacts(
        facts.version,
        facts.config,
        facts.settings,
        facts.reads_conf_d,
        facts.pigeonhole,
        facts.sievec,
        there,
        facts.examples,
        facts.nonce,
    )


@VERSIONS
def test_on_a_plain_debian_all_of_it_is_wanted_and_a_second_run_changes_nothing(version: tuple[int, int]) -> None:
    facts = facts_of(version)
    plan = plan_dovecot(facts, wanting())
    assert list(files(plan)) == [SASL, KEYS, LOGINS, DOVEADM, SCRIPT, SIEVE]
    assert (plan.findings, plan.reloads) == ((), ("dovecot",))
    again = after(facts, plan)
    assert plan_dovecot(again, wanting()) == Plan()


@VERSIONS
def test_nothing_of_debians_is_touched_and_every_file_says_whose_it_is(version: tuple[int, int]) -> None:
    for change in plan_dovecot(facts_of(version), wanting()).changes:
        assert isinstance(change, FileText)
        assert "mailward" in change.path.name
        assert change.new is not None
        assert change.new.startswith(b"# Written by `mailward setup`")
        assert change.why


@VERSIONS
def test_what_is_written_is_what_the_examples_say(version: tuple[int, int]) -> None:
    """A machine as Debian installs it gets the examples as they are."""
    plan = plan_dovecot(facts_of(version), wanting())
    suffix = f"-{version[0]}.{version[1]}.conf"
    written = {change.path.name: change.new for change in plan.changes if isinstance(change, FileText)}
    for name, example in ((SASL, "sasl"), (LOGINS, "auth-policy"), (DOVEADM, "doveadm")):
        text = written[name]
        assert text is not None
        assert text.decode().partition("\n")[2] == SHIPPED[example + suffix]
    script = written[SCRIPT]
    assert script is not None
    assert script.decode().partition("\n")[2] == SHIPPED["quarantine.sieve"]


@VERSIONS
def test_secrets_are_roots_alone_and_never_shown(version: tuple[int, int]) -> None:
    plan = plan_dovecot(facts_of(version), wanting())
    (secret,) = [change for change in plan.changes if isinstance(change, FileText) and change.is_secret]
    assert (secret.path.name, secret.mode, secret.owner) == (KEYS, 0o600, "root")
    assert files(plan)[KEYS] == (
        f"auth_policy_hash_nonce = {'e' * 64}\nauth_policy_server_api_header = X-API-Key: {'k' * 40}\n"
        f"doveadm_api_key = {'d' * 40}"
    )
    shown = [change.new for change in plan.changes if isinstance(change, FileText) and change is not secret]
    assert not [text for text in shown if text is not None and re.search(b"k{40}|d{40}|e{64}", text)]
    assert not re.search("k{40}|d{40}", repr(wanting()))


def test_the_nonce_stays_when_a_key_is_another() -> None:
    facts = facts_of((2, 3))
    there = after(facts, plan_dovecot(facts, wanting()))
    later = DovecotFacts(
        there.version,
        there.config,
        there.settings,
        files=there.files,
        examples=SHIPPED,
        nonce="f" * 64,
        pigeonhole="0.5",
        sievec="/usr/bin/sievec",
    )
    changed = Wanted(ALL, {}, "127.0.0.1:9465", "127.0.0.1:9466", "another key of the operator's", "d" * 40)
    found = files(plan_dovecot(later, changed))
    assert list(found) == [KEYS]
    assert f"auth_policy_hash_nonce = {'e' * 64}\n" in (found[KEYS] or "")
    assert 'auth_policy_server_api_header = "X-API-Key: another key of the operator\'s"' in (found[KEYS] or "")


@pytest.mark.parametrize(
    ("daemons", "names"),
    [
        pytest.param(["dkim-sign"], [SASL], id="the signer wants to know who logged in"),
        pytest.param(["auth-verify"], [SCRIPT, SIEVE], id="the verifier wants its quarantine filed"),
        pytest.param(["greylist"], [], id="the greylister wants nothing"),
        pytest.param(["policyd"], [SASL, KEYS, LOGINS, DOVEADM], id="policyd wants to be asked about logins"),
    ],
)
@VERSIONS
def test_each_daemon_has_its_own_part(version: tuple[int, int], daemons: list[str], names: list[str]) -> None:
    facts = facts_of(version)
    assert list(files(plan_dovecot(facts, wanting(*daemons)))) == names
    everything = after(facts, plan_dovecot(facts, wanting()))
    assert plan_dovecot(everything, wanting(*daemons)) == Plan(), "what belongs to the others stays"


@pytest.mark.parametrize(
    ("more", "says", "missing"),
    [
        pytest.param(
            "service auth {\n  unix_listener /var/spool/postfix/private/auth {\n    mode = 0666\n  }\n}\n",
            "",
            [SASL],
            id="Postfix is answered already",
        ),
        pytest.param(
            "auth_policy_server_url = http://wforce:secret@127.0.0.1:8084/\n",
            "asks another policy server about logins, ...@127.0.0.1:8084/, and can ask only one",
            [KEYS, LOGINS, DOVEADM],
            id="another policy server is asked",
        ),
        pytest.param(
            "service doveadm {\n  inet_listener http {\n    port = 8080\n  }\n}\n",
            "doveadm has an HTTP listener or a key already",
            [DOVEADM],
            id="doveadm has an HTTP listener",
        ),
        pytest.param(
            "doveadm_api_key = # hidden, use -P to show it\n",
            "doveadm has an HTTP listener or a key already",
            [DOVEADM],
            id="doveadm has a key",
        ),
        pytest.param(
            "auth_mechanisms = plain login cram-md5 scram-sha-256\n",
            "auth_mechanisms has cram-md5, scram-sha-256, which hides the password",
            [],
            id="passwords are hidden from Dovecot",
        ),
        pytest.param(
            "service quota-status {\n  unix_listener /var/spool/postfix/private/quota-status {\n  }\n}\n",
            "quota-status answers OK, which ends the list",
            [],
            id="quota-status answers OK",
        ),
    ],
)
@VERSIONS
def test_what_is_there_stays_and_is_named(version: tuple[int, int], more: str, says: str, missing: list[str]) -> None:
    facts = facts_of(version, more)
    plan = plan_dovecot(facts, wanting())
    assert [name for name in (SASL, KEYS, LOGINS, DOVEADM) if name not in files(plan)] == missing
    assert says in " ".join(finding.text for finding in plan.findings)
    assert bool(plan.findings) == bool(says)
    before = facts_of(version)
    there = after(before, plan_dovecot(before, wanting()))
    later = facts_of(version, more, files=there.files)
    taken_away = [name for name, text in files(plan_dovecot(later, wanting())).items() if text is None]
    assert taken_away == missing, "where the operator has come to do it himself, ours goes away"


@VERSIONS
def test_a_key_of_doveadms_is_not_overwritten(version: tuple[int, int]) -> None:
    plan = plan_dovecot(facts_of(version, "doveadm_api_key = # hidden, use -P to show it\n"), wanting())
    assert "doveadm_api_key" not in (files(plan)[KEYS] or "")


@pytest.mark.parametrize(
    ("more", "is_said"),
    [("auth_cache_size = 10 M\n", True), ("auth_cache_size = 0\n", False), ("", False)],
    ids=["a cache", "no cache", "the default"],
)
def test_a_cache_of_passwords_is_named_for_2_4_which_cannot_be_told_to_forget(more: str, is_said: bool) -> None:
    assert [finding.weight for finding in plan_dovecot(facts_of((2, 4), more), wanting()).findings] == [
        Weight.NOTE
    ] * is_said
    assert plan_dovecot(facts_of((2, 3), more), wanting()).findings == ()


def test_a_quota_status_that_decides_nothing_may_stand_anywhere() -> None:
    service = "service quota-status {\n  unix_listener /var/spool/postfix/private/quota-status {\n  }\n}\n"
    for version, setting in (
        ((2, 3), "plugin {\n  quota_status_success = DUNNO\n}\n"),
        ((2, 4), "quota_status_success = DUNNO\n"),
    ):
        assert plan_dovecot(facts_of(version, service + setting), wanting()).findings == ()


@VERSIONS
def test_logins_are_not_reported_where_policyd_does_not_listen(version: tuple[int, int]) -> None:
    facts = facts_of(version)
    assert list(files(plan_dovecot(facts, wanting("policyd", dovecot="")))) == [SASL]
    there = after(facts, plan_dovecot(facts, wanting("policyd")))
    assert files(plan_dovecot(there, wanting("policyd", dovecot=""))) == {KEYS: None, LOGINS: None, DOVEADM: None}


@VERSIONS
def test_the_places_are_those_that_are_wanted(version: tuple[int, int]) -> None:
    found = files(plan_dovecot(facts_of(version), wanting(dovecot="[::1]:9999", doveadm="[::1]:7777")))
    assert "auth_policy_server_url = http://[::1]:9999/" in (found[LOGINS] or "")
    word = "address" if version == (2, 3) else "listen"
    assert f"{word} = ::1\n    port = 7777" in (found[DOVEADM] or "")


@pytest.mark.parametrize(
    ("postfix", "socket"),
    [
        pytest.param(PostfixSide(), "/var/spool/postfix/private/auth", id="nobody is asked yet"),
        pytest.param(
            PostfixSide(Path("/var/spool/postfix-out"), "dovecot", "private/login"),
            "/var/spool/postfix-out/private/login",
            id="where Postfix asks",
        ),
        pytest.param(PostfixSide(QUEUE, "dovecot", "/run/dovecot/auth-client"), "", id="Dovecot's own socket"),
        pytest.param(PostfixSide(QUEUE, "dovecot", "inet:127.0.0.1:12345"), "", id="over TCP"),
        pytest.param(PostfixSide(QUEUE, "cyrus", "smtpd"), "", id="Cyrus"),
    ],
)
@VERSIONS
def test_dovecot_listens_where_postfix_asks(version: tuple[int, int], postfix: PostfixSide, socket: str) -> None:
    plan = plan_dovecot(facts_of(version), wanting("dkim-sign"), postfix)
    if socket:
        assert f"unix_listener {socket} {{" in (files(plan)[SASL] or "")
    else:
        assert SASL not in files(plan)
    assert [finding.weight for finding in plan.findings] == [Weight.NOTE] * (postfix.sasl_type == "cyrus")


@pytest.mark.parametrize(
    ("postfix", "sockets"),
    [
        pytest.param(PostfixSide(QUEUE), ["/var/spool/postfix", "/var/spool/postfix-out"], id="and ours"),
        pytest.param(PostfixSide(QUEUE, "cyrus", "smtpd"), ["/var/spool/postfix-out"], id="and nobody here asks"),
        pytest.param(PostfixSide(Path("/var/spool/postfix-out")), ["/var/spool/postfix-out"], id="there is one only"),
    ],
)
@VERSIONS
def test_another_instance_of_postfix_keeps_its_socket(
    version: tuple[int, int], postfix: PostfixSide, sockets: list[str]
) -> None:
    facts = facts_of(version, listeners=(Path("/var/spool/postfix-out/private/auth"),))
    text = files(plan_dovecot(facts, wanting("dkim-sign"), postfix))[SASL] or ""
    assert re.findall(r"unix_listener (\S+)/private/auth \{\n    mode = 0660", text) == sockets
    assert text.count("{") == text.count("}") == len(sockets) + 1


@VERSIONS
def test_sockets_are_read_as_they_were_written_where_their_folder_is(version: tuple[int, int], tmp_path: Path) -> None:
    there, gone = tmp_path / "auth", tmp_path / "gone" / "auth"
    (tmp_path / SASL).write_bytes(make_sasl(facts_of(version), [there, gone]))
    assert listeners_in(tmp_path / SASL) == (there,)
    assert listeners_in(tmp_path / "none.conf") == ()


@VERSIONS
def test_postfix_is_told_of_the_socket_that_there_is(version: tuple[int, int]) -> None:
    assert offered_sasl(facts_of(version), QUEUE) == "private/auth"
    own = "service auth {\n  unix_listener /var/spool/postfix/private/dovecot-auth {\n    mode = 0660\n  }\n}\n"
    facts = facts_of(version, own)
    assert offered_sasl(facts, QUEUE) == "private/dovecot-auth"
    assert SASL not in files(plan_dovecot(facts, wanting(), PostfixSide()))
    closed = own.replace("0660", "0")
    assert offered_sasl(facts_of(version, closed), QUEUE) == "private/auth"


LMTP, LDA = "lmtp:unix:private/dovecot-lmtp", "/usr/lib/dovecot/dovecot-lda -f ${sender}"


@pytest.mark.parametrize(
    ("deliveries", "protocols"),
    [
        pytest.param(None, ["lmtp"], id="nobody knows how Postfix delivers"),
        pytest.param((LMTP,), ["lmtp"], id="LMTP"),
        pytest.param((LDA,), ["lda"], id="the LDA"),
        pytest.param(("local:$myhostname", LMTP, LDA), ["lmtp", "lda"], id="both"),
        pytest.param((), None, id="local(8)"),
        pytest.param(('procmail -a "$EXTENSION"',), None, id="procmail"),
    ],
)
@VERSIONS
def test_quarantined_mail_is_filed_where_dovecot_delivers(
    version: tuple[int, int], deliveries: tuple[str, ...] | None, protocols: list[str] | None
) -> None:
    plan = plan_dovecot(facts_of(version), wanting("auth-verify"), PostfixSide(deliveries=deliveries))
    if protocols is None:
        assert plan.changes == ()
        assert [finding.weight for finding in plan.findings] == [Weight.NOTE]
        assert "it is not Dovecot that delivers" in plan.findings[0].text
    else:
        assert re.findall(r"^protocol (\w+) {", files(plan)[SIEVE] or "", re.MULTILINE) == protocols
        assert plan.findings == ()


@VERSIONS
def test_without_sieve_quarantined_mail_stays_and_that_is_said(version: tuple[int, int]) -> None:
    facts = facts_of(version)
    there = after(facts, plan_dovecot(facts, wanting("auth-verify")))
    later = facts_of(version, files=there.files, pigeonhole="", sievec="")
    plan = plan_dovecot(later, wanting("auth-verify"))
    assert files(plan) == {SIEVE: None, SCRIPT: None}
    assert "install dovecot-sieve" in plan.findings[0].text


@VERSIONS
def test_the_script_is_compiled_where_it_is_and_what_that_makes_goes_with_it(version: tuple[int, int]) -> None:
    plan = plan_dovecot(facts_of(version), wanting("auth-verify"))
    script = next(each for each in plan.changes if isinstance(each, FileText) and each.path.name == SCRIPT)
    assert script.then == ("/usr/bin/sievec", "-c", "/etc/dovecot/dovecot.conf", str(script.path))
    assert script.makes == (Path("/etc/dovecot/sieve/mailward-quarantine.svbin"),)
    assert [each for each in plan.changes if isinstance(each, FileText) and each.then] == [script]


def test_a_script_that_is_not_compiled_is_named() -> None:
    facts = facts_of((2, 3))
    there = after(facts, plan_dovecot(facts, wanting("auth-verify")))
    uncompiled = {path: text for path, text in there.files.items() if path.suffix != ".svbin"}
    plan = plan_dovecot(facts_of((2, 3), files=uncompiled), wanting("auth-verify"))
    assert (plan.changes, [finding.weight for finding in plan.findings]) == ((), [Weight.WARNING])


@pytest.mark.parametrize(
    ("version", "more", "has_block"),
    [
        pytest.param((2, 3), "", True, id="2.3: no Sieve yet"),
        pytest.param((2, 3), 'protocol lmtp {\n  mail_plugins = " quota"\n}\n', True, id="2.3: other plugins"),
        pytest.param((2, 3), 'protocol lmtp {\n  mail_plugins = " quota sieve"\n}\n', False, id="2.3: Sieve for LMTP"),
        pytest.param((2, 3), "mail_plugins = sieve\n", False, id="2.3: Sieve for everything"),
        pytest.param((2, 4), "", True, id="2.4: no Sieve yet"),
        pytest.param(
            (2, 4), "protocol lmtp {\n  mail_plugins {\n    sieve = yes\n  }\n}\n", False, id="2.4: Sieve for LMTP"
        ),
        pytest.param(
            (2, 4), "protocol lmtp {\n  mail_plugins {\n    sieve = no\n  }\n}\n", True, id="2.4: Sieve said no to"
        ),
    ],
)
def test_sieve_is_switched_on_once(version: tuple[int, int], more: str, has_block: bool) -> None:
    found = files(plan_dovecot(facts_of(version, more), wanting("auth-verify")))
    assert ("protocol lmtp {" in (found[SIEVE] or "")) is has_block


@pytest.mark.parametrize(
    ("there", "ours"),
    [
        pytest.param([], "sieve_before", id="the first"),
        pytest.param(["sieve_before"], "sieve_before2", id="the second"),
        pytest.param(["sieve_before", "sieve_before2"], "sieve_before3", id="the third"),
        pytest.param(["sieve_before", "sieve_before3"], "sieve_before2", id="a gap is filled"),
    ],
)
def test_other_scripts_keep_their_names_in_2_3(there: list[str], ours: str) -> None:
    more = "plugin {\n" + "".join(f"  {name} = /etc/dovecot/sieve/theirs.sieve\n" for name in there) + "}\n"
    found = files(plan_dovecot(facts_of((2, 3), more), wanting("auth-verify")))
    assert f"  {ours} = /etc/dovecot/sieve/{SCRIPT}\n" in (found[SIEVE] or "")


@pytest.mark.parametrize(
    ("namespace", "folder"),
    [
        pytest.param(
            "inbox = yes\n  prefix = INBOX.\n  mailbox Junk {\n    special_use = \\Junk\n  }",
            "INBOX.Junk",
            id="below INBOX",
        ),
        pytest.param("inbox = yes\n  mailbox Spam {\n    special_use = \\Junk\n  }", "Spam", id="another name"),
        pytest.param(
            'inbox = yes\n  mailbox "Bulk Mail" {\n    special_use = \\Junk\n  }', "Bulk Mail", id="a blank in it"
        ),
        pytest.param("inbox = yes\n  prefix = Mail/", "Mail/Junk", id="no special use"),
        pytest.param("inbox = no\n  prefix = Shared/", "Junk", id="another namespace"),
    ],
)
def test_the_folder_for_junk_is_the_one_that_is_there(namespace: str, folder: str) -> None:
    settings = parse_configuration(f"protocols = lmtp\nnamespace x {{\n  {namespace}\n}}\n")
    facts = DovecotFacts((2, 3), CONFIG, settings, pigeonhole="1", sievec="/usr/bin/sievec", examples=SHIPPED)
    assert f'fileinto :create "{folder}";' in (files(plan_dovecot(facts, wanting("auth-verify")))[SCRIPT] or "")


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        pytest.param(facts_of((2, 2)), "Dovecot 2.2 is not known", id="too old"),
        pytest.param(facts_of((3, 0)), "Dovecot 3.0 is not known", id="too new"),
        pytest.param(facts_of((2, 3), reads_conf_d=False), "does not read conf.d/*.conf", id="conf.d is not read"),
    ],
)
def test_a_dovecot_that_cannot_be_judged_stays_as_it_is(facts: DovecotFacts, says: str) -> None:
    plan = plan_dovecot(facts, wanting())
    assert (plan.changes, plan.reloads) == ((), ())
    assert [finding.weight for finding in plan.findings] == [Weight.WARNING]
    assert says in plan.findings[0].text


def test_settings_are_found_in_the_blocks_of_2_4() -> None:
    """So doveconf prints them once a setting of the block is set in it."""
    more = "auth_policy {\n  hash_nonce = # hidden, use -P to show it\n  server_url = http://127.0.0.1:8084/\n}\n"
    plan = plan_dovecot(facts_of((2, 4), more), wanting("policyd"))
    assert list(files(plan)) == [SASL]
    assert "http://127.0.0.1:8084/" in plan.findings[0].text


def test_a_newer_2_4_is_taken_for_one() -> None:
    plan = plan_dovecot(facts_of((2, 4)), wanting())
    newer = facts_of((2, 4))
    assert (
        plan_dovecot(
            DovecotFacts((2, 5), CONFIG, newer.settings, True, "2", "/usr/bin/sievec", {}, SHIPPED, "e" * 64), wanting()
        )
        == plan
    )
