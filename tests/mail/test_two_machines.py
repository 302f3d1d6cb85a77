"""Two mail servers of one domain, on machines of their own (network namespaces), with one Redis: each knows what both know.

Each has a Postfix, a mailward-greylist and a nameserver; the Redis runs on the first. A wire joins them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

import pytest

from tests.mail.conftest import stop_like_ctrl_c
from tests.mail.greylisting import Attempt, Client, Greylisting, seconds_left
from tests.support.machines import Machine, Wired
from tests.support.processes import open_folder, wait_until
from tests.support.redis import Redis

SENDER = "somebody@sender.example"
MODES = {"quick": 'delay = "1s"', "slow": 'delay = "1m"'}
DELAY_SECONDS = 1.0
RECOVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class MailServer:
    """One of the two: what is asked of it is asked on its own machine."""

    machine: Machine
    world: Greylisting

    def attempt(self, client: Client, recipient: str, *, mode: str = "quick") -> Attempt:
        """Send one message to this one, once."""
        with self.machine.inside():
            return self.world.attempt(client, SENDER, recipient, mode=mode)

    def retry(self, client: Client, recipient: str) -> Attempt:
        """Send one message to this one until it is accepted."""
        with self.machine.inside():
            return self.world.retry(client, SENDER, recipient)

    def greylists_strangers(self) -> bool:
        """Say whether both of its daemons put off somebody new."""
        return all(self.attempt(new_client(), new_recipient(), mode=mode).is_greylisted for mode in MODES)

    def order(self, *words: str) -> None:
        """Give an order on this one."""
        with self.machine.inside():
            self.world.greylisters["slow"].order(*words)

    def stands_aside(self) -> bool:
        """Say whether greylisting stands aside on this one because its store is away."""
        with self.machine.inside():
            metrics = self.world.greylisters["slow"].metrics()
        return metrics['breakers_open{breaker="store-away"}'] == 1


@dataclass(frozen=True, slots=True)
class Site:
    """The two; the Redis is on the first."""

    one: MailServer
    two: MailServer


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        before = signal.signal(signal.SIGTERM, stop_like_ctrl_c)
        stack.callback(signal.signal, signal.SIGTERM, before)
        folder = stack.enter_context(open_folder())
        one, two = stack.enter_context(Wired(folder))
        redis = Redis(folder, bind=one.address)
        stack.callback(redis.stop)
        with one.inside():
            redis.start()
        yield Site(start_mail_server(stack, one, redis), start_mail_server(stack, two, redis))


def start_mail_server(stack: ExitStack, machine: Machine, redis: Redis) -> MailServer:
    folder = stack.enter_context(open_folder())
    world = Greylisting(folder, MODES, states=dict.fromkeys(MODES, redis.address))
    stack.callback(world.stop)
    with machine.inside():
        world.start()
    return MailServer(machine, world)


_NUMBERS = count(1)


def new_client() -> Client:
    """Return a client in a network that neither has heard of."""
    number = next(_NUMBERS)
    return Client(f"10.{number // 250}.{number % 250}.25")


def new_recipient() -> str:
    return f"box{next(_NUMBERS)}@receiver.example"


def test_first_try_on_one_and_retry_on_the_other_passes(site: Site) -> None:
    client, recipient = new_client(), new_recipient()
    began = time.monotonic()
    assert site.one.attempt(client, recipient).is_greylisted
    assert site.two.retry(client, recipient).is_accepted
    assert time.monotonic() - began >= DELAY_SECONDS
    assert site.two.world.arrived(recipient)
    assert site.one.attempt(client, recipient).is_accepted


def test_who_comes_too_early_hears_the_same_on_both(site: Site) -> None:
    client, recipient = new_client(), new_recipient()
    left = [
        seconds_left(server.attempt(client, recipient, mode="slow").recipients[0]) for server in (site.one, site.two)
    ]
    assert left[0] == 60
    assert 50 <= left[1] <= left[0]


def test_an_order_on_one_is_obeyed_on_both(site: Site) -> None:
    assert site.one.greylists_strangers()
    site.two.order("off", "10m")
    try:
        wait_until(lambda: not site.one.greylists_strangers(), "the order to be known on the first")
        wait_until(lambda: not site.two.greylists_strangers(), "the order to be known on the second")
    finally:
        site.one.order("on")
    wait_until(lambda: site.one.greylists_strangers() and site.two.greylists_strangers(), "greylisting on both")


def test_cut_off_machine_lets_everybody_pass_and_the_other_goes_on(site: Site) -> None:
    client, recipient = new_client(), new_recipient()
    assert site.two.attempt(client, recipient).is_greylisted
    site.two.machine.set_wire("down")
    try:
        for _ in range(3):
            assert site.two.attempt(new_client(), new_recipient()).is_accepted
        assert site.one.greylists_strangers()
        wait_until(site.two.stands_aside, "the second to stand aside")
        assert not site.one.stands_aside()
        assert site.one.retry(client, recipient).is_accepted
    finally:
        site.two.machine.set_wire("up")
    wait_until(site.two.greylists_strangers, "the second to be back", seconds=RECOVERY_SECONDS)
    wait_until(lambda: not site.two.stands_aside(), "the second to say so")
    assert site.two.attempt(client, recipient).is_accepted
