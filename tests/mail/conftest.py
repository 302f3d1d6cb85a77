"""One mail world for all tests of outgoing mail, one for all of incoming: starting one takes seconds, a message little."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.mail.inbound import Inbound
from tests.mail.installation import Installation
from tests.support.processes import open_folder


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """Start nameserver, Dovecot, both Postfixes, OpenDKIM and the daemon; stop them after the last test."""
    with open_folder() as folder, Installation(folder) as started:
        before = signal.signal(signal.SIGTERM, stop_like_ctrl_c)
        yield started
        signal.signal(signal.SIGTERM, before)


def stop_like_ctrl_c(_number: int, _frame: FrameType | None) -> None:
    """Let pytest end in order when it is told to (by a CI's time limit): eight programs would outlive it otherwise."""
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def inbound() -> Iterator[Inbound]:
    """Start the receiver's world: nameserver, Dovecot, the verifiers, Postfix; stop it after the last test."""
    with open_folder() as folder:
        before = signal.signal(signal.SIGTERM, stop_like_ctrl_c)
        with Inbound(folder) as started:
            yield started
        signal.signal(signal.SIGTERM, before)
