"""A network of the benchmark's own, where nothing but a loopback interface is: nobody's traffic disturbs, or is disturbed.

Its nameservers have addresses that are not 127.0.0.0/8 there: OpenDKIM's libunbound refuses to ask those, and reads the
configuration that would allow it anew for each message, with a parser that crashes when two threads are in it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Sequence

from tests.support.processes import require_binary

MARK = "MAILWARD_BENCH_NETWORK"
NAMESERVERS = ("198.51.100.53", "198.51.100.54")  # TEST-NET-2, RFC 5737
MAIL_ADDRESS = "192.0.2.10"  # TEST-NET-1: of Postfix, and of the clients that connect to it: nobody greylists 127.0.0.1
SIOCSIFADDR, SIOCSIFFLAGS = 0x8916, 0x8914  # linux/sockios.h
IFF_UP = 1


def enter(module: str, arguments: Sequence[str]) -> None:
    """Start `python -m module arguments` anew, in a network namespace of its own; in there, set its interface up."""
    if os.environ.get(MARK) != str(os.getpid()):
        unshare = require_binary("unshare", "util-linux")
        os.environ[MARK] = str(os.getpid())  # which exec keeps
        os.execv(unshare, [unshare, "--net", sys.executable, "-m", module, *arguments])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        for number, address in enumerate((*NAMESERVERS, MAIL_ADDRESS)):
            name = f"lo:{number}".encode()
            request = struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, SIOCSIFADDR, request)
