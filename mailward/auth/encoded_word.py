"""Encoded words (RFC 2047) where an address is read: never decoded for use, only for what a mail program might show.

Some programs decode them where the RFC allows none, and then show as the author what they say.
"""

from __future__ import annotations

import binascii
import quopri
import re
from collections.abc import Iterator

# Some readers take any character for a part of its text. One that does not end takes the rest, so that this stays linear.
_ENCODED_WORD = re.compile(rb"=\?([^?\s]*+)\?([bBqQ])\?(.*?)(\?=|\Z)", re.DOTALL)
# The character sets of mail that Python decodes in linear time; of any other, an encoded word may say anything. So it may in
# UTF-7, where two that a reader joins say what neither says.
_KNOWN_CHARSET = re.compile(
    rb"(?:utf-8|us-ascii|iso-8859-[0-9]+|windows-125[0-8]|koi8-[ru]|big5|gb2312|gbk|gb18030|shift_jis|"
    rb"euc-(?:jp|kr|tw)|iso-2022-(?:jp|kr)|ks_c_5601-1987|tis-620)(?:\*[a-z-]*)?",
    re.IGNORECASE,
)


def has_encoded_word(text: bytes) -> bool:
    """Say whether an encoded word stands in it, or the beginning of one."""
    return b"?" in text and any(_encoded_words(text))


def may_hide_address(text: bytes) -> bool:
    """Say whether an encoded word in it holds an `@`, or cannot be read in one way.

    >>> may_hide_address(b"=?utf-8?q?ceo=40bank.example?="), may_hide_address(b"=?utf-8?q?J=C3=B6rg?=")
    (True, False)
    """
    return any(map(_may_hide_address, _encoded_words(text)))


def _encoded_words(text: bytes) -> Iterator[re.Match[bytes]]:
    return _ENCODED_WORD.finditer(text.replace(b"\\", b""))  # a quoted string may have one before any character


def _may_hide_address(encoded_word: re.Match[bytes]) -> bool:
    # An `=` is taken for the beginning of another one, or of an octet whose rest is in the next one.
    charset, encoding, text, end = encoded_word.groups()
    if not end:
        return False
    if not _KNOWN_CHARSET.fullmatch(charset):
        return True
    try:
        octets = binascii.a2b_base64(text, strict_mode=True) if encoding in b"bB" else quopri.decodestring(text)
        decoded = octets.decode(charset.partition(b"*")[0].decode("ascii"), "replace")
    except (ValueError, LookupError):
        return True
    return "@" in decoded or "=" in decoded
