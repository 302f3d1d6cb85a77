"""The command line every daemon shares: --config, --check, --version; what goes wrong before there is a log goes to stderr.

Exit status: 0, ended as told; 1, could not serve; 2, wrong options; 78 (EX_CONFIG of sysexits.h), the configuration is wrong.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

import mailward
from mailward.daemon import log as logging
from mailward.daemon.listener import group_warnings, listen, take_inherited
from mailward.daemon.log import Log
from mailward.daemon.metrics import Metrics, check_specs
from mailward.daemon.pages import Pages
from mailward.daemon.program import Loaded, Program
from mailward.daemon.shown import check_shown
from mailward.daemon.status import StatusServer, address_warnings
from mailward.daemon.supervisor import Supervisor
from mailward.model.errors import ConfigError
from mailward.settings.load import DEFAULT_PATH

EX_CONFIG = 78
MAX_DESCRIPTORS = 16_384  # of a process; more than max_sessions has use for


def command(program: Program) -> Callable[[], None]:
    """Return the click command that runs `program`."""

    @click.command(name=f"mailward-{program.name}", help=_summary(program.manual))
    @click.version_option(mailward.__version__, prog_name=f"mailward-{program.name}")
    @click.option(
        "--config", type=click.Path(path_type=Path), default=DEFAULT_PATH, show_default=True, help="The configuration."
    )
    @click.option("--check", is_flag=True, help="Check configuration, keys and tables, say what is wrong, and exit.")
    def run(config: Path, check: bool) -> None:
        _open_standard_descriptors()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the supervisor listens for it
        try:
            loaded = program.load(config)
            if check:
                service = loaded.service
                here = (*group_warnings(service.socket_group), *address_warnings(service.metrics))
                for warning in (*loaded.all_warnings(), *here, *loaded.look()):
                    click.echo(f"warning: {warning}", err=True)
                click.echo(f"{config}: good")
                return
            status = _serve(program, config, loaded)
        except ConfigError as error:
            for mistake in error.mistakes:
                click.echo(f"mailward-{program.name}: {mistake}", err=True)
            sys.exit(EX_CONFIG)
        sys.exit(status)

    return run


def _open_standard_descriptors() -> None:
    """See that 0, 1 and 2 are open: a socket that got one of these numbers would receive the log."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _raise_descriptor_limit(log: Log) -> None:
    """Allow as many open files as the account may have: each session is one, and asks the DNS over two more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:
        log.warning("descriptor-limit", soft=soft, wanted=wanted, reason=str(error))


def _summary(manual: str) -> str:
    """Return the first paragraph of the manual's DESCRIPTION."""
    return manual.partition("DESCRIPTION\n")[2].strip().partition("\n\n")[0]


def _serve(program: Program, config: Path, loaded: Loaded) -> int:
    service = loaded.service
    logging.configure(service.log_level)
    log = logging.get(program.name)
    if os.geteuid() == 0:
        log.warning("running-as-root", advice="the packages' units run each daemon as an account of its own")
    _raise_descriptor_limit(log)
    check_specs(program.metrics)
    check_shown(program.shown, program.metrics)
    metrics = Metrics(program.metric_prefix, program.metrics)
    table = program.name
    wanted = {"socket": service.socket, **loaded.other_sockets}
    listeners = listen(wanted, take_inherited(), service.socket_mode, service.socket_group, table)
    supervisor = Supervisor(program, config, listeners, metrics, log)
    try:
        if service.metrics is not None:
            pages = Pages(program, supervisor, metrics)
            server = StatusServer(service.metrics, supervisor.selector, pages.respond, log, f"{table}.metrics")
            supervisor.on_child(server.close_inherited)
            supervisor.on_tick(server.expire)
            supervisor.on_tick(pages.remember)
        gc.disable()  # the supervisor makes no cycles, and what it never touches stays shared with its workers
        return supervisor.run(loaded)
    except ConfigError:
        for listener in listeners.values():
            listener.remove()
        raise
