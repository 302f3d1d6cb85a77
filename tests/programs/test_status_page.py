"""The status page of a real daemon in a real browser: as a phone and a desktop show it, by day and by night, with and without
script, while mail is signed, a nameserver is away, a worker dies and a stranger does his worst.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailward.milter.adapter import MAX_HEADER_FIELDS
from tests.programs.signer import ROOT, Signer
from tests.support.browser import Browser, browser
from tests.support.milter_client import MilterSession
from tests.support.processes import free_port, open_folder, wait_until

Start = Callable[..., Signer]
EVIL = b"\"'><script>document.title='evil'</script><img/src=x>@example.com"
SCREENS = [
    pytest.param(360, 740, False, id="phone by day"),
    pytest.param(360, 740, True, id="phone by night"),
    pytest.param(1280, 900, False, id="desktop by day"),
    pytest.param(1280, 900, True, id="desktop by night"),
]
# Pixels that are so far apart in brightness that text can be read (WCAG 2: 4.5 to 1), for each kind of text.
CONTRAST = """
(() => {
  const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = one => { for (; one; one = one.parentElement) { const color = getComputedStyle(one).backgroundColor;
    if (!color.includes("rgba(0, 0, 0, 0)")) return color; } };
  return Math.min(...[...document.querySelectorAll("h1,h3,b,small,th,td,code,a,figcaption,summary,.good,.bad")]
    .filter(one => one.tagName !== "I" && one.tagName !== "path" && one.textContent.trim() && one.checkVisibility())
    .map(one => { const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
      return (a + .05) / (b + .05); }));
})()
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_folder() as folder, browser(folder) as one:
        yield one


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    """A signer that has signed, whose nameserver is away, and that an attacker and the operator have given errors to report."""
    with open_folder() as folder:
        one = Signer(folder)
        one.start()
        try:
            one.sign()
            session = MilterSession(one.socket_path)
            session.connect()
            session.message([(b"X", b" y")] * (MAX_HEADER_FIELDS + 1), mail_from=EVIL)
            session.close()
            victim = one.workers()[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: one.metrics()["workers"] == 3 and victim not in one.workers(), "a replacement")
            wait_until(lambda: any("nameservers_open" in n and v for n, v in one.metrics().items()), "a breaker open")
            yield one
        finally:
            one.stop()


def address(signer: Signer) -> str:
    return f"http://127.0.0.1:{signer.port}/"


@pytest.mark.parametrize(("width", "height", "is_dark"), SCREENS)
def test_it_can_be_read(
    chromium: Browser, signer: Signer, width: int, height: int, is_dark: bool, tmp_path: Path
) -> None:
    chromium.show_as(width, height, is_dark=is_dark)
    chromium.go(address(signer))
    assert chromium.ask("document.documentElement.scrollWidth") <= width  # nobody scrolls sideways
    assert chromium.ask("[...document.querySelectorAll('svg')].every(one => one.getBoundingClientRect().height > 15)")
    background = chromium.ask("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(13, 17, 23)" if is_dark else "rgb(255, 255, 255)")
    assert chromium.ask(CONTRAST) >= 4.5
    picture = tmp_path / "page.png"
    chromium.picture(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_it_says_what_was_done_and_what_went_wrong(chromium: Browser, signer: Signer) -> None:
    chromium.go(address(signer))
    rows = chromium.ask("[...document.querySelectorAll('tr')].map(one => one.textContent)")
    assert "signed111" in rows  # in the last hour, in the last day, in all
    text = chromium.ask("document.querySelector('main').innerText")
    assert "Away or aside: 127.0.0.1:1" in text
    assert "left alone by" in text
    errors = chromium.ask("[...document.querySelectorAll('article')].map(one => one.innerText)")
    assert any("worker-died" in error and "status=-9" in error for error in errors), errors
    assert any("header-too-large" in error for error in errors), errors


def test_what_a_stranger_wrote_is_text_and_nothing_else(chromium: Browser, signer: Signer) -> None:
    chromium.go(address(signer))
    assert "<script>document.title='evil'</script><img/src=x>" in chromium.ask("document.body.innerText")
    assert chromium.ask("document.title") == "mailward-dkim-sign"
    assert chromium.ask("document.images.length") == 0
    assert chromium.ask("document.scripts.length") == 1


def test_its_policy_forbids_what_is_not_its_own(chromium: Browser, signer: Signer) -> None:
    chromium.go(address(signer))
    forbidden = chromium.ask(f"""new Promise(tell => {{
        const seen = [];
        document.addEventListener("securitypolicyviolation", event => {{
            seen.push(event.effectiveDirective); if (seen.length === 3) tell(seen.sort()); }});
        const script = document.createElement("script"); script.textContent = "window.evil = 1";
        document.body.append(script);
        const image = document.createElement("img"); image.src = "{address(signer)}healthz"; document.body.append(image);
        document.body.setAttribute("style", "color: red");
    }})""")
    assert forbidden == ["img-src", "script-src-elem", "style-src-attr"]
    assert chromium.ask("window.evil === undefined")


def test_it_asks_nobody_else_keeps_no_cookie_and_complains_of_nothing(chromium: Browser, signer: Signer) -> None:
    chromium.go("about:blank")
    chromium.complaints.clear()
    chromium.requested.clear()
    chromium.go(address(signer))
    chromium.ask("refresh()")
    assert set(chromium.requested) == {address(signer)}
    assert chromium.ask("document.cookie") == ""
    assert chromium.ask("localStorage.length + sessionStorage.length") == 0
    assert chromium.complaints == []


def test_it_refreshes_itself_and_nothing_jumps(chromium: Browser, signer: Signer) -> None:
    chromium.show_as(360, 740, is_dark=False)
    chromium.go(address(signer))
    chromium.ask("document.querySelector('#counters').open = true")
    chromium.ask("document.querySelector('#counters-title').focus()")
    chromium.ask("scrollTo({top: document.querySelector('#away').offsetTop - 50, behavior: 'instant'})")
    chromium.ask("window.before = document.querySelector('#away').getBoundingClientRect().top")
    chromium.ask("document.querySelector('#errors').nextSibling.remove()")  # so that the fresh page is higher above us
    chromium.ask("scrollTo({top: document.querySelector('#away').offsetTop - 50, behavior: 'instant'})")
    signer.sign()
    signer.sign()
    chromium.wait_for("document.querySelector('#did-messages').textContent.includes('signed333')")  # by itself
    assert abs(chromium.ask("document.querySelector('#away').getBoundingClientRect().top - window.before")) <= 2
    assert chromium.ask("document.querySelector('#counters').open")
    assert chromium.ask("document.activeElement.id") == "counters-title"
    assert chromium.ask("document.querySelectorAll('main').length") == 1


def test_a_daemon_that_does_not_answer_leaves_the_page_and_says_so(
    chromium: Browser, start_signer: Start, folder: Path
) -> None:
    mortal = start_signer()
    chromium.go(address(mortal))
    stale = "getComputedStyle(document.querySelector('#stale')).display !== 'none'"
    assert not chromium.ask(stale)
    mortal.stop()
    chromium.ask("refresh()")
    assert chromium.ask(stale)
    assert "mailward-dkim-sign" in chromium.ask("document.querySelector('main').innerText")
    mortal.start()
    chromium.ask("refresh()")
    assert not chromium.ask(stale)


def test_it_works_without_script(chromium: Browser, signer: Signer) -> None:
    chromium.allow_script(is_allowed=False)
    try:
        chromium.go(address(signer))
        assert chromium.ask("document.querySelector('meta[http-equiv=refresh]').content") == "30"
        assert chromium.ask("document.querySelectorAll('svg.plot').length") >= 6
        assert chromium.ask("document.querySelector('#did-messages').innerText.includes('signed')")
    finally:
        chromium.allow_script(is_allowed=True)


def test_what_workers_and_supervisor_log_is_counted(signer: Signer) -> None:
    metrics = signer.metrics()
    lines = signer.output().splitlines()
    for level in ("warning", "error", "critical"):
        assert metrics[f'log_lines_total{{level="{level}"}}'] >= sum(
            f"level={level} " in line and "running-as-root" not in line for line in lines
        )


def test_every_worker_that_died_is_among_the_last_errors(start_signer: Start, folder: Path) -> None:
    signer = start_signer()
    for worker in signer.workers():
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: signer.get("/")[1].count("status=-9") == 3, "three errors on the page")


BROKEN = """
import json, sys
from pathlib import Path
from mailward.daemon import log
from mailward.daemon.listener import bind
from mailward.daemon.logbook import LOG_METRICS
from mailward.daemon.metrics import Metrics
from mailward.daemon.program import Loaded, Program
from mailward.daemon.supervisor import Supervisor
from mailward.settings.common import Service
from mailward.settings.values import SocketAddress

def make_serving(tools):
    raise RuntimeError("as told")

where = SocketAddress(sys.argv[1], "", 0)
loaded = Loaded(Service(socket=where, workers=1), make_serving)
program = Program("test", "", LOG_METRICS, lambda _: loaded)
log.configure()
metrics = Metrics("x", program.metrics)
supervisor = Supervisor(program, Path("x"), {"socket": bind(where, 0o600, "", "x")}, metrics, log.get("test"))
status = supervisor.run(loaded)
told = [[entry.level, entry.event, entry.lines[-1].source, entry.lines[-1].text] for entry in supervisor.logbook.entries()]
print(json.dumps([status, told]))
"""


def test_why_a_worker_died_is_heard_though_it_is_gone(folder: Path) -> None:
    command = [sys.executable, "-c", BROKEN, str(folder / "broken.sock")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    status, entries = json.loads(done.stdout)
    told = {event: (level, source, text) for level, event, source, text in entries}
    assert status == 1
    assert told.keys() == {"worker-failed", "worker-died", "start-failed"}
    assert told["worker-failed"][0] == "error"
    assert told["worker-failed"][1].startswith("worker ")
    assert told["worker-failed"][2].endswith('RuntimeError: as told"')
    assert told["start-failed"][:2] == ("critical", "supervisor")


def test_a_page_for_all_the_world_is_warned_of_by_check_and_in_the_log(folder: Path) -> None:
    signer = Signer(folder)
    port = signer.port = free_port()
    text = signer.config.read_text()
    start = text.index("metrics = ")
    signer.config.write_text(text[:start] + f'metrics = "0.0.0.0:{port}"\n' + text[text.index("\n", start) + 1 :])
    done = subprocess.run([*signer.command, "--check"], cwd=signer.working_folder, capture_output=True, text=True)
    assert (done.returncode, "metrics listens at every address" in done.stderr) == (0, True)
    signer.start()
    try:
        assert any("metrics listens at every address" in line for line in signer.log_lines("configuration"))
    finally:
        signer.stop()
