"""`--hold-queue` and `--release-queue`: what a suspended account has in Postfix's queue is stopped, and let go.

The state is opened as the account that owns it, Postfix's queue is changed as root: never both at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NoReturn

import click

from mailward.model.accounts import AuditEntry
from postmaster.explain.layout import printable
from postmaster.limits.held import HOLD, RELEASE, entries_of, still_held
from postmaster.limits.opening import Limits
from postmaster.limits.orders import Order
from postmaster.limits.queue import Message, NoPostfix, Queue, QueueFailed, ids_of, of_account
from postmaster.opening import EX_NOPERM, EX_TEMPFAIL, leave

EX_UNAVAILABLE = 69
MOST_ENTRIES = 100_000  # as many as the audit log keeps
LOOKS = 2
BETWEEN_LOOKS = 2.0  # seconds: by then every daemon knows of the suspension, and what it had let pass is in the queue

Open = Callable[[], AbstractContextManager[Limits]]


def require_root(option: str) -> None:
    """Leave the program unless it is root's."""
    if os.geteuid() != 0:
        leave(EX_NOPERM, f"{option} moves messages in Postfix's queue: run as root, or without it; nothing was done")


def hold_queue(open_limits: Open, order: Order, queue: Queue) -> None:
    """Put on hold what an account has in the queue, and say how much that is."""
    held: set[Message] = set()
    foreign: set[Message] = set()
    try:
        for look in range(LOOKS):
            if look:
                time.sleep(BETWEEN_LOOKS)
            with open_limits() as limits:
                sent = limits.store.sent(order.account)
            found = of_account(sent, queue.listed(ids_of(sent)))
            foreign |= {message for message, is_held in found.items() if is_held} - held
            held |= _hold(open_limits, order, queue, [message for message, is_held in found.items() if not is_held])
    except (NoPostfix, QueueFailed) as error:
        _leave(error, "the account is suspended; its queue was not put on hold, or not all of it")
    with open_limits() as limits:
        ours = still_held(limits.store.audit_log(order.account, MOST_ENTRIES))
        if held:
            limits.store.audit(_summary(order, "queue-held", f"{_messages(len(held))} put on hold"))
    click.echo(f"{_messages(len(held))} of it put on hold in Postfix's queue.")
    if earlier := len(foreign & ours):
        click.echo(f"{_messages(earlier)} had been put on hold before.")
    if others := len(foreign - ours):
        click.echo(f"{_messages(others)} of it had been put on hold by others; `--release-queue` leaves them there.")


def release_queue(open_limits: Open, order: Order, queue: Queue) -> None:
    """Let go what `hold_queue` has put on hold for this account, and nothing else; say how much that is."""
    with open_limits() as limits:
        noted = still_held(limits.store.audit_log(order.account, MOST_ENTRIES))
    try:
        listed = queue.listed(frozenset(message.queue_id for message in noted))
        waiting = {message for message in noted if listed.get(message)}
        queue.release(waiting)
        stays = _held(queue, waiting)
    except (NoPostfix, QueueFailed) as error:
        _leave(error, "the account has been given back; its queue was not released, or not all of it")
    released = waiting - stays
    with open_limits() as limits:
        now = time.time()
        for entry in entries_of(RELEASE, order.account, released, who=order.who, why=order.why, now=now):
            limits.store.audit(entry)
        if released:
            limits.store.audit(_summary(order, "queue-released", f"{_messages(len(released))} released"))
    click.echo(f"{_messages(len(released))} released; Postfix tries them at its next queue run (`postqueue -f`: now).")
    if gone := len(noted - waiting):
        click.echo(f"{_messages(gone)} that had been put on hold here, or on another machine, are not on hold here.")
    if stays:
        click.echo(f"{_messages(len(stays))} could not be released.")


def _hold(open_limits: Open, order: Order, queue: Queue, messages: Iterable[Message]) -> set[Message]:
    """Put messages on hold; return those that are. They are noted first: who is interrupted can release them all the same."""
    wanted = set(messages)
    if not wanted:
        return set()
    with open_limits() as limits:
        for entry in entries_of(HOLD, order.account, wanted, who=order.who, why=order.why, now=time.time()):
            limits.store.audit(entry)
    queue.hold(wanted)
    ids = frozenset(message.queue_id for message in wanted)
    on_hold = {message for message, is_held in queue.listed(ids).items() if is_held}
    # A message that left while this ran can have given its id to another one, which is nobody's business here.
    queue.release(on_hold - wanted)
    return on_hold & wanted


def _held(queue: Queue, messages: Iterable[Message]) -> set[Message]:
    """Return which of the messages are on hold."""
    wanted = set(messages)
    listed = queue.listed(frozenset(message.queue_id for message in wanted))
    return {message for message in wanted if listed.get(message)}


def _summary(order: Order, action: str, after: str) -> AuditEntry:
    return AuditEntry(time.time(), order.who, action, order.account, order.why, "", after)


def _messages(number: int) -> str:
    return f"{number} message" if number == 1 else f"{number} messages"


def _leave(error: NoPostfix | QueueFailed, what: str) -> NoReturn:
    if isinstance(error, NoPostfix):
        leave(EX_UNAVAILABLE, f"Postfix's postqueue and postsuper are not installed here; {what}")
    leave(EX_TEMPFAIL, f"Postfix: {printable(str(error))}; {what}")
