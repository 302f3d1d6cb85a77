"""mailward setup - let the running Postfix and Dovecot ask Mailward

SYNOPSIS
    mailward setup [--only DAEMON,...] [--replace] [--json]
    mailward setup --apply [--only DAEMON,...] [--replace] [--json]
    mailward setup --undo [--json]

DESCRIPTION
    Reads what Postfix and Dovecot are configured to do (postconf, doveconf), and shows each setting that it would change,
    from what to what and why, and what it sees and leaves alone. Without --apply and --undo nothing is changed.

    --apply             do what was shown. Every file is saved before, in /var/backups/mailward/setup-TIME; then Postfix,
                        Dovecot and the daemons that run read their configuration anew. Where `postfix check`, postconf or
                        doveconf complain of something that they did not complain of before, all of it is taken back. A
                        second run changes nothing
    --undo              give back what every --apply on this Postfix has changed. A file that nobody has changed since is as
                        it was, to the octet; of main.cf and master.cf that were changed since, what is still ours is taken
                        out, and the rest is named. It also gives back what an --apply left that was killed on its way,
                        and works where the daemons are removed already
    --only DAEMONS      dkim-sign, auth-verify, greylist, policyd, separated by commas; default: those that are installed.
                        What is set up for others stays
    --replace           take out what does the same: OpenDKIM, dkimpy-milter, OpenDMARC, pyspf-milter, policyd-spf, postgrey,
                        milter-greylist, policyd-rate-limit. Without it they stay, in the right order, and are named. They go
                        on running; only Postfix asks them no more
    --json              one JSON object
    -c, --postfix-config FOLDER
                        another instance of Postfix; default: the machine's
    --dovecot-config FILE
                        Dovecot's configuration; default: Dovecot's own
    --config FILE       Mailward's configuration; default: /etc/mailward/mailward.toml

    What is put into Postfix are the lines of examples/postfix. The verifier and greylisting are asked by each smtpd that takes
    mail from strangers (behind postscreen: by its `smtpd pass`), the verifier first; the signer by each submission service,
    last, and on port 25 where users can log in there or nowhere else. The policy server is asked before a
    permit_sasl_authenticated that would end the list, on port 25 as late as it can be. The smtpd that takes mail back from a
    content filter asks nobody a second time; where a filter gives strangers' mail back by the sendmail command, nothing that
    comes by that is signed. A service that has taken its list over from main.cf has a list of its own then.
    Where nothing says who is asked about logins, Dovecot is.

    Mailward's own part is written into conf.d beside its configuration, Dovecot's into files of their own beside its own; never
    into a file that comes with a package.

    For example:

    mailward setup
    mailward setup --apply --only dkim-sign
    mailward setup --undo

DIAGNOSTICS
    Exit status 0: shown, done, or there was nothing to do. 1: refused, or a program complained and all was taken back; of
    --undo, something was left or a program complains. 2: wrong options. 69: Postfix is not installed. 73: a backup cannot be
    written. 75: another run is at work. 77: permission denied. 78: the configuration is wrong.

BUGS
    postconf writes an entry of master.cf anew where it changes a setting of it: comments in the middle of the entry stand before
    it afterwards. --undo gives back the file with its comments. What an access table answers is not looked into.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import click
from click.core import ParameterSource

from mailward.settings.load import DEFAULT_PATH
from postmaster.completion import FOLDER, next_of
from postmaster.explain.layout import printable
from postmaster.json_text import fields_of
from postmaster.opening import EX_NOPERM, EX_TEMPFAIL, leave
from postmaster.setup import journal
from postmaster.setup.apply import NotApplied, apply_plan
from postmaster.setup.dovecot_facts import CONFIG as DOVECOT
from postmaster.setup.looking import FOLDERS, Places, Seen, installed, look
from postmaster.setup.postfix_facts import default_folder
from postmaster.setup.programs import ProgramFailed, find_program
from postmaster.setup.running import Programs
from postmaster.setup.show import page_of, refusals, tree_of
from postmaster.setup.undo import Undone, undo_all
from postmaster.tables import print_json

EX_UNAVAILABLE, EX_CANTCREAT = 69, 73
NARROWEST, WIDEST = 60, 120


@click.command(help="Let the running Postfix and Dovecot ask Mailward: show what that takes, do it, take it back.")
@click.option("--apply", "is_apply", is_flag=True, help="Do what is shown; what was there is saved before.")
@click.option("--undo", "is_undo", is_flag=True, help="Give back what was there before.")
@click.option(
    "--only",
    metavar="DAEMON,...",
    shell_complete=lambda _context, _parameter, incomplete: next_of(tuple(FOLDERS), incomplete),
    help="For these daemons alone; default: those that are installed.",
)
@click.option("--replace", "is_replace", is_flag=True, help="Take out other programs that do the same.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object.")
@click.option("-c", "--postfix-config", type=FOLDER, metavar="FOLDER", help="Another instance of Postfix.")
@click.option("--dovecot-config", type=click.Path(path_type=Path), metavar="FILE", help="Dovecot's configuration.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=DEFAULT_PATH,
    show_default=True,
    help="Mailward's configuration.",
)
def setup(
    is_apply: bool,
    is_undo: bool,
    only: str | None,
    is_replace: bool,
    is_json: bool,
    postfix_config: Path | None,
    dovecot_config: Path | None,
    config: Path,
) -> None:
    """Show, apply or undo."""
    if is_undo and (is_apply or is_replace or only):
        raise click.UsageError("--undo gives back all of it, and takes no other option but --json and where things are")
    # What is undone may be of daemons that are gone.
    daemons = () if is_undo else _daemons(only)
    if (is_apply or is_undo) and os.geteuid() != 0:
        leave(EX_NOPERM, "only root can change what Postfix and Dovecot do")
    places = Places(config, postfix_config and postfix_config.absolute(), dovecot_config)
    try:
        if is_undo:
            sys.exit(_undo(places, is_json=is_json))
        seen = _look(places, daemons, is_replacing=is_replace)
        if not is_apply:
            _show(seen, is_json=is_json)
            return
        with journal.alone(journal.BACKUPS):
            seen = _look(places, daemons, is_replacing=is_replace)
            sys.exit(_apply(seen, is_json=is_json))
    except ProgramFailed as error:
        leave(1, printable(str(error)))
    except journal.Busy:
        leave(EX_TEMPFAIL, "another run of `mailward setup` is at work; try again when it has ended")
    except BrokenPipeError:  # `| head` has seen enough, and click knows
        raise
    except OSError as error:
        leave(EX_CANTCREAT, f"{printable(str(error.filename or 'writing'))}: {error.strerror}")


def _daemons(only: str | None) -> tuple[str, ...]:
    there = installed()
    if only is None:
        if not there:
            leave(
                EX_UNAVAILABLE,
                "no daemon is installed: apt install mailward; --undo takes out what there still is of those that were",
            )
        return there
    named = [name.strip() for name in only.split(",")]
    for name in named:
        if name not in FOLDERS:
            raise click.BadParameter(f"expected some of {', '.join(FOLDERS)}", param_hint="--only")
        if name not in there:
            leave(EX_UNAVAILABLE, f"mailward-{name} is not installed: apt install mailward-{name}")
    return tuple(daemon for daemon in FOLDERS if daemon in named)


def _look(places: Places, daemons: tuple[str, ...], *, is_replacing: bool) -> Seen:
    seen = look(places, daemons, is_replacing=is_replacing)
    if seen is None:
        leave(EX_UNAVAILABLE, "Postfix is not installed: apt install postfix")
    return seen


def _show(seen: Seen, *, is_json: bool) -> None:
    if is_json:
        print_json(tree_of(seen.plan, seen.facts))
        return
    _print_page(seen)
    if not seen.plan.changes:
        click.echo("\nNothing is to be changed." if not refusals(seen.plan) else "\nNothing can be changed like this.")
    elif refusals(seen.plan):
        click.echo("\nThis cannot be applied: see `refused` above.")
    else:
        click.echo(
            f"\nNothing was changed. This does it, and --undo takes it back:\n    mailward setup{_given()} --apply"
        )


def _given() -> str:
    """Return the options of this call, each behind a space: whoever applies without them does something else."""
    context = click.get_current_context()
    words = []
    for option in context.command.params:
        if context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE:
            words.append(option.opts[-1])
            value = context.params[option.name or ""]
            words += [] if value is True else [str(value)]
    return printable("".join(f" {shlex.quote(word)}" for word in words))


def _apply(seen: Seen, *, is_json: bool) -> int:
    plan, backup, failure = seen.plan, None, ""
    not_told: tuple[str, ...] = ()
    if refused := refusals(plan):
        failure = "nothing was changed: " + "; ".join(finding.text for finding in refused)
    elif plan.changes:
        try:
            applied = apply_plan(plan, seen.programs, journal.BACKUPS, time.time())
            backup, not_told = applied.backup, applied.not_told
        except NotApplied as error:
            failure = str(error)
    if is_json:
        outcome = {"backup": str(backup) if backup else None, "not_told": not_told, "failure": failure or None}
        print_json({**tree_of(plan, seen.facts), **outcome})
        return 1 if failure else 0
    _print_page(seen)
    for line in not_told:
        click.echo(f"mailward: {printable(line)}", err=True)
    if failure:
        click.echo(f"mailward: {printable(failure)}", err=True)
        return 1
    click.echo(f"\nDone. What was there is in {backup}." if backup else "\nNothing was to be changed.")
    return 0


def _undo(places: Places, *, is_json: bool) -> int:
    # Neither is read: what is undone may be why they cannot be.
    has_dovecot = find_program("doveconf") is not None and (places.dovecot or DOVECOT).is_file()
    programs = Programs(places.postfix or default_folder(), places.dovecot, has_dovecot)
    with journal.alone(journal.BACKUPS):
        undone = undo_all(programs, journal.BACKUPS)
    if is_json:
        print_json({**fields_of(undone), "restored": [str(path) for path in undone.restored]})
    else:
        _print_undone(undone)
    return 1 if undone.left or undone.complaints else 0


def _print_undone(undone: Undone) -> None:
    for path in undone.restored:
        click.echo(f"{printable(str(path))}: {'as it was' if path.exists() else 'gone, as before'}")
    for name in undone.settings:
        click.echo(f"{printable(name)}: as it was")
    for line in (*undone.left, *undone.complaints):
        click.echo(f"mailward: {printable(line)}", err=True)
    if not undone.runs:
        click.echo("There is nothing to undo.")


def _print_page(seen: Seen) -> None:
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    if text := page_of(seen.plan, seen.facts, width):
        click.echo(text)
