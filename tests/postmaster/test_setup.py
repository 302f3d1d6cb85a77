"""`mailward setup` on real configuration files of a Postfix: shown, applied, undone, changed in between, killed on the way."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest

from postmaster.setup import command, journal, looking, running
from postmaster.setup.apply import NotApplied, apply_plan
from postmaster.setup.change import FileText, MainSetting, Plan, Weight
from postmaster.setup.running import Programs
from postmaster.setup.shipped import EXAMPLES
from postmaster.setup.show import page_of
from postmaster.setup.undo import undo_all
from tests.postmaster.setting_up import ALL, POLICYD, SIGN, VERIFY, SettingUp
from tests.support.processes import open_folder

INSTALLED = dict(looking.FOLDERS)
FOREVER = 1000
GREYLIST = "mailward_greylist"
NOW = 1_790_000_000.0
RECIPIENTS = "smtpd_recipient_restrictions"
CALL = "check_policy_service $mailward_policyd"
PEERS = {"smtpd_milters": "inet:localhost:8891", "non_smtpd_milters": "$smtpd_milters"}


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[SettingUp]:
    """A Postfix that `postfix check` has its word on."""
    with open_folder() as folder:
        setting_up = SettingUp(folder)
        monkeypatch.setattr(journal, "BACKUPS", setting_up.backups)
        yield setting_up


@pytest.fixture
def here(checked: SettingUp, monkeypatch: pytest.MonkeyPatch) -> SettingUp:
    """A Postfix that only postconf has its word on: the other runs dozens of programs each time."""
    monkeypatch.setattr(running, "words_on_a_terminal", lambda _command: (0, []))
    return checked


class Killed(BaseException):
    """The end of the process, wherever it comes."""


def test_nothing_is_changed_without_being_told(here: SettingUp) -> None:
    before = here.files()
    shown = here.run()
    assert here.files() == before
    assert not here.backups.exists()
    assert "This does it" in shown


def test_it_shows_from_what_to_what_and_why_in_80_columns(here: SettingUp) -> None:
    lines = here.run().splitlines()
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines[:-1])) <= 80
    assert f"{here.etc}/master.cf, submission/inet" in lines
    assert (
        "from permit_sasl_authenticated, reject to check_policy_service, $mailward_policyd_submission, permit" in text
    )
    assert "why limits count each recipient, and stop a suspended account" in text
    places = [line for line in lines if line.startswith(f"{here.etc}/master.cf")]
    assert len(places) == len(set(places)) == 2  # what concerns one service stands together


def test_what_applies_it_has_the_options_of_what_was_shown(here: SettingUp) -> None:
    where = f"--postfix-config {here.etc} --dovecot-config {here.dovecot} --config {here.config}"
    for options in ("", " --only dkim-sign", " --only policyd --replace"):
        assert here.run(*options.split()).endswith(f"\n    mailward setup{options} {where} --apply\n")


def test_comments_of_our_files_are_counted_and_not_shown(here: SettingUp) -> None:
    change = FileText(here.folder / "x.conf", None, b"# why\n\na {\n  # more\n  b = 1\n}\n", "why")
    shown = page_of(Plan((change,)), here.facts(), 80)
    assert [line.strip() for line in shown.splitlines() if line.strip()[0] in "+("] == [
        "+ a {",
        "+   b = 1",
        "+ }",
        "(3 lines of comments and blank lines)",
    ]


def test_what_may_be_copied_is_shown_as_it_is(here: SettingUp) -> None:
    def shown(value: str) -> str:
        page = click.unstyle(page_of(Plan((MainSetting("x", None, value, "why"),)), here.facts(), 80))
        return next(line.removeprefix("    to").strip() for line in page.splitlines() if line.startswith("    to"))

    assert shown("\\0") == "\\0"
    assert shown("a,{b,c=d},e f") == "a, {b,c=d}, e f"
    assert shown("\\\x1b") == "\\\\\\x1b"  # beside what must not reach a terminal a backslash is escaped, too


def test_a_default_that_follows_from_another_is_read(here: SettingUp) -> None:
    name = "smtpd_relay_before_recipient_restrictions"
    assert here.facts().value(name) == "yes"
    here.add("main.cf", "compatibility_level = 2\n")
    assert here.facts().value(name) == "no"


def test_peers_with_names_of_their_own_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"dkim_milter": PEERS["smtpd_milters"], "smtpd_milters": "$dkim_milter"}
    with open_folder() as folder:
        here = SettingUp(folder, settings)
        monkeypatch.setattr(journal, "BACKUPS", here.backups)
        monkeypatch.setattr(running, "words_on_a_terminal", lambda _command: (0, []))
        before = here.files()
        here.run("--apply", "--replace")
        assert "dkim_milter" not in here.postconf("-n") + here.postconf("-P")
        here.run("--undo")
        assert here.files() == before


def test_json_has_each_change(here: SettingUp) -> None:
    changes = here.json("--only", "dkim-sign")["changes"]
    wanted = [each for each in changes if each["name"] == "smtpd_milters"]
    assert [(each["kind"], each["service"], each["old"], each["new"]) for each in wanted] == [
        ("service", "submission/inet", None, "$mailward_dkim_sign")
    ]


def test_applied_and_undone_every_file_is_as_it_was(checked: SettingUp) -> None:
    here = checked
    (here.etc / "main.cf").chmod(0o640)
    before = here.files()
    assert "Done." in here.run("--apply")
    after = here.files()
    assert after != before
    assert {path: mode for path, (_, mode) in after.items() if path in before} == {
        path: mode for path, (_, mode) in before.items()
    }
    here.run("--undo")
    assert here.files() == before
    assert "nothing to undo" in here.run("--undo")


def test_a_second_run_changes_nothing(here: SettingUp) -> None:
    here.run("--apply")
    after = here.files()
    assert "Nothing was to be changed." in here.run("--apply")
    assert "Nothing is to be changed." in here.run()
    assert here.files() == after
    assert len(list(here.backups.glob("setup-*"))) == 1


def test_daemon_by_daemon_is_undone_in_one_go(here: SettingUp) -> None:
    before = here.files()
    for daemon in ALL:
        here.run("--apply", "--only", daemon)
    assert len(list(here.backups.glob("setup-*"))) == len(ALL)
    here.run("--undo")
    assert here.files() == before


def test_peers_are_replaced_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder() as folder:
        here = SettingUp(folder, PEERS)
        monkeypatch.setattr(journal, "BACKUPS", here.backups)
        monkeypatch.setattr(running, "words_on_a_terminal", lambda _command: (0, []))
        before = here.files()
        assert "OpenDKIM is asked, too" in here.run()
        here.run("--apply", "--replace")
        assert "8891" not in here.postconf("-n") + here.postconf("-P")
        here.run("--undo")
        assert here.files() == before


def concerns_mailward(line: str) -> bool:
    return "mailward" in line or "ORIGINATING" in line


@pytest.mark.parametrize("daemons", [(SIGN,), (VERIFY,), (VERIFY, "greylist"), (POLICYD,)], ids="+".join)
def test_what_is_applied_is_what_the_examples_say(daemons: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples' master.cf without what is Mailward's becomes the example again, and main.cf gets its lines."""
    example = (EXAMPLES / "postfix" / f"{daemons[-1]}.master.cf").read_text()
    if daemons == (POLICYD,):  # on port 25 its call is in main.cf
        example += "smtp inet n - y - - smtpd\n"
    bare = "".join(line for line in example.splitlines(keepends=True) if line[0] == "#" or not concerns_mailward(line))
    lines = "".join((EXAMPLES / "postfix" / f"{daemon}.main.cf").read_text() for daemon in daemons)
    with open_folder() as folder, open_folder() as other:
        shipped, here = SettingUp(folder, services=example), SettingUp(other, services=bare)
        shipped.add("main.cf", lines)
        monkeypatch.setattr(journal, "BACKUPS", here.backups)
        here.run("--apply", "--only", ",".join(daemons))
        assert here.postconf("-P") == shipped.postconf("-P")
        assert [
            line for line in lines.splitlines() if line[:1] not in ("", "#") and line not in here.postconf("-n")
        ] == []


def test_a_complaint_takes_all_of_it_back(checked: SettingUp) -> None:
    here = checked
    before = here.files()
    plan = Plan((MainSetting("myhostname", None, "a b", "why"), text_of(here.config.parent / "conf.d" / "x.toml")))
    with pytest.raises(NotApplied, match=r"bad parameter value.*all of it was taken back"):
        apply_plan(plan, Programs(here.etc), here.backups, NOW)
    assert here.files() == before
    assert "nothing to undo" in here.run("--undo")


def text_of(path: Path, *, group: str = "root") -> FileText:
    return FileText(path, None, b"x = 1\n", "why", mode=0o640, group=group)


def test_a_postfix_that_is_not_in_order_is_left_alone(checked: SettingUp) -> None:
    here = checked
    here.add("main.cf", "myhostname = a b\n")
    before = here.files()
    assert "not in order before anything is changed" in here.run("--apply", status=1)
    assert here.files() == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (MainSetting("biff", "yes", "no", "why"), "changed just now"),
        (FileText(Path("/etc/hostname"), b"another", b"x", "why"), "changed just now"),
        (text_of(Path("/nowhere/x.toml"), group="no-such-group"), "comes with Mailward's packages"),
    ],
    ids=["a-setting", "a-file", "no-such-group"],
)
def test_a_plan_that_no_longer_fits_is_not_applied(here: SettingUp, change: MainSetting | FileText, text: str) -> None:
    before = here.files()
    with pytest.raises(NotApplied, match=text):
        apply_plan(Plan((change,)), Programs(here.etc), here.backups, NOW)
    assert here.files() == before


def fill_disk(monkeypatch: pytest.MonkeyPatch, number: int, until: int) -> None:
    """Let the renames of these numbers fail as on a full disk."""
    real, count = os.replace, iter(range(1, 1000))

    def replace(source: str, target: str | Path) -> None:
        if number <= next(count) < until:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr("postmaster.setup.files.os.replace", replace)


# As above kill_at: two backups, the journal, main.cf, master.cf, the journal. The disk is full once, or from then on.
@pytest.mark.parametrize(("number", "until"), [(5, 6), (6, 7), (1, FOREVER), (3, FOREVER), (4, FOREVER), (5, FOREVER)])
def test_a_full_disk_leaves_nothing_half_done(
    here: SettingUp, monkeypatch: pytest.MonkeyPatch, number: int, until: int
) -> None:
    before = here.files()
    with monkeypatch.context() as patch:
        fill_disk(patch, number, until)
        shown = here.run("--apply", status=73 if number < 4 else 1)
    assert "No space left" in shown
    if here.files() != before:
        assert "could not be taken back" in shown
        assert until == FOREVER
        here.run("--undo")
    else:
        assert "could not" not in shown
    assert here.files() == before


def test_what_can_be_taken_back_is_where_a_file_cannot_be_replaced(
    here: SettingUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An immutable main.cf, or one that is a mount point in a container."""
    before, path = here.files(), here.config.parent / "conf.d" / "50-setup.toml"
    real = os.replace

    def replace(source: str, target: str | Path) -> None:
        if Path(target).name == "main.cf":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        real(source, target)

    monkeypatch.setattr("postmaster.setup.files.os.replace", replace)
    plan = Plan((text_of(path), MainSetting("biff", here.facts().main.get("biff"), "yes", "")))
    with pytest.raises(NotApplied, match=r"main\.cf: Operation not permitted; all of it was taken back"):
        apply_plan(plan, Programs(here.etc), here.backups, NOW)
    assert here.files() == before
    assert journal.open_runs(here.backups, here.etc) == []


def test_interrupted_it_takes_everything_back(here: SettingUp, monkeypatch: pytest.MonkeyPatch) -> None:
    before = here.files()
    complaints: Iterator[list[str]] = iter([[]])

    def interrupted(_programs: Programs) -> list[str]:
        for found in complaints:
            return found
        raise KeyboardInterrupt

    monkeypatch.setattr(Programs, "complaints", interrupted)
    assert "interrupted; all of it was taken back" in here.run("--apply", status=1)
    assert here.files() == before


def test_interrupted_once_all_is_written_it_says_who_was_not_told(
    here: SettingUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_units: object) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Programs, "reload", interrupted)
        shown = here.run("--apply")
    assert "interrupted when all was written: reload postfix yourself" in shown
    assert "Done." in shown


def test_other_octets_than_the_terminals_are_written_as_they_were(here: SettingUp) -> None:
    """On a terminal of ISO 8859-1, or of ASCII as here."""
    here.add("main.cf", f"{RECIPIENTS} = permit_mynetworks, check_recipient_access hash:/etc/postfix/Prüfung-€\n")
    there = ["-c", str(here.etc), "--dovecot-config", str(here.dovecot), "--config", str(here.config)]
    code = (
        "import sys, pathlib; from postmaster.setup import journal, running; from postmaster.__main__ import main; "
        "journal.BACKUPS = pathlib.Path(sys.argv.pop(1)); running.words_on_a_terminal = lambda _command: (0, []); main()"
    )
    ascii_terminal = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(here.backups), "setup", "--apply", "--only", "policyd", *there]
    done = subprocess.run(command, env=ascii_terminal, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = next(line for line in (here.etc / "main.cf").read_text("utf-8").splitlines() if "Prüfung" in line)
    assert line.endswith(f"hash:/etc/postfix/Prüfung-€, {CALL}")


def test_nobody_who_reads_on_is_no_mistake(here: SettingUp, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_seen: object) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(command, "_print_page", broken)
    assert here.run(status=1) == ""


def test_milters_speak_the_newest_protocol_whatever_main_cf_has_for_others(here: SettingUp) -> None:
    """Tutorials of OpenDKIM set milter_protocol = 2, without DATA and the blanks before a field's value."""
    here.add("main.cf", "milter_protocol = 2\n")
    here.run("--apply")
    milters = [
        value for name, value in here.facts().main.items() if "default_action=tempfail" in value or name == GREYLIST
    ]
    assert len(milters) == 3
    assert all(value.endswith(", protocol=6 }") for value in milters)


def test_refusals_are_not_applied(here: SettingUp) -> None:
    here.config.write_text('[dkim-sign]\nsocket = "unix:/run/a,b.sock"\n')
    before = here.files()
    assert "nothing was changed" in here.run("--apply", "--only", "dkim-sign", status=1)
    assert here.files() == before


def test_files_get_their_folder_owner_and_mode_and_the_folder_goes_with_them(here: SettingUp) -> None:
    path = here.folder / "new" / "deep" / "x.toml"
    apply_plan(Plan((text_of(path),)), Programs(here.etc), here.backups, NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    undo_all(Programs(here.etc), here.backups)
    assert not (here.folder / "new").exists()


def test_backups_are_for_root_alone(here: SettingUp) -> None:
    here.run("--apply")
    (run_folder,) = here.backups.glob("setup-*")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in run_folder.iterdir()}
    assert stat.S_IMODE(run_folder.stat().st_mode) == 0o700
    assert modes == {0o600}


def test_a_symbolic_link_stays_one(here: SettingUp) -> None:
    real = here.folder / "real.cf"
    (here.etc / "main.cf").rename(real)
    (here.etc / "main.cf").symlink_to(real)
    before = real.read_bytes()
    here.run("--apply")
    assert (here.etc / "main.cf").is_symlink()
    assert real.read_bytes() != before
    here.run("--undo")
    assert real.read_bytes() == before


def test_another_run_is_waited_for_by_nobody(here: SettingUp) -> None:
    with journal.alone(here.backups):
        assert "another run" in here.run("--apply", status=75)


# What somebody does after --apply (postconf's arguments), what --undo leaves of it, and what it says.
CHANGED: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "another-setting": (("-e", "biff=yes"), {"biff": "yes"}, ""),
    "a-comment": ((), {}, ""),
    "a-list-of-milters": (
        ("-e", "non_smtpd_milters=unix:x/x.sock, $mailward_dkim_sign"),
        {"non_smtpd_milters": "unix:x/x.sock"},
        'non_smtpd_milters: it has been changed since; what is ours was taken out, and "unix:x/x.sock" stays',
    ),
    "a-list-of-restrictions": (
        ("-e", f"smtpd_recipient_restrictions=reject_unlisted_recipient, {CALL}, permit"),
        {"smtpd_recipient_restrictions": "reject_unlisted_recipient, permit"},
        "what is ours was taken out",
    ),
    "a-setting-that-we-changed": (
        ("-e", "smtp_line_length_limit=2000"),
        {"smtp_line_length_limit": "2000"},
        'smtp_line_length_limit: it has been changed since to "2000", and stays',
    ),
    "a-setting-of-a-service": (
        ("-P", "submission/inet/smtpd_milters=unix:x/x.sock,$mailward_dkim_sign"),
        {"submission/inet/smtpd_milters": "unix:x/x.sock"},
        "submission/inet: smtpd_milters: it has been changed since",
    ),
    "a-parameter-of-ours-that-was-tuned": (
        ("-e", "mailward_policyd={ unix:mailward/policyd.sock, timeout=9s }"),
        {},
        "",
    ),
    "a-service-is-gone": (("-MX", "submission/inet"), {}, ""),
}


@pytest.mark.parametrize(("arguments", "stays", "said"), CHANGED.values(), ids=CHANGED)
def test_undo_takes_out_what_is_ours_of_what_was_changed_since(
    here: SettingUp, arguments: tuple[str, ...], stays: dict[str, str], said: str
) -> None:
    before = here.facts()
    here.run("--apply")
    if arguments:
        here.postconf(*arguments)
    here.add("main.cf", "# a word of the operator's\n")
    here.add("master.cf", "# and another\n")
    output = here.run("--undo", status=1 if said else 0)
    now = here.facts()
    assert said in output
    assert f"{said.partition(': it has')[0]}: as it was" not in output.splitlines()
    assert {name: now.main.get(name) for name in before.main if name not in stays} == {
        name: value for name, value in before.main.items() if name not in stays
    }
    values = {
        **now.main,
        **{f"{service.name}/{name}": v for service in now.services for name, v in service.options.items()},
    }
    assert {name: values.get(name) for name in stays if stays[name]} == {
        name: text for name, text in stays.items() if text
    }
    assert not [name for name, value in values.items() if "mailward_" in name + value]
    assert "# a word of the operator's" in (here.etc / "main.cf").read_text()


def test_a_parameter_that_somebody_uses_stays(here: SettingUp) -> None:
    here.run("--apply")
    here.postconf("-P", "submission/inet/smtpd_client_restrictions=check_policy_service,$mailward_policyd,reject")
    output = here.run("--undo", status=1)
    assert "mailward_policyd: a setting that was changed since names it; it stays" in output
    assert set(here.facts().main) & {"mailward_policyd", "mailward_policyd_submission"} == {"mailward_policyd"}


def test_a_file_of_ours_that_was_changed_stays(here: SettingUp) -> None:
    path = here.config.parent / "conf.d" / "x.toml"
    apply_plan(Plan((text_of(path),)), Programs(here.etc), here.backups, NOW)
    path.write_text("x = 2\n")
    assert f"{path}: it has been changed since, and stays" in here.run("--undo", status=1)
    assert path.read_text() == "x = 2\n"


def test_undo_works_where_dovecot_does_not_read_its_files(here: SettingUp) -> None:
    before = here.files()
    here.run("--apply")
    here.dovecot.write_text("{ garbage")
    here.run("--undo")
    assert here.files() == before


def remove(monkeypatch: pytest.MonkeyPatch, folder: Path, *daemons: str) -> None:
    """Let daemons be as their packages leave them once they are removed."""
    for daemon in daemons:
        monkeypatch.setitem(looking.FOLDERS, daemon, folder / "removed")


def test_undo_works_where_no_daemon_is_left(here: SettingUp, monkeypatch: pytest.MonkeyPatch) -> None:
    before = here.files()
    here.run("--apply")
    remove(monkeypatch, here.folder, *ALL)
    assert "--undo takes out" in here.run(status=69)
    here.run("--undo")
    assert here.files() == before


@pytest.mark.parametrize(
    ("daemon", "then"), [(SIGN, "mail waits for it"), (VERIFY, "mail waits"), (POLICYD, "goes on without it")]
)
def test_daemons_that_are_gone_and_still_asked_are_named(
    here: SettingUp, monkeypatch: pytest.MonkeyPatch, daemon: str, then: str
) -> None:
    here.run("--apply", "--only", daemon)
    remove(monkeypatch, here.folder, *ALL)
    monkeypatch.setitem(looking.FOLDERS, "greylist", INSTALLED["greylist"])
    told = [each["text"] for each in here.json()["findings"] if "is not installed" in each["text"]]
    assert [text for text in told if text.startswith(f"mailward-{daemon} is not installed") and then in text]


def test_a_unit_that_is_gone_is_told_nothing(here: SettingUp, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def systemctl(words: tuple[str, ...]) -> tuple[str, str]:
        asked.append(tuple(words))
        return ("not-found\n" if words[-1] == "mailward-policyd" else "loaded\n") if "show" in words else "", ""

    monkeypatch.setattr(running, "has_systemd", lambda: True)
    monkeypatch.setattr(running, "output_of", systemctl)
    assert Programs(here.etc).reload(["dovecot"], ["mailward-policyd"]) == []
    assert [words[1:] for words in asked if "show" not in words] == [("try-reload-or-restart", "dovecot")]


def test_undo_is_silent_of_what_was_complained_of_before(here: SettingUp) -> None:
    here.add(
        "main.cf", f"{RECIPIENTS} = permit_mynetworks\n{RECIPIENTS} = permit_mynetworks, reject_unauth_destination\n"
    )
    before = here.files()
    here.run("--apply")  # postconf leaves one of the two
    assert "overriding" not in here.run("--undo")
    assert here.files() == before


def test_undo_says_which_files_are_gone(here: SettingUp) -> None:
    path = here.config.parent / "conf.d" / "50-setup.toml"
    apply_plan(Plan((text_of(path),)), Programs(here.etc), here.backups, NOW)
    assert f"{path}: gone, as before" in here.run("--undo")


def test_what_cannot_be_undone_waits_for_the_next_undo(here: SettingUp) -> None:
    before = here.files()
    here.run("--apply")
    applied = (here.etc / "master.cf").read_bytes()
    here.add("master.cf", "smtp inet n - y - - smtpd { broken\n")
    (here.etc / "main.cf").rename(here.folder / "away")
    assert "is not undone" in here.run("--undo", status=1)
    (here.folder / "away").rename(here.etc / "main.cf")
    (here.etc / "master.cf").write_bytes(applied)
    here.run("--undo")
    assert here.files() == before


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process end before the rename of that number, or after it where it is negative."""
    real, count = os.replace, iter(range(1, 1000))

    def replace(source: str, target: str | Path) -> None:
        here = next(count)
        if here == abs(number) and number < 0:
            real(source, target)
        if here >= abs(number):
            raise Killed
        real(source, target)

    monkeypatch.setattr("postmaster.setup.files.os.replace", replace)


def noted_reloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of whoever is told from now on."""
    told: list[str] = []

    def reload(_programs: Programs, reloads: Iterable[str], restarts: Iterable[str]) -> list[str]:
        told.extend([*restarts, *reloads])
        return []

    monkeypatch.setattr(Programs, "reload", reload)
    return told


# Renames of a run: two backups, the journal, main.cf, master.cf, the journal again; of an undo: both files, the journal.
@pytest.mark.parametrize("number", [1, -2, 3, -3, 4, -4, -5, 6])
def test_killed_on_its_way_it_is_undone(here: SettingUp, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    before = here.files()
    with monkeypatch.context() as patch:
        kill_at(patch, number)
        with pytest.raises(Killed):
            here.run("--apply")
    is_changed = here.files() != before
    assert is_changed == (number in (-4, -5, 6))
    here.run("--undo")
    assert here.files() == before


@pytest.mark.parametrize("number", [1, -1, 2, -2, 3])
def test_killed_while_undoing_it_is_undone_by_the_next(
    here: SettingUp, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = here.files()
    here.run("--apply")
    with monkeypatch.context() as patch:
        kill_at(patch, number)
        with pytest.raises(Killed):
            here.run("--undo")
    told = noted_reloads(monkeypatch)
    here.run("--undo")
    assert here.files() == before
    assert told == ["postfix"]  # the one that was killed may have told nobody


def test_undone_on_a_full_disk_postfix_is_told(here: SettingUp, monkeypatch: pytest.MonkeyPatch) -> None:
    before = here.files()
    here.run("--apply")
    told = noted_reloads(monkeypatch)
    with monkeypatch.context() as patch:
        fill_disk(patch, 3, FOREVER)  # the journal, behind both files
        assert "No space left" in here.run("--undo", status=1)
    assert here.files() == before
    assert told == ["postfix"]
    here.run("--undo")
    assert "nothing to undo" in here.run("--undo")


def test_killed_on_its_way_it_is_applied_by_the_next_and_undone(
    here: SettingUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = here.files()
    with monkeypatch.context() as patch:
        kill_at(patch, -4)
        with pytest.raises(Killed):
            here.run("--apply")
    here.run("--apply")
    assert "Nothing is to be changed." in here.run()
    here.run("--undo")
    assert here.files() == before


def test_only_root_applies(here: SettingUp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root" in here.run("--apply", status=77)
    assert "only root" in here.run("--undo", status=77)


@pytest.mark.parametrize(
    "options", [("--undo", "--apply"), ("--undo", "--replace"), ("--only", "dkim"), ("--only", "")], ids=" ".join
)
def test_wrong_options_are_refused(here: SettingUp, options: tuple[str, ...]) -> None:
    here.run(*options, status=2)


def test_daemons_that_do_not_listen_are_named(here: SettingUp) -> None:
    found = here.json()["findings"]
    told = [each["text"] for each in found if each["weight"] == Weight.WARNING.value]
    assert [daemon for daemon in ALL if any(text.startswith(f"mailward-{daemon} does not") for text in told)] == list(
        ALL
    )
