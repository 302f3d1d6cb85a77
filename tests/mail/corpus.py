"""A corpus of malformed mail that is delivered all the same.

Ordinary messages, each mutated in a few of the ways in which real software gets mail wrong. Seeded: number 37 is the
same message on every run.

Never a NUL, and never a second or broken From field: those are other questions than whether a signature survives.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

SEED = 6376
MUTATIONS_AT_MOST = 5
WORDS = ("the", "quick", "brown;", "=3D", "fox,", "(really)", '"so"', "<x@y.example>", "a@b:", "100%", "[ok]", "Grüße")
FOLDS = (b"\r\n ", b"\r\n\t", b" \r\n  ", b"\t\r\n \t")
AUTHORS = (b" alice@example.com", b' "Alice, A." <alice@example.com>', b" A <a@news.example.com>")


@dataclass(slots=True)
class Draft:
    """A message in the making: fields as (name, what follows the colon), and the body."""

    chance: random.Random
    fields: list[tuple[bytes, bytes]]
    body: bytes
    done: list[str] = field(default_factory=list)

    def raw(self) -> bytes:
        """Return the message as it goes over the wire."""
        return b"".join(name + b":" + value + b"\r\n" for name, value in self.fields) + b"\r\n" + self.body

    def words(self, at_least: int, at_most: int) -> bytes:
        """Return some words."""
        return " ".join(self.chance.choices(WORDS, k=self.chance.randint(at_least, at_most))).encode()

    def insert(self, name: bytes, value: bytes) -> None:
        """Put a field somewhere."""
        self.fields.insert(self.chance.randint(0, len(self.fields)), (name, value))

    def change_values(self, change: Callable[[bytes], bytes]) -> None:
        """Change the values of about half of the fields, From among them; never into an end of the header."""
        self.fields = [
            (name, change(value).replace(b"\r\n\r\n", b"\r\n") if self.chance.random() < 0.5 else value)
            for name, value in self.fields
        ]

    def change_lines(self, change: Callable[[bytes], bytes]) -> None:
        """Change about half of the body's lines."""
        lines = self.body.split(b"\r\n")
        self.body = b"\r\n".join(change(line) if self.chance.random() < 0.5 else line for line in lines)


@dataclass(frozen=True, slots=True)
class Malformed:
    """One message of the corpus; the name says which mutations it had."""

    name: str
    raw: bytes


def make_corpus(count: int) -> list[Malformed]:
    """Return the first `count` messages of the corpus."""
    return [make_message(number) for number in range(count)]


def make_message(number: int) -> Malformed:
    """Return one message; every mutation comes first in some message of any stretch as long as their list."""
    chance = random.Random(SEED + number)
    draft = ordinary(chance, number)
    names = list(MUTATIONS)
    chosen = [names[number % len(names)], *chance.sample(names, chance.randint(0, MUTATIONS_AT_MOST - 1))]
    for name in dict.fromkeys(chosen):
        MUTATIONS[name](draft)
    return Malformed(f"{number:03}-" + "+".join(dict.fromkeys(chosen)), draft.raw())


def ordinary(chance: random.Random, number: int) -> Draft:
    """Return a message that is all right."""
    draft = Draft(chance, [], b"")
    draft.fields = [
        (b"Received", b" from a.example by b.example id 1; Sat, 21 Nov 2026 11:59:59 +0000"),
        (b"From", chance.choice(AUTHORS)),
        (b"To", b" Bob <bob@receiver.example>, carol@receiver.example"),
        (b"Subject", b" " + draft.words(1, 12)),
        (b"Date", b" Sat, 21 Nov 2026 12:00:00 +0000"),
        (b"Message-ID", b" <corpus-%d@example.com>" % number),
        (b"MIME-Version", b" 1.0"),
        (b"Content-Type", b" text/plain; charset=utf-8"),
    ]
    draft.body = b"".join(draft.words(0, 15) + b"\r\n" for _ in range(chance.randint(1, 12)))
    return draft


def fold_everywhere(draft: Draft) -> None:
    draft.change_values(lambda value: value.replace(b" ", draft.chance.choice(FOLDS)))


def fold_before_value(draft: Draft) -> None:
    draft.change_values(lambda value: b"\r\n" + (value if value[:1].isspace() else b" " + value))


def fold_into_blank_lines(draft: Draft) -> None:
    draft.insert(b"X-Blank-Fold", b" one\r\n \r\n\t\r\n two")


def end_in_white_space(draft: Draft) -> None:
    draft.change_values(lambda value: value + draft.chance.choice([b" ", b"\t", b"   \t ", b"\r\n ", b"\r\n\t \t"]))


def widen_white_space(draft: Draft) -> None:
    draft.change_values(lambda value: value.replace(b" ", draft.chance.choice([b"  ", b"\t", b" \t \t"])))


def drop_space_after_colon(draft: Draft) -> None:
    draft.change_values(lambda value: value.lstrip(b" "))


def odd_case(draft: Draft) -> None:
    draft.fields = [
        (bytes(draft.chance.choice([octet, ord(chr(octet).swapcase())]) for octet in name), value)
        for name, value in draft.fields
    ]


def odd_names(draft: Draft) -> None:
    for name in (b"X-!#$%&'*+.^_`|~", b"X", b"0", b"X-" + b"long" * 60):
        draft.insert(name, b" " + draft.words(0, 3))


def empty_values(draft: Draft) -> None:
    for name in draft.chance.sample([b"Subject", b"Cc", b"Reply-To", b"Keywords", b"X-Empty", b"Sender"], 3):
        draft.insert(name, draft.chance.choice([b"", b" ", b"\t", b" \r\n "]))


def duplicates(draft: Draft) -> None:
    for name, value in draft.chance.sample(draft.fields, 3):
        if name.lower() != b"from":
            draft.insert(name, draft.chance.choice([value, b" another", value + value]))


def missing(draft: Draft) -> None:
    gone = draft.chance.sample([b"to", b"subject", b"date", b"message-id", b"mime-version"], 3)
    draft.fields = [(name, value) for name, value in draft.fields if name.lower() not in gone]


def shuffled(draft: Draft) -> None:
    draft.chance.shuffle(draft.fields)


def eight_bit_header(draft: Draft) -> None:
    draft.insert(b"Subject", b" " + bytes(draft.chance.choices(range(0x80, 0x100), k=40)))
    draft.insert(b"X-Latin", " Grüße".encode("latin-1"))


def control_characters_in_header(draft: Draft) -> None:
    draft.insert(b"X-Control", b" \x01\x02\x07\x08\x0b\x0c\x1b[0m\x7f")


def long_line_in_header(draft: Draft) -> None:
    draft.insert(b"X-Long", b" " + draft.words(150, 400))
    draft.insert(b"Keywords", b" " + b"k" * draft.chance.randint(999, 9000))


def removed_by_postfix(draft: Draft) -> None:
    draft.insert(b"Bcc", b" secret@receiver.example")
    draft.insert(b"Return-Path", b" <nobody@example.net>")
    draft.insert(b"Content-Length", b" 17")


def completed_by_postfix(draft: Draft) -> None:
    draft.insert(b"Cc", b" dave, Eve <eve>, (f) frank@receiver.example,,")
    draft.insert(b"Reply-To", b" alice (home), old.alice@example.com")


def resent(draft: Draft) -> None:
    draft.insert(b"Resent-From", b" carol@example.net")
    draft.insert(b"Resent-To", b" dave")
    draft.insert(b"Resent-Date", b" yesterday")


def forged_trace(draft: Draft) -> None:
    draft.insert(b"Authentication-Results", b" other.example; dkim=pass header.d=example.com")
    draft.insert(b"Received", b" nonsense")


def body_trailing_white_space(draft: Draft) -> None:
    draft.change_lines(lambda line: line + draft.chance.choice([b" ", b"\t", b" \t  "]))


def body_inner_white_space(draft: Draft) -> None:
    draft.change_lines(lambda line: line.replace(b" ", draft.chance.choice([b"  ", b"\t", b" \t\t "])))


def body_ends_oddly(draft: Draft) -> None:
    draft.body += draft.chance.choice([b"\r\n" * 5, b" \r\n\t\r\n", b"\r\n \r\n\r\n", b"no end"])


def body_octets(draft: Draft) -> None:
    octets = [octet for octet in range(1, 256) if octet not in b"\r\n"]
    draft.body += bytes(draft.chance.choices(octets, k=2000)) + b"\r\n"


def body_stray_line_ends(draft: Draft) -> None:
    draft.change_lines(lambda line: line + draft.chance.choice([b"\r", b"\n", b"\rx", b"\n\n", b"\r \r"]))


def body_dots(draft: Draft) -> None:
    draft.change_lines(lambda line: draft.chance.choice([b".", b"..", b". ", b".x"]) + line)


def body_long_lines(draft: Draft) -> None:
    draft.change_lines(lambda line: line * draft.chance.randint(1, 100))


def body_none(draft: Draft) -> None:
    draft.body = b""


MUTATIONS: dict[str, Callable[[Draft], None]] = {
    change.__name__: change
    for change in (
        fold_everywhere, fold_before_value, fold_into_blank_lines, end_in_white_space, widen_white_space,
        drop_space_after_colon, odd_case, odd_names, empty_values, duplicates, missing, shuffled, eight_bit_header,
        control_characters_in_header, long_line_in_header, removed_by_postfix, completed_by_postfix, resent,
        forged_trace, body_trailing_white_space, body_inner_white_space, body_ends_oddly, body_octets,
        body_stray_line_ends, body_dots, body_long_lines, body_none,
    )
}  # fmt: skip
