"""`[policyd.incidents]`: when an incident is over, who is told of it, and how open sessions of a suspended account are ended."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

import attrs

from mailward.settings.common import at_least, at_most
from mailward.settings.values import Duration, Port

MAX_RECIPIENTS = 50
MAX_WORDS = 50  # of the command
MAX_URL = 1000

_ADDRESS = re.compile(r"[!-~]{1,64}@[A-Za-z0-9._\[\]:-]{1,255}|[A-Za-z0-9._+-]{1,64}", re.ASCII)


def _check_addresses(_instance: object, _attribute: object, values: tuple[str, ...]) -> None:
    if len(values) > MAX_RECIPIENTS:
        raise ValueError(f"expected at most {MAX_RECIPIENTS} addresses")
    for value in values:
        _check_address(None, None, value)


def _check_address(_instance: object, _attribute: object, value: str) -> None:
    if value and (not _ADDRESS.fullmatch(value) or re.search(r'[<>()",;\\]', value)):
        raise ValueError(f'expected addresses such as "postmaster" or "abuse@example.net", found "{value[:80]}"')


def _check_url(_instance: object, _attribute: object, value: str) -> None:
    if not value:
        return
    expected = 'expected an address such as "https://chat.example.net/hook"'
    if len(value) > MAX_URL or not re.fullmatch("[!-~]+", value):
        raise ValueError(expected)
    try:
        parts = urllib.parse.urlsplit(value)
        has_place = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is none, half an IPv6 address
        raise ValueError(expected) from None
    if parts.scheme not in ("http", "https") or not has_place:
        raise ValueError(expected)
    if "@" in parts.netloc:
        raise ValueError(f"{expected}; a password belongs into the key file, which others cannot read")


def _check_doveadm(instance: Incidents, attribute: object, value: str) -> None:
    _check_url(instance, attribute, value)
    if value and instance.doveadm_key_file is None:
        raise ValueError("expected doveadm_key_file beside it: Dovecot's HTTP API answers nobody without its key")


def _check_command(_instance: object, _attribute: object, words: tuple[str, ...]) -> None:
    if len(words) > MAX_WORDS:
        raise ValueError(f"expected at most {MAX_WORDS} words")
    if words and not words[0].startswith("/"):
        raise ValueError(f'expected the program with its whole path, such as "/usr/local/bin/tell", found "{words[0]}"')


def _check_key_file(_instance: object, _attribute: object, path: Path | None) -> None:
    if path is not None and not path.is_absolute():
        raise ValueError("expected a file with its whole path")


@attrs.frozen(kw_only=True)
class Incidents:
    """`[policyd.incidents]`.

    An incident is over once its account has reached no limit for `quiet`. It is told `settle` after it opened, so that a
    suspension within that time is told with it. Told are: `mail_to`, by SMTP to `smtp`, from `mail_from` (empty: the null
    sender); the URL `webhook`, with the key in `webhook_key_file`; and `command`, which is started without a shell. A
    suspended account's sessions are ended through `doveadm`, the URL of Dovecot's HTTP API.
    """

    quiet: Duration = attrs.field(default=Duration(3600.0), validator=[at_least(1, "1s"), at_most(30 * 86400, "30d")])
    settle: Duration = attrs.field(default=Duration(10.0), validator=[at_least(0, "0s"), at_most(600, "10m")])
    mail_to: tuple[str, ...] = attrs.field(default=("postmaster",), validator=_check_addresses)
    mail_from: str = attrs.field(default="", validator=_check_address)
    smtp: Port = Port("127.0.0.1", 25)
    webhook: str = attrs.field(default="", validator=_check_url)
    webhook_key_file: Path | None = attrs.field(default=None, validator=_check_key_file)
    command: tuple[str, ...] = attrs.field(default=(), validator=_check_command)
    doveadm: str = attrs.field(default="", validator=_check_doveadm)
    doveadm_key_file: Path | None = attrs.field(default=None, validator=_check_key_file)
