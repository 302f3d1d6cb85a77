"""mailward-greylist - ask strangers to come again, and never be the outage

SYNOPSIS
    mailward-greylist [--config FILE] [--check] [--version]

DESCRIPTION
    Greylists incoming mail (RFC 6647), as a milter of Postfix: the first time a triplet of client network, sender and
    recipient is seen, that recipient is deferred (450 4.7.1, with the seconds left). Mail servers try again; most of what
    sends spam from stolen machines does not. Where SPF passes, the sender's domain stands for the client's network,
    so that a pool of servers does not start over with each of its addresses.

    A client network (or SPF domain) whose mail has come back five times, no two of them counted within an hour, is delayed no
    more. Nor are: clients that logged in; listed networks, names, senders and recipients; clients known not to retry (a
    shipped list); senders that somebody here has written to, where SPF vouches for them.

    Greylisting stands aside, and everything passes, while the store is away or slow, while the DNS as a whole is away, while
    clients known to retry no longer come back, and while an operator has switched it off (`mailward greylist off 2h`). Each
    is found out and ends by itself; it is logged once by each worker, counted, and shown.

    The null sender is deferred at the end of its message: those who call back to see whether an address exists get an answer.

CONFIGURATION
    `state` and `durability`, where and how safely is remembered, the table [greylist] of mailward.toml(5), and [dns].
    Everything has a default. `delay`, `retry_window` and `remember` are the times; `networks`, `names`, `senders` and
    `recipients` say who passes at once, beside what `mailward greylist allow` says; `mode` can leave all alone but those
    that are suspicious; with `shadow` nobody is deferred.

SIGNALS
    HUP     Read the configuration again. Sessions finish with the old one, for at most `reload_timeout`. If anything is
            wrong the old configuration stays, and the log says what is wrong. socket and metrics stay as they are until a
            restart.
    TERM    Accept no more, finish the sessions there are within `drain_timeout`, end.

DIAGNOSTICS
    One line a recipient at level info: session, client, verdict, reason, seconds left or waited, origin, SPF result, HELO,
    MAIL FROM, RCPT TO, DNS queries, milliseconds. The queue id is there only where Postfix has given one, which is after
    the first accepted recipient. Exit status 78: the configuration is wrong; each mistake has a line on stderr.

BUGS
    A message that a bug of ours keeps from being judged passes. While greylisting stands aside nothing is remembered: whoever
    comes first afterwards is new.
"""

from __future__ import annotations

from pathlib import Path

from mailward.adapters.guarded_greylist import GuardedGreylist
from mailward.adapters.stores import Opener, greylist_opener
from mailward.daemon import cli
from mailward.daemon.dns import DNS_METRICS, DNS_SHOWN, dns_files, dns_label_values, make_resolver
from mailward.daemon.log import LogEvents
from mailward.daemon.logbook import LOG_METRICS
from mailward.daemon.milter_service import milter_program
from mailward.daemon.program import Loaded, Program, Serving, WorkerTools
from mailward.daemon.state_size import size_collector
from mailward.milter.adapter import MilterServing
from mailward.milter.program import Wants
from mailward.model.errors import StoreError
from mailward.model.state import Durability, SqliteState, name_of
from mailward.policy.exemptions import Exemptions
from mailward.settings.greylist import Settings, check_state, read_exemptions
from mailward.settings.load import read_sections, structure
from milters.greylist.filter import METRICS, SHOWN, Greylister, GreylistMessage
from milters.greylist.watch import Watch


def load(path: Path) -> Loaded:
    """Read and check everything a worker needs. Raises ConfigError with every mistake."""
    settings = structure(read_sections(path), Settings)
    check_state(settings, str(path))
    exemptions = read_exemptions(settings.greylist)
    opener = greylist_opener(settings.state.state)
    return Loaded(
        settings.greylist,
        lambda tools: make_serving(settings, exemptions, opener, tools),
        keeps_note=lambda _key: isinstance(settings.state.state, SqliteState),  # all notes are of its size
        label_values=dns_label_values(settings.dns),
        watched=dns_files(settings.dns),
        store=name_of(settings.state.state),
        look=lambda: look(settings, opener),
    )


def look(settings: Settings, opener: Opener) -> list[str]:
    """Return what there is to say of the state, for --check."""
    store = opener(Durability(settings.durability), settings.greylist.store_timeout)
    try:
        store.orders()
    except StoreError as error:
        return [f"state: {error}: nothing would be remembered, and everybody would pass"]
    finally:
        store.close()
    return []


def make_serving(settings: Settings, exemptions: Exemptions, opener: Opener, tools: WorkerTools) -> Serving:
    """Wire one worker: resolver, store, watch, milter."""
    own = settings.greylist
    resolver = make_resolver(settings.dns_at_rcpt(), tools, is_hasty=True)  # an smtpd process waits for each answer
    store = opener(Durability(settings.durability), own.store_timeout)
    guarded = GuardedGreylist(store, own.store_timeout, tools.metrics, LogEvents(tools.log))
    watch = Watch(exemptions, own.windows(), store, guarded, resolver, tools.metrics, tools.notes, tools.log)
    greylister = Greylister(
        settings.rules(),
        watch,
        guarded,
        resolver,
        tools.metrics,
        tools.log,
        settings.authserv_id,
        is_shadow=own.shadow,
        writes_field=own.field,
    )
    resolver.start()
    watch.start()
    program = milter_program(
        "mailward-greylist",
        Wants(helo=True, recipients=True, content=False, mail_macros=("{auth_type}", "{auth_authen}")),
        lambda transaction: GreylistMessage(greylister, transaction),
        tools,
        own.max_sessions,
        apology="",
    )
    return MilterServing(program)


PROGRAM = Program(
    "greylist",
    __doc__ or "",
    (*METRICS, *DNS_METRICS, *LOG_METRICS),
    load,
    size_collector("mailward_greylist"),
    shown=(*SHOWN, DNS_SHOWN),
)
main = cli.command(PROGRAM)

if __name__ == "__main__":
    main()
