"""The words of a setting, beside its type and default: from them are made mailward.toml(5) and the packages' mailward.toml."""

from __future__ import annotations


def says(text: str, *, key: str = "", example: str = "", default: str = "") -> dict[str, str]:
    """Return the metadata of an attribute that is a setting.

    `text` is plain, with what is to be typed in backticks; lines may be broken anywhere, an empty one parts paragraphs.
    `key` is the TOML name where it is not the attribute's own. `example` is a value, or whole lines of TOML. `default`
    says what the default is where no value can.
    """
    words = {"says": text, "key": key, "example": example, "default": default}
    return {name: word for name, word in words.items() if word}
