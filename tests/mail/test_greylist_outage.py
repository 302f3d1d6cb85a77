"""Greylisting never becomes the outage: whatever it stands on goes away, mail comes in; and greylisting is back by itself.

Everything is real: Postfix, the daemon, its nameserver, Redis, and another process that holds the lock of the SQLite file.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mail.conftest import stop_like_ctrl_c
from tests.mail.greylisting import POOL, Client, Greylisting
from tests.support.odd_nameserver import with_code
from tests.support.processes import open_folder, wait_until
from tests.support.redis import Redis
from tests.support.silence import cut_off, silenced

SENDER, POOL_SENDER = "somebody@sender.example", "news@pool.example"
MESSAGES = 10  # of each kind, while it is away
WORKERS = 2
QUICK_SECONDS = 10.0  # for all of them: no wait for anything is in it
COMMAND_TIMEOUT = (
    "4s"  # Postfix's patience with the daemon, shorter than shipped: nothing here may use it up but one test
)
RECOVERY_SECONDS = 60.0
OnWorld = Callable[["World"], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class World:
    """The mail world, and the Redis that one of its daemons keeps its state in."""

    mail: Greylisting
    redis: Redis


@dataclass(frozen=True, slots=True)
class Outage:
    """What is away, in which mode it is felt, and why greylisting stands aside then: one of these.

    `forgets`: afterwards nothing is remembered. `is_found_out`: by a few questions; until then strangers are put off as ever,
    and nobody else is.
    """

    away: tuple[OnWorld, ...]
    mode: str
    reasons: tuple[str, ...]
    forgets: bool = False
    is_found_out: bool = False


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    settings = 'delay = "1s"'
    with open_folder() as folder, Redis(folder) as redis:
        before = signal.signal(signal.SIGTERM, stop_like_ctrl_c)
        modes = {"sqlite": settings, "redis": settings}
        states = {"redis": redis.address}
        with Greylisting(folder, modes, states, workers=WORKERS, command_timeout=COMMAND_TIMEOUT) as mail:
            yield World(mail, redis)
        signal.signal(signal.SIGTERM, before)


def dns_silent(world: World) -> AbstractContextManager[None]:
    return silenced([world.mail.nameserver])


def line_lost(world: World) -> AbstractContextManager[None]:
    """Have a resolver that answers for the root, from memory, and fails at all else."""
    return cut_off([world.mail.nameserver], with_code(2))


@contextmanager
def redis_killed(world: World) -> Iterator[None]:
    world.redis.kill()
    try:
        yield
    finally:
        world.redis.start()


@contextmanager
def redis_stopped(world: World) -> Iterator[None]:
    """Have Redis accept connections and answer nothing."""
    world.redis.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        world.redis.signal(signal.SIGCONT)


@contextmanager
def sqlite_locked(world: World) -> Iterator[None]:
    """Hold the lock that every writer needs."""
    connection = sqlite3.connect(database_of(world), isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


def database_of(world: World) -> Path:
    (path,) = world.mail.greylisters["sqlite"].state_folder.glob("*.sqlite")
    return path


STORE_AWAY, DNS_AWAY = ("store-away",), ("dns-away",)
OUTAGES = {
    "all-nameservers-silent": Outage((dns_silent,), "sqlite", DNS_AWAY, is_found_out=True),
    "line-behind-the-resolver-lost": Outage((line_lost,), "sqlite", DNS_AWAY, is_found_out=True),
    "sqlite-file-locked": Outage((sqlite_locked,), "sqlite", STORE_AWAY),
    "redis-killed": Outage((redis_killed,), "redis", STORE_AWAY, forgets=True),
    "redis-answers-nothing": Outage((redis_stopped,), "redis", STORE_AWAY),
    "sqlite-file-locked-and-dns-silent": Outage((sqlite_locked, dns_silent), "sqlite", STORE_AWAY + DNS_AWAY),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES.keys())
def test_mail_comes_in_while_it_is_away_and_greylisting_is_back_by_itself(world: World, outage: Outage) -> None:
    mail, mode, greylister = world.mail, outage.mode, world.mail.greylisters[outage.mode]
    client, known, known_pool = mail.new_client(), mail.new_recipient(), mail.new_recipient()
    for who, sender, recipient in ((client, SENDER, known), (Client(POOL[0]), POOL_SENDER, known_pool)):
        assert mail.attempt(who, sender, recipient, mode=mode).is_greylisted
        assert mail.retry(who, sender, recipient, mode=mode).is_accepted
    workers, logged = greylister.workers(), times_logged(world, outage)
    assert not is_on_status_page(world, outage)
    with ExitStack() as away:
        for begin in outage.away:
            away.enter_context(begin(world))
        assert passes_at_first_try(world, outage) or outage.is_found_out
        assert mail.attempt(client, SENDER, known, mode=mode).is_accepted
        assert mail.attempt(Client(POOL[1]), POOL_SENDER, known_pool, mode=mode).is_accepted
        wait_until(lambda: passes_and_stands_aside(world, outage), "all workers to say that they stand aside")
        began = time.monotonic()
        for _ in range(MESSAGES):
            assert mail.attempt(client, SENDER, known, mode=mode).is_accepted
            assert passes_at_first_try(world, outage)
        assert time.monotonic() - began < QUICK_SECONDS
        assert times_logged(world, outage) > logged
        assert is_on_status_page(world, outage)
        assert greylister.get("/readyz")[0] == 200
    wait_until(lambda: breakers_open(world, outage) == 0, "it to be back", seconds=RECOVERY_SECONDS)
    assert not passes_at_first_try(world, outage)
    if not outage.forgets:
        assert mail.attempt(client, SENDER, known, mode=mode).is_accepted
        assert mail.attempt(Client(POOL[1]), POOL_SENDER, known_pool, mode=mode).is_accepted
    assert greylister.workers() == workers
    restarts = [value for name, value in greylister.metrics().items() if name.startswith("worker_restarts_total")]
    assert sum(restarts) == 0


def passes_and_stands_aside(world: World, outage: Outage) -> bool:
    """Send as a stranger, and say whether every worker shows by now that it stands aside."""
    assert passes_at_first_try(world, outage) or outage.is_found_out
    return breakers_open(world, outage) >= WORKERS


def passes_at_first_try(world: World, outage: Outage) -> bool:
    """Send as a stranger, from a domain that nobody has asked the DNS about; say whether that is accepted."""
    client = world.mail.new_client()
    sender = f"somebody@{client.address.replace('.', '-')}.example"
    return world.mail.attempt(client, sender, world.mail.new_recipient(), mode=outage.mode).is_accepted


def breakers_open(world: World, outage: Outage) -> float:
    metrics = world.mail.greylisters[outage.mode].metrics()
    return sum(metrics[f'breakers_open{{breaker="{reason}"}}'] for reason in outage.reasons)


def is_on_status_page(world: World, outage: Outage) -> bool:
    page = world.mail.greylisters[outage.mode].get("/")[1]
    return any(re.search(rf'<tr><td>{reason}<td class="w"><b class="bad">open in ', page) for reason in outage.reasons)


def times_logged(world: World, outage: Outage) -> int:
    return sum(len(world.mail.greylisters[outage.mode].log_lines(reason)) for reason in outage.reasons)


def test_postfix_never_waited_in_vain(world: World) -> None:
    assert world.mail.postfix.warnings() == []


def test_while_the_daemon_itself_answers_nothing_mail_comes_in_after_postfixs_time_out(world: World) -> None:
    mail, greylister = world.mail, world.mail.greylisters["redis"]
    pids = (greylister.pid, *greylister.workers())
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        recipient = mail.new_recipient()
        assert mail.attempt(mail.new_client(), SENDER, recipient, mode="redis").is_accepted
        assert mail.arrived(recipient)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert any("greylist-redis.sock" in line for line in mail.postfix.warnings())
