"""Domain names as the mail standards compare them: A-labels, lower case, label by label.

Never a suffix comparison of strings: `notexample.com` is not below `example.com`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator

MAX_NAME = 253  # RFC 1035 2.3.4, without the final dot
MAX_LABEL = 63

# Code points that are not seen, and that some readers drop from a name and others keep: with one in it a name is one domain
# here and another there (Default_Ignorable_Code_Point of the Unicode database, as far as its category lets it through).
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_JOINERS = "\u200c\u200d"  # seen only behind a virama, in the scripts of India (RFC 5892 A.1, A.2)
_VIRAMA = 9  # its canonical combining class

# Letters, digits, hyphen (RFC 5321 4.1.2); the underscore because selectors and service names carry it.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)


class InvalidDomain(ValueError):
    """The text is no domain name; the message says why, without repeating the text."""


@functools.lru_cache(maxsize=4096)  # 0.1 us instead of 2; a name that is none, or too long, is not kept
def normalize(name: str) -> str:
    """Return `name` in lower-case A-labels without a final dot.

    U-labels become A-labels (RFC 9989 5.3.1). Raises InvalidDomain for anything that is no host name: an empty or
    over-long label, white space, control characters, brackets.

    >>> normalize("Mail.EXAMPLE.com.")
    'mail.example.com'
    >>> normalize("b\u00fccher.example")
    'xn--bcher-kva.example'
    """
    if len(name) > MAX_NAME + 1:  # first: what follows takes quadratic time over text of many scripts
        raise InvalidDomain("empty or longer than 253 octets")
    if name.isascii():
        domain = name.lower()
    else:
        domain = ".".join(_a_label(label) for label in re.split("[.\u3002\uff0e\uff61]", name))
    domain = domain.removesuffix(".")
    if not domain or len(domain) > MAX_NAME:
        raise InvalidDomain("empty or longer than 253 octets")
    for label in domain.split("."):
        if not _LABEL.fullmatch(label):
            raise InvalidDomain("a label is empty, too long or has characters no host name has")
    return domain


def _a_label(label: str) -> str:
    """Turn one U-label into its A-label (RFC 5891 4).

    The four characters on which IDNA 2003 and 2008 differ keep their own code point, as IDNA 2008 says:
    a sharp s that became `ss` would be somebody else's domain.
    """
    if label.isascii():
        return label.lower()
    if _UNSEEN.search(label):
        raise InvalidDomain("a label has characters no host name has")
    text = unicodedata.normalize("NFKC", label.lower()).lower()
    if len(text) > MAX_LABEL:  # its A-label is longer yet
        raise InvalidDomain("a label is empty, too long or has characters no host name has")
    if text.isascii():
        if "." in text:  # no dot is made of a character that only looks like one, with a digit before it or not
            raise InvalidDomain("a label has characters no host name has")
        return text
    before = ""
    for character in text:
        is_joined = character in _JOINERS and before and unicodedata.combining(before) == _VIRAMA
        if character != "-" and unicodedata.category(character)[0] not in "LMN" and not is_joined:
            raise InvalidDomain("a label has characters no host name has")
        before = character
    return "xn--" + text.encode("punycode").decode("ascii")


def parents(domain: str) -> Iterator[str]:
    """Yield the names above `domain`, nearest first, without the root.

    >>> list(parents("a.b.example"))
    ['b.example', 'example']
    """
    _, _, rest = domain.partition(".")
    while rest:
        yield rest
        _, _, rest = rest.partition(".")
