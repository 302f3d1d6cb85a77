"""The status page of every program: whole, escaped, and true to what was counted."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import pytest

from mailward.daemon import log
from mailward.daemon.generation import WorkerRecord
from mailward.daemon.logbook import CRITICAL, ERROR, LOG_METRICS
from mailward.daemon.metrics import Counter, Gauge, Histogram, Metrics
from mailward.daemon.pages import Pages
from mailward.daemon.program import Loaded, Program
from mailward.daemon.shown import Part, Shown, Tone, check_shown
from mailward.daemon.status_page.assets import policy
from mailward.daemon.supervisor import Supervisor
from mailward.settings.common import Service
from mailward.settings.values import Port, SocketAddress

HOSTILE = '"><script>evil()</script><img src=x onerror=evil()>&amp;'
VOID = {"meta", "i", "br", "p", "tr", "td", "th", "img"}  # whose end the page, or HTML, leaves out
PROGRAMS = [
    import_module(f"{name}.__main__").PROGRAM
    for name in ("milters.dkim_sign", "milters.auth_verify", "milters.greylist", "policyd")
]


class Reader(HTMLParser):
    """Reads a page: every element there is, and the text of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            self.text += data + "\n"


class Shop:
    """The pages of a program whose workers are not there."""

    def __init__(self, program: Program) -> None:
        self.metrics = Metrics(program.metric_prefix, program.metrics)
        self.row = self.metrics.row(1)
        self.supervisor = Supervisor(program, Path("/nowhere"), {}, self.metrics, log.get("test"))
        self.pages = Pages(program, self.supervisor, self.metrics)

    def read(self) -> Reader:
        """Return the page at /."""
        response = self.pages.respond("/", "")
        assert (response.status, response.content_type) == (200, "text/html; charset=utf-8")
        assert response.policy == policy()
        return Reader(response.body.decode())

    def close(self) -> None:
        self.supervisor.selector.close()


@pytest.fixture(params=PROGRAMS, ids=lambda program: program.name)
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    one = Shop(request.param)
    yield one
    one.close()


def test_every_program_shows_what_it_counts(shop: Shop, request: pytest.FixtureRequest) -> None:
    program: Program = request.node.callspec.params["shop"]
    assert program.shown
    check_shown(program.shown, program.metrics)
    page = shop.read()
    for shown in program.shown:
        assert shown.title in page.text
        for part in shown.parts:
            assert part.says in page.text


def test_a_page_takes_nothing_from_elsewhere_and_keeps_nothing(shop: Shop) -> None:
    page = shop.read()
    assert [tag for tag, _ in page.elements if tag in ("script", "style")] == ["style", "script"]
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "form", "object", "base"), tag
        for name, value in attributes.items():
            assert name not in ("src", "style", "srcset", "action"), (tag, name)
            assert not name.startswith("on"), (tag, name)
            assert name != "href" or value in ("metrics", "healthz", "readyz", "#away", "#errors"), value


def test_every_part_of_what_was_counted_is_drawn(shop: Shop, request: pytest.FixtureRequest) -> None:
    program: Program = request.node.callspec.params["shop"]
    for spec in program.metrics:
        if isinstance(spec, Counter):
            for value in spec.values:
                shop.row.count(spec.name, value, 2)
        elif isinstance(spec, Histogram):
            shop.row.observe(spec.name, 0.003)
    names = {spec.label: ["192.0.2.53:53"] for spec in program.metrics if isinstance(spec, Counter)}
    for label, values in names.items():
        shop.metrics.name_values(label, values)
    page = shop.read()
    paths = [attributes["class"] for tag, attributes in page.elements if tag == "path"]
    for shown in program.shown:
        for part in shown.parts:
            assert paths.count(part.tone.value) >= 2, part
    assert "half within 5 ms, 95 % within 5 ms" in page.text


def test_whatever_comes_from_outside_is_escaped(shop: Shop) -> None:
    clean = [tag for tag, _ in shop.read().elements]
    for level in (ERROR, CRITICAL):
        shop.supervisor.logbook.take(level, f"{level} mail_from={HOSTILE}", f"worker {HOSTILE}", 0.0)
    shop.supervisor.logbook.take(ERROR, f"{HOSTILE} x", "worker", 0.0)
    shop.supervisor._workforce.notes[f"key {HOSTILE}"] = HOSTILE
    shop.metrics.name_values("nameserver", [HOSTILE])
    shop.metrics.name_values("limit", [HOSTILE])
    page = shop.read()
    added = {tag for tag, _ in page.elements} - set(clean)
    assert added <= {"article", "code", "details", "summary", "span", "br", "svg", "title"}, added
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert page.text.count(HOSTILE) >= 4
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -1e300, 1e300, -5.0])
def test_no_worker_can_take_the_page_away(shop: Shop, odd: float, request: pytest.FixtureRequest) -> None:
    """One that a message has taken over writes what it likes into the memory and the socket it shares with the supervisor."""
    program: Program = request.node.callspec.params["shop"]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        record = WorkerRecord(1, 1, ours, 0.0, 0.0)
        for kind in (
            b"note state_bytes\0",
            b"note state_fill_ratio\0",
            b"note key ",
            b"suggestion ",
            b"told error\0",
            b"?",
        ):
            for said in (b"", b"\0", b"much", b"\xff" * 1100, HOSTILE.encode()):
                theirs.send(kind + said)
                assert shop.supervisor._workforce._hear(record)
    for number, spec in enumerate(program.metrics):
        if isinstance(spec, Counter):
            for value in spec.values:
                shop.row.count(spec.name, value, odd if number % 2 else 3.0)
    assert shop.pages.respond("/metrics", "").status == 200
    assert [tag for tag, _ in shop.read().elements].count("script") == 1


SPECS = (
    Counter("things", "Things.", "kind", ("a", "b")),
    Gauge("open", "Left alone.", "breaker", ("store-away",)),
    *LOG_METRICS,
)


def load(_path: Path) -> Loaded:
    raise AssertionError("nobody loads it")


@pytest.fixture
def small() -> Iterator[Shop]:
    shown = Shown("Things", (Part("of the first kind", "things", ("a",), Tone.GOOD), Part("all", "things", ())))
    one = Shop(Program("test", "", SPECS, load, shown=(shown,)))
    yield one
    one.close()


def test_a_breaker_that_is_open_stands_at_the_top_until_it_is_closed(small: Shop) -> None:
    assert "Nothing is away, and nothing went wrong in the last hour." in small.read().text
    small.row.count("open", "store-away", 2)
    open_page = small.read()
    assert "Away or aside: store-away" in open_page.text
    assert "open in 2 workers" in open_page.text
    small.row.count("open", "store-away", -2)
    closed_page = small.read()
    assert "Away or aside" not in closed_page.text
    assert "in 1 minute of the last day" in closed_page.text


@pytest.mark.parametrize("seconds", [-3600.0, 50 * 365 * 86_400.0], ids=["set back", "set for the first time"])
def test_a_clock_that_jumps_changes_nothing_of_how_long_it_has_been_up(small: Shop, seconds: float) -> None:
    small.supervisor.started -= seconds
    assert "up 0 min" in small.read().text


def test_what_can_have_the_focus_has_it_again_after_a_refresh(small: Shop) -> None:
    small.row.count("open", "store-away")
    small.row.count("log_lines", ERROR)
    names = [attributes.get("id") for tag, attributes in small.read().elements if tag in ("a", "summary")]
    assert len(names) == 6
    assert all(names)


def test_every_column_has_a_title(small: Shop) -> None:
    assert "<th><" not in small.pages.respond("/", "").body.decode()


def test_hour_day_and_all_are_told_apart(small: Shop) -> None:
    history = small.pages._history
    started = history._minute_began
    totals = small.metrics.totals
    for seconds, more in ((0, 1), (2 * 86_400 - 600, 10), (2 * 86_400 + 7200, 100), (3 * 86_400, 1000)):
        small.row.count("things", "a", more)
        history.take(totals(), started + seconds)
    history.take = lambda *_: None  # type: ignore[method-assign, misc, assignment]
    words = small.read().text.split("\n")
    at = words.index("of the first kind")
    assert words[at + 1 : at + 4] == ["1\u202f000", "1\u202f100", "1\u202f111"]


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        pytest.param(Shown("T", (Part("p", "nothing", ("",)),)), "nothing", id="no such counter"),
        pytest.param(Shown("T", (Part("p", "things", ("c",)),)), "things", id="no such value"),
        pytest.param(Shown("T", (Part("p", "open", ("store-away",)),)), "open", id="a gauge"),
        pytest.param(Shown("T", (), seconds="things"), "histogram things", id="no histogram"),
    ],
)
def test_what_is_not_counted_cannot_be_shown(shown: Shown, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_shown((shown,), SPECS)


@pytest.mark.parametrize(
    ("address", "is_warned"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("10.1.2.3", False),
        ("192.168.0.5", False),
        ("fd00::5", False),
        ("fe80::1", False),
        ("0.0.0.0", True),
        ("::", True),
        ("9.9.9.9", True),
        ("2620:fe::fe", True),
    ],
)
def test_a_page_for_all_the_world_is_warned_of(address: str, is_warned: bool) -> None:
    service = Service(socket=SocketAddress("", "127.0.0.1", 1), metrics=Port(address, 9461))
    warnings = Loaded(service, lambda _tools: None, ("x",)).all_warnings()  # type: ignore[arg-type, return-value]
    assert len(warnings) == 1 + is_warned
    assert not is_warned or "port 9461" in warnings[1]
