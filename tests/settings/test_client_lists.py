"""Lists of clients in files: every line counts or is a mistake with its number, and no regular expression is run."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailward.policy.exemptions import Exemption, compile_exemptions
from mailward.settings.client_lists import (
    ClientList,
    Translated,
    read_client_list,
    read_postgrey_clients,
    read_postgrey_recipients,
    shipped_non_retriers,
    translate_address,
    translate_name,
)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "list"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_list_of_our_own_kind(tmp_path: Path) -> None:
    text = "# comment\n\nExample.COM  # a name\n192.0.2.7\r\n 2001:db8::/32\nmail*.example.net\nb\u00fccher.example"
    found = read_client_list(write(tmp_path, text))
    assert found == ClientList(
        (ipaddress.ip_network("192.0.2.7/32"), ipaddress.ip_network("2001:db8::/32")),
        ("example.com", "mail*.example.net", "xn--bcher-kva.example"),
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("192.0.2", "an address or a network"),
        ("192.0.2.1/24", "an address or a network"),
        ("0.0.0.0/0", "large part of the Internet"),
        ("2001:db8::/x", "an address or a network"),
        ("com", "two labels"),
        ("two words.example", "a client's name"),
        (r"/^mail\d+\.example\.com$/", "a client's name"),
        ("\x1b[31mred.example", r"found '\x1b[31mred.example'"),
        ("x" * 100_000, "at most 320"),
    ],
)
def test_a_line_that_says_nothing_is_a_mistake_and_the_others_count(tmp_path: Path, line: str, expected: str) -> None:
    path = write(tmp_path, f"example.org\n# comment\n{line}\nexample.net\n")
    found = read_client_list(path)
    assert found.names == ("example.org", "example.net")
    assert [(mistake.file, mistake.where) for mistake in found.mistakes] == [(str(path), "line 3")]
    assert expected in found.mistakes[0].expected
    assert str(found.mistakes[0]).isprintable()
    assert len(str(found.mistakes[0])) < len(str(path)) + 300


def test_comments_of_old_lists_may_be_in_any_encoding(tmp_path: Path) -> None:
    found = read_client_list(write(tmp_path, b"example.org # Lo\xefc\nlo\xefc.example\n"))
    assert found.names == ("example.org",)
    assert [mistake.where for mistake in found.mistakes] == ["line 2"]


@pytest.mark.parametrize("read", [read_client_list, read_postgrey_clients, read_postgrey_recipients])
def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path, read: object) -> None:
    assert callable(read)
    (mistake,) = read(tmp_path / "missing").mistakes
    assert mistake.file.endswith("missing")
    assert "cannot be read: No such file" in mistake.expected
    (mistake,) = read(tmp_path).mistakes
    assert "cannot be read" in mistake.expected
    (mistake,) = read(write(tmp_path, b"#" * (4 * 1024 * 1024 + 1))).mistakes
    assert "larger than 4 MiB" in mistake.expected


def test_the_shipped_list_has_no_mistake_and_says_when_each_entry_was_found() -> None:
    shipped = shipped_non_retriers()
    assert not shipped.mistakes
    assert "protection.outlook.com" in shipped.names
    text = (Path(__file__).parents[2] / "mailward/data/non-retriers.txt").read_text()
    blocks = [block for block in text.split("\n\n") if not all(line.startswith("#") for line in block.splitlines())]
    assert blocks
    assert all("# Found: " in block and any(f"20{year:02}-" in block for year in range(40)) for block in blocks)
    compiled = compile_exemptions(non_retrier_networks=shipped.networks, non_retrier_names=shipped.names)
    name = "mail-eopbgr10051.outbound.protection.outlook.com"
    assert compiled.find("40.107.1.51", name, b"", b"").exemption is Exemption.NON_RETRIER


@pytest.mark.parametrize(
    ("line", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2", "192.0.2.0/24"),
        ("192.168", "192.168.0.0/16"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("51.4.80.0/27", "51.4.80.0/27"),
        ("2a01:4180:4051:0800::/64", "2a01:4180:4051:800::/64"),
        ("2001:db8::7", "2001:db8::7/128"),
    ],
)
def test_postgreys_addresses(tmp_path: Path, line: str, network: str) -> None:
    assert read_postgrey_clients(write(tmp_path, line)) == ClientList((ipaddress.ip_network(network),))


@pytest.mark.parametrize(
    "line", ["300.1", "192.0.2.1.5", "192", "10.0.0.0/99", "0.0.0.0/0", "/^[/", "a b.example", "localdomain"]
)
def test_what_postgrey_might_take_and_we_do_not_is_a_mistake(tmp_path: Path, line: str) -> None:
    found = read_postgrey_clients(write(tmp_path, f"\n{line} # comment\n"))
    assert [mistake.where for mistake in found.mistakes] == ["line 2"]
    assert not found.networks
    assert not found.names


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"^smtp\d+\.orange\.fr$", "smtp*.orange.fr"),
        (r"^ms-smtp.*\.rr\.com$", "ms-smtp*.rr.com"),
        (r"^mta[12].siol.net$", "mta*.siol.net"),
        (r"^viefep\d+-int\.chello\.at$", "viefep*.chello.at"),
        (r"^mx\d+\..*\.inode\.at$", "mx*.inode.at"),
        (r"^fallback\d{1,3}\.m\.smailru\.net$", "fallback*.m.smailru.net"),
        (r"^mail(?:a|b)?\.example\.com$", "mail*.example.com"),
        (r"^odk.fdv.uni-lj.si$", "odk.fdv.uni-lj.si"),
        (r"^MX\.Example\.com$", "mx.example.com"),
        (r"^.*?.server.arvato-systems.de$", "server.arvato-systems.de"),
        (r"^[^.]+\.example\.com$", "example.com"),
    ],
)
def test_a_simple_expression_becomes_a_name(tmp_path: Path, pattern: str, name: str) -> None:
    assert translate_name(pattern) == name
    found = read_postgrey_clients(write(tmp_path, f"/{pattern}/"))
    assert found == ClientList(names=(name,), translated=(Translated(1, f"/{pattern}/", name),))


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"smtp\d+\.orange\.fr$", id="begins anywhere"),
        pytest.param(r"^smtp\d+\.orange\.fr", id="ends anywhere"),
        pytest.param(r"^.*$", id="everybody"),
        pytest.param(r"^.*\.com$", id="a top-level domain"),
        pytest.param(r"^mail.*\.com$", id="names below a top-level domain"),
        pytest.param(r"^s[cv]\d+pub\.verizon\.net$", id="only one character to begin with"),
        pytest.param(r"^p?smtp.*\.wxs\.nl$", id="begins with what may be missing"),
        pytest.param(r"^(?:smtp\w*|postfix)[0-9]+\.free\.fr$", id="begins with a choice"),
        pytest.param(r"^.*-out-.*\.google\.com$", id="begins with anything, and goes on"),
        pytest.param(r"^a\.example\.com|b\.example\.com$", id="a choice of everything"),
        pytest.param(r"^mail(a(b|c))\.example\.com$", id="a group in a group"),
        pytest.param(r"^mail(a\.example\.com$", id="a group without an end"),
        pytest.param(r"^mail\s\.example\.com$", id="a space"),
        pytest.param(r"^(a+)+\1\.example\.com$", id="a back reference"),
        pytest.param(r"^mail\.example\.com\$", id="a dollar sign"),
        pytest.param(r"^$", id="nothing"),
    ],
)
def test_an_expression_with_no_simple_equal_is_a_mistake(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match="no simple equal"):
        translate_name(pattern)
    found = read_postgrey_clients(write(tmp_path, f"example.com\n/{pattern}/\n"))
    assert found.names == ("example.com",)
    assert [mistake.where for mistake in found.mistakes] == ["line 2"]


def test_postgreys_recipients(tmp_path: Path) -> None:
    lines = [
        "postmaster@",
        "Abuse@",
        "bob@example.org # him",
        "example.net",
        r"/^list-@/",
        r"/\@example\.com$/",
        r"/^.*@x\.org$/",
        "a b@c",
    ]
    found = read_postgrey_recipients(write(tmp_path, "\n".join(lines)))
    assert found.recipients == ("postmaster@", "abuse@", "bob@example.org", "example.net", "list-@", "example.com")
    assert [mistake.where for mistake in found.mistakes] == ["line 7", "line 8"]
    assert [entry.line for entry in found.translated] == [5, 6]


@pytest.mark.parametrize(
    "pattern", ["^bob", "bob@", "@example", "^@$", "bob@example.org$", "^bob@example.org", "^b.*@example.org$"]
)
def test_an_expression_over_addresses_with_no_simple_equal(tmp_path: Path, pattern: str) -> None:
    found = read_postgrey_recipients(write(tmp_path, f"/{pattern}/"))
    assert not found.recipients
    assert [mistake.where for mistake in found.mistakes] == ["line 1"]


def test_a_whole_local_part_is_an_address_without_a_domain() -> None:
    assert translate_address("^abuse@") == "abuse@"
    assert translate_address(r"^bob@example\.org$") == "bob@example.org"


pieces = st.sampled_from(
    ["/", "^", "$", r"\.", ".*", "mail", "example", ".com", "192", "168", ".", ":", "@", "#", " ", "(", ")", "[", "]"]
)


@given(st.binary(max_size=100) | st.lists(pieces, max_size=12).map(lambda found: "".join(found).encode()))
@example(b"/^" + b"(" * 400 + b"$/")
@example(b"(" * 300_000)
@example(b":" * 300_000)
def test_any_line_counts_or_is_a_mistake(tmp_path: Path, line: bytes) -> None:
    path = write(tmp_path, line)
    wanted = sum(1 for text in line.decode("utf-8", "replace").split("\n") if text.partition("#")[0].strip())
    for clients in (read_client_list(path), read_postgrey_clients(path)):
        assert len(clients.networks) + len(clients.names) + len(clients.mistakes) == wanted
    recipients = read_postgrey_recipients(path)
    assert len(recipients.recipients) + len(recipients.mistakes) == wanted
