"""The jobs of `make bench`: each measures one kind of work and returns its tables as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.jobs import (
    domains,
    greylist,
    greylist_outage,
    greylist_scale,
    idle,
    install,
    large,
    limits,
    limits_scale,
    memory,
    outage,
    policyd_away,
    sign,
    verify,
    verify_large,
    verify_memory,
)
from bench.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Job:
    """A job's name on the command line, its section's title, and what runs it."""

    name: str
    title: str
    run: Callable[[Workbench], str]


JOBS = (
    Job("sign", "Signing: RSA-2048, 4 kB messages", sign.run),
    Job("dual", "Signing twice: RSA-2048 and Ed25519, 4 kB messages", sign.run_dual),
    Job("large", "Signing large messages: CPU for a message of 1 and 10 MB", large.run),
    Job("memory", "Signing a message of 50 MB: memory", memory.run),
    Job("domains", "Signing for 10,000 domains", domains.run),
    Job("verify", "Verifying: SPF, DKIM and DMARC, 4 kB messages", verify.run),
    Job("verify-large", "Verifying large messages: CPU for a message of 1 MB", verify_large.run),
    Job("verify-memory", "Verifying: memory", verify_memory.run),
    Job("outage", "Verifying while the DNS is away", outage.run),
    Job("greylist", "Greylisting: fresh and known triplets", greylist.run),
    Job("greylist-outage", "Greylisting through an outage", greylist_outage.run),
    Job("greylist-scale", "Greylisting: ten million triplets in SQLite", greylist_scale.run),
    Job("limits", "Rate limits: three limits a request", limits.run),
    Job("limits-scale", "Rate limits: a million known accounts in SQLite", limits_scale.run),
    Job("policyd-away", "Mail while the policy server is away", policyd_away.run),
    Job("idle", "Everything at rest: memory", idle.run),
    Job("install", "Installing: from nothing to a signed and a verified message", install.run),
)
