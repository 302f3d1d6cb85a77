"""What holds for every test."""

from __future__ import annotations

import signal

# A shell starts what runs in the background with Ctrl-C ignored, and so it stays for all that is started from there:
# the programs that the tests interrupt would not notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
