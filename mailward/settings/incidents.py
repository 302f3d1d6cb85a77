"""`[policyd.incidents]`: when an incident is over, who is told of it, and how open sessions of a suspended account are ended."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

import attrs

from mailward.settings.common import at_least, at_most
from mailward.settings.values import Duration, Port
from mailward.settings.words import says

MAX_RECIPIENTS = 50
MAX_WORDS = 50  # of the command
MAX_URL = 1000

_ADDRESS = re.compile(r"[!-~]{1,64}@[A-Za-z0-9._\[\]:-]{1,255}|[A-Za-z0-9._+-]{1,64}", re.ASCII)


def _check_addresses(_instance: object, _attribute: object, values: tuple[str, ...]) -> None:
    if len(values) > MAX_RECIPIENTS:
        raise ValueError(f"expected at most {MAX_RECIPIENTS} addresses")
    for value in values:
        _check_address(value)


def _check_sender(_instance: object, _attribute: object, value: str) -> None:
    if value:
        _check_address(value)


def _check_address(value: str) -> None:
    if not _ADDRESS.fullmatch(value) or re.search(r'[<>()",;\\]', value):
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
    """`[policyd.incidents]`."""

    quiet: Duration = attrs.field(
        default=Duration(3600.0),
        validator=[at_least(1, "1s"), at_most(30 * 86400, "30d")],
        metadata=says("An incident is over once its account has reached no limit for so long."),
    )
    settle: Duration = attrs.field(
        default=Duration(10.0),
        validator=[at_least(0, "0s"), at_most(600, "10m")],
        metadata=says("It is told of so long after it opened, so that a suspension within that time is told with it."),
    )
    mail_to: tuple[str, ...] = attrs.field(
        default=("postmaster",), validator=_check_addresses, metadata=says("Who gets mail of it. `[]`: nobody.")
    )
    mail_from: str = attrs.field(
        default="",
        validator=_check_sender,
        metadata=says(
            "The sender of that mail. Empty: the null sender, to which no answer comes.",
            example='"mailward@example.com"',
        ),
    )
    smtp: Port = attrs.field(
        default=Port("127.0.0.1", 25), metadata=says("Where that mail is given to, by SMTP without authentication.")
    )
    webhook: str = attrs.field(
        default="",
        validator=_check_url,
        metadata=says(
            "A URL to which it is posted as JSON. Empty: none.", example='"https://chat.example.net/hooks/mailward"'
        ),
    )
    webhook_key_file: Path | None = attrs.field(
        default=None,
        validator=_check_key_file,
        metadata=says(
            "A file with the key that the webhook is shown (`Authorization: Bearer`).",
            example='"/etc/mailward/webhook-key"',
        ),
    )
    command: tuple[str, ...] = attrs.field(
        default=(),
        validator=_check_command,
        metadata=says(
            """A program and its arguments, started without a shell: JSON on its standard input, MAILWARD_EVENT,
            MAILWARD_ACCOUNT, MAILWARD_SUBJECT and others in its environment. `[]`: none.""",
            example='["/usr/local/bin/tell-somebody", "mail"]',
        ),
    )
    doveadm: str = attrs.field(
        default="",
        validator=_check_doveadm,
        metadata=says(
            """The URL of Dovecot's HTTP API for doveadm, through which the open sessions of a suspended account are
            ended. Empty: they are not. Needs `doveadm_key_file`.""",
            example='"http://127.0.0.1:9466/doveadm/v1"',
        ),
    )
    doveadm_key_file: Path | None = attrs.field(
        default=None,
        validator=_check_key_file,
        metadata=says("A file with that API's key (doveadm_api_key).", example='"/etc/mailward/doveadm-api-key"'),
    )
