"""The milter edge. The only import of pymilter: callbacks gather a Transaction, a Verdict becomes edits and a reply.

pymilter's low-level module is used without `Milter.Base`, whose layers cost half of a message's time. Octets come in and go
out as they are. The session's state hangs on libmilter's context, never on a thread: libmilter moves a session between
threads from one callback to the next.

No exception reaches pymilter. One inside a callback marks the message as failed, is logged with its traceback, and the
message gets the filter's failure verdict at the next point where a reply is possible; an exception that libmilter was
told not to expect a reply from would otherwise let the message through.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import milter

from mailward.milter.program import TOO_LARGE, TOO_MANY, EnvelopeFilter, MessageFilter, MilterProgram, Wants
from mailward.milter.takeover import Takeover
from mailward.model.message import Envelope, HeaderField, Transaction
from mailward.model.verdict import Action, Edit, InsertField, Verdict

# libmilter's own limit is 65,535 octets a packet, Postfix sends header fields of up to 102,400 and knows nothing of it:
# the session would break, on every retry of that message.
MAX_PACKET = 256 * 1024
MAX_HEADER_FIELDS = 20_000  # Postfix keeps a header under header_size_limit a field, but sets no number of fields
MAX_HEADER_OCTETS = 2 * 1024 * 1024  # a thousand times what mail has; it is kept while the DNS is asked
SESSION_SECONDS = 7200  # libmilter gives up on a silent MTA after this; Postfix's own time-outs are shorter

_ACTION = {
    Action.ACCEPT: milter.ACCEPT,
    Action.TEMPFAIL: milter.TEMPFAIL,
    Action.REJECT: milter.REJECT,
    Action.HOLD: milter.ACCEPT,
    Action.DISCARD: milter.DISCARD,
}


@dataclass(slots=True)
class _Session:
    """One connection of the MTA."""

    number: str
    envelope: Envelope = field(default_factory=Envelope)
    transaction: Transaction | None = None
    filter: MessageFilter | EnvelopeFilter | None = None  # which of them, the program's Wants say
    header: list[HeaderField] = field(default_factory=list)
    header_octets: int = 0
    messages: int = 0
    has_failed: str = ""  # the callback that raised, or why the message cannot be judged
    is_refused: bool = False
    is_connected: bool = False
    is_header_complete: bool = False
    has_leading_space: bool = True
    go_on: int = milter.CONTINUE  # or NOREPLY; libmilter logs an error for every other answer where none is due


_ACTIONS = milter.ADDHDRS | milter.CHGHDRS | milter.QUARANTINE | milter.SETSYMLIST

# The steps for which the MTA does not wait for an answer: it sends envelope and header in one go.
_NO_REPLY = milter.P_NR_CONN | milter.P_NR_HELO | milter.P_NR_MAIL | milter.P_NR_HDR | milter.P_NR_BODY


class MilterServing:
    """Serves a MilterProgram on a borrowed listening socket (the Serving of mailward.daemon.program)."""

    def __init__(self, program: MilterProgram) -> None:
        self._program = program
        self._steps, self._macro_lists = _protocol(program.wants)
        self._sessions = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._process = ""
        self._takeover: Takeover | None = None

    # ---- the Serving ----

    def open(self, listener: socket.socket) -> None:
        """Register with libmilter and take `listener` over."""
        self._process = f"{os.getpid():x}"
        self._register()
        self._takeover = Takeover(listener, _open_at)

    def run(self) -> None:
        """Serve until libmilter ends, which it does when something stops it behind our back."""
        milter.main()

    def stop_accepting(self) -> None:
        """Accept nothing more; the sessions there are go on."""
        assert self._takeover is not None
        self._takeover.stop_accepting()

    def is_idle(self) -> bool:
        """Say whether no connection of the MTA's is left, those included whose first callback is still to come."""
        assert self._takeover is not None
        return not self._takeover.has_connections()

    # ---- libmilter ----

    def _register(self) -> None:
        wants = self._program.wants
        milter.set_flags(_ACTIONS)
        milter.set_exception_policy(milter.CONTINUE)
        milter.set_connect_callback(self._guard("connect", self._connect))
        milter.set_helo_callback(self._guard("helo", self._helo) if wants.helo else None)
        milter.set_envfrom_callback(self._guard("mail", self._mail))
        recipient = self._recipient if wants.content else self._judge_recipient
        milter.set_envrcpt_callback(self._guard("rcpt", recipient) if wants.recipients else None)
        milter.set_header_callback(self._header if wants.content else None)
        milter.set_eoh_callback(self._guard("end-of-header", self._end_of_header) if wants.content else None)
        milter.set_body_callback(self._guard("body", self._body) if wants.content else None)
        milter.set_eom_callback(self._guard("end-of-message", self._end_of_message))
        milter.set_abort_callback(self._guard("abort", self._abort))
        milter.set_close_callback(self._guard("close", self._close))
        data = None if wants.content else self._guard("data", self._data)
        milter.register(self._program.name, negotiate=self._negotiate, data=data)
        milter.settimeout(SESSION_SECONDS)
        # pymilter does not wrap this one; the symbol is found among the libraries its module is linked with.
        ctypes.CDLL(milter.__file__).smfi_setmaxdatasize(ctypes.c_size_t(MAX_PACKET))

    def _negotiate(self, context: Any, options: list[int]) -> int:
        """Open the session; choose protocol steps and macros from what the MTA offers."""
        actions, offered = options[:2]
        session = _Session(f"{self._process}-{next(self._numbers):x}")
        context.setpriv(session)
        self._count_session(session)
        steps = self._steps
        if offered & _NO_REPLY == _NO_REPLY:
            steps |= _NO_REPLY
            session.go_on = milter.NOREPLY
        session.has_leading_space = bool(offered & milter.P_HDR_LEADSPC)
        options[:] = [actions & _ACTIONS, offered & steps, 0, 0]
        if actions & milter.SETSYMLIST:
            for stage, names in self._macro_lists:
                context.setsymlist(stage, names)
        return int(milter.CONTINUE)

    def _count_session(self, session: _Session) -> None:
        with self._lock:
            self._sessions += 1
            session.is_refused = self._sessions > self._program.max_sessions
        self._program.on_session(1)

    def _guard(self, stage: str, act: Callable[..., int]) -> Callable[..., int]:
        """Wrap a callback so that nothing it raises gets out: the message is marked, the failure verdict follows."""
        may_reply = stage in ("rcpt", "data", "end-of-header", "end-of-message")

        def guarded(context: Any, *arguments: Any) -> int:
            session = context.getpriv()
            if session is None:  # negotiation itself failed: there is nobody to keep anything for
                return int(milter.TEMPFAIL)
            try:
                return act(context, session, *arguments)
            except Exception:  # noqa: BLE001 - the one edge that must answer the MTA whatever our code does
                session.has_failed = stage
                self._report(session, stage)
                return self._fail(context, session) if may_reply else session.go_on

        return guarded

    def _report(self, session: _Session, stage: str) -> None:
        """Have an exception logged; if even that fails, the message's verdict still counts."""
        with contextlib.suppress(Exception):
            self._program.on_exception(session.transaction, stage)

    def _fail(self, context: Any, session: _Session) -> int:
        """Answer for a message that was not judged: as the program says, and if it cannot, come back later."""
        try:
            transaction = session.transaction or Transaction(session.number, session.envelope)
            transaction.queue_id = transaction.queue_id or _macro(context, "i") or ""
            verdict = self._program.failure(transaction, session.has_failed)
            session.transaction = session.filter = None
            return _reply(context, verdict)
        except Exception:  # noqa: BLE001 - memory, log or metrics are at their end: nothing may pass because of that
            return int(milter.TEMPFAIL)

    # ---- the callbacks, in the order they come ----

    def _connect(self, context: Any, session: _Session, name: str, _family: int, address: Any) -> int:
        envelope = session.envelope
        envelope.client_name = name
        envelope.client_address = address[0] if isinstance(address, tuple) else ""
        envelope.daemon_name = _macro(context, "{daemon_name}") or ""
        session.is_connected = True
        return session.go_on

    def _helo(self, _context: Any, session: _Session, name: str) -> int:
        session.envelope.helo = name.encode("utf-8", "surrogateescape")
        return session.go_on

    def _mail(self, context: Any, session: _Session, address: bytes, *_parameters: bytes) -> int:
        session.messages += 1
        # A connect callback that never came is one whose client name pymilter could not decode: the address is unknown.
        session.has_failed = "" if session.is_connected else "connect"
        session.is_header_complete = False
        session.header, session.header_octets = [], 0
        client = session.envelope
        envelope = Envelope(client.client_address, client.client_name, client.daemon_name, client.helo)
        envelope.mail_from = _bare(address)
        login = _macro(context, "{auth_authen}")
        if login is None:  # somebody logged in, and whose rights to ask for cannot be told
            session.has_failed = "login"
        envelope.login = login or ""
        envelope.auth_type = _macro(context, "{auth_type}") or ""
        session.transaction = Transaction(f"{session.number}.{session.messages}", envelope, session.header)
        session.filter = self._program.start(session.transaction)
        return session.go_on

    def _recipient(self, _context: Any, session: _Session, address: bytes, *_parameters: bytes) -> int:
        assert session.transaction is not None
        session.transaction.envelope.rcpt_to.append(_bare(address))
        return int(milter.CONTINUE)

    def _judge_recipient(self, context: Any, session: _Session, address: bytes, *_parameters: bytes) -> int:
        """Have a recipient judged by a program that never sees the content."""
        if session.transaction is None:  # the message has its verdict: what could not be judged passed or was put off
            return int(milter.CONTINUE)
        if session.is_refused:
            session.has_failed = TOO_MANY
        if session.has_failed:
            return self._fail(context, session)
        recipient = _bare(address)
        session.transaction.envelope.rcpt_to.append(recipient)
        verdict = cast(EnvelopeFilter, session.filter).recipient(recipient)
        return int(milter.CONTINUE) if verdict is None else _reply(context, verdict)

    def _data(self, context: Any, session: _Session) -> int:
        if session.transaction is None:
            return int(milter.CONTINUE)
        if session.has_failed:
            return self._fail(context, session)
        session.transaction.queue_id = _macro(context, "i") or ""
        session.is_header_complete = True  # there is none to wait for
        if cast(EnvelopeFilter, session.filter).data():
            return int(milter.CONTINUE)
        session.transaction = session.filter = None
        return int(milter.ACCEPT)

    def _header(self, context: Any, name: str, value: bytes) -> int:
        """Gather a field. Guarded in place: it runs a dozen times a message, and a wrapper would double its cost."""
        session: _Session = context.getpriv()
        try:
            header = session.header
            session.header_octets += len(name) + len(value)
            if len(header) >= MAX_HEADER_FIELDS or session.header_octets > MAX_HEADER_OCTETS:
                session.has_failed = session.has_failed or TOO_LARGE
                return session.go_on
            if b"\n" in value:
                value = value.replace(b"\n", b"\r\n")  # libmilter shows folds as LF
            if not session.has_leading_space:
                value = b" " + value  # the MTA took one off, as all did before Sendmail 8.14
            header.append(HeaderField(name.encode("utf-8", "surrogateescape"), value))
        except Exception:  # noqa: BLE001 - see _guard
            session.has_failed = "header"
            self._report(session, "header")
        return session.go_on

    def _end_of_header(self, context: Any, session: _Session) -> int:
        if session.is_refused:
            session.has_failed = TOO_MANY
        if session.has_failed or session.transaction is None or session.filter is None:
            return self._fail(context, session)
        session.transaction.queue_id = _macro(context, "i") or ""
        session.is_header_complete = True
        verdict = cast(MessageFilter, session.filter).end_of_header()
        return int(milter.CONTINUE) if verdict is None else self._conclude(context, session, verdict)

    def _body(self, _context: Any, session: _Session, chunk: bytes) -> int:
        if session.filter is not None and not session.has_failed:
            cast(MessageFilter, session.filter).body(chunk)
        return session.go_on

    def _end_of_message(self, context: Any, session: _Session) -> int:
        if not session.is_header_complete and not self._program.wants.content:  # DATA is told since protocol 4
            answer = self._data(context, session)
            if session.filter is None:
                return answer
        if not session.is_header_complete:
            session.has_failed = session.has_failed or "end-of-message"
        if session.has_failed or session.filter is None:
            return self._fail(context, session)
        return self._conclude(context, session, session.filter.end_of_message())

    def _abort(self, _context: Any, session: _Session) -> int:
        session.transaction = session.filter = None
        return int(milter.CONTINUE)

    def _close(self, context: Any, _session: _Session) -> int:
        context.setpriv(None)
        with self._lock:
            self._sessions -= 1
        self._program.on_session(-1)
        return int(milter.CONTINUE)

    def _conclude(self, context: Any, session: _Session, verdict: Verdict) -> int:
        """Apply a verdict; the message is over."""
        for edit in verdict.edits:
            _apply(context, edit, session.has_leading_space)
        if verdict.action is Action.HOLD:
            context.quarantine(verdict.reason)
        session.transaction = session.filter = None
        return _reply(context, verdict)


def _open_at(address: str) -> None:
    """Have libmilter listen at an address of its own notation."""
    milter.setconn(address)
    milter.opensocket(False)


def _protocol(wants: Wants) -> tuple[int, list[tuple[int, str]]]:
    """Return the protocol flags and the macro lists (stage, names) for what a program wants."""
    steps = milter.P_NOUNKNOWN | milter.P_HDR_LEADSPC
    steps |= milter.P_NODATA if wants.content else milter.P_NOHDRS | milter.P_NOEOH | milter.P_NOBODY
    steps |= 0 if wants.helo else milter.P_NOHELO
    steps |= 0 if wants.recipients else milter.P_NORCPT
    lists = [(milter.M_CONNECT, wants.connect_macros), (milter.M_ENVFROM, ("i", *wants.mail_macros))]
    return steps, [(stage, " ".join(names)) for stage, names in lists if names]


def _macro(context: Any, name: str) -> str | None:
    """Return a macro's value, empty where it is absent; None where it is no UTF-8, which pymilter cannot show us."""
    try:
        return context.getsymval(name) or ""
    except UnicodeDecodeError:
        return None


def _bare(address: bytes) -> bytes:
    """Take the angle brackets off an SMTP path."""
    return address[1:-1] if address.startswith(b"<") and address.endswith(b">") else address


def _apply(context: Any, edit: Edit, has_leading_space: bool) -> None:
    """Ask the MTA for one change; libmilter wants LF in folds, and a leading space only if that was negotiated."""
    if isinstance(edit, InsertField):
        value = edit.raw_value.replace("\r\n", "\n")
        context.addheader(edit.name, value if has_leading_space else value.removeprefix(" "), edit.index)
    else:
        context.chgheader(edit.name, edit.occurrence, None)


def _reply(context: Any, verdict: Verdict) -> int:
    if verdict.reply is not None:
        text = "".join(c for c in verdict.reply.text if c.isprintable() and c.isascii())[:450].replace("%", "%%")
        context.setreply(str(verdict.reply.code), verdict.reply.enhanced_code, text)
    return int(_ACTION[verdict.action])
