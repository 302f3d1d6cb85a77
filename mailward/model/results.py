"""What a decision found out, as values with their causes. Reasons are our own words and validated names: safe to show.

Every text here that came from outside is a domain, a selector or an address that was parsed and normalized, or is printable
ASCII; what could not be read stands as the empty string, never as it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Publication(Enum):
    """Whether the DNS shows the public half of a signing key."""

    PUBLISHED = "published"
    MISSING = "missing"
    DIFFERENT = "different"
    UNKNOWN = "unknown"  # the DNS did not answer; nothing is concluded from that


@dataclass(frozen=True, slots=True)
class PublicationResult:
    """The state of one selector's record, and what was wrong with it (empty where nothing was)."""

    state: Publication
    reason: str = ""


class FromFault(Enum):
    """Why the authors of a message cannot be told."""

    MISSING = "no-from"
    SEVERAL_FIELDS = "several-from-fields"
    MALFORMED = "malformed-from"
    NO_DOMAIN = "from-without-domain"


@dataclass(frozen=True, slots=True)
class Authors:
    """The distinct author domains in the order they stand (normalized A-labels), and the fault of the From field if any.

    With SEVERAL_FIELDS they are those of all the fields, and none where one of them cannot be read. With MALFORMED they are all
    that any reader could take for an author's domain, whatever stands behind an `@`: a login must have a right to each of them,
    and a stranger's message passes only if each of them says so.
    """

    domains: tuple[str, ...]
    fault: FromFault | None = None


class Result(Enum):
    """The result words of Authentication-Results (RFC 8601 2.7)."""

    NONE = "none"
    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    POLICY = "policy"
    NEUTRAL = "neutral"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class SpfIdentity(Enum):
    """Which name SPF was asked about (RFC 7208 2.3, 2.4)."""

    HELO = "helo"
    MAILFROM = "mailfrom"


@dataclass(frozen=True, slots=True)
class SpfTerm:
    """One step of an SPF evaluation: the domain whose record it stands in, the term, and what came of it."""

    domain: str
    term: str
    outcome: str


@dataclass(frozen=True, slots=True)
class SpfMatch:
    """How much of the client's address mattered to what matched in the end, be it in a record included or redirected to.

    `prefix_length` is that of ip4, ip6, a and mx, of the `bits` that the address has; 0 of all other mechanisms.
    """

    prefix_length: int
    bits: int


@dataclass(frozen=True, slots=True)
class SpfResult:
    """The result for one identity.

    `domain` (normalized) is the one whose record was judged, empty where the identity names none; for the null sender the
    MAILFROM identity's is that of HELO (RFC 7208 2.4). `mechanism` is the term of its record that matched, `match` is
    only there with PASS. `explanation` is the sender's own text, clipped to printable ASCII, and only there with FAIL. `terms`
    is filled only where the caller asked for it.
    """

    result: Result
    identity: SpfIdentity
    domain: str = ""
    reason: str = ""
    mechanism: str = ""
    lookups: int = 0
    void_lookups: int = 0
    explanation: str = ""
    terms: tuple[SpfTerm, ...] = ()
    match: SpfMatch | None = None


@dataclass(frozen=True, slots=True)
class IprevResult:
    """Whether the client's address has a name that leads back to it (RFC 8601 3); `name` is that name, confirmed."""

    result: Result
    address: str
    name: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DkimResult:
    """The result for one DKIM-Signature field, `position` counted from 0 at the top.

    `signing_domain` and the auid's domain are normalized A-labels; `auid` is `@domain` or `local@domain`, printable ASCII.
    `signature_prefix` is the start of b= (RFC 6008). `is_body_changed`: the only fault known is that the body's hash differs;
    whether the header still verifies is told by `header_verifies`, where that was asked for.
    """

    result: Result
    reason: str = ""
    position: int = 0
    signing_domain: str = ""
    selector: str = ""
    auid: str = ""
    algorithm: str = ""
    signature_prefix: str = ""
    key_bits: int = 0
    is_body_changed: bool = False


@dataclass(frozen=True, slots=True)
class ArcResult:
    """The result of an Authenticated Received Chain (RFC 8617 5.2).

    `sealers` are the normalized d= of the seals, instance 1 first; filled only with PASS. `passed_author_domains` are those of
    which the newest set's ARC-Authentication-Results says `dmarc=pass`. `is_temporary`: a FAIL that is owed to the DNS's silence.
    """

    result: Result
    reason: str = ""
    instances: int = 0
    sealers: tuple[str, ...] = ()
    passed_author_domains: tuple[str, ...] = ()
    is_temporary: bool = False


class Disposition(Enum):
    """What a DMARC policy asks for, the mildest first (RFC 9989 4.7, p=)."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One name of a DNS tree walk, and what stood there: a record's text (printable ASCII), or why none counts."""

    name: str
    outcome: str
    is_record: bool = False


@dataclass(frozen=True, slots=True)
class DmarcResult:
    """The result for one author domain (RFC 9989).

    `policy` is what applies after sp, np, t and psd; None where no record was found or it could not be asked for.
    `aligned` says in words what passed and was aligned (`dkim=example.com`, `spf=example.com`). `walk` is the author domain's.
    """

    result: Result
    author_domain: str
    reason: str = ""
    policy: Disposition | None = None
    policy_domain: str = ""
    organizational_domain: str = ""
    aligned: tuple[str, ...] = ()
    walk: tuple[WalkStep, ...] = ()


class ForwarderHint(Enum):
    """What speaks for a message having been forwarded; none of it proves anything."""

    LIST_ID = "list-id"
    ARC = "arc-set"
    DKIM_HEADER = "dkim-header"  # a signature of the author domain whose header verifies and whose body does not


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was found out about who sent one message.

    `dmarc` has one result for each author domain; `worst_dmarc` is the one that counts. `hints` are only looked for where a
    DMARC failure may be enforced. `is_dns_away`: some question stayed without an answer because the DNS as a whole is away,
    which no sender can bring about.
    """

    authors: Authors
    iprev: IprevResult
    spf_helo: SpfResult
    spf_mailfrom: SpfResult
    dkim: tuple[DkimResult, ...]
    arc: ArcResult
    dmarc: tuple[DmarcResult, ...]
    worst_dmarc: DmarcResult
    hints: tuple[ForwarderHint, ...] = ()
    is_dns_away: bool = False
