"""What a program is to the supervisor: its name, its metrics, how to load its configuration, how a worker serves."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from prometheus_client.core import Metric

from mailward.daemon.log import Log
from mailward.daemon.metrics import Row, Spec
from mailward.daemon.shown import Shown
from mailward.settings.common import Service
from mailward.settings.values import Port, SocketAddress


class Serving(Protocol):
    """What a worker does with the borrowed listener; the milter edge is one, a policy server another."""

    def open(self, listener: socket.socket) -> None:
        """Get ready to accept from the listener."""

    def run(self) -> None:
        """Serve until the process ends."""

    def stop_accepting(self) -> None:
        """Accept nothing more from now on, and go on with the sessions there are. Called from another thread."""

    def is_idle(self) -> bool:
        """Say whether every session has ended."""


@runtime_checkable
class ReloadingServing(Serving, Protocol):
    """A Serving that takes a new configuration while it serves: for programs that keep what they know in one process."""

    def reload(self) -> None:
        """Read the configuration anew and go on with it, or log what is wrong with it and go on as before.

        Called from another thread; never raises.
        """


class Notes(Protocol):
    """What workers tell each other by way of the supervisor, and those that come after them (the state of keys, say)."""

    def note(self, key: str, value: str) -> None:
        """Tell all that `key` is `value`. Never blocks, never fails; what is lost is told again another time."""

    def suggest(self, key: str, value: str) -> None:
        """Tell all that `key` may be `value`, where nobody knows better."""

    def known(self, key: str) -> str:
        """Return what somebody has told of `key`, now or before this worker was forked; empty where nobody has."""


def _no_names(_label: str, _names: Sequence[str]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class WorkerTools:
    """What a worker is given to serve with.

    `sockets` are what it listens at, by the name of their setting. `name_values` is the metrics' own: for what a configuration
    names that is read while the worker serves.
    """

    metrics: Row
    notes: Notes
    log: Log
    sockets: Mapping[str, socket.socket] = field(default_factory=dict)
    name_values: Callable[[str, Sequence[str]], None] = field(default=_no_names)


def _any_note(_key: str) -> bool:
    return True


def _nothing_else() -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """One generation's configuration, checked: everything a worker needs is in memory or known to be readable."""

    service: Service
    make_serving: Callable[[WorkerTools], Serving]
    warnings: tuple[str, ...] = ()
    keeps_note: Callable[[str], bool] = field(default=_any_note)  # whether this configuration still knows a note's key
    label_values: Mapping[str, Sequence[str]] = field(default_factory=dict)  # what it names, for labels of metrics
    other_sockets: Mapping[str, SocketAddress] = field(default_factory=dict)  # beside `socket`, by the setting's name
    kept: Mapping[str, object] = field(
        default_factory=dict
    )  # what a reload in place cannot change, by the setting's name
    look: Callable[[], Sequence[str]] = field(default=_nothing_else)  # what --check finds out beside, as warnings
    watched: Sequence[Path] = ()  # files beside the configuration whose change means the same as HUP
    store: str = ""  # where its state is, without any password; empty where it keeps none

    def all_warnings(self) -> Sequence[str]:
        """Return what this configuration warns of, with what it warns of in every program."""
        return (*self.warnings, *_exposure(self.service.metrics))


def _exposure(metrics: Port | None) -> Sequence[str]:
    """Return a warning where anybody in the world may read the status page."""
    if metrics is None:
        return ()
    address = ipaddress.ip_address(metrics.host)
    if not address.is_unspecified and not address.is_global:
        return ()
    where = "every address of this machine" if address.is_unspecified else metrics.host
    return (
        f"metrics listens at {where}: whoever reaches port {metrics.port} reads the status page, and the addresses "
        f"in its errors; expected loopback or a network of your own",
    )


# Turns the workers' notes into metrics.
Collect = Callable[[Mapping[str, str]], Iterable[Metric]]


def no_metrics(_notes: Mapping[str, str]) -> Iterable[Metric]:
    """Collect nothing from the notes."""
    return ()


@dataclass(frozen=True, slots=True)
class Program:
    """A daemon. `name` is its table in mailward.toml; `manual` the docstring its man page is made from.

    `load` raises ConfigError with every mistake. `collect` turns the workers' notes into metrics. `reloads_in_place`: its
    Serving is a ReloadingServing, and HUP makes no new workers; a configuration that changes what is `kept` is refused.
    `shown` is what the status page says it did.
    """

    name: str
    manual: str
    metrics: tuple[Spec, ...]
    load: Callable[[Path], Loaded]
    collect: Collect = field(default=no_metrics)
    reloads_in_place: bool = False
    shown: tuple[Shown, ...] = ()

    @property
    def metric_prefix(self) -> str:
        """The start of its metrics' names."""
        return "mailward_" + self.name.replace("-", "_")
