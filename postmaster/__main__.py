"""mailward - the postmaster's command

SYNOPSIS
    mailward COMMAND [OPTIONS]

DESCRIPTION
    Makes keys, explains verdicts, shows and changes what greylisting and limits go by, and sets up Postfix and Dovecot. It reads
    the configuration of Mailward's daemons. None of them has to run; only setup wants the signer and the verifier to answer
    before Postfix asks them.

    keys new DOMAIN     make a signing key, give it to the signer, and print its DNS record
    keys show           print the DNS records of the configured keys
    keys verify         ask the DNS whether the configured keys are published
    setup               let the running Postfix and Dovecot ask Mailward: show what that takes, do it (--apply), take it back
                        (--undo): mailward-setup(1)
    explain MESSAGE     judge a stored message as mailward-auth-verify would, and show every step
    limits COMMAND      see and change what mailward-policyd counts, and whom it has stopped: list, show, raise, reset, suspend,
                        resume, incidents, audit: mailward-limits(1)
    greylist COMMAND    see and change what greylisting remembers: off, on, list, show, allow, deny, forget, stats, export,
                        import: mailward-greylist(1)

DIAGNOSTICS
    Exit status 0: done, or all is well; of explain whatever the verdict. 1: what was asked about is not well. 2: wrong
    options. 65: a message that no milter gets to judge, its header being too large; a file to import that is not what it
    should be. 66: no such file. 69: a program that is needed is not installed. 73: a file cannot be written. 75: the DNS was
    away, or the state, so nothing could be said or done. 77: permission denied. 78: the configuration is wrong; each mistake
    has a line on stderr.
"""

from __future__ import annotations

import sys

import click

import mailward
from mailward.daemon.cli import EX_CONFIG
from mailward.model.errors import ConfigError
from postmaster.explain.command import explain
from postmaster.greylist.command import greylist
from postmaster.keys import keys
from postmaster.limits.command import limits
from postmaster.setup.command import setup


class _Mailward(click.Group):
    """Turns a wrong configuration into its messages, whichever sub-command found it."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            for mistake in error.mistakes:
                click.echo(f"mailward: {mistake}", err=True)
            sys.exit(EX_CONFIG)


@click.group(
    cls=_Mailward,
    help="Make keys, explain verdicts, see and change greylisting and limits, set up Postfix and Dovecot.",
)
@click.version_option(mailward.__version__, prog_name="mailward")
def main() -> None:
    """Hold the sub-commands."""


main.add_command(keys)
main.add_command(explain)
main.add_command(greylist)
main.add_command(limits)
main.add_command(setup)

if __name__ == "__main__":
    main()
