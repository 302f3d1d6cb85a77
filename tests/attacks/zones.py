r"""The DNS of the table: who may send for whom, and what everybody asks for.

Written as tests/support/zone.py reads it, a record a line; `nsd_zone` turns the same lines into a zone for NSD. Names whose
servers are silent stand in SILENT.
"""

from __future__ import annotations

import re

from tests.attacks.keys import (
    Key,
    huge_numbers,
    make_512_bits,
    make_ed25519,
    make_rsa,
    with_exponent,
)
from tests.attacks.messages import Signer
from tests.attacks.row import ATTACKER, BANK, FORWARDER, FRIEND, LIST
from tests.support.nameserver import txt_record

ADDRESSES = f"""\
mail.bank.example A {BANK}
news.bank.example A {BANK}
mail.attacker.example A {ATTACKER}
out.forwarder.example A {FORWARDER}
lists.list.example A {LIST}
10.2.0.192.in-addr.arpa PTR mail.bank.example
66.113.0.203.in-addr.arpa PTR mail.bank.example
20.100.51.198.in-addr.arpa PTR out.forwarder.example
out.friend.example A {FRIEND}
40.100.51.198.in-addr.arpa PTR out.friend.example
67.113.0.203.in-addr.arpa PTR out.friend.example
68.113.0.203.in-addr.arpa PTR out.notfriend.example
out.notfriend.example A 203.0.113.68
"""

# bank: reject. shop: quarantine, reject for what does not exist. strict: no subdomain speaks for it.
VICTIMS = f"""\
bank.example TXT v=spf1 ip4:{BANK} -all
mail.bank.example TXT v=spf1 ip4:{BANK} -all
news.bank.example TXT v=spf1 ip4:{BANK} -all
_dmarc.bank.example TXT v=DMARC1; p=reject; rua=mailto:d@bank.example
shop.example TXT v=spf1 ip4:{BANK} -all
www.shop.example A {BANK}
_dmarc.shop.example TXT v=DMARC1; p=quarantine; sp=none; np=reject
strict.example TXT v=spf1 ip4:{BANK} -all
news.strict.example TXT v=spf1 ip4:{BANK} -all
_dmarc.strict.example TXT v=DMARC1; p=reject; adkim=s; aspf=s
xn--bcher-kva.example TXT v=spf1 ip4:{BANK} -all
_dmarc.xn--bcher-kva.example TXT v=DMARC1; p=reject
monitor.example TXT v=spf1 -all
_dmarc.monitor.example TXT v=DMARC1; p=none
norecord.example TXT v=spf1 -all
_dmarc.testing.example TXT v=DMARC1; p=reject; t=y
_dmarc.percent.example TXT v=DMARC1; p=reject; pct=0
_dmarc.double.example TXT v=DMARC1; p=reject
_dmarc.double.example TXT v=DMARC1; p=none
_dmarc.lower.example TXT v=dmarc1; p=reject
_dmarc.invalid.example TXT v=DMARC1; p=destroy; rua=mailto:d@invalid.example
_dmarc.garbage.example TXT v=DMARC1; p=reject; ;;=;&%; adkim=; psd=psd; t
_dmarc.flaky.example TXT v=DMARC1; p=reject
late.example TXT v=spf1 ip4:{BANK} -all
_dmarc.late.example TXT v=DMARC1; p=reject
_dmarc.accepted.example TXT v=DMARC1; p=reject
"""

# Under a public suffix (psd=y) and under a host of many customers without one, two neighbours each.
NEIGHBOURS = f"""\
_dmarc.suffix.example TXT v=DMARC1; psd=y; p=reject
victim.suffix.example TXT v=spf1 ip4:{BANK} -all
_dmarc.victim.suffix.example TXT v=DMARC1; p=reject
eve.suffix.example TXT v=spf1 ip4:{ATTACKER} -all
_dmarc.hosting.example TXT v=DMARC1; p=reject; psd=n
eve.hosting.example TXT v=spf1 ip4:{ATTACKER} -all
_dmarc.eve.hosting.example TXT v=DMARC1; p=none; psd=n
eve2.hosting.example TXT v=spf1 ip4:{ATTACKER} -all
_dmarc.eve2.hosting.example TXT v=DMARC1; p=none; psd=y
_dmarc.example TXT v=spf1 this is no policy record
example TXT v=spf1 +all
"""

BOMB = "".join(f"bomb{n}.attacker.example TXT v=spf1 include:bomb{n + 1}.attacker.example -all\n" for n in range(14))
ATTACKERS = f"""\
attacker.example TXT v=spf1 ip4:{ATTACKER} -all
mail.attacker.example TXT v=spf1 ip4:{ATTACKER} -all
any.attacker.example TXT v=spf1 ip4:{ATTACKER} -all
open.attacker.example TXT v=spf1 +all
_dmarc.attacker.example TXT v=DMARC1; p=none
endless.attacker.example TXT v=spf1 include:endless.attacker.example -all
macro.attacker.example TXT v=spf1 exists:%{{l}}.%{{h}}.macro.attacker.example +all
bank.example(.attacker.example TXT v=spf1 +all
bank.example'a.attacker.example TXT v=spf1 +all
bank.example"=(.attacker.example TXT v=spf1 +all
xn--bnk-6cd.example TXT v=spf1 ip4:{ATTACKER} -all
silentdmarc.example TXT v=spf1 ip4:{ATTACKER} -all
{BOMB}"""

OTHERS = f"""\
forwarder.example TXT v=spf1 ip4:{FORWARDER} -all
out.forwarder.example TXT v=spf1 ip4:{FORWARDER} -all
list.example TXT v=spf1 ip4:{LIST} -all
notlist.example TXT v=spf1 ip4:{LIST} -all
"""

# These names and what is below them are never answered.
SILENT = (
    "silent.example",
    "_dmarc.silent.example",
    "a1._domainkey.silent.example",
    "_dmarc.silentdmarc.example",
    "s1._domainkey.flaky.example",
)

_SHARED_KEY = make_rsa()
BANK_KEY = Signer(b"bank.example", b"s1", make_rsa())
BANK_ED25519 = Signer(b"bank.example", b"ed", make_ed25519())
NEWS_KEY = Signer(b"news.bank.example", b"s1", _SHARED_KEY)
TESTING_KEY = Signer(b"bank.example", b"testing", _SHARED_KEY)
STRICT_KEY = Signer(b"bank.example", b"strict", _SHARED_KEY)
REVOKED_KEY = Signer(b"bank.example", b"revoked", _SHARED_KEY)
SHA1_ONLY_KEY = Signer(b"bank.example", b"sha1only", _SHARED_KEY)
TLSRPT_KEY = Signer(b"bank.example", b"tlsrpt", _SHARED_KEY)
OTHER_VERSION_KEY = Signer(b"bank.example", b"v2", _SHARED_KEY)
OTHER_TYPE_KEY = Signer(b"bank.example", b"mixed", _SHARED_KEY)
SHORT_KEY = Signer(b"bank.example", b"short", make_512_bits())
EXPONENT_ONE_KEY = Signer(b"bank.example", b"one", with_exponent(_SHARED_KEY, 1))
EVEN_EXPONENT_KEY = Signer(b"bank.example", b"even", with_exponent(_SHARED_KEY, 65536))
HUGE_KEY = Signer(b"bank.example", b"huge", huge_numbers())
NO_KEY = Signer(b"bank.example", b"nothing", _SHARED_KEY)
STRICT_NEWS_KEY = Signer(b"news.strict.example", b"s1", _SHARED_KEY)
FLAKY_KEY = Signer(b"flaky.example", b"s1", _SHARED_KEY)

ATTACKER_KEY = Signer(b"attacker.example", b"a1", make_rsa())
SILENT_KEY = Signer(b"silent.example", b"a1", ATTACKER_KEY.key)
SILENT_DMARC_KEY = Signer(b"silentdmarc.example", b"a1", ATTACKER_KEY.key)
TOP_LEVEL_KEY = Signer(b"example", b"a1", ATTACKER_KEY.key)
EVE_KEY = Signer(b"eve.suffix.example", b"a1", ATTACKER_KEY.key)
SUFFIX_KEY = Signer(b"suffix.example", b"a1", ATTACKER_KEY.key)
EVE_HOSTED_KEY = Signer(b"eve.hosting.example", b"a1", ATTACKER_KEY.key)
EVE_2_HOSTED_KEY = Signer(b"eve2.hosting.example", b"a1", ATTACKER_KEY.key)
NOT_BANK_KEY = Signer(b"notbank.example", b"a1", ATTACKER_KEY.key)
PARENTHESIS_KEY = Signer(b"bank.example(.attacker.example", b"a1", ATTACKER_KEY.key)
QUOTE_KEY = Signer(b"bank.example'a.attacker.example", b"a1", ATTACKER_KEY.key)
DOUBLE_QUOTE_KEY = Signer(b'bank.example"=(.attacker.example', b"a1", ATTACKER_KEY.key)
HOMOGRAPH_KEY = Signer(b"xn--bnk-6cd.example", b"a1", ATTACKER_KEY.key)

FORWARDER_KEY = Signer(b"forwarder.example", b"f1", make_rsa())
LIST_KEY = Signer(b"list.example", b"l1", make_rsa())
NOT_LIST_KEY = Signer(b"notlist.example", b"l1", LIST_KEY.key)

_PLAIN = (
    BANK_KEY, BANK_ED25519, NEWS_KEY, SHORT_KEY, EXPONENT_ONE_KEY, EVEN_EXPONENT_KEY, HUGE_KEY, STRICT_NEWS_KEY,
    ATTACKER_KEY, SILENT_DMARC_KEY, TOP_LEVEL_KEY, EVE_KEY, SUFFIX_KEY, EVE_HOSTED_KEY, EVE_2_HOSTED_KEY, NOT_BANK_KEY,
    PARENTHESIS_KEY, QUOTE_KEY, DOUBLE_QUOTE_KEY, HOMOGRAPH_KEY, FORWARDER_KEY, LIST_KEY, NOT_LIST_KEY,
)  # fmt: skip
_SPECIAL = {
    TESTING_KEY: "v=DKIM1; t=y; p={p}",
    STRICT_KEY: "v=DKIM1; t=s; p={p}",
    REVOKED_KEY: "v=DKIM1; p=",
    SHA1_ONLY_KEY: "v=DKIM1; h=sha1; p={p}",
    TLSRPT_KEY: "v=DKIM1; s=tlsrpt; p={p}",
    OTHER_VERSION_KEY: "v=DKIM2; p={p}",
    OTHER_TYPE_KEY: "v=DKIM1; k=ed25519; p={p}",
}


def _key_line(signer: Signer, text: str = "v=DKIM1; k={k}; p={p}") -> str:
    key: Key = signer.key
    name = signer.selector + b"._domainkey." + signer.domain
    return f"{name.decode()} TXT {text.format(k=key.type, p=key.published)}\n"


KEYS = "".join([*map(_key_line, _PLAIN), *(_key_line(signer, text) for signer, text in _SPECIAL.items())])
RECORDS = ADDRESSES + VICTIMS + NEIGHBOURS + ATTACKERS + OTHERS + KEYS
ZONE_TEXT = RECORDS + "".join(f"{name} TEMPFAIL\n" for name in SILENT)


def nsd_zone() -> str:
    """Return the records as the root zone of an NSD; the silent names are for `Nameserver.break_zone`."""
    return "\n".join(_nsd_line(*line.split(None, 2)) for line in RECORDS.splitlines())


def _nsd_line(name: str, kind: str, value: str) -> str:
    owner = re.sub(r"([^A-Za-z0-9._-])", r"\\\1", name) + "."
    if kind == "TXT":
        return txt_record(owner, value.replace('"', '\\"'))
    return f"{owner} IN {kind} {value}{'' if kind == 'A' else '.'}"
