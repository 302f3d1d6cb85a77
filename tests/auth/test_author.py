"""The From field: what people send, what attackers send, and nothing that makes the reader stumble."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailward.auth.author import MAX_FROM, address_domains, author_domains
from mailward.model.message import HeaderField
from mailward.model.results import Authors, FromFault


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        pytest.param("a@example.com", ["example.com"], id="bare address"),
        pytest.param("Alice <a@Example.COM>", ["example.com"], id="display name; case folded"),
        pytest.param('"Doe, J. <ceo@bank.example>" <j@b.example>', ["b.example"], id="an address inside a quoted name"),
        pytest.param("(x@evil.example) a@b.example (c)", ["b.example"], id="comments"),
        pytest.param(
            "a@b.example (un(nes)ted \\) <x@evil.example>)", ["b.example"], id="nested comment, escaped parenthesis"
        ),
        pytest.param("J. R. R. Tolkien <t@b.example>", ["b.example"], id="dots in the name"),
        pytest.param("a@x.example, B <b@y.example>", ["x.example", "y.example"], id="two authors"),
        pytest.param("Us: a@x.example, b@y.example;", ["x.example", "y.example"], id="group"),
        pytest.param("Nobody:;", [], id="empty group"),
        pytest.param("<@r.example,@s.example:a@b.example>", ["b.example"], id="obsolete route"),
        pytest.param('"a b"@b.example', ["b.example"], id="quoted local part"),
        pytest.param('"a@evil.example"@b.example', ["b.example"], id="at sign in a quoted local part"),
        pytest.param("name.@docomo.example", ["docomo.example"], id="local part that ends with a dot"),
        pytest.param("a@b.example <a@b.example>", ["b.example"], id="the address as display name"),
        pytest.param("J\u00f6rg <j@b\u00fccher.example>", ["xn--bcher-kva.example"], id="U-label"),
        pytest.param("=?utf-8?q?A=40evil?= <a@b.example>", ["b.example"], id="encoded word"),
        pytest.param("what?=really?=<a?b=?c@b.example>", ["b.example"], id="signs of an encoded word that is none"),
        pytest.param("a@b.example\r\n\t(fold)", ["b.example"], id="fold"),
        pytest.param(", a@b.example,,", ["b.example"], id="empty elements"),
    ],
)
def test_address_lists_are_read(value: str, domains: list[str]) -> None:
    assert address_domains(b" " + value.encode()) == domains


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="nothing (is an empty list)", marks=()),
        pytest.param("x@bank.example <a@evil.example>", id="the display name is another address"),
        pytest.param("a@b.example <", id="breaks off"),
        pytest.param("a@b.example> ", id="stray bracket"),
        pytest.param("a@b.example c@d.example", id="two addresses without a comma"),
        pytest.param("<a@b.example> <c@d.example>", id="two angle addresses"),
        pytest.param("a@[192.0.2.1]", id="domain literal"),
        pytest.param("a@b_\x00.example", id="control character"),
        pytest.param('"a@b.example', id="quotes that do not end"),
        pytest.param("(a@b.example", id="comment that does not end"),
        pytest.param("(" * 40 + ")" * 40 + "a@b.example", id="comments nested deeper than anybody means"),
        pytest.param("a:" * 5_000, id="groups inside groups"),
        pytest.param("a@b..example", id="empty label"),
        pytest.param("a@-b.example", id="hyphen first"),
        pytest.param("a@" + "b" * 64 + ".example", id="label too long"),
        pytest.param("a@b.example@c.example", id="two at signs"),
        pytest.param("Doe, Inc. <a@b.example>", id="comma in an unquoted name"),
        pytest.param("a@b.ex(comment)ample <c@d.example>", id="a comment inside the domain"),
        pytest.param("x" * MAX_FROM + "@b.example", id="too long"),
        pytest.param(
            "=?utf-8?q?ceo=40bank.example?==?utf-8?q?=00?=@b.example", id="an address hidden in the local part"
        ),
        pytest.param("A <x=?utf-8?b?Y2VvQGJhbmsuZXhhbXBsZQ==?=@b.example>", id="an address hidden behind a letter"),
        pytest.param('"=?utf-8?q?ceo=40bank.example?="@b.example', id="an address hidden in a quoted local part"),
        pytest.param('"ceo@bank.example=?utf-8?q?=00?="@b.example', id="a NUL hidden behind an address"),
    ],
)
def test_what_is_no_address_list_is_refused(value: str) -> None:
    if not value:
        assert address_domains(b"") == []
        return
    with pytest.raises(ValueError):
        address_domains(value.encode())


@given(st.text('ab.@<>(),:;"\\[] \t\r\n\u00e9', max_size=40).map(str.encode) | st.binary(max_size=40))
def test_no_octets_make_it_stumble(value: bytes) -> None:
    assert isinstance(author_domains([HeaderField(b"From", value)]), Authors)


@pytest.mark.parametrize(
    ("values", "authors"),
    [
        ([], Authors((), FromFault.MISSING)),
        ([b"a@x.example"], Authors(("x.example",))),
        ([b"a@x.example, b@x.example"], Authors(("x.example",))),
        ([b"a@x.example", b"b@y.example"], Authors(("x.example", "y.example"), FromFault.SEVERAL_FIELDS)),
        ([b"a@x.example", b"CEO <ceo@bank.example\x7f>"], Authors((), FromFault.SEVERAL_FIELDS)),
        ([b"undisclosed:;"], Authors((), FromFault.NO_DOMAIN)),
        ([b"Doe, Inc. <a@x.example>"], Authors(("x.example",), FromFault.MALFORMED)),
        ([b"ceo@y.example <a@x.example>"], Authors(("y.example", "x.example"), FromFault.MALFORMED)),
        ([b"ceo@y.example; <a@x.example>"], Authors(("y.example", "x.example"), FromFault.MALFORMED)),
        ([b"ceo@-bad- <a@x.example>"], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-8?Q?J=C3=B6rg?=, Inc. <a@x.example>"], Authors(("x.example",), FromFault.MALFORMED)),
        ([b"=?utf-8?B?Y2VvQGJhbmsuZXhhbXBsZQ==?=,<a@x.example>"], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-8?q?ceo=40bank.example?=,<a@x.example>"], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-7?Q?ceo+AEA-bank.example?=,<a@x.example>"], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-8?q?ceo=40bank.example?=@x.example"], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-8?q?what?ceo=40bank.example?=@x.example"], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-8?b?eA==Y2VvQGJhbmsuZXhhbXBsZQ==?=@x.example"], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-8?b?eE?==?utf-8?b?BiYW5rcy5leGFtcGxl?=@x.example"], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-8?q?ceo=4?==?utf-8?q?0bank.example?=@x.example"], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-7?q?ceo+AE?==?utf-7?q?A-bank.example?=@x.example"], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-8?q?=3D=3Futf-8=3Fq=3Fceo=3D40bank.example=3F=3D?=@x.example"], Authors((), FromFault.MALFORMED)),
        ([rb'"=\?utf-8?q?ceo=40bank.example\?="@x.example'], Authors((), FromFault.MALFORMED)),
        ([b"=?utf-8?Q?J=C3=B6rg?=@x.example"], Authors(("x.example",), FromFault.MALFORMED)),
        ([b"Sales @ Company <a@x.example>"], Authors(("x.example",), FromFault.MALFORMED)),
        ([b"sales@company, a@x.example"], Authors(("company", "x.example"))),
        ([b"ceo@bank<.example>, a@x.example"], Authors(("bank", "x.example"), FromFault.MALFORMED)),
        ([b"ceo@bank; <a@x.example>"], Authors(("bank", "x.example"), FromFault.MALFORMED)),
        ([b"ceo@bank .example <a@x.example>"], Authors((), FromFault.MALFORMED)),
        ([b"\xe9t\xe9 <a@x.example>"], Authors(("x.example",))),
        ([b"a@\xff.example"], Authors((), FromFault.MALFORMED)),
    ],
    ids=[
        "no field",
        "one",
        "two authors of one domain",
        "two fields",
        "two fields, one of which nobody can read",
        "no address",
        "a comma in a name",
        "the name is another address",
        "a group that never began",
        "a domain that is none",
        "an encoded name with a comma behind it",
        "an encoded address in base64",
        "an encoded address in quoted-printable",
        "an encoded address in a character set of its own",
        "an encoded address for a local part",
        "an encoded address behind a question mark",
        "an encoded address behind the end of base64",
        "an encoded address in two halves of base64",
        "an encoded address in two halves of quoted-printable",
        "an encoded address in two halves of UTF-7",
        "an encoded address that is encoded twice",
        "an encoded address in a quoted string that escapes it",
        "an encoded name for a local part",
        "an at sign in a name",
        "a single label as a domain",
        "a single label before an address that is none",
        "a single label as an address of its own",
        "a name that looks like a domain with a space in it",
        "Latin-1",
        "no UTF-8",
    ],
)
def test_authors_of_a_message(values: list[bytes], authors: Authors) -> None:
    header = [HeaderField(b"fRom", value) for value in values]
    assert author_domains([HeaderField(b"Subject", b"x@y.z"), *header]) == authors


def test_the_obsolete_space_before_the_colon_hides_no_author() -> None:
    header = [HeaderField(b"From ", b"a@x.example"), HeaderField(b"From", b"b@y.example")]
    assert author_domains(header).fault is FromFault.SEVERAL_FIELDS


@given(st.text('ab.@<>" \t-', max_size=24))
@example("a@a. ")
@example("a.b.@a")
@example("x <a@a.b.>")
def test_the_short_way_reads_what_the_full_reader_reads(text: str) -> None:
    from mailward.auth import author

    if author._PLAIN.fullmatch(text.encode()):
        try:
            short: object = address_domains(text.encode())
        except ValueError:
            short = ValueError
        try:
            full: object = author._Reader(author._tokens(text)).address_list()
        except ValueError:
            full = ValueError
        assert short == full
