"""The signer's domains, tables and rights, put together from the configuration and the files it names.

Key files are only looked at here, not read: that they exist and that nobody else may read them is known before any mail is.
"""

from __future__ import annotations

from pathlib import Path

from mailward.adapters.key_files import KeyFileError, check_access
from mailward.model.errors import ConfigError, Mistake
from mailward.policy.signing import KeyRef, Rights, SigningPolicy, SigningTable
from mailward.policy.signing_table import LineMistake, normalize_pattern, parse_logins, parse_signing_table
from mailward.settings.dkim_sign import Domain, Settings

MAX_TABLE = 64 * 1024 * 1024


def read_signing_policy(settings: Settings) -> SigningPolicy:
    """Return who may have what signed with which keys. Raises ConfigError with every mistake in every file."""
    mistakes: list[Mistake] = []
    keys: dict[str, tuple[KeyRef, ...]] = {}
    for domain in settings.dkim_sign.domain:
        for pattern, refs in _configured(domain).items():
            keys[pattern] = (*keys.get(pattern, ()), *refs)
    if settings.dkim_sign.table is not None:
        for pattern, refs in _read_table(settings.dkim_sign.table, mistakes).items():
            keys[pattern] = (*keys.get(pattern, ()), *refs)
    rights = _read_logins(settings.dkim_sign.logins, mistakes) if settings.dkim_sign.logins is not None else None
    if mistakes:
        raise ConfigError(mistakes)
    return SigningPolicy(SigningTable(keys), tuple(settings.dkim_sign.networks), rights)


def _configured(domain: Domain) -> dict[str, tuple[KeyRef, ...]]:
    """Return the patterns one `[[dkim-sign.domain]]` stands for; its name has been checked with the settings."""
    name = normalize_pattern(domain.name)
    own_name = name.lstrip(".*")
    refs = tuple(KeyRef(key.domain or own_name, key.selector, str(key.file)) for key in domain.keys)
    patterns = {name: refs}
    if domain.subdomains and own_name:
        patterns["." + own_name] = refs
    return patterns


def _read_table(path: Path, mistakes: list[Mistake]) -> dict[str, tuple[KeyRef, ...]]:
    """Read the table file; key files are relative to its folder."""
    table, line_mistakes = parse_signing_table(_lines(path, "dkim-sign.table", mistakes))
    _add(line_mistakes, path, mistakes)
    for pattern, refs in table.items():
        table[pattern] = refs = tuple(ref._replace(file=str(path.parent / ref.file)) for ref in refs)
        for ref in refs:
            try:
                check_access(Path(ref.file))
            except KeyFileError as error:
                mistakes.append(Mistake(str(path), pattern, f"{ref.file}: {error}"))
    return table


def _read_logins(path: Path, mistakes: list[Mistake]) -> Rights:
    rights, line_mistakes = parse_logins(_lines(path, "dkim-sign.logins", mistakes))
    _add(line_mistakes, path, mistakes)
    return Rights(rights)


def _lines(path: Path, where: str, mistakes: list[Mistake]) -> list[str]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_TABLE + 1)
        if len(text) > MAX_TABLE:
            mistakes.append(Mistake(str(path), where, "larger than 64 MiB: this is no table"))
        return text.split("\n")
    except OSError as error:
        mistakes.append(Mistake(str(path), where, f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError as error:
        mistakes.append(Mistake(str(path), f"octet {error.start}", "expected UTF-8 text"))
    return []


def _add(line_mistakes: list[LineMistake], path: Path, mistakes: list[Mistake]) -> None:
    mistakes.extend(Mistake(str(path), f"line {line}", expected) for line, expected in line_mistakes)
