"""A configuration in a folder of its own, for the tests that read one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from mailward.model.errors import ConfigError
from mailward.settings.load import read_sections, structure

P = TypeVar("P")


class Files(Generic[P]):
    """mailward.toml and its conf.d; `cls` is the settings class whose attribute `part`, a P, the tests look at."""

    def __init__(self, folder: Path, cls: type[Any]) -> None:
        self.main = folder / "mailward.toml"
        self.extra = folder / "conf.d"
        self.extra.mkdir()
        self._cls = cls

    def write(self, main: str, **extra: str) -> Files[P]:
        """Write the main file, and a file of conf.d for each keyword."""
        self.main.write_text(main, encoding="utf-8")
        for name, text in extra.items():
            (self.extra / f"{name}.toml").write_text(text, encoding="utf-8")
        return self

    def read(self) -> P:
        part: P = structure(read_sections(self.main), self._cls).part
        return part

    def mistakes(self) -> list[tuple[str, str, str]]:
        """Return what is wrong: the file's name without its folder, the key, what was expected."""
        with pytest.raises(ConfigError) as caught:
            self.read()
        return [(Path(mistake.file).name, mistake.where, mistake.expected) for mistake in caught.value.mistakes]
