"""A key is used only while its record is published, told by a real nameserver whose zone changes under the daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailward.adapters.key_files import read_key
from mailward.auth.dkim import parse_tags
from mailward.auth.keys import generate_rsa
from tests.programs.signer import Signer
from tests.support.nameserver import Nameserver, txt_record
from tests.support.processes import wait_until

SECOND = 'publication_interval = "1s"'
HOUR = 'publication_interval = "1h"'


@pytest.fixture
def nameserver(folder: Path) -> Iterator[Nameserver]:
    server = Nameserver(folder / "nsd", {"example.com": ""})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def start(folder: Path, nameserver: Nameserver) -> Iterator[Callable[..., Signer]]:
    """Return a function that publishes records and starts a signer that asks for them."""
    started = []

    def start_signer(published: str, interval: str = SECOND) -> Signer:
        signer = Signer(folder, interval)
        signer.config.write_text(signer.config.read_text().replace('"127.0.0.1:1"', f'"{nameserver.address}"'))
        publish(nameserver, folder, published)
        signer.start()
        started.append(signer)
        return signer

    yield start_signer
    for signer in started:
        signer.stop()


def publish(nameserver: Nameserver, folder: Path, published: str) -> None:
    """Publish the keys named in `published` ("rsa ed"); "other-rsa" publishes another key as rsa, "no-rsa" a revoked one."""
    records = []
    for word in published.split():
        if word == "other-rsa":
            records.append(txt_record("rsa._domainkey", generate_rsa(1024).record))
        elif word == "no-rsa":
            records.append(txt_record("rsa._domainkey", "v=DKIM1; p="))
        else:
            records.append(txt_record(f"{word}._domainkey", read_key(folder / f"{word}.pem").record))
    nameserver.change("example.com", "\n".join(records))


def selectors(signer: Signer) -> str:
    """Send a message; return the selectors that signed it, the topmost first."""
    return " ".join(parse_tags(value)[b"s"].decode() for value in signer.sign())


@pytest.mark.parametrize(
    ("published", "used"),
    [
        pytest.param("rsa ed", "rsa ed", id="both published: both sign, RSA on top"),
        pytest.param("ed", "ed", id="one missing: it steps back"),
        pytest.param("rsa", "rsa", id="the other missing: it steps back"),
        pytest.param("other-rsa ed", "ed", id="one different: it steps back"),
        pytest.param("no-rsa ed", "ed", id="one revoked: it steps back"),
        pytest.param("", "rsa", id="none published: the first signs"),
        pytest.param("other-rsa", "rsa", id="none good: the first signs"),
    ],
)
def test_the_first_message_is_signed_with_what_is_published(
    start: Callable[..., Signer], published: str, used: str
) -> None:
    signer = start(published, HOUR)
    assert selectors(signer) == used
    count = len({"rsa", "ed"} & set(published.split()))
    wait_until(  # the worker that found out tells the supervisor while it answers
        lambda: signer.metrics().get('keys{state="published"}') == count, "the metrics to know the states"
    )
    has_complaint = "no-published-key" in signer.output()
    assert has_complaint == (signer.metrics()["unpublished_total"] == 1) == (used == "rsa" and published != "rsa")


def test_a_record_that_appears_later_is_noticed(
    start: Callable[..., Signer], nameserver: Nameserver, folder: Path
) -> None:
    signer = start("rsa")
    assert selectors(signer) == "rsa"
    publish(nameserver, folder, "rsa ed")
    wait_until(lambda: selectors(signer) == "rsa ed", "the new record to be used")


def test_a_record_that_goes_is_noticed(start: Callable[..., Signer], nameserver: Nameserver, folder: Path) -> None:
    signer = start("rsa ed")
    assert selectors(signer) == "rsa ed"
    publish(nameserver, folder, "ed")
    wait_until(lambda: {selectors(signer) for _ in range(6)} == {"ed"}, "every worker to stop using the key")
    assert signer.log_lines("key-state")


def test_with_the_dns_away_what_is_known_stands(start: Callable[..., Signer], nameserver: Nameserver) -> None:
    signer = start("ed")
    assert selectors(signer) == "ed"
    nameserver.stop()
    away = f'dns_nameservers_open{{nameserver="{nameserver.address}"}}'
    wait_until(lambda: signer.metrics()[away] >= 1, "a worker to find the nameserver away")
    assert signer.log_lines("dns-away")
    assert {selectors(signer) for _ in range(12)} == {"ed"}  # workers that never asked have been told
    for worker in signer.workers():
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: signer.metrics().get("workers") == 3, "new workers")
    assert {selectors(signer) for _ in range(12)} == {"ed"}  # they inherited what had been learnt
    assert signer.metrics()['keys{state="missing"}'] == 1


def test_a_customer_whose_nameservers_are_silent_hides_nobody_elses_keys(
    start: Callable[..., Signer], nameserver: Nameserver, folder: Path
) -> None:
    signer = start("rsa ed")
    signer.config.write_text(
        signer.config.read_text()
        + f'[[dkim-sign.domain]]\nname = "lame.example"\nkeys = [ {{ selector = "x", file = "{folder}/rsa.pem" }} ]\n'
    )
    nameserver.break_zone("lame.example")
    signer.signal(signal.SIGHUP)
    wait_until(lambda: bool(signer.log_lines("reloaded")), "the reload")
    wait_until(lambda: signer.metrics()["generations_draining"] == 0, "the old workers to leave")
    seen_away = len(signer.log_lines("dns-away"))  # a worker may have seen the nameserver restart
    assert len(signer.sign([(b"From", b" a@lame.example")])) == 1
    assert signer.log_lines("domain-silent")
    assert len(signer.log_lines("dns-away")) == seen_away
    assert selectors(signer) == "rsa ed"
    publish(nameserver, folder, "ed")
    wait_until(lambda: {selectors(signer) for _ in range(6)} == {"ed"}, "every worker to stop using the key")


def test_a_key_that_left_the_configuration_leaves_the_metrics(start: Callable[..., Signer], folder: Path) -> None:
    signer = start("ed")
    assert selectors(signer) == "ed"
    assert signer.metrics()['keys{state="missing"}'] == 1
    entry = f'{{ selector = "rsa", file = "{folder}/rsa.pem" }}, '
    signer.config.write_text(signer.config.read_text().replace(entry, ""))
    reload(signer)
    assert signer.metrics()['keys{state="missing"}'] == 0


def reload(signer: Signer) -> None:
    """Reload, and wait until only the new workers are left."""
    signer.signal(signal.SIGHUP)
    wait_until(lambda: signer.metrics()["generation"] == 2, "the reload")
    wait_until(lambda: signer.metrics()["generations_draining"] == 0, "the old workers to leave")


def test_a_key_that_becomes_unreadable_steps_back_and_without_another_the_mail_waits(
    start: Callable[..., Signer], folder: Path
) -> None:
    table = folder / "table"
    names = [f"d{number}.example" for number in range(70)]  # more than are read beforehand
    pem = generate_rsa(1024).to_pem()
    table.write_text("".join(f"{name} rsa {name}.pem\n{name} ed ed.pem\n" for name in names))
    for name in names:
        (folder / f"{name}.pem").write_bytes(pem)
        (folder / f"{name}.pem").chmod(0o600)
    signer = start("rsa ed", f'publication_interval = "1h"\ntable = "{table}"')
    (folder / "d69.example.pem").write_text("damaged")
    assert [parse_tags(value)[b"s"] for value in signer.sign([(b"From", b" a@d69.example")])] == [b"ed"]
    assert signer.log_lines("key-unusable")
    (folder / "d68.example.pem").write_text("damaged")
    table.write_text(table.read_text().replace("d68.example ed ed.pem\n", ""))
    reload(signer)
    assert signer.send([(b"From", b" a@d68.example")]).text.startswith("451 4.7.5")
    assert signer.metrics()['messages_total{verdict="key-unusable"}'] == 1


def test_at_a_cold_start_without_dns_keys_count_as_published(
    start: Callable[..., Signer], nameserver: Nameserver, folder: Path
) -> None:
    signer = start("")
    signer.stop()
    nameserver.stop()
    signer.start()
    assert selectors(signer) == "rsa ed"
    assert signer.metrics()['keys{state="unknown"}'] == 2


def test_a_reload_asks_again(start: Callable[..., Signer], nameserver: Nameserver, folder: Path) -> None:
    signer = start("rsa", HOUR)
    assert selectors(signer) == "rsa"
    publish(nameserver, folder, "rsa ed")
    signer.signal(signal.SIGHUP)
    wait_until(lambda: bool(signer.log_lines("reloaded")), "the reload")
    wait_until(lambda: signer.metrics()["generations_draining"] == 0, "the old workers to leave")
    assert {selectors(signer) for _ in range(12)} == {"rsa ed"}
