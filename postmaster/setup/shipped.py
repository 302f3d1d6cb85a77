"""The shipped examples as what is applied: the lines of examples/postfix/*.main.cf that are no comments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mailward.model.errors import ConfigError, Mistake

Lines = Mapping[str, Mapping[str, str]]  # of each daemon, its parameters

EXAMPLES = Path(__file__).parents[2] / "examples"


def read_shipped(daemons: Iterable[str], folder: Path = EXAMPLES) -> Lines:
    """Return the parameters of each daemon's main.cf piece. Raises ConfigError where a piece is not there."""
    return {daemon: _read(folder / "postfix" / f"{daemon}.main.cf") for daemon in daemons}


def _read(path: Path) -> Mapping[str, str]:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            [Mistake(str(path), "", f"cannot be read: {error.strerror}; it comes with Mailward")]
        ) from None
    pairs = (line.partition("=") for line in text.splitlines() if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}
