"""Everything too long, too many or too deep: each ends in a result, soon."""

from __future__ import annotations

from tests.attacks.controls import PLAIN, SIGNED
from tests.attacks.messages import message, replaced, sign
from tests.attacks.row import Attack, Fate, InPostfix
from tests.attacks.zones import ATTACKER_KEY, BANK_KEY

LONG = 90_000  # Postfix cuts header fields at 60,000 octets where it has milters, whatever its header_size_limit
ROWS = (
    Attack(
        "subject-of-fifty-thousand-octets-is-verified-like-any-other",
        sign(message(b"From: ceo@bank.example", b"Subject: " + b"x " * 25_000 + b"x"), BANK_KEY),
        "pass",
        Fate.ACCEPTED,
        dkim=("pass",),
    ),
    Attack(
        "subject-of-ninety-thousand-octets-is-verified-like-any-other",
        sign(message(b"From: ceo@bank.example", b"Subject: " + b"x " * (LONG // 2) + b"x"), BANK_KEY),
        "pass",
        Fate.ACCEPTED,
        dkim=("pass",),
        postfix=InPostfix("changes", "fail", Fate.REFUSED),
    ),
    Attack(
        "from-field-of-ninety-thousand-octets-is-not-read",
        message(b"From: ceo@bank.example (" + b"x" * LONG + b")"),
        "permerror",
        Fate.QUARANTINED,
        "",
        postfix=InPostfix("changes"),
    ),
    Attack(
        "thirty-thousand-items-in-h-are-not-counted",
        sign(PLAIN, ATTACKER_KEY, names=b"from:" + b":".join([b"x"] * 30_000)),
        dkim=("permerror",),
    ),
    Attack(
        "signature-of-seventy-thousand-octets-of-folds-is-not-read",
        replaced(replaced(SIGNED, b" b=", b" b=" + b"\r\n " * 25_000), b"ceo@", b"cfo@"),
        dkim=("permerror",),
    ),
    Attack(
        "signature-of-five-thousand-folds-is-read-in-linear-time",
        replaced(replaced(SIGNED, b" b=", b" b=" + b"\r\n " * 5_000), b"ceo@", b"cfo@"),
        dkim=("fail",),
    ),
    Attack(
        "body-hash-of-ninety-thousand-octets-is-none",
        sign(PLAIN, ATTACKER_KEY, body_hash=b"A" * LONG),
        dkim=("permerror",),
    ),
    Attack(
        "signature-without-end-is-none",
        b"DKIM-Signature: v=1; a=rsa-sha256; d=bank.example; s=s1; h=from; bh=AAAA; b=" + b"A" * LONG + b"\r\n" + PLAIN,
        dkim=("permerror",),
    ),
    Attack(
        "auid-of-ninety-thousand-octets-is-not-shown",
        sign(PLAIN, ATTACKER_KEY, tags=b" i=" + b"=41" * 20_000 + b"@attacker.example;"),
    ),
    Attack(
        "ten-thousand-header-fields-are-verified-like-few",
        b"X-Long: y\r\n" * 10_000 + SIGNED,
        "pass",
        Fate.ACCEPTED,
        dkim=("pass",),
    ),
    Attack(
        "line-of-a-megabyte-of-spaces-is-hashed-in-linear-time",
        SIGNED + b" " * 1_000_000 + b"x\r\n",
        fate=Fate.QUARANTINED,
        dkim=("fail",),
    ),
    Attack(
        "megabyte-of-empty-lines-at-the-end-is-no-change",
        SIGNED + b"\r\n" * 500_000,
        "pass",
        Fate.ACCEPTED,
        dkim=("pass",),
    ),
    Attack(
        "thousand-author-domains-are-not-all-asked-about",
        message(b"From: " + b", ".join(b"x@a%d.example" % n for n in range(900))),
        "permerror",
        Fate.QUARANTINED,
        "a0.example",
    ),
    Attack("message-of-nothing-names-no-author", b"", "permerror", Fate.QUARANTINED, ""),
    Attack("message-without-a-body-is-judged", PLAIN.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"),
    Attack(
        "auid-that-writes-results-is-not-shown",
        sign(PLAIN, BANK_KEY, tags=b" i=x=3Bdmarc=3Dfail@bank.example;"),
        "pass",
        Fate.ACCEPTED,
        dkim=("pass",),
    ),
)
