"""mailward explain - say why a stored message was treated as it was

SYNOPSIS
    mailward explain [OPTIONS] MESSAGE.eml

DESCRIPTION
    Judges a stored message as mailward-auth-verify would, and shows every step: SPF, each DKIM signature, ARC, the DMARC policy
    and where it was found, how the author domain is aligned with what passed, what follows, and which setting it follows from.
    Nothing is decided here: the milter's own judge is asked, with the same configuration.

    MESSAGE.eml is a file, - is stdin. What no option says of the envelope is read from the topmost Received and Return-Path
    fields, and the output tells where each part is from. The message is judged as it is given, with whatever was added on the
    way to where it is stored. Without a configuration at its usual place the defaults are judged by, which is told.

    TIME is one such as 2026-11-21T12:00:00Z, or seconds since 1970; by default it is that of the Received field. A zone file has
    whole names, or $ORIGIN; of what it does not have there is no such name.

    For example:

    mailward explain message.eml
    mailward explain message.eml --client-ip 192.0.2.7 --helo mx.example.com --mail-from bounces@example.com
    mailward explain message.eml --zone fixed.zone --json

ENVIRONMENT
    NO_COLOR
        Where it is set, or TERM is "dumb", nothing is coloured.
    COLUMNS
        The width of what is printed.

DIAGNOSTICS
    Exit status 0: the message was judged, whatever the verdict. 2: wrong options, or nothing says who sent the message. 65: no
    milter gets to judge it, its header being too large. 66: no such file. 78: the configuration is wrong.

BUGS
    The DNS of today is asked. What it said when the message came is not kept; --zone answers in its place.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import click

from mailward.adapters.dns_wire import Zone
from mailward.adapters.resolver import Resolver
from mailward.model.dns import Answer, Question
from mailward.model.domain import normalize
from mailward.settings.auth_verify import Settings
from mailward.settings.common import Dns
from mailward.settings.load import DEFAULT_PATH, Sections, read_sections, structure
from mailward.settings.values import nameserver
from postmaster.completion import ANY_FILE
from postmaster.explain.as_json import as_json
from postmaster.explain.envelope import Given, Untold, find_sending
from postmaster.explain.explanation import explain as explain_message
from postmaster.explain.layout import printable
from postmaster.explain.page import show
from postmaster.explain.stored_message import HeaderTooLarge, StoredMessage

EX_DATAERR = 65
EX_NOINPUT = 66
WIDTH_OF_A_PIPE = 100  # columns
NARROWEST, WIDEST = 60, 120
MAX_ZONE = 16 * 1024 * 1024

Ask = Callable[[Question], Answer]


@dataclass(frozen=True, slots=True)
class _Configured:
    """The settings, where they stand, and what is to be said of that."""

    settings: Settings
    sections: Sections
    notes: tuple[str, ...] = ()


def _read_time(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Read seconds since 1970, or ISO 8601; without a zone it is UTC."""
    if value is None:
        return None
    try:
        if value.isascii() and value.isdigit():
            seconds = float(value[:12])
        else:
            parsed = datetime.datetime.fromisoformat(value)
            seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()
        datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter('expected a time such as "2026-11-21T12:00:00Z", or seconds since 1970') from None
    return seconds


def _read_address(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    text = value.removeprefix("IPv6:").removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise click.BadParameter("expected an IP address") from None
    return text


def _read_path(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    return value if value is None else value.removeprefix("<").removesuffix(">")


@click.command()
@click.argument("message", metavar="MESSAGE.eml", type=ANY_FILE)
@click.option("--client-ip", metavar="ADDRESS", callback=_read_address, help="The client's address.")
@click.option("--helo", metavar="NAME", help="The name it gave itself.")
@click.option(
    "--mail-from", metavar="ADDRESS", callback=_read_path, help="The envelope's sender; <> is the null sender."
)
@click.option("--login", metavar="NAME", help="The SASL login of a client that logged in; empty: it did not.")
@click.option("--received", metavar="N", type=int, help="The Received field that tells all this, 1 at the top.")
@click.option("--now", metavar="TIME", callback=_read_time, help="When it came in, for signatures that expire.")
@click.option(
    "--zone",
    "zones",
    type=ANY_FILE,
    metavar="FILE",
    multiple=True,
    help="Answer from a zone file, not from the DNS; may be repeated.",
)
@click.option("--json", "is_json", is_flag=True, help="One JSON object.")
@click.option(
    "--config", type=click.Path(path_type=Path), default=DEFAULT_PATH, show_default=True, help="The configuration."
)
@click.pass_context
def explain(
    context: click.Context,
    message: str,
    client_ip: str | None,
    helo: str | None,
    mail_from: str | None,
    login: str | None,
    received: int | None,
    now: float | None,
    zones: tuple[str, ...],
    is_json: bool,
    config: Path,
) -> None:
    """Judge a stored message as mailward-auth-verify would, and show every step.

    MESSAGE.eml is a file, - is stdin. What no option says of the envelope is read from the topmost Received and Return-Path
    fields; the output tells where each part is from. The message is judged as it is given, with whatever was added on the
    way to where it is stored.
    """
    given = Given(client_ip, helo, mail_from, login, now, received)
    configured = _read_configuration(context, config)
    with _open(message) as stream:
        try:
            stored = StoredMessage(stream)
            sending = find_sending(stored.header, given, time.time())
        except Untold as error:
            raise click.UsageError(str(error)) from None
        except HeaderTooLarge as error:
            _leave(EX_DATAERR, f"{message}: {error}: the milter answers 552 and judges nothing")
        with _asking(zones, configured.settings.dns) as ask:
            told = explain_message(
                stored,
                sending,
                configured.settings,
                configured.sections,
                ask,
                time.perf_counter,
                (*configured.notes, *_zone_notes(zones)),
            )
    if is_json:
        click.echo(as_json(told))
    else:
        click.echo(show(told, _width()), color=False if _is_plain() else None)


def _read_configuration(context: click.Context, path: Path) -> _Configured:
    """Read the configuration; without one at its usual place the defaults are judged by, which is told."""
    is_default = context.get_parameter_source("config") is click.core.ParameterSource.DEFAULT
    if is_default and not path.exists():
        return _Configured(Settings(), Sections(), (f"There is no {path}: judged by the defaults.",))
    sections = read_sections(path)
    return _Configured(structure(sections, Settings), sections)


@contextlib.contextmanager
def _open(message: str) -> Iterator[BinaryIO]:
    if message == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(message, "rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        _leave(EX_NOINPUT, f"{message}: {_reason(error)}")
    with stream:
        yield stream


@contextlib.contextmanager
def _asking(zones: tuple[str, ...], dns: Dns) -> Iterator[Ask]:
    """Yield what the message is judged with: zone files, or the DNS as the milter asks it."""
    if zones:
        yield _read_zones(zones).ask
        return
    resolver = Resolver(
        [nameserver(item) for item in dns.nameservers],
        dns.timeout,
        dns.deadline,
        queries=dns.queries,
        control="" if dns.control == "." else normalize(dns.control),
    )
    try:
        yield resolver.for_message().ask
    finally:
        resolver.close()


def _read_zones(paths: tuple[str, ...]) -> Zone:
    """Read zone files as one; each is tried alone, so that a mistake is told with its file and line."""
    texts = []
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read(MAX_ZONE + 1)
        except (OSError, ValueError) as error:
            _leave(EX_NOINPUT, f"{path}: {_reason(error)}")
        if len(text) > MAX_ZONE:
            raise click.BadParameter(f"{path}: larger than {MAX_ZONE // 1024 // 1024} MiB", param_hint="--zone")
        try:
            Zone(text)
        except ValueError as error:
            raise click.BadParameter(f"{path}: {error}", param_hint="--zone") from None
        texts.append(text)
    return Zone("\n$ORIGIN .\n".join(texts))


def _zone_notes(zones: tuple[str, ...]) -> list[str]:
    return [f"The answers are from {', '.join(zones)}, not from the DNS."] if zones else []


def _width() -> int:
    """Return the terminal's width; a pipe has none, and gets one unless COLUMNS says otherwise."""
    columns = shutil.get_terminal_size((WIDTH_OF_A_PIPE, 24)).columns
    return min(max(columns, NARROWEST), WIDEST)


def _is_plain() -> bool:
    """Say whether colours are unwanted even in a terminal (no-color.org)."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or "no file can have that name"


def _leave(status: int, why: str) -> NoReturn:
    click.echo(f"mailward: {printable(why)}", err=True)  # a file's name may be anybody's
    sys.exit(status)
