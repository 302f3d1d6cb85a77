"""An authoritative nameserver (NSD) on loopback, so that no program waits for DNS and none asks the outside.

It serves the root besides its zones: a name it does not know is NXDOMAIN, and `. NS` has an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from bench.programs import Launch, Program, free_port, require_binary

ADDRESS = "127.0.0.1"
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
remote-control:
    control-enable: no
"""
ZONE_CONFIGURATION = 'zone:\n    name: "{name}"\n    zonefile: "{file}"\n'
ZONE = """\
$ORIGIN {origin}
$TTL 3600
@ IN SOA ns.invalid. postmaster.invalid. 1 3600 600 86400 60
@ IN NS ns.invalid.
{records}
"""


class Nameserver:
    """NSD with zones given as text: a zone's name, and its records relative to it. A context manager."""

    def __init__(self, folder: Path, zones: Mapping[str, str]) -> None:
        self._folder = folder
        self._zones = {".": "", **zones}
        self._port = free_port(ADDRESS)
        command = [require_binary("nsd", "nsd"), "-d", "-c", str(folder / "nsd.conf")]
        self._program = Program("nsd", Launch(command, folder, self._answers))

    @property
    def address(self) -> str:
        """Return `ADDRESS:PORT`."""
        return f"{ADDRESS}:{self._port}"

    def __enter__(self) -> Self:
        self._folder.mkdir()
        configuration = CONFIGURATION.format(address=ADDRESS, port=self._port, folder=self._folder)
        for name, records in self._zones.items():
            file = self._folder / f"{name.strip('.') or 'root'}.zone"
            file.write_text(ZONE.format(origin=name if name == "." else f"{name}.", records=records))
            configuration += ZONE_CONFIGURATION.format(name=name, file=file)
        (self._folder / "nsd.conf").write_text(configuration)
        self._program.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.stop()

    def _answers(self) -> bool:
        return all(self._has(zone) for zone in self._zones)

    def _has(self, zone: str) -> bool:
        question = dns.message.make_query(zone, dns.rdatatype.SOA)
        try:
            return bool(dns.query.udp(question, ADDRESS, port=self._port, timeout=1).answer)
        except (OSError, dns.exception.DNSException):
            return False
