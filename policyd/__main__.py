"""mailward-policyd - limit what accounts send, and notice the one that is not its owner's any more

SYNOPSIS
    mailward-policyd [--config FILE] [--check] [--version]

DESCRIPTION
    A policy server for Postfix (SMTPD_POLICY_README): counts what accounts, clients and domains send, in windows that slide, and
    defers, rejects or holds what is beyond a limit. An account that reaches a limit opens an incident: somebody is told once, and
    after more refused messages the account is suspended until an operator gives it back (`mailward limits resume`).

    With `dovecot`, also Dovecot's auth-policy server: it slows down and denies those who guess passwords, denies suspended
    accounts, and tightens the limits of accounts that log in from too many networks.

    Without any configuration every account that logs in is limited: to 200 recipients in an hour and 1000 in a day, to 200 a day
    and 100 in ten minutes that it never wrote to before.

    Whom authenticated users write to is recorded, so that greylisting lets the answers pass.

CONFIGURATION
    `state` and `durability`, where and how safely is counted, and the table [policyd] of mailward.toml(5). Everything has
    a default. Any [[policyd.limit]] replaces the limits that hold by default; `overrides` is a file with what single
    accounts, domains and classes of accounts may do, and `exempt` have no limits. [policyd.incidents] says who is told.
    With `dovecot` Dovecot's questions are answered, as [policyd.logins] says.

SIGNALS
    HUP     Read the configuration, the overrides and lists again; connections, counters and what is known stay. If anything is
            wrong the old configuration stays, and the log says what is wrong. So it does where a restart is needed: for another
            socket, another state, `workers`, `max_sessions`, `store_timeout`.
    TERM    Accept no more, answer what has been asked, write what has been gathered, end.

DIAGNOSTICS
    One line a request that anything is counted of at level info: stage, queue id, client, login, MAIL FROM, RCPT TO, action,
    reason, limit, seconds until it clears, milliseconds; the others at level debug. One line a login that Dovecot reports.
    Incidents and suspensions are warnings and critical. Exit status 78: the configuration is wrong; each mistake has a line
    on stderr.

BUGS
    A delivery attempt that is under way while the process ends is counted anew by the next. Without request_limit=1 in main.cf,
    which is shipped, Postfix takes its default_action (DUNNO) from a restart on for all that an open session asks.
"""

from __future__ import annotations

import time
from pathlib import Path

from mailward.adapters.guarded_counters import COUNTED_HERE, FAILURES, OPENED
from mailward.adapters.stores import correspondents_opener, limits_opener, open_limits
from mailward.daemon import cli
from mailward.daemon.logbook import LOG_METRICS
from mailward.daemon.metrics import NAMED_AT_LOAD, Counter, Gauge, Spec
from mailward.daemon.program import Loaded, Program, WorkerTools
from mailward.daemon.shown import Part, Shown, Tone
from mailward.daemon.state_size import size_collector
from mailward.model.errors import StoreError, StoreFailure
from mailward.model.state import Durability, name_of
from mailward.policy.limits import misplaced
from mailward.policy.logins import Cause
from mailward.settings.load import read_sections, structure
from mailward.settings.policyd import Policyd, Settings, check_state
from mailward.settings.rule_set import read_rule_set
from mailward.settings.secrets import read_key_file
from mailward.settings.values import SocketAddress
from policyd import dovecot, server
from policyd.correspondents import DROPPED, RECORDED
from policyd.doveadm import Doveadm
from policyd.keeper import ACCOUNTS_SUSPENDED, INCIDENTS_OPEN, INCIDENTS_OPENED, KeeperRules
from policyd.kicking import KICK_RESULTS, KICKS
from policyd.notify import NotifyRules
from policyd.rules import Rules
from policyd.service import BREAKERS_OPEN, LIMIT_HITS, SHADOW_HITS, STORE, Configured, PolicyService, Stores
from policyd.stages import MISPLACED, NOTE, stages_of
from policyd.telling import NOTIFICATION_RESULTS, NOTIFICATIONS

LIMIT = "limit"  # the label that the configuration names
DOVECOT = "dovecot"  # the setting, and the name of systemd's socket
CORRESPONDENTS_TIMEOUT = 5.0  # nobody waits for them
KEPT = (DOVECOT, "workers", "max_sessions", "store_timeout")  # settings that a reload cannot change, beside the state

METRICS: tuple[Spec, ...] = (
    *server.METRICS,
    Counter(LIMIT_HITS, "Requests beyond a limit.", LIMIT, NAMED_AT_LOAD),
    Counter(SHADOW_HITS, "Requests that a limit in shadow mode would have refused.", LIMIT, NAMED_AT_LOAD),
    Counter(MISPLACED, "Limits that can never count where Postfix asks.", LIMIT, NAMED_AT_LOAD),
    Counter(INCIDENTS_OPENED, "Incidents."),
    Gauge(INCIDENTS_OPEN, "Accounts with an incident that is not over."),
    Gauge(ACCOUNTS_SUSPENDED, "Accounts that may neither send nor log in."),
    Counter(NOTIFICATIONS, "Notifications, each way of each counted.", "result", NOTIFICATION_RESULTS),
    Counter(KICKS, "Suspended accounts whose sessions were to be ended.", "result", KICK_RESULTS),
    Counter(RECORDED, "Addresses recorded for greylisting, because somebody here has written to them."),
    Counter(DROPPED, "Addresses not recorded: too many waited for the store."),
    *dovecot.METRICS,
    Counter(COUNTED_HERE, "Requests counted in memory while the store was away."),
    Counter(FAILURES, "Failures of the store.", "reason", tuple(failure.value for failure in StoreFailure)),
    Counter(OPENED, "Times the store was found away."),
    Gauge(BREAKERS_OPEN, "Processes in which this is left alone.", "breaker", (STORE,)),
    *LOG_METRICS,
)

_DENIED = tuple(cause.value for cause in (Cause.DENIED_LOGIN, Cause.DENIED_NETWORK, Cause.SUSPENDED))

SHOWN = (
    Shown(
        "Answers to Postfix",
        (
            Part("nothing against it", "answers", ("dunno",), Tone.GOOD),
            Part("told to come again", "answers", ("defer",), Tone.LATER),
            Part("held", "answers", ("hold",), Tone.ODD),
            Part("rejected", "answers", ("reject",), Tone.BAD),
        ),
        seconds="answer_seconds",
    ),
    Shown(
        "Limits",
        (
            Part("requests beyond one in shadow mode", SHADOW_HITS, (), Tone.PLAIN),
            Part("requests beyond one", LIMIT_HITS, (), Tone.ODD),
            Part("incidents", INCIDENTS_OPENED, ("",), Tone.BAD),
        ),
    ),
    Shown(
        "Answers to Dovecot",
        (
            Part("nothing against it", dovecot.ANSWERS, (Cause.ORDINARY.value,), Tone.GOOD),
            Part("nobody could say", dovecot.ANSWERS, (Cause.UNKNOWN.value,), Tone.PLAIN),
            Part("slowed down", dovecot.ANSWERS, (Cause.SLOWED.value,), Tone.LATER),
            Part("denied", dovecot.ANSWERS, _DENIED, Tone.BAD),
        ),
    ),
)


def load(path: Path) -> Loaded:
    """Read and check everything a worker needs. Raises ConfigError with every mistake."""
    settings = structure(read_sections(path), Settings)
    check_state(settings, str(path))
    configured = read_configured(settings)
    own, state, durability = settings.policyd, settings.state.state, Durability(settings.durability)
    open_limits, open_correspondents = limits_opener(state), correspondents_opener(state)
    stores = Stores(
        lambda: open_limits(durability, own.store_timeout),
        lambda: open_correspondents(durability, CORRESPONDENTS_TIMEOUT),
        own.store_timeout,
    )
    return Loaded(
        own,
        lambda tools: make_service(path, configured, stores, own, tools),
        label_values={LIMIT: configured.limits},
        other_sockets={DOVECOT: SocketAddress("", *own.dovecot)} if own.dovecot is not None else {},
        kept={"state": state, "durability": durability, **{name: getattr(own, name) for name in KEPT}},
        look=lambda: look(settings, configured),
        store=name_of(state),
    )


def read_configured(settings: Settings) -> Configured:
    """Return what a reload replaces, with the files that the configuration names. Raises ConfigError."""
    own, incidents = settings.policyd, settings.policyd.incidents
    rules = Rules(read_rule_set(own))
    kickers = []
    if incidents.doveadm and incidents.doveadm_key_file is not None:
        key = read_key_file(incidents.doveadm_key_file, "policyd.incidents.doveadm_key_file")
        kickers.append(Doveadm(incidents.doveadm, key))
    return Configured(
        rules,
        KeeperRules(incidents.quiet, incidents.settle, settings.authserv_id, shows_gauges=own.workers == 1),
        NotifyRules(
            settings.authserv_id,
            incidents.mail_to,
            incidents.mail_from,
            *incidents.smtp,
            incidents.webhook,
            _key(incidents.webhook_key_file, "policyd.incidents.webhook_key_file"),
            incidents.command,
        ),
        tuple(kickers),
        own.logins.rules(),
        _key(own.dovecot_api_key_file, "policyd.dovecot_api_key_file"),
        own.correspondents,
        tuple(limit.name for limit in rules.limits),
    )


def _key(path: Path | None, where: str) -> str:
    """Return the key in a file that a setting names; empty where it names none."""
    return read_key_file(path, where) if path is not None else ""


def make_service(path: Path, configured: Configured, stores: Stores, own: Policyd, tools: WorkerTools) -> PolicyService:
    """Wire one worker."""

    def read() -> Configured:
        return read_configured(structure(read_sections(path), Settings))

    return PolicyService(configured, read, stores, own.max_sessions, tools)


def look(settings: Settings, configured: Configured) -> list[str]:
    """Return what the state shows of the configuration, for --check: limits that cannot count where Postfix asks."""
    store = open_limits(settings.state.state, Durability(settings.durability), settings.policyd.store_timeout)
    try:
        seen = stages_of(store.notes().get(NOTE, ""), time.time())
    except StoreError as error:
        return [f"state: {error}: where Postfix asks is not known"]
    finally:
        store.close()
    if not seen:
        return []
    return [f"policyd.limit {limit.name}: {why}" for limit, why in misplaced(configured.rules.limits, set(seen))]


PROGRAM = Program(
    "policyd", __doc__ or "", METRICS, load, size_collector("mailward_policyd"), reloads_in_place=True, shown=SHOWN
)
main = cli.command(PROGRAM)

if __name__ == "__main__":
    main()
