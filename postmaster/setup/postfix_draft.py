"""A plan for Postfix while it is made: what is wanted of each setting, and what of that is a change. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from postmaster.setup.change import Change, Finding, MainSetting, Plan, ServiceSetting, Wanted, Weight
from postmaster.setup.peers import Peer, find_peer, our_daemon
from postmaster.setup.postfix_facts import ASKED, PostfixFacts, Service
from postmaster.setup.postfix_lists import compact, first_word, names, tokens, words

# What may stand in an address without meaning something to Postfix's parser of lists.
_ADDRESS = re.compile(r"[A-Za-z0-9_./:@\[\]%+-]+")
_NAME = re.compile(r"\$[({]?(\w+)[)}]?")


class Draft:
    """Collects changes and findings; a setting that is as it should be is no change."""

    def __init__(self, facts: PostfixFacts, wanted: Wanted) -> None:
        self.facts = facts
        self.wanted = wanted
        self._main: dict[str, MainSetting] = {}
        self._services: dict[tuple[str, str], ServiceSetting] = {}
        self._findings: dict[Finding, None] = {}
        self.addresses = {daemon: self._address(daemon) for daemon in wanted.daemons}

    def plan(self) -> Plan:
        """Return all of it."""
        unnamed = {name for name in self._main if name.startswith("mailward_") and not self._is_named(name)}
        main = (change for name, change in self._main.items() if name not in unnamed)
        order = [service.name for service in self.facts.services]  # what concerns one service is shown together
        services = sorted(self._services.values(), key=lambda change: order.index(change.service))
        changes: tuple[Change, ...] = (*main, *self._unused(), *services)
        return Plan(changes, tuple(self._findings), ("postfix",) if changes else ())

    def find(self, weight: Weight, text: str) -> None:
        """Say something, once."""
        self._findings[Finding(weight, text)] = None

    def set_main(self, name: str, new: str, why: str) -> None:
        """Want a setting of main.cf."""
        self._main.pop(name, None)
        if words(self.facts.value(name)) != words(new):
            self._main[name] = MainSetting(name, self.facts.main.get(name), new, why)

    def main_after(self, name: str) -> str:
        """Return what will hold in main.cf."""
        change = self._main.get(name)
        return self.facts.value(name) if change is None else change.new or ""

    def set_service(self, service: Service, name: str, new: str, why: str) -> None:
        """Want a service's own setting; where it has none, what it takes over from main.cf may be that already."""
        old = service.options.get(name)
        self._services.pop((service.name, name), None)
        if words(self.main_after(name) if old is None else old) == words(new):
            return
        written = compact(new)
        if written is None:
            self.find(
                Weight.REFUSAL,
                f'{service.name}: {name} would be "{new}", whose white space cannot be written into master.cf; give what '
                "has it a name in main.cf, my_name = { ... }, and write $my_name in its place",
            )
            return
        self._services[service.name, name] = ServiceSetting(service.name, name, old, written, why)

    def daemon_of(self, token: str) -> str:
        """Return which daemon of ours a token of a list is; empty: none."""
        for daemon in ("dkim-sign", "auth-verify", "greylist", "policyd"):
            if re.fullmatch(rf"\$[({{]?mailward_{daemon.replace('-', '_')}(_submission)?[)}}]?", token):
                return daemon
        return our_daemon(self.facts.expanded(token), self.addresses)

    def items(self, value: str) -> list[str]:
        """Return a list of milters; a parameter that holds several of them, some ours or known, is taken apart."""
        found: list[str] = []
        for token in (each.text for each in tokens(value)):
            inner = tokens(self.facts.expanded(token)) if token.startswith("$") and not self.daemon_of(token) else []
            is_known = any(self.daemon_of(each.text) or find_peer(each.text) for each in inner)
            found += [each.text for each in inner] if len(inner) > 1 and is_known else [token]
        return found

    def peer_of(self, token: str) -> Peer | None:
        """Return whose program a token of a list is, where it is known."""
        return None if self.daemon_of(token) else find_peer(first_word(self.facts.expanded(token)))

    def wants(self, *daemons: str) -> bool:
        """Tell whether one of the daemons is to be asked."""
        return any(daemon in self.wanted.daemons for daemon in daemons)

    def definitions(self, shipped: Mapping[str, str], daemon: str, why: str) -> None:
        """Want the parameters that say how Postfix asks a daemon; what an operator tuned there stays, if the address holds."""
        for name, line in shipped.items():
            if not name.startswith("mailward_"):
                continue
            address = self.addresses[daemon]
            if name in self.facts.main and first_word(self.facts.main[name]) == address:
                continue
            self.set_main(name, line.replace(first_word(line), address, 1), why)

    def _planned(self) -> list[MainSetting | ServiceSetting]:
        return [*self._main.values(), *self._services.values()]

    def _unused(self) -> Iterable[MainSetting]:
        """Yield the names that an operator has given to what is asked no more: Postfix complains of one that nobody uses."""
        planned = self._planned()
        olds = (each.text for change in planned for each in tokens(change.old or ""))
        given = dict.fromkeys(match.group(1) for old in olds if (match := _NAME.fullmatch(old)))
        after = {name: value for name, value in self.facts.main.items() if name not in self._main}
        services = (
            value
            for service in self.facts.services
            for name, value in service.options.items()
            if (service.name, name) not in self._services
        )
        values = [*after.values(), *services, *(change.new or "" for change in planned)]
        for name in given:
            if name in after and name not in ASKED and not any(names(value, name) for value in values):
                yield MainSetting(name, after[name], None, "nothing names it any more")

    def _is_named(self, name: str) -> bool:
        """Tell whether a list names a parameter of ours: Postfix complains of one that nobody does."""
        planned = self._planned()
        there = [*self.facts.main.values(), *(value for each in self.facts.services for value in each.options.values())]
        return any(names(value, name) for value in (*there, *(change.new or "" for change in planned)))

    def _address(self, daemon: str) -> str:
        """Return where a daemon listens, as Postfix writes it: within the queue directory relative to that."""
        socket = self.wanted.sockets[daemon]
        if not _ADDRESS.fullmatch(socket):
            self.find(
                Weight.REFUSAL,
                f"{daemon} listens at {socket}, which no list of Postfix's can hold; give it a plain path",
            )
            return socket
        path, queue = socket.removeprefix("unix:"), self.facts.value("queue_directory").rstrip("/") + "/"
        if not socket.startswith("unix:"):
            return socket
        if path.startswith(queue):
            return f"unix:{path.removeprefix(queue)}"
        if chrooted := self._chrooted():
            self.find(
                Weight.REFUSAL,
                f"{daemon} listens at {path}, outside of {queue}, where {chrooted} cannot see it: Postfix runs it with that as "
                f"its root. Let it listen below {queue}, or at inet:127.0.0.1:PORT, in its .socket unit too where it has one",
            )
        return socket

    def _chrooted(self) -> str:
        asking: Iterable[Service] = (each for each in self.facts.services if each.program in ("smtpd", "cleanup"))
        return next((each.name for each in asking if each.is_chrooted), "")
