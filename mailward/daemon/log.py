"""The log: one line an event, `key=value`, to stderr, where journald or a container's log takes it.

Whatever came from outside is escaped and clipped, so that no message can write a line of its own. Five levels with one
meaning each: debug; info, one line per message; warning, the outside misbehaved; error, we degraded; critical, the
operator must act.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import structlog

MAX_VALUE = 400  # characters of one value; a line stays under what syslog and journald keep whole
MAX_VALUE_OCTETS = 800
MAX_TRACEBACK = 3000
MAX_LINE = 3900  # octets: with its line end less than PIPE_BUF, so that a line is written whole or not at all
WAIT_MS = 20
STDERR = 2

_PLAIN_CHARACTERS = r"[A-Za-z0-9!#$%&()*+,./:;<>?@\[\]^_`{|}~-]"  # no space, quote, backslash, equals sign
_PLAIN = re.compile(_PLAIN_CHARACTERS + "+")
_PLAIN_PAIRS = re.compile(rf"(?>(?: [a-z_]++={_PLAIN_CHARACTERS}{{1,{MAX_VALUE}}}+)*)")
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff"
    r'\U000e0000-\U000e0fff"\\]'
)
# Escaped text without the half of an escape.
_WHOLE = re.compile(r'(?:[^\\]|\\(?:["\\]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}))*')

# journald reads the priority from `<N>` before the line (sd-daemon(3)).
_PRIORITY = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}

Log = structlog.typing.FilteringBoundLogger


def _watch_nothing(_level: str, _line: str) -> None:
    pass


_watch: Callable[[str, str], None] = _watch_nothing


def configure(level: str = "info") -> None:
    """Set the log up for this process and those it forks: level, format, stderr."""
    renderer = _Renderer()
    structlog.configure(
        processors=[renderer],
        wrapper_class=_with_short_way(
            structlog.make_filtering_bound_logger(getattr(logging, level.upper())), renderer, level
        ),
        logger_factory=_StderrFactory(),
        cache_logger_on_first_use=True,
    )


def _with_short_way(logger_class: type[Log], renderer: _Renderer, level: str) -> type[Log]:
    """Let the line that each message writes go straight to the renderer: a third less than by way of structlog's own."""
    if logging.getLevelName(level.upper()) > logging.INFO:
        return logger_class

    class Logger(logger_class):  # type: ignore[valid-type, misc]
        def info(self, event: str, **fields: object) -> None:
            if self._processors[-1] is renderer:
                self._logger.info(renderer(None, "info", {**self._context, "event": event, **fields}))
            else:  # somebody has wrapped a logger in another way
                super().info(event, **fields)

    return Logger


def watch(act: Callable[[str, str], None]) -> None:
    """Have `act` called with level and line of each warning, error and critical line of this process; it must not log or fail."""
    global _watch  # noqa: PLW0603 - one log, one watcher: each process has its own, and takes its parent's place after the fork
    _watch = act


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
    """Clip what has grown by being escaped, or has letters of several octets: no value pushes others out of the line."""
    octets = escaped.encode()
    if len(octets) <= MAX_VALUE_OCTETS:
        return escaped
    whole = _WHOLE.match(octets[:MAX_VALUE_OCTETS].decode("utf-8", "ignore"))
    assert whole is not None  # it matches nothing, too
    return whole.group() + "…"


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
        start = _PRIORITY[level] if self._is_journald else time_of(int(time.time())) + " "
        line = f"{start}level={level} program={event.pop('program')} event={quote(event.pop('event'))}"
        line += _pairs({key: value for key, value in event.items() if value not in ("", None)})
        if exception:
            line += " traceback=" + '"' + _UNSAFE.sub(_escape, exception[-MAX_TRACEBACK:]) + '"'
        return line


@functools.lru_cache(maxsize=2)
def time_of(second: int) -> str:
    """Return a time, in seconds since 1970, as a line begins with it. Raises ValueError, OverflowError or OSError: it is none."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))


def _pairs(values: Mapping[str, object]) -> str:
    """Return ` key=value` for each value; where all are plain, as in most lines, one look at the whole is enough."""
    pairs = "".join(
        [
            f" {key}={value.decode('ascii', 'replace') if isinstance(value, bytes) else value}"
            for key, value in values.items()
        ]
    )
    if pairs.count("=") == len(values) and _PLAIN_PAIRS.fullmatch(pairs):
        return pairs
    return "".join([f" {key}={quote(value)}" for key, value in values.items()])


class _StderrFactory:
    """Makes the one logger there is."""

    def __call__(self, *_arguments: object) -> _Stderr:
        return _Stderr()


class _Stderr:
    """Writes each line with one system call that never waits, so that lines of several workers never mix."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dropped = 0
        self._put = _open_sink()

    def _write(self, line: str) -> None:
        """Write a line, or drop it: mail goes on where nobody reads the log, or the disk is full."""
        data = line.encode("utf-8", "backslashreplace")
        if len(data) > MAX_LINE:  # journald shows nothing of a line with half a character in it
            data = data[:MAX_LINE].decode("utf-8", "ignore").encode()
        data += b"\n"
        with self._lock:
            try:
                if self._dropped:
                    data = b"level=error event=log-lines-dropped count=%d\n" % self._dropped + data
                try:
                    self._put(data)
                except BlockingIOError:
                    if not _has_room(WAIT_MS):
                        raise
                    self._put(data)
                self._dropped = 0
            except OSError:
                self._dropped += 1

    debug = info = _write

    def warning(self, line: str) -> None:
        self._write(line)
        _watch("warning", line)

    def error(self, line: str) -> None:
        self._write(line)
        _watch("error", line)

    def critical(self, line: str) -> None:
        self._write(line)
        _watch("critical", line)


def _open_sink() -> Callable[[bytes], int]:
    """Return what writes a line to stderr whole, or raises BlockingIOError.

    Without waiting and without asking first whether there is room, which costs a twentieth of a message. Stderr itself stays
    in blocking mode: others write to it too.
    """
    status = os.fstat(STDERR)
    kind = status.st_mode
    if stat.S_ISREG(kind):
        return functools.partial(os.write, STDERR)  # a file never makes anybody wait
    if stat.S_ISSOCK(kind):  # journald's; a line is one buffer to the kernel, which takes it whole or not at all
        journal = socket.socket(fileno=os.dup(STDERR))
        return lambda data: journal.send(data, socket.MSG_DONTWAIT)
    try:
        own = _opened_again(status.st_dev, status.st_ino)
    except OSError:  # another account's pipe
        return _write_if_room
    return functools.partial(os.write, own)


@functools.cache  # each reload sets the log up again, and nobody closes this
def _opened_again(_device: int, _inode: int) -> int:
    """Return a descriptor of our own for what stderr is now. Raises OSError."""
    return os.open(f"/proc/self/fd/{STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _write_if_room(data: bytes) -> int:
    if not _has_room(0):
        raise BlockingIOError
    return os.write(STDERR, data)  # a pipe that is ready takes a line of this length whole


def _has_room(milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    return bool(poll.poll(milliseconds))


class LogEvents:
    """Writes to the log what the adapters tell of themselves."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __call__(self, level: str, event: str, **fields: object) -> None:
        """Write one event; `level` is one of the log's."""
        write = {
            "info": self._log.info,
            "warning": self._log.warning,
            "error": self._log.error,
            "critical": self._log.critical,
        }[level]
        write(event, **fields)
