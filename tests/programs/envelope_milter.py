"""A milter that judges recipients alone, as their local parts tell it to: `envelope_milter.py SOCKET`.

What the filter was asked is one line on stdout.
"""

from __future__ import annotations

import json
import socket
import sys

from mailward.milter.adapter import MilterServing
from mailward.milter.program import MilterProgram, Wants
from mailward.model.message import Transaction
from mailward.model.verdict import Action, InsertField, Reply, Verdict

DEFER = Verdict(Action.TEMPFAIL, "later", reply=Reply(450, "4.7.1", "Come again in 60 seconds"))
REFUSE = Verdict(Action.REJECT, "no", reply=Reply(550, "5.7.1", "100% no\r\nX-Evil: 1"))


class Judge:
    """Judges one message."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def recipient(self, address: bytes) -> Verdict | None:
        word = address.partition(b"@")[0]
        if word == b"raise":
            raise RuntimeError("as told")
        return {b"defer": DEFER, b"refuse": REFUSE}.get(word)

    def data(self) -> bool:
        envelope = self._transaction.envelope
        shown = [recipient.decode("latin-1") for recipient in envelope.rcpt_to]
        print(json.dumps({"rcpt_to": shown, "queue_id": self._transaction.queue_id}), flush=True)
        if envelope.mail_from == b"raise-at-data":
            raise RuntimeError("as told")
        return envelope.mail_from in (b"", b"field")

    def end_of_message(self) -> Verdict:
        if not self._transaction.envelope.mail_from:
            return DEFER
        return Verdict(Action.ACCEPT, "pass", (InsertField("X-Told", " yes"),))


def main() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(64)
        listener.setblocking(False)
        serving = MilterServing(
            MilterProgram(
                "envelope",
                Wants(helo=True, recipients=True, content=False, mail_macros=("{auth_authen}",)),
                Judge,
                lambda _transaction, where: Verdict(Action.ACCEPT, where),
                lambda _transaction, where: print(json.dumps({"failed": where}), flush=True),
                lambda _step: None,
                2,
            )
        )
        serving.open(listener)
        serving.run()


if __name__ == "__main__":
    main()
