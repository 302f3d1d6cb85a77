"""What holds for every test."""

from __future__ import annotations

import hashlib
import signal
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

# Two Pythons may run the tests of one checkout side by side: each keeps its examples by itself, or one removes the other's.
_PYTHON = hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]
_EXAMPLES = Path(__file__).parent.parent / ".hypothesis" / f"examples-{_PYTHON}"
# How long an example takes, and how large one becomes, is chance: no test fails for it.
settings.register_profile(
    "mailward",
    database=DirectoryBasedExampleDatabase(_EXAMPLES),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mailward")

# A shell starts what runs in the background with Ctrl-C ignored, and so it stays for all that is started from there:
# the programs that the tests interrupt would not notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
