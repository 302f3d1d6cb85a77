"""What `mailward setup` would write for Mailward itself: conf.d and the keys, from what the operator has configured."""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailward.model.errors import ConfigError
from mailward.settings.load import read_sections, structure
from mailward.settings.policyd import Settings
from postmaster.setup.change import FileText, Plan, Wanted
from postmaster.setup.dovecot_facts import DovecotFacts
from postmaster.setup.dovecot_text import parse_configuration
from postmaster.setup.own import DOVEADM_PORTS, DOVECOT_PORTS, plan_own
from tests.support.processes import open_folder

ALL = ("dkim-sign", "auth-verify", "greylist", "policyd")
OURS, KEY, DOVEADM_KEY = "50-setup.toml", "dovecot-policy.key", "doveadm.key"
OPERATORS = '[policyd]\ndovecot = "192.0.2.1:4000"\ndovecot_api_key_file = "{folder}/own.key"\n'


def dovecot(settings: str = "protocols = imap lmtp\n", version: tuple[int, int] = (2, 3)) -> DovecotFacts:
    return DovecotFacts(version, Path("/etc/dovecot/dovecot.conf"), parse_configuration(settings))


class Machine:
    """A folder with mailward.toml; `plan` plans, `apply` writes what is planned."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "mailward.toml"
        self.write("")

    def write(self, text: str) -> None:
        (self.folder / "own.key").write_text("a key of the operator's\n")
        (self.folder / "own.key").chmod(0o640)
        self.config.write_text(text.replace("{folder}", str(self.folder)))

    def plan(self, *daemons: str, facts: DovecotFacts | None = None) -> tuple[Wanted, Plan]:
        return plan_own(Wanted(daemons or ALL, {}), self.config, facts)

    def apply(self, plan: Plan) -> None:
        for change in plan.changes:
            assert isinstance(change, FileText)
            assert (change.path.read_bytes() if change.path.exists() else None) == change.old
            change.path.parent.mkdir(exist_ok=True)
            if change.new is None:
                change.path.unlink()
            else:
                change.path.write_bytes(change.new)
                change.path.chmod(change.mode)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with open_folder() as folder:
        yield Machine(folder)


def names(plan: Plan) -> dict[str, bool]:
    """Return the files by name, and whether they will be there."""
    return {change.path.name: change.new is not None for change in plan.changes if isinstance(change, FileText)}


def test_policyd_and_dovecot_are_brought_together_and_a_second_run_changes_nothing(machine: Machine) -> None:
    wanted, plan = machine.plan(facts=dovecot())
    assert names(plan) == {KEY: True, DOVEADM_KEY: True, OURS: True}
    assert (plan.restarts, plan.reloads, plan.findings) == (("mailward-policyd",), (), ())
    machine.apply(plan)
    own = structure(read_sections(machine.config), Settings).policyd
    assert own.dovecot is not None
    assert wanted.dovecot == f"{own.dovecot.host}:{own.dovecot.port}"
    assert own.incidents.doveadm == f"http://{wanted.doveadm}/doveadm/v1"
    assert (machine.folder / KEY).read_text() == wanted.dovecot_key + "\n"
    assert (machine.folder / DOVEADM_KEY).read_text() == wanted.doveadm_key + "\n"
    assert machine.plan(facts=dovecot()) == (wanted, Plan())


def test_keys_are_new_long_and_mailwards_alone(machine: Machine) -> None:
    wanted, plan = machine.plan(facts=dovecot())
    other, _ = machine.plan(facts=dovecot())
    keys = {wanted.dovecot_key, wanted.doveadm_key, other.dovecot_key, other.doveadm_key}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {64}
    secrets = [each for each in plan.changes if isinstance(each, FileText) and each.is_secret]
    assert {(each.path.name, each.mode, each.owner, each.group) for each in secrets} == {
        (name, 0o640, "root", "mailward") for name in (KEY, DOVEADM_KEY)
    }
    (shown,) = [each for each in plan.changes if isinstance(each, FileText) and not each.is_secret]
    assert not [key for key in keys if key.encode() in (shown.new or b"")]


def test_each_daemons_socket_is_the_configurations(machine: Machine) -> None:
    machine.write('[greylist]\nsocket = "inet:127.0.0.1:9999"\n[policyd]\nsocket = "inet:[::1]:9998"\n')
    wanted, _ = machine.plan()
    assert wanted.sockets == {
        "dkim-sign": "unix:/var/spool/postfix/mailward/dkim-sign.sock",
        "auth-verify": "unix:/var/spool/postfix/mailward/auth-verify.sock",
        "greylist": "inet:127.0.0.1:9999",
        "policyd": "inet:[::1]:9998",
    }
    assert list(machine.plan("greylist")[0].sockets) == ["greylist"]


def test_without_policyd_or_without_dovecot_nothing_is_written(machine: Machine) -> None:
    assert machine.plan("dkim-sign", "greylist", facts=dovecot())[1] == Plan()
    for facts in (None, dovecot(version=(2, 2)), dovecot("auth_policy_server_url = http://127.0.0.1:8084/\n")):
        wanted, plan = machine.plan(facts=facts)
        assert (wanted.dovecot, wanted.doveadm, plan) == ("", "", Plan())


def test_what_the_operator_configured_is_used_and_not_written_again(machine: Machine) -> None:
    machine.write(OPERATORS)
    wanted, plan = machine.plan(facts=dovecot())
    assert (wanted.dovecot, wanted.dovecot_key) == ("192.0.2.1:4000", "a key of the operator's")
    assert names(plan) == {DOVEADM_KEY: True, OURS: True}
    written = next(each.new for each in plan.changes if isinstance(each, FileText) and each.path.name == OURS)
    assert written is not None
    assert tomllib.loads(written.decode())["policyd"].keys() == {"incidents"}


def test_what_the_operator_configures_later_takes_the_place_of_ours(machine: Machine) -> None:
    machine.apply(machine.plan(facts=dovecot())[1])
    machine.write(
        OPERATORS + '[policyd.incidents]\ndoveadm = "http://127.0.0.1:8080"\ndoveadm_key_file = "{folder}/own.key"\n'
    )
    wanted, plan = machine.plan(facts=dovecot())
    assert names(plan) == {KEY: False, DOVEADM_KEY: False, OURS: False}
    assert (wanted.dovecot, wanted.doveadm) == ("192.0.2.1:4000", "")
    machine.apply(plan)
    assert machine.plan(facts=dovecot()) == (wanted, Plan())
    assert structure(read_sections(machine.config), Settings).policyd.incidents.doveadm == "http://127.0.0.1:8080"


def test_a_key_of_ours_that_the_operator_names_stays(machine: Machine) -> None:
    machine.apply(machine.plan(facts=dovecot())[1])
    machine.write(OPERATORS.replace("own.key", KEY))
    _, plan = machine.plan(facts=dovecot())
    assert names(plan) == {OURS: True}


def test_a_doveadm_of_the_operators_is_left_to_him(machine: Machine) -> None:
    wanted, plan = machine.plan(facts=dovecot("doveadm_api_key = # hidden, use -P to show it\n"))
    assert (wanted.doveadm, names(plan)) == ("", {KEY: True, OURS: True})


def test_when_dovecot_goes_away_so_does_ours(machine: Machine) -> None:
    machine.apply(machine.plan(facts=dovecot())[1])
    _, plan = machine.plan(facts=None)
    assert names(plan) == {KEY: False, DOVEADM_KEY: False, OURS: False}


def test_a_port_that_somebody_has_is_not_taken_and_one_that_is_ours_stays(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = somebody.getsockname()[1]
        ports = (taken, *DOVECOT_PORTS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("postmaster.setup.own.DOVECOT_PORTS", ports)
            wanted, plan = machine.plan(facts=dovecot())
    assert int(wanted.dovecot.rpartition(":")[2]) in DOVECOT_PORTS
    machine.apply(plan)
    address, _, port = wanted.dovecot.rpartition(":")
    try:
        policyd = socket.create_server((address, int(port)))
    except OSError:  # another program of this machine's took it just now: which is what this is about
        policyd = socket.socket()
    with policyd:
        assert machine.plan(facts=dovecot()) == (wanted, Plan())


def test_the_ports_are_beside_the_other_ones_of_ours() -> None:
    assert (DOVECOT_PORTS[0], DOVEADM_PORTS[0]) == (9465, 9466)
    assert len({*DOVECOT_PORTS, *DOVEADM_PORTS, 9461, 9462, 9463, 9464}) == len(DOVECOT_PORTS) + len(DOVEADM_PORTS) + 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("[policyd]\nsokcet = 3\n", "policyd.sokcet: unknown key", id="an unknown key"),
        pytest.param("[greylist\n", "mailward.toml", id="no TOML"),
        pytest.param("[dkim-sign]\nsocket = 3\n", "dkim-sign.socket", id="another daemon's socket"),
    ],
)
def test_a_wrong_configuration_is_not_set_up(machine: Machine, text: str, says: str) -> None:
    machine.write(text)
    with pytest.raises(ConfigError, match=says):
        machine.plan(facts=dovecot())


def test_a_key_that_everybody_can_read_is_named_and_not_shown(machine: Machine) -> None:
    machine.apply(machine.plan(facts=dovecot())[1])
    (machine.folder / KEY).chmod(0o644)
    with pytest.raises(ConfigError, match="everybody can read it") as caught:
        machine.plan(facts=dovecot())
    assert (machine.folder / KEY).read_text().strip() not in str(caught.value)
