"""A milter that says what it was given, and fails where a message's X-Raise field tells it to: `probe_milter.py SOCKET`.

Each message is one line of JSON on stdout. Octets are shown as Latin-1 text.
"""

from __future__ import annotations

import json
import socket
import sys

from mailward.milter.adapter import MilterServing
from mailward.milter.program import MilterProgram, Wants
from mailward.model.message import Transaction
from mailward.model.verdict import Action, DeleteField, InsertField, Reply, Verdict


class Probe:
    """Gathers one message; its verdict is in the X-Verdict field."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._octets = 0
        self._fields: dict[str, str] = {}
        if transaction.envelope.mail_from == b"raise-at-mail":
            raise RuntimeError("as told")

    def _maybe_raise(self, stage: str) -> None:
        if self._fields.get("X-Raise") == stage:
            raise RuntimeError("as told")

    def end_of_header(self) -> Verdict | None:
        self._fields = {
            f.name.decode("latin-1"): f.raw_value.decode("latin-1").strip() for f in self._transaction.header
        }
        self._maybe_raise("end-of-header")
        return None

    def body(self, chunk: bytes) -> None:
        self._octets += len(chunk)
        self._maybe_raise("body")

    def end_of_message(self) -> Verdict:
        self._maybe_raise("end-of-message")
        envelope = self._transaction.envelope
        shown = {
            "session": self._transaction.session_id,
            "queue_id": self._transaction.queue_id,
            "client": [envelope.client_address, envelope.client_name, envelope.daemon_name],
            "login": [envelope.login, envelope.auth_type],
            "helo": envelope.helo.decode("latin-1"),
            "mail_from": envelope.mail_from.decode("latin-1"),
            "rcpt_to": [recipient.decode("latin-1") for recipient in envelope.rcpt_to],
            "header": [[f.name.decode("latin-1"), f.raw_value.decode("latin-1")] for f in self._transaction.header],
            "octets": self._octets,
        }
        print(json.dumps(shown), flush=True)
        return VERDICTS[self._fields.get("X-Verdict", "accept")]


VERDICTS = {
    "accept": Verdict(Action.ACCEPT, "ok"),
    "reject": Verdict(Action.REJECT, "no", reply=Reply(550, "5.7.1", "100% no\r\nX-Evil: 1\u2028 \x00end")),
    "tempfail": Verdict(Action.TEMPFAIL, "later", reply=Reply(451, "4.7.1", "later")),
    "hold": Verdict(Action.HOLD, "looks odd"),
    "discard": Verdict(Action.DISCARD, "gone"),
    "edit": Verdict(
        Action.ACCEPT, "edited", (DeleteField("X-Old", 2), DeleteField("X-Old", 1), InsertField("X-New", " a\r\n b"))
    ),
}


def fail(transaction: Transaction, where: str) -> Verdict:
    if transaction.envelope.mail_from == b"fail-to-fail":
        raise MemoryError("as told")
    return Verdict(Action.TEMPFAIL, where, reply=Reply(451, "4.3.0", f"failed at {where}"))


def report(transaction: Transaction | None, where: str) -> None:
    if transaction is not None and transaction.envelope.mail_from in (b"fail-to-report", b"fail-to-fail"):
        raise MemoryError("as told")
    print(json.dumps({"exception": where}), flush=True)


def main() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(64)
        listener.setblocking(False)
        serving = MilterServing(
            MilterProgram(
                "probe",
                Wants(helo=True, recipients=True, connect_macros=("{daemon_name}",), mail_macros=("{auth_authen}",)),
                Probe,
                fail,
                report,
                lambda _step: None,
                50,
            )
        )
        serving.open(listener)
        serving.run()


if __name__ == "__main__":
    main()
