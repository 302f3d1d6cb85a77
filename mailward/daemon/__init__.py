"""Running as a service: log, metrics, status page, supervisor, worker."""

import logging

from mailward.daemon.late import put_off

put_off("asyncio", "idna", "nacl.signing", "nacl.encoding")  # before structlog, dnspython and dkimpy import them
vars(logging)["logAsyncioTasks"] = False  # from Python 3.12 on each record would look into asyncio; structlog makes one
