"""A real authoritative nameserver (NSD) on a loopback address of its own, at port 53 unless told otherwise.

Port 53 because OpenDKIM can be told a nameserver's address but not its port. Besides its zones it serves the root, so
that a name it does not know is NXDOMAIN rather than REFUSED, and `. NS` has an answer.
"""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from tests.support.processes import Program, ProgramError, require_binary, wait_until

PORT = 53
TXT_STRING = 255  # RFC 1035 3.3.14: the longest character-string of a TXT record

CONFIGURATION = """\
server:
    ip-address: {address}
    port: {port}
    do-ip6: no
    username: ""
    chroot: ""
    server-count: 1
    zonesdir: "{folder}"
    pidfile: "{folder}/nsd.pid"
    xfrdfile: "{folder}/xfrd.state"
    xfrdir: "{folder}"
    zonelistfile: "{folder}/zone.list"
    database: ""
    verbosity: 1
    rrl-ratelimit: 0
remote-control:
    control-enable: no
"""
ZONE_CONFIGURATION = 'zone:\n    name: "{name}"\n    zonefile: "{file}"\n'
ZONE = """\
$ORIGIN {origin}
$TTL {ttl}
@ IN SOA ns.invalid. postmaster.invalid. {serial} 3600 600 86400 {ttl}
@ IN NS ns.invalid.
{records}
"""


class Nameserver:
    """NSD with zones given as text: a zone's name, and its records relative to it ("www A 192.0.2.1").

    Answers, of either kind, may be kept for `ttl` seconds. As a context manager it runs within the `with` block.
    """

    def __init__(self, folder: Path, zones: Mapping[str, str], *, port: int = PORT, ttl: int = 1) -> None:
        folder.mkdir()
        self.folder = folder
        self.address = free_address(port)
        self.port = port
        self._ttl = ttl
        self._zones = {".": "", **zones}
        self._serial = 1
        command = [require_binary("nsd", "nsd"), "-d", "-c", str(folder / "nsd.conf")]
        self.program = Program("nsd", command, folder, is_ready=self._serves_this_serial)

    @property
    def endpoint(self) -> str:
        """Return `ADDRESS:PORT`."""
        return f"{self.address}:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; it answers for all its zones when this returns."""
        self._write()
        self.program.start()

    def stop(self) -> None:
        """Stop it: from now on DNS is away."""
        self.program.stop()

    def change(self, zone: str, records: str) -> None:
        """Replace the records of a zone; the new ones are served when this returns."""
        if zone not in self._zones:
            raise ProgramError(f"the nameserver has no zone {zone}")
        self._zones[zone] = records
        self._serial += 1
        self._write()
        self.program.signal(signal.SIGHUP)
        wait_until(self._serves_this_serial, f"NSD serving the new {zone}")

    def break_zone(self, *zones: str) -> None:
        """Have zones answered with SERVFAIL, as if their own servers were silent: NSD knows them and has no files for them."""
        with (self.folder / "nsd.conf").open("a") as configuration:
            for zone in zones:
                configuration.write(ZONE_CONFIGURATION.format(name=zone, file=self.folder / "missing.zone"))
        self.program.restart()

    def records(self, zone: str) -> str:
        """Return the records a zone has now, as `change` takes them."""
        return self._zones[zone]

    def _write(self) -> None:
        configuration = CONFIGURATION.format(address=self.address, port=self.port, folder=self.folder)
        for name, records in self._zones.items():
            file = self.folder / f"{name.strip('.') or 'root'}.zone"
            origin = name if name.endswith(".") else name + "."
            file.write_text(ZONE.format(origin=origin, ttl=self._ttl, serial=self._serial, records=records))
            configuration += ZONE_CONFIGURATION.format(name=name, file=file)
        (self.folder / "nsd.conf").write_text(configuration)

    def _serves_this_serial(self) -> bool:
        return all(self._serial_of(zone) == self._serial for zone in self._zones)

    def _serial_of(self, zone: str) -> int | None:
        question = dns.message.make_query(zone, dns.rdatatype.SOA)
        try:
            response = dns.query.udp(question, self.address, port=self.port, timeout=1)
        except (OSError, dns.exception.DNSException):
            return None
        return int(response.answer[0][0].serial) if response.answer else None


def txt_record(name: str, text: str) -> str:
    """Format one TXT record for a zone, cut into strings of 255 octets.

    >>> txt_record("2026a._domainkey", "v=DKIM1; p=")
    '2026a._domainkey IN TXT "v=DKIM1; p="'
    """
    strings = [text[start : start + TXT_STRING] for start in range(0, len(text), TXT_STRING)]
    return f"{name} IN TXT " + " ".join(f'"{string}"' for string in strings)


def free_address(port: int = PORT) -> str:
    """Return a loopback address on which this port is free, for UDP and TCP."""
    for _ in range(100):
        address = f"127.53.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(socket.AF_INET, kind) as attempt:
                    attempt.bind((address, port))
        except PermissionError:
            raise ProgramError(f"port {port} needs root, and this is uid {os.geteuid()}") from None
        except OSError:
            continue
        return address
    raise ProgramError(f"port {port} is taken on every loopback address: does a nameserver listen on 0.0.0.0?")
