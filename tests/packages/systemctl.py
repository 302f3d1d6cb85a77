#!/usr/bin/python3
"""systemctl in a root: asks its first process (first_process.py). What that does not know is an error, never ignored.

What only reads or makes links in /etc is left to systemd's own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence

CONTROL = "/run/first-process"
REAL = "/usr/local/lib/systemctl-of-systemd"
OF_FILES = {"preset", "enable", "disable", "mask", "unmask", "is-enabled", "--version"}
WITHOUT_VALUE = ("--quiet", "-q", "--system", "--no-reload", "--no-block", "--no-legend", "--value", "--no-pager", "--")


def main(arguments: Sequence[str]) -> int:
    """Put one request, print the answer, return its status."""
    if OF_FILES & {*arguments}:
        kept = [word for word in arguments if word not in ("--system", "--root=/")]
        os.execv(REAL, [REAL, "--root=/", *kept])
    properties: list[str] = []
    words: list[str] = []
    waiting = iter(arguments)
    for word in waiting:
        if word in ("-p", "--property"):
            properties += next(waiting).split(",")
        elif word.startswith("--property="):
            properties += word.partition("=")[2].split(",")
        elif word.startswith("-") and word not in WITHOUT_VALUE:
            print(f"systemctl: this stand-in knows no {word}", file=sys.stderr)
            return 1
        elif not word.startswith("-"):
            words.append(word)
    verb, *names = words
    units = [name if name.endswith((".service", ".socket", ".target")) else f"{name}.service" for name in names]
    code, text = ask({"verb": verb, "units": units, "properties": properties})
    if "--value" in arguments:
        text = "".join(f"{line.partition('=')[2]}\n" for line in text.splitlines())
    if not {"--quiet", "-q"} & {*arguments}:
        print(text, end="", file=sys.stdout if verb.startswith(("is-", "show")) else sys.stderr)
    return code


def ask(request: dict[str, object]) -> tuple[int, str]:
    """Return the first process's status and output."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(CONTROL)
        with connection.makefile("rwb") as stream:
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            answer = json.loads(stream.read())
    return answer["code"], answer["text"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
