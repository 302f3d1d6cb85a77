"""A nameserver on loopback that misbehaves as it is told: over UDP and TCP, late, wrongly, from elsewhere, not at all.

`reply` makes of each question what goes back, and may be replaced while the server runs. The control question (`. NS`) is
answered well unless `control` says otherwise, so that a test of odd answers is not one of an outage; the deep one (a name
below `com` that is new each time) as the control question is, unless `deep` says otherwise.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Message = dns.message.Message
Datagrams = bytes | None | Sequence[bytes]
Reply = Callable[[Message], Datagrams]


class OddNameserver:
    """Answers as `reply` says, over TCP as `tcp_reply` says; None is silence, a list is several datagrams."""

    def __init__(
        self,
        reply: Reply,
        tcp_reply: Reply | None = None,
        *,
        control: Reply | None = None,
        deep: Reply | None = None,
        delay: float = 0.0,
        at: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.reply = reply
        self.tcp_reply = tcp_reply
        self.control = control or ns_of_root
        self.deep = deep
        self.delay = delay  # seconds until each answer, the control question's as well
        self.is_from_elsewhere = False  # answer from another port
        self.questions: list[Message] = []
        self.tcp_questions: list[Message] = []
        self.control_questions: list[float] = []  # when each came
        self.deep_questions: list[Message] = []
        self._name, self._port = at
        self._udp: socket.socket
        self._tcp: socket.socket
        self.is_running = False
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> tuple[str, int]:
        return (self._name, self._port)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve; again at the same port where it has served before."""
        for is_last in (self._port != 0, False, False, True):
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                self._bind()
                break
            except OSError:  # a free port of UDP may be one that somebody uses over TCP
                self._udp.close()
                self._tcp.close()
                if is_last:
                    raise
        self.is_running = True
        self._begin(self._serve_udp)
        if self.tcp_reply is not None:
            self._begin(self._serve_tcp)

    def _bind(self) -> None:
        self._udp.bind(self.address)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address = self._udp.getsockname()
        if self.tcp_reply is not None:
            self._tcp.bind(address)
            self._tcp.listen(16)
        self._port = address[1]

    def stop(self) -> None:
        """Be gone: whoever asks is told by ICMP that nobody is there."""
        if not self.is_running:
            return
        self.is_running = False
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
            wake.sendto(b"", self.address)
        with contextlib.suppress(OSError):
            self._tcp.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._udp.close()
        self._tcp.close()

    def silence(self) -> None:
        """Answer nothing from now on, the control questions neither."""
        self.reply = self.control = silent
        self.deep = None

    def speak(self, reply: Reply | None = None) -> None:
        """Answer from now on, the control questions well."""
        self.reply, self.control, self.deep = reply or found, ns_of_root, None

    def lose_line(self, reply: Reply | None = None) -> None:
        """Answer nothing from now on but the ordinary control question, as a resolver that has only its memory left."""
        self.reply = self.deep = reply or with_code(2)

    def names(self) -> list[str]:
        """Return the names that were asked for, without the control questions'."""
        return [str(question.question[0].name) for question in self.questions]

    def _begin(self, serve: Callable[[], None]) -> None:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _serve_udp(self) -> None:
        while True:
            octets, client = self._udp.recvfrom(4096)
            if not self.is_running:
                return
            if not octets:
                continue
            question = dns.message.from_wire(octets)
            datagrams = self._take(question)(question)
            if isinstance(datagrams, bytes):
                datagrams = [datagrams]
            if datagrams is None:
                continue
            if self.delay:
                threading.Timer(self.delay, self._send, (datagrams, client)).start()
            else:
                self._send(datagrams, client)

    def _take(self, question: Message) -> Reply:
        """Write the question down, and return how it is answered."""
        name = question.question[0].name
        if name == dns.name.root:
            self.control_questions.append(time.monotonic())
            return self.control
        if len(name) == 3 and name.labels[0].startswith(b"mailward-") and name.labels[1] == b"com":
            self.deep_questions.append(question)
            return self.deep or self.control
        self.questions.append(question)
        return self.reply

    def _send(self, datagrams: Sequence[bytes], client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            if self.is_from_elsewhere:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
                    for datagram in datagrams:
                        elsewhere.sendto(datagram, client)
            else:
                for datagram in datagrams:
                    self._udp.sendto(datagram, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError, struct.error):
                connection.settimeout(5)
                (length,) = struct.unpack("!H", connection.recv(2))
                question = dns.message.from_wire(connection.recv(length))
                self.tcp_questions.append(question)
                assert self.tcp_reply is not None
                reply = self.tcp_reply(question)
                if isinstance(reply, bytes):
                    connection.sendall(struct.pack("!H", len(reply)) + reply)
                elif reply is None:
                    connection.recv(1)  # silence, until the client goes
                else:
                    for part in reply:  # raw octets, each sent by itself
                        connection.sendall(part)
                        time.sleep(0.005)


def response(question: Message, *records: str, code: int = 0, flags: int = dns.flags.RA) -> Message:
    """Return a response whose answer section has `records`, each "name ttl TYPE value" or, without a name, of the question's."""
    made = dns.message.make_response(question)
    made.flags |= flags
    made.set_rcode(dns.rcode.Rcode(code))
    for record in records:
        name, ttl, kind, value = record.split(None, 3)
        owner = question.question[0].name if name == "@" else dns.name.from_text(name)
        rrset = dns.rrset.from_text(owner, int(ttl), "IN", kind, value)
        same = made.get_rrset(made.answer, owner, rrset.rdclass, rrset.rdtype)
        if same is None:
            made.answer.append(rrset)
        else:
            same.add(rrset[0])
    return made


def saying(*records: str, code: int = 0) -> Reply:
    """Return a Reply with these records for any question, `@` being its name."""
    return lambda question: response(question, *records, code=code).to_wire(max_size=65535)


def with_code(code: int) -> Reply:
    return saying(code=code)


def ns_of_root(question: Message) -> bytes:
    return response(question, ". 60 NS ns.invalid.").to_wire()


found = saying('@ 60 TXT "good"')


def silent(_question: Message) -> None:
    return None


def truncated(question: Message) -> bytes:
    return response(question, flags=dns.flags.TC | dns.flags.RA).to_wire()


def denied(*, code: int = dns.rcode.NXDOMAIN, soa_ttl: int = 300, minimum: int = 60, zone: str = "") -> Reply:
    """Return a Reply that says there is nothing, with the SOA record of `zone` (the name itself where it is empty)."""

    def reply(question: Message) -> bytes:
        made = response(question, code=code)
        owner = dns.name.from_text(zone) if zone else question.question[0].name
        value = f"ns.invalid. root.invalid. 1 3600 600 86400 {minimum}"
        made.authority.append(dns.rrset.from_text(owner, soa_ttl, "IN", "SOA", value))
        return made.to_wire()

    return reply


def by_name(replies: dict[str, Reply], otherwise: Reply = found) -> Reply:
    """Return a Reply that chooses by the question's name (without final dot)."""
    return lambda question: replies.get(str(question.question[0].name).removesuffix("."), otherwise)(question)
