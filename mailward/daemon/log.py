"""The log: one line an event, `key=value`, to stderr, where journald or a container's log takes it.

Whatever came from outside is escaped and clipped, so that no message can write a line of its own. Five levels with one
meaning each: debug; info, one line per message; warning, the outside misbehaved; error, we degraded; critical, the
operator must act.
"""

from __future__ import annotations

import logging
import os
import re
import select
import threading
import time
from collections.abc import MutableMapping
from typing import Any

import structlog

MAX_VALUE = 400  # characters of one value; a line stays under what syslog and journald keep whole
MAX_TRACEBACK = 3000
MAX_LINE = 3900  # octets: with its line end less than PIPE_BUF, so that a line is written whole or not at all
WAIT_MS = 20
STDERR = 2

_PLAIN = re.compile(r"[A-Za-z0-9!#$%&()*+,./:;<>?@\[\]^_`{|}~-]+")  # no space, quote, backslash, equals sign
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff"
    r'\U000e0000-\U000e0fff"\\]'
)

# journald reads the priority from `<N>` before the line (sd-daemon(3)).
_PRIORITY = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}

Log = structlog.typing.FilteringBoundLogger


def configure(level: str = "info") -> None:
    """Set the log up for this process and those it forks: level, format, stderr."""
    structlog.configure(
        processors=[_Renderer()],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=_StderrFactory(),
        cache_logger_on_first_use=True,
    )


def get(program: str) -> Log:
    """Return the log of a program; its lines begin with the event."""
    log: Log = structlog.get_logger(program=program)
    return log


def quote(value: object) -> str:
    r"""Return `value` as it stands behind `key=`: bare where it is plain, else in quotes, escaped, clipped.

    >>> quote('a"b' + chr(10))
    '"a\\"b\\x0a"'
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    text = str(value)
    if len(text) > MAX_VALUE:
        text = text[:MAX_VALUE] + "…"
    if _PLAIN.fullmatch(text):
        return text
    return '"' + _clip(_UNSAFE.sub(_escape, text)) + '"'


def _clip(escaped: str) -> str:
    """Clip what has grown by being escaped: no value pushes the ones behind it out of the line."""
    if len(escaped) <= 2 * MAX_VALUE:
        return escaped
    clipped = escaped[: 2 * MAX_VALUE]
    return clipped[: clipped.rfind("\\")] + "…"


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _Renderer:
    """Turns an event into its line: level, exception and all in one step, because it runs once a message."""

    def __init__(self) -> None:
        self._is_journald = "JOURNAL_STREAM" in os.environ

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        level = "error" if method == "exception" else method
        exception = ""
        if "exc_info" in event:
            exception = structlog.processors.format_exc_info(logger, method, event).pop("exception", "")
        start = _PRIORITY[level] if self._is_journald else time.strftime("%Y-%m-%dT%H:%M:%S%z ")
        line = f"{start}level={level} program={event.pop('program')} event={quote(event.pop('event'))}"
        line += "".join([f" {key}={quote(value)}" for key, value in event.items() if value not in ("", None)])
        if exception:
            line += " traceback=" + '"' + _UNSAFE.sub(_escape, exception[-MAX_TRACEBACK:]) + '"'
        return line


class _StderrFactory:
    """Makes the one logger there is."""

    def __call__(self, *_arguments: object) -> _Stderr:
        return _Stderr()


class _Stderr:
    """Writes each line with one system call, so that lines of several workers never mix."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dropped = 0
        self._poll = select.poll()
        self._poll.register(STDERR, select.POLLOUT)

    def _write(self, line: str) -> None:
        """Write a line, or drop it: mail goes on where nobody reads the log, or the disk is full."""
        data = line.encode("utf-8", "backslashreplace")[:MAX_LINE] + b"\n"
        with self._lock:
            try:
                if not self._poll.poll(WAIT_MS):  # a pipe that is ready takes a line of this length whole
                    self._dropped += 1
                    return
                if self._dropped:
                    data = b"level=error event=log-lines-dropped count=%d\n" % self._dropped + data
                    self._dropped = 0
                os.write(STDERR, data)
            except OSError:
                self._dropped += 1

    debug = info = warning = error = critical = _write
