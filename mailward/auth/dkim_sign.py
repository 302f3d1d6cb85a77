"""DKIM signatures on outgoing mail (RFC 6376, 8301, 8463): header fields, body hash and key in, a field out.

Never `l=`: whoever appends to the body shall break the signature. Never a clock: the time of signing is the caller's.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mailward.auth.body_hash import Canonicalization
from mailward.auth.dkim import Canonicalizations, canonical_field
from mailward.auth.keys import PrivateKey
from mailward.model.message import HeaderField, by_name, pick_bottom_up

MAX_ALWAYS_ITEMS = 4000  # of the names that must be covered in full; with more of them the message cannot be signed
MAX_OTHER_ITEMS = 500  # of all the others; what is beyond stays unsigned, so that our field fits where others must
# A name that only a family covers, which its author chose: h= has lines of 78, and a semicolon would end it and begin a
# tag of the author's (RFC 5322 3.6.8 allows one in a name, RFC 6376 3.2 none in a tag).
_FAMILY_NAME = re.compile(rb"[!-9<-~]{1,60}")

MAX_CACHED_NAMES = 64  # so that the cache of h= lists has at most 2 MB whatever strangers send

_FOLD = "\r\n\t"
_LINE = 72  # where folded lines of our field end; RFC 5322 2.1.1 recommends at most 78

# Why a field is signed, and how. "always" is oversigned whether present or not: nobody can add one. "present" is
# oversigned where the message has it; where it has none a mailing list may add its own. "once" is signed as it occurs.
SIGNED_FIELDS = {
    # What the reader sees and answers to. A second one, added on the way, would be shown instead.
    "from": "always",
    "reply-to": "always",
    "subject": "always",
    "to": "always",
    "cc": "always",
    # What identifies the message and how its body is read: changed, the same octets mean something else.
    "date": "present",
    "message-id": "present",
    "mime-version": "present",
    "content-type": "present",
    "content-transfer-encoding": "present",
    # One-click unsubscription is trusted only when both are signed (RFC 8058 4).
    "list-unsubscribe": "present",
    "list-unsubscribe-post": "present",
    # Shown or used by readers, and legitimately absent or repeated.
    "sender": "once",
    "in-reply-to": "once",
    "references": "once",
    "content-*": "once",
    "resent-*": "once",
    "list-*": "once",
}

# Trace fields change on the way by design (RFC 6376 5.4.1, RFC 8617 4.1.2): the configuration refuses them.
NEVER_SIGNED = ("received", "return-path", "authentication-results", "arc-", "dkim-signature")


class TooManyFields(ValueError):
    """The header has so many fields of the names to be oversigned that no h= can cover them."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key with the two names under which verifiers find its public half."""

    signing_domain: str
    selector: str
    private_key: PrivateKey


@dataclass(frozen=True, slots=True)
class SigningRules:
    """What a signature covers and how long it holds; the field names are lower case, `name-*` stands for a family.

    `expire_seconds` is the distance of `x=` from the time of signing; 0 leaves `x=` out.
    """

    canonicalizations: Canonicalizations = Canonicalizations()
    oversigned: tuple[str, ...] = tuple(name for name, how in SIGNED_FIELDS.items() if how == "always")
    oversigned_if_present: tuple[str, ...] = tuple(name for name, how in SIGNED_FIELDS.items() if how == "present")
    signed: tuple[str, ...] = tuple(name for name, how in SIGNED_FIELDS.items() if how == "once")
    expire_seconds: int = 0
    _always: tuple[bytes, ...] = field(init=False, repr=False)
    _extra: dict[bytes, int] = field(init=False, repr=False)  # how many more items than fields, for the other names
    _families: tuple[bytes, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        extra = {name.encode(): 0 for name in self.signed if not name.endswith("*")}
        extra |= {name.encode(): 1 for name in self.oversigned_if_present}
        object.__setattr__(self, "_always", tuple(name.encode() for name in self.oversigned))
        object.__setattr__(self, "_extra", {name: n for name, n in extra.items() if name not in self._always})
        object.__setattr__(self, "_families", tuple(n[:-1].encode() for n in self.signed if n.endswith("*")))

    def names_to_sign(self, groups: Mapping[bytes, list[HeaderField]]) -> list[bytes]:
        """Return the items of `h=`: each signed name as often as it occurs, and once more where it is oversigned.

        What must be oversigned comes first and in full, so that no number of other fields can push it out. Raises
        TooManyFields where that is impossible.
        """
        always: list[bytes] = []
        for name in self._always:
            always += [name] * (len(groups.get(name, ())) + 1)
        if len(always) > MAX_ALWAYS_ITEMS:
            raise TooManyFields
        others: list[bytes] = []
        for name, fields in groups.items():
            extra = self._extra.get(name)
            if extra is not None:
                others += [name] * (len(fields) + extra)
            elif name.startswith(self._families) and _FAMILY_NAME.fullmatch(name) and name not in self._always:
                others += [name] * len(fields)
        return always + others[:MAX_OTHER_ITEMS]


class SignedHeader:
    """The signed header fields of one message, canonical and hashed once for all of its signatures."""

    __slots__ = ("_forms", "_h_tag", "_hash", "_rules")

    def __init__(self, header: Sequence[HeaderField], rules: SigningRules) -> None:
        """Raises TooManyFields."""
        groups = by_name(header)
        names = rules.names_to_sign(groups)
        picked = pick_bottom_up(groups, names)
        self._forms = rules.canonicalizations
        canonical = b"".join([canonical_field(item, self._forms.header) for item in picked])
        if self._forms.header is Canonicalization.RELAXED and (b"\x0b" in canonical or b"\x0c" in canonical):
            # Verifiers differ on whether a vertical tab or a form feed is white space; the simple form does not ask.
            self._forms = Canonicalizations(Canonicalization.SIMPLE, self._forms.body)
            canonical = b"".join([canonical_field(item, Canonicalization.SIMPLE) for item in picked])
        self._hash = hashlib.sha256(canonical)
        self._h_tag = _h_tag(tuple(names)) if len(names) <= MAX_CACHED_NAMES else _fold_names(names)
        self._rules = rules

    def sign(self, key: SigningKey, body_digest: bytes, now: int) -> HeaderField:
        """Return the DKIM-Signature field made with `key`; `now` in seconds since 1970.

        The field's value begins with its space and has no line longer than 78 octets, whatever the names' lengths allow.
        """
        unsigned = self._unsigned_value(key, body_digest, now).encode("ascii")
        if self._forms.header is Canonicalization.RELAXED:
            canonical = b"dkim-signature:" + b" ".join(unsigned.split())  # our own folds hold no surprises
        else:
            canonical = b"DKIM-Signature:" + unsigned
        signed = self._hash.copy()
        signed.update(canonical)
        signature = base64.b64encode(key.private_key.sign(signed.digest()))
        return HeaderField(b"DKIM-Signature", unsigned + _fold_base64(signature, first=_LINE - 3))

    def _unsigned_value(self, key: SigningKey, body_digest: bytes, now: int) -> str:
        rules = self._rules
        expiry = f" x={now + rules.expire_seconds};" if rules.expire_seconds else ""
        return (
            f" v=1; a={key.private_key.algorithm.value}; c={self._forms};"
            f"{_FOLD}d={key.signing_domain}; s={key.selector};"
            f"{_FOLD}t={now};{expiry}"
            f"{_FOLD}{self._h_tag};"
            f"{_FOLD}bh={base64.b64encode(body_digest).decode('ascii')};"
            f"{_FOLD}b="
        )


@functools.lru_cache(maxsize=512)  # a program that sends mail sends the same fields each time; worth a twentieth
def _h_tag(names: tuple[bytes, ...]) -> str:
    return _fold_names(names)


def _fold_names(names: Sequence[bytes]) -> str:
    """Return the h= tag, folded between its items (RFC 6376 3.5 allows white space there)."""
    lines, line = [], "h="
    for index, name in enumerate(names):
        piece = name.decode("ascii", "replace") + (":" if index < len(names) - 1 else "")
        if len(line) + len(piece) > _LINE:
            lines.append(line)
            line = ""
        line += piece
    return _FOLD.join([*lines, line])


def _fold_base64(text: bytes, first: int) -> bytes:
    """Cut `text` into lines, the first of `first` characters."""
    return _FOLD.encode().join([text[:first], *[text[at : at + _LINE] for at in range(first, len(text), _LINE)]])
