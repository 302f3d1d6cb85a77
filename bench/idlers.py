"""All that a machine runs for these jobs, at once: our four daemons, the chain of peers, and rspamd with Redis.

A peer's configuration is Debian's default but for what the job needs; its template is in `peers/`. Where a peer can do
two jobs in one process it does.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.greylisters import Task as GreylistTask
from bench.greylisters import postgrey, redis_server
from bench.keys import Key
from bench.launch import CHECKOUT, fill, milter, start_once, started
from bench.policy_servers import policyd_rate_limit
from bench.verifiers import Task as VerifyTask
from bench.verifiers import opendmarc
from tests.support.processes import Program, ProgramError, free_port, require_binary

DEBIAN_PYTHON = "/usr/bin/python3"
# The packages' modules are compiled when they are installed, ours here by the start that is not measured.
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
DAEMONS = {
    "dkim-sign": "milters.dkim_sign",
    "auth-verify": "milters.auth_verify",
    "greylist": "milters.greylist",
    "policyd": "policyd",
}
PAGES = ("/metrics", "/")
OURS = """\
authserv_id = "mail.example.net"
state = "sqlite:{folder}/state"

[dns]
nameservers = ["{nameserver}"]
"""
OUR_TABLE = """
[{name}]
socket = "unix:{folder}/{name}.sock"
metrics = "127.0.0.1:{port}"
"""
OUR_LOGINS = """\
dovecot = "127.0.0.1:{port}"
dovecot_api_key_file = "{folder}/dovecot.key"
"""
OUR_DOMAIN = """
[[dkim-sign.domain]]
name = "{domain}"
keys = [ {{ selector = "{selector}", file = "{file}" }} ]
"""
SPF_REQUEST = """\
request=smtpd_access_policy
protocol_state=RCPT
client_address=127.0.0.1
helo_name=localhost
sender=sender@example.com
recipient=rcpt@example.net
instance=1

"""


@dataclass(frozen=True, slots=True)
class Task:
    """The folder of a group, what it signs, and the address of the nameserver it asks, at port 53."""

    folder: Path
    domain: str
    key: Key
    nameserver: str


Group = Mapping[str, Sequence[int]]  # the pids of the first processes, by the name of the program


@contextmanager
def running(name: str, task: Task) -> Iterator[Group]:
    """Run one of GROUPS for a while; a first start in its folder is not measured: rspamd compiles then."""
    start_once(task.folder, lambda: GROUPS[name](task))
    with GROUPS[name](task) as group:
        yield group


@contextmanager
def mailward_debian(task: Task) -> Iterator[Group]:
    """Our daemons as the packages run them: with Debian's Python and its libraries."""
    with _mailward(DEBIAN_PYTHON, task) as group:
        yield group


@contextmanager
def mailward_newest(task: Task) -> Iterator[Group]:
    """Our daemons with the Python that runs us, and PyPI's libraries."""
    with _mailward(sys.executable, task) as group:
        yield group


@contextmanager
def chain(task: Task) -> Iterator[Group]:
    """The peers that do the same jobs one each."""
    key = shutil.copy(task.key.file, task.folder / "signing.pem")
    values = {**_signing(task, Path(key)), "socket": _socket(task, "opendkim"), "nameserver": task.nameserver}
    configuration = fill("opendkim-both.conf", task.folder, values)
    fill("unbound.conf", task.folder, {})
    opendkim = [require_binary("opendkim", "opendkim"), "-f", "-x", str(configuration)]
    dmarc = opendmarc(VerifyTask(task.folder, [task.nameserver]), _socket(task, "opendmarc"))
    programs = {
        "opendkim": milter("opendkim", opendkim, task.folder, _socket(task, "opendkim")),
        "opendmarc": milter("opendmarc", dmarc, task.folder, _socket(task, "opendmarc")),
        "postgrey": postgrey(GreylistTask(task.folder, [task.nameserver]), _socket(task, "postgrey")).program,
        "policyd-rate-limit": policyd_rate_limit(task.folder, _socket(task, "policyd-rate-limit")).program,
    }
    with _all_started(programs) as group, _policyd_spf() as pid:
        yield {**group, "policyd-spf (each process)": [pid]}


@contextmanager
def rspamd(task: Task) -> Iterator[Group]:
    """rspamd with these jobs alone, and Redis."""
    port = free_port()
    values = {**_signing(task, task.key.file), "nameserver": task.nameserver, "redis": f"127.0.0.1:{port}"}
    configuration = fill("rspamd-idle.conf", task.folder, {**values, "socket": _socket(task, "rspamd")})
    command = [*_rspamd(), "-c", str(configuration)]
    programs = {
        "redis": redis_server(task.folder, port),
        "rspamd": milter("rspamd", command, task.folder, _socket(task, "rspamd")),
    }
    with _all_started(programs) as group:
        yield group


@contextmanager
def rspamd_debian(task: Task) -> Iterator[Group]:
    """rspamd as Debian configures it, which is a spam filter, and Redis."""
    port = free_port()
    local = task.folder / "local.d"
    local.mkdir(exist_ok=True)
    (local / "redis.conf").write_text(f'servers = "127.0.0.1:{port}";\n')
    (local / "options.inc").write_text(f'dns {{ nameserver = ["{task.nameserver}"]; }}\n')
    (local / "worker-proxy.inc").write_text(f'bind_socket = "{_socket(task, "rspamd")} mode=0666";\n')
    folders = [f"--var={name}={task.folder}" for name in ("DBDIR", "RUNDIR", "LOGDIR", "LOCAL_CONFDIR")]
    command = [*_rspamd(), "-c", "/etc/rspamd/rspamd.conf", *folders]
    programs = {
        "redis": redis_server(task.folder, port),
        "rspamd": milter("rspamd", command, task.folder, _socket(task, "rspamd")),
    }
    with _all_started(programs) as group:
        yield group


GROUPS: Mapping[str, Callable[[Task], AbstractContextManager[Group]]] = {
    "mailward, Debian's Python": mailward_debian,
    "mailward, PyPI's libraries": mailward_newest,
    "a program for each job": chain,
    "rspamd, these jobs": rspamd,
    "rspamd, Debian's default": rspamd_debian,
}


@contextmanager
def _mailward(python: str, task: Task) -> Iterator[Group]:
    """Run the four with one configuration, policyd's side for Dovecot included, and look at each one's pages once."""
    shutil.rmtree(task.folder / "state", ignore_errors=True)
    (task.folder / "state").mkdir()
    (task.folder / "dovecot.key").write_text("0123456789abcdef0123456789abcdef\n")
    (task.folder / "dovecot.key").chmod(0o600)
    ports = {name: free_port() for name in DAEMONS}
    configuration = task.folder / "mailward.toml"
    configuration.write_text(_our_text(task, ports))
    programs = {}
    for name, module in DAEMONS.items():
        command = [python, "-m", module, "--config", str(configuration)]
        programs[name] = milter(name, command, task.folder, task.folder / f"{name}.sock", working_folder=CHECKOUT)
        programs[name].environment.update(COMPILED)
    with _all_started(programs) as group:
        for port in ports.values():
            for page in PAGES:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=10).close()
        yield group


def _our_text(task: Task, ports: Mapping[str, int]) -> str:
    text = OURS.format(folder=task.folder, nameserver=task.nameserver)
    for name, port in ports.items():
        text += OUR_TABLE.format(name=name, folder=task.folder, port=port)
    text += OUR_LOGINS.format(folder=task.folder, port=free_port())  # the last table is policyd's
    return text + OUR_DOMAIN.format(domain=task.domain, selector=task.key.selector, file=task.key.file)


@contextmanager
def _all_started(programs: Mapping[str, Program]) -> Iterator[Group]:
    with ExitStack() as stack:
        for program in programs.values():
            stack.enter_context(started(program))
        yield {name: [program.pid] for name, program in programs.items()}


@contextmanager
def _policyd_spf() -> Iterator[int]:
    """Run one process of policyd-spf as Postfix's spawn(8) does for each smtpd, and see that it answers."""
    command = [require_binary("policyd-spf", "postfix-policyd-spf-python")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process_of_smtpd:
        asked, answered = process_of_smtpd.stdin, process_of_smtpd.stdout
        assert asked is not None
        assert answered is not None
        asked.write(SPF_REQUEST.encode())
        asked.flush()
        if not answered.readline().startswith(b"action="):
            raise ProgramError("policyd-spf did not answer")
        try:
            yield process_of_smtpd.pid
        finally:
            process_of_smtpd.terminate()


def _rspamd() -> list[str]:
    """Return the command; as root rspamd insists on `-i` to stay root."""
    as_root = ["-i"] if os.geteuid() == 0 else []
    return [require_binary("rspamd", "rspamd"), "-f", *as_root]


def _socket(task: Task, name: str) -> Path:
    """Return the socket's path, which is free: a program of the round before may have left it."""
    path = task.folder / f"{name}.sock"
    path.unlink(missing_ok=True)
    return path


def _signing(task: Task, key: Path) -> Mapping[str, object]:
    account = f"{pwd.getpwuid(os.geteuid()).pw_name}:{grp.getgrgid(os.getegid()).gr_name}"
    return {"domain": task.domain, "selector": task.key.selector, "key": key, "user": account}
