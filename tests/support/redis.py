"""Real Redis servers for tests: one alone, one with a replica and three Sentinels, a Cluster of three masters.

Each keeps everything in memory, in a folder of its own, on loopback. `address` is what `state = "..."` would say.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mailward.model.state import RedisState
from mailward.settings.state import read_state
from tests.support.processes import Program, ProgramError, free_port, require_binary, run, wait_until

PACKAGE = "redis-server"
SERVICE = "mailward"
# Milliseconds. A replica that has lost its master is asked for INFO once a second, and made its heir only if it has answered
# within five ping periods: five of 100 ms, and half of the failovers find no heir and wait twice the failover time-out.
PERIODS = ("info-period", "200", "ping-period", "300", "ask-period", "100", "publish-period", "200")
BEHIND = 2000  # octets: what Sentinels and pings write in a second, after which a replica confirms
# A Sentinel holds a master for dead after that; less, and a busy machine makes it a liar.
DOWN_AFTER_MILLISECONDS = 1500
STEADY_MILLISECONDS = 120_000  # where nobody is to be held for dead, however busy the machine is
FAILOVER_SECONDS = 60.0  # a failover that finds no heir, because the machine is busy, is tried again some seconds later


def state_of(address: str) -> RedisState:
    """Return what an address means."""
    state = read_state(address).state
    assert isinstance(state, RedisState)
    return state


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""

    certificate: Path
    key: Path


def make_tls(folder: Path, name: str = "redis") -> Tls:
    """Make a certificate, as an operator might for a network of his own."""
    made = Tls(folder / f"{name}.pem", folder / f"{name}.key")
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3"]
    files = ["-keyout", str(made.key), "-out", str(made.certificate)]
    run([require_binary("openssl", "openssl"), "req", "-x509", *kind, *names, *files])
    return made


class Redis:
    """One server. `options` are redis-server's own, without dashes; it starts empty each time."""

    def __init__(
        self,
        folder: Path,
        *,
        bind: str = "127.0.0.1",
        name: str = "redis",
        password: str = "",
        tls: Tls | None = None,
        options: Sequence[str] = (),
        configuration: Path | None = None,
    ) -> None:
        self.bind = bind
        self.port = free_port()
        self.password = password
        self.tls = tls
        own_folder = folder / f"{name}-{self.port}"
        own_folder.mkdir(parents=True)
        ports = ["--port", "0", "--tls-port", str(self.port)] if tls else ["--port", str(self.port)]
        command = [require_binary("redis-server", PACKAGE), *([str(configuration)] if configuration else []), *ports]
        command += ["--bind", bind, "--dir", str(own_folder), "--save", "", "--protected-mode", "no"]
        if tls:
            command += ["--tls-cert-file", str(tls.certificate), "--tls-key-file", str(tls.key)]
            command += ["--tls-ca-cert-file", str(tls.certificate), "--tls-auth-clients", "optional"]
        if password:
            command += ["--requirepass", password, "--masterauth", password]
        self.program = Program(name, [*command, *options], own_folder, is_ready=self.answers)

    @property
    def address(self) -> str:
        """Return what `state` says of it."""
        start = "rediss" if self.tls else "redis"
        credentials = f":{self.password}@" if self.password else ""
        return f"{start}://{credentials}{self.bind}:{self.port}" + (f"?ca={self.tls.certificate}" if self.tls else "")

    @property
    def state(self) -> RedisState:
        """Return it as the store wants it."""
        return state_of(self.address)

    @property
    def is_running(self) -> bool:
        """Say whether it was started, and not ended since by one of these methods."""
        try:
            return self.program.pid > 0
        except ProgramError:
            return False

    def start(self) -> None:
        """Start it; return once it answers."""
        self.program.start()

    def stop(self) -> None:
        """End it; one that was stopped (SIGSTOP), too."""
        if self.is_running:
            self.signal(signal.SIGCONT)
        self.program.stop()

    def kill(self) -> None:
        """End it at once, by KILL."""
        if self.is_running:
            self.signal(signal.SIGKILL)
            os.waitid(os.P_PID, self.program.pid, os.WEXITED | os.WNOWAIT)
        self.program.stop()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.program.signal(number)

    def command(self, *words: str) -> str:
        """Say something to it, and return what it answers, a line for each part."""
        tls = ["--tls", "--cacert", str(self.tls.certificate)] if self.tls else []
        password = ["--no-auth-warning", "-a", self.password] if self.password else []
        return run(
            [require_binary("redis-cli", PACKAGE), "-h", self.bind, "-p", str(self.port), *tls, *password, *words]
        )

    def command_again(self, *words: str) -> str:
        """Say something that may be said twice, until it answers: one that changes its mind or its role closes connections."""
        answers: list[str] = []

        def is_answered() -> bool:
            try:
                answers.append(self.command(*words))
            except ProgramError:
                return False
            return True

        wait_until(is_answered, f"an answer to {' '.join(words)}", seconds=FAILOVER_SECONDS)
        return answers[0]

    def says(self, expected: str, *words: str) -> bool:
        """Say whether it answers, and with this in it. A Sentinel that changes its mind closes connections, redis-cli's too."""
        try:
            return expected in self.command(*words)
        except ProgramError:
            return False

    def answers(self) -> bool:
        """Say whether it is there and has loaded what it has."""
        return self.says("PONG", "PING")

    def clear(self) -> None:
        """Forget everything."""
        self.command("FLUSHALL")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Several:
    """Several servers that are started and ended together; `start`, `address` are the group's own."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    @property
    def address(self) -> str:
        """Return what `state` says of them."""
        raise NotImplementedError

    @property
    def state(self) -> RedisState:
        """Return it as the store wants it."""
        return state_of(self.address)

    def start(self) -> None:
        """Start all."""
        raise NotImplementedError

    def stop(self) -> None:
        """End all."""
        self._stack.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class RedisWithSentinels(_Several):
    """A master, its replica, and three Sentinels that make the one the other when it is needed."""

    def __init__(
        self, folder: Path, *, password: str = "", down_after_milliseconds: int = DOWN_AFTER_MILLISECONDS
    ) -> None:
        self.password = password
        fast = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]
        first = Redis(folder, name="one", password=password, options=fast)
        second = Redis(
            folder, name="two", password=password, options=[*fast, "--replicaof", first.bind, str(first.port)]
        )
        self.servers = (first, second)
        self.sentinels = tuple(
            make_sentinel(folder, first, name=f"sentinel-{number}", down_after_milliseconds=down_after_milliseconds)
            for number in range(3)
        )
        super().__init__()

    @property
    def address(self) -> str:
        """Return what `state` says of them."""
        credentials = f":{self.password}@" if self.password else ""
        return f"redis+sentinel://{credentials}{','.join(f'{s.bind}:{s.port}' for s in self.sentinels)}/{SERVICE}"

    def master(self) -> Redis:
        """Return the server that the Sentinels say is the master."""
        _, port = self.sentinels[0].command_again("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE).split()
        return next(server for server in self.servers if server.port == int(port))

    def exchange_roles(self) -> None:
        """Make the replica the master, and return once the old master is its replica; nothing that was written is lost."""
        old = self.master()
        written = int(_replication(old)["master_repl_offset"])
        wait_until(lambda: _confirmed(old) >= written, "the replica has what was written", seconds=FAILOVER_SECONDS)

        def is_exchanged() -> bool:
            known = self._known_master(self.sentinels[0])
            if known["port"] == str(old.port) and "failover_in_progress" not in known["flags"]:
                # Refused while its news of the heir are old, and given up where they turn out to be.
                self.sentinels[0].says("OK", "SENTINEL", "FAILOVER", SERVICE)
            return _replication(old)["role"] == "slave"

        wait_until(is_exchanged, "the old master is a replica", seconds=FAILOVER_SECONDS)

    def wait_until_safe(self) -> None:
        """Wait until the master may die: it has a replica in step, and the Sentinels know it and one another."""
        for server in self.servers:
            if not server.is_running:
                server.start()
        what = "the Sentinels know a replica in step, and one another"
        wait_until(self._is_safe, what, seconds=FAILOVER_SECONDS)

    def _is_safe(self) -> bool:
        if not _has_replica_in_step(self.master()):
            return False
        for sentinel in self.sentinels:
            known = self._known_master(sentinel)
            if (known["flags"], known["num-slaves"], known["num-other-sentinels"]) != ("master", "1", "2"):
                return False
            if not sentinel.says("master-link-status\nok", "SENTINEL", "REPLICAS", SERVICE):
                return False
        return True

    def _known_master(self, sentinel: Redis) -> dict[str, str]:
        words = sentinel.command_again("SENTINEL", "MASTER", SERVICE).split("\n")
        return dict(zip(words[::2], words[1::2], strict=False))

    def clear(self) -> None:
        """Forget everything."""
        self.master().clear()

    def start(self) -> None:
        """Start all; return once the master may die."""
        for server in self.servers:
            self._stack.callback(server.stop)
            server.start()
        for sentinel in self.sentinels:
            self._stack.callback(sentinel.stop)
            self.start_sentinel(sentinel)
        self.wait_until_safe()

    def start_sentinel(self, sentinel: Redis) -> None:
        """Start one of the Sentinels, and have it look around more often than every ten seconds."""
        sentinel.start()
        sentinel.command("SENTINEL", "DEBUG", *PERIODS)


def _has_replica_in_step(master: Redis) -> bool:
    """Say whether a replica confirms what is written: "online" it is called before it is sent anything."""
    return _confirmed(master) > max(0, int(_replication(master)["master_repl_offset"]) - BEHIND)


def _confirmed(master: Redis) -> int:
    """Return how much of what was written a replica has confirmed."""
    replica = dict(part.partition("=")[::2] for part in _replication(master).get("slave0", "").split(","))
    return int(replica["offset"]) if replica.get("state") == "online" else 0


def _replication(server: Redis) -> dict[str, str]:
    return dict(line.partition(":")[::2] for line in server.command_again("INFO", "replication").splitlines())


def make_sentinel(
    folder: Path,
    master: Redis,
    *,
    name: str = "sentinel",
    password: str = "",
    tls: Tls | None = None,
    down_after_milliseconds: int = DOWN_AFTER_MILLISECONDS,
) -> Redis:
    """Return a Sentinel: a redis-server with a file that it writes on."""
    lines = [
        f"sentinel monitor {SERVICE} {master.bind} {master.port} 2",
        f"sentinel down-after-milliseconds {SERVICE} {down_after_milliseconds}",
        f"sentinel failover-timeout {SERVICE} 2000",
    ]
    if master.password:
        lines.append(f"sentinel auth-pass {SERVICE} {master.password}")
    configuration = folder / f"{name}.conf"
    configuration.write_text("\n".join([*lines, ""]))
    return Redis(folder, name=name, password=password, tls=tls, configuration=configuration, options=["--sentinel"])


class RedisCluster(_Several):
    """Three masters with a third of the slots each; what one has is served while another is dead."""

    def __init__(self, folder: Path) -> None:
        self.nodes = tuple(
            Redis(
                folder,
                name=f"node-{number}",
                options=[
                    *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
                    *("--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"),
                ],
            )
            for number in range(3)
        )
        super().__init__()

    @property
    def address(self) -> str:
        """Return what `state` says of them."""
        return f"redis+cluster://{','.join(f'{node.bind}:{node.port}' for node in self.nodes)}"

    def clear(self) -> None:
        """Forget everything."""
        for node in self.nodes:
            node.clear()

    def start(self) -> None:
        """Start all; return once each knows all slots."""
        first, *others = self.nodes
        for number, node in enumerate(self.nodes):
            self._stack.callback(node.stop)
            node.start()
            share = (16384 * number // 3, 16384 * (number + 1) // 3 - 1)
            node.command("CLUSTER", "ADDSLOTSRANGE", *map(str, share))
        for node in others:
            options = node.program.command
            bus = options[options.index("--cluster-port") + 1]
            first.command("CLUSTER", "MEET", node.bind, str(node.port), bus)
        wait_until(self.is_whole, "every node knows all slots", seconds=60.0)

    def is_whole(self) -> bool:
        """Say whether every node sees every slot served."""
        words = ("cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3")
        return all(word in node.command("CLUSTER", "INFO") for node in self.nodes for word in words)
