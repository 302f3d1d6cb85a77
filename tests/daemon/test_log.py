"""The log: one line an event, whatever is in it; nothing from outside writes a line or a key of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailward.daemon.log import MAX_LINE, MAX_TRACEBACK, MAX_VALUE, MAX_VALUE_OCTETS, _Renderer, quote

Render = Callable[..., str]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("a@b.example", "a@b.example", id="an address stands bare"),
        pytest.param("2026a._domainkey.b.example", "2026a._domainkey.b.example", id="a name stands bare"),
        pytest.param(3, "3", id="a number"),
        pytest.param(1.5, "1.5", id="a fraction"),
        pytest.param(False, "False", id="a truth value"),
        pytest.param("", '""', id="nothing"),
        pytest.param("a b", '"a b"', id="a space"),
        pytest.param("a=b", '"a=b"', id="an equals sign"),
        pytest.param('a"b', r'"a\"b"', id="a quote"),
        pytest.param("a\\", r'"a\\"', id="a backslash"),
        pytest.param("a\nb", r'"a\x0ab"', id="a line feed"),
        pytest.param("a\r\tb", r'"a\x0d\x09b"', id="carriage return and tab"),
        pytest.param("\x00\x1b[31m\x7f", r'"\x00\x1b[31m\x7f"', id="NUL, escape, delete"),
        pytest.param("\x85\x9b\xa0", r'"\x85\x9b\xa0"', id="C1 controls and no-break space"),
        pytest.param("\u2028\u2029", r'"\u2028\u2029"', id="line and paragraph separator"),
        pytest.param("\udc80", r'"\udc80"', id="a lone surrogate"),
        pytest.param("\u00fc\u4f8b", '"\u00fc\u4f8b"', id="letters of the world"),
        pytest.param(b"a@b.example", "a@b.example", id="octets"),
        pytest.param("b\u00fccher".encode(), '"b\u00fccher"', id="UTF-8 octets"),
        pytest.param(b"\xff\n", r'"\\xff\x0a"', id="octets that are no UTF-8"),
        pytest.param("x" * MAX_VALUE, "x" * MAX_VALUE, id="the longest value"),
        pytest.param("x" * (MAX_VALUE + 1), '"' + "x" * MAX_VALUE + '\u2026"', id="a longer one is clipped"),
        pytest.param(
            "\n" * MAX_VALUE, '"' + r"\x0a" * (MAX_VALUE // 2) + '\u2026"', id="clipped again once it is escaped"
        ),
        pytest.param(
            "a" + "\n" * MAX_VALUE, '"a' + r"\x0a" * (MAX_VALUE // 2 - 1) + '\u2026"', id="and never within an escape"
        ),
        pytest.param(
            "\\" + "\U0001f600" * MAX_VALUE,
            '"\\\\' + "\U0001f600" * 199 + '\u2026"',
            id="long letters take no more room",
        ),
        pytest.param("a\u200bb\ufeff", r'"a\u200bb\ufeff"', id="what is not seen"),
    ],
)
def test_a_value_stands_bare_or_escaped(value: object, shown: str) -> None:
    assert quote(value) == shown


@pytest.fixture
def render(monkeypatch: pytest.MonkeyPatch) -> Render:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    return make_render()


def make_render() -> Render:
    """Return a function that renders one event of the program `test`."""
    renderer = _Renderer()

    def render(event: str, level: str = "info", **values: object) -> str:
        return renderer(None, level, {"event": event, "program": "test", **values})

    return render


def test_a_line_begins_with_its_time_and_names_level_program_and_event(render: Render) -> None:
    line = render("signed", domain="b.example", milliseconds=3)
    expected = (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} level=info program=test event=signed domain=b.example milliseconds=3"
    )
    assert re.fullmatch(expected, line)


def test_values_that_are_empty_are_left_out_and_zero_is_not(render: Render) -> None:
    assert render("x", a="", b=None, c=0, d=False).endswith("event=x c=0 d=False")


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)]
)
def test_journald_gets_the_priority_before_the_line(monkeypatch: pytest.MonkeyPatch, level: str, priority: int) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:12345")
    assert make_render()("x", level) == f"<{priority}>level={level} program=test event=x"


def test_a_traceback_stays_on_the_line_and_keeps_its_end(render: Render) -> None:
    line = render("bug", "error", exc_info=ValueError("x" * 2 * MAX_TRACEBACK + '\n  File "a.py"\u2028'))
    assert line.endswith(r'xxx\x0a  File \"a.py\"\u2028"')
    assert line.startswith("level=error program=test event=bug traceback=", line.index("level="))
    assert len(line) < MAX_TRACEBACK + 200
    assert len(line.splitlines()) == 1


PAIR = re.compile(r' ([a-z]+)=("(?:[^"\\]|\\.)*"|[^ "\\=]+)')
from_outside = (
    st.text()
    | st.text('a =\\"\n\r\x85\u2028\ud800')
    | st.binary()
    | st.sampled_from(["x program=evil", 'x" program="evil'])
)


@given(event=from_outside, subject=from_outside, exception=st.none() | st.builds(ValueError, from_outside))
def test_no_value_makes_a_line_or_a_key_of_its_own(
    event: str | bytes, subject: str | bytes, exception: ValueError | None
) -> None:
    render = make_render()
    line = render(event, subject=subject, exc_info=exception)
    assert len(line.splitlines()) == 1
    line.encode("utf-8")
    start = line.index("level=") - 1
    pairs = PAIR.findall(" " + line[start + 1 :])
    names = (
        ["level", "program", "event"] + (["subject"] if subject != "" else []) + (["traceback"] if exception else [])
    )
    assert [name for name, _ in pairs] == names
    assert "".join(f" {name}={value}" for name, value in pairs) == " " + line[start + 1 :]


def unescape(shown: str) -> str:
    if not shown.startswith('"'):
        return shown
    pattern = r"\\(?:x(..)|u(....)|U(.{8})|(.))"
    return re.sub(pattern, lambda m: m[4] or chr(int(m[1] or m[2] or m[3], 16)), shown[1:-1])


@given(st.text('a\\"x0\n\u2028\U000e0001\U0001f600', min_size=MAX_VALUE // 4))
def test_what_is_clipped_is_whole_and_fits_beside_others(text: str) -> None:
    shown = quote(text)
    assert len(shown.encode()) <= MAX_VALUE_OCTETS + len('"\u2026"'.encode())
    assert re.fullmatch(r'[^"\\ ]+|"(?:[^"\\]|\\(?:["\\]|x..|u.{4}|U.{8}))*"', shown)


@given(st.text(max_size=MAX_VALUE // 5))
def test_what_is_escaped_can_be_read_back(text: str) -> None:
    assert unescape(quote(text)) == text


def logged(script: str, **environment: str) -> list[str]:
    """Run a script that logs, in a process of its own, and return the lines on its stderr."""
    inherited = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    done = subprocess.run(
        [sys.executable, "-c", "from mailward.daemon import log as logging\n" + script],
        env=inherited | environment,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b""
    return done.stderr.decode("utf-8").splitlines()


ALL_LEVELS = (
    "log = logging.get('p')\nfor level in ('debug', 'info', 'warning', 'error', 'critical'): getattr(log, level)('x')"
)


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_levels_below_the_configured_one_are_silent(level: str, shown: list[str]) -> None:
    lines = logged(f"logging.configure({level!r})\n{ALL_LEVELS}")
    assert [line.split("level=")[1].split()[0] for line in lines] == shown


def test_events_go_to_stderr_a_line_each() -> None:
    lines = logged(
        "logging.configure()\nlog = logging.get('p')\n"
        "log.info('one', subject='a\\nb', octets=b'\\xff', surrogate='\\udc80')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.exception('two')\n",
        JOURNAL_STREAM="8:1",
    )
    assert lines[0] == r'<6>level=info program=p event=one subject="a\x0ab" octets="\\xff" surrogate="\udc80"'
    assert lines[1].startswith(r'<3>level=error program=p event=two traceback="Traceback (most recent call last):\x0a')
    assert lines[1].endswith('ZeroDivisionError: division by zero"')
    assert len(lines) == 2


@pytest.mark.parametrize("shift", range(4))
def test_a_line_that_is_too_long_is_cut_between_characters(shift: int) -> None:
    values = ", ".join(f"v{number}='\\U0001f600' * 500" for number in range(9))
    (line,) = logged(f"logging.configure()\nlogging.get('p').info('x', first='{'y' * (shift + 1)}', {values})")
    assert 3800 < len(line.encode()) <= MAX_LINE
    assert line.endswith("\U0001f600")


def test_lines_of_several_processes_and_threads_never_mix() -> None:
    script = """
import os, threading
logging.WAIT_MS = 30_000  # for whoever reads here, however busy the machine
logging.configure()
log = logging.get("p")
children = []
for number in range(4):
    child = os.fork()
    if not child:
        threads = [threading.Thread(target=lambda: [log.info("x", text="y" * 300) for _ in range(50)]) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        os._exit(0)
    children.append(child)
[os.waitpid(child, 0) for child in children]
"""
    lines = logged(script, JOURNAL_STREAM="8:1")
    assert lines == ["<6>level=info program=p event=x text=" + "y" * 300] * 400


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    script = "import os\nlogging.configure()\nlog = logging.get('p')\nr, w = os.pipe()\nos.dup2(w, 2)\nos.close(r)\nos.close(w)\n"
    assert logged(script + "log.info('lost')\n") == []


def test_setting_the_log_up_again_opens_nothing_anew() -> None:
    script = """
import gc, os
gc.disable()  # as in the supervisor
counts = []
for _ in range(5):
    logging.configure()
    logging.get("p").info("x")
    gc.collect()
    counts.append(len(os.listdir("/proc/self/fd")))
logging.get("p").info("counted", counts=len(set(counts)))
"""
    assert logged(script, JOURNAL_STREAM="8:1")[-1].endswith("event=counted counts=1")
