"""The openspf.org test suite of RFC 7208, out of pyspf's source package, as cases with a zone each."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mailward.model.dns import RecordType
from tests.support.zone import Zone

PACKAGE = Path(__file__).parents[2] / ".venv" / "fixtures" / "pyspf-2.0.14.tar.gz"
MEMBER = "pyspf-2.0.14/test/rfc7208-tests.yml"


@dataclass(frozen=True, slots=True)
class Case:
    """One check_host() call; `results` are those that are right, `explanation` None where the case does not say."""

    name: str
    client_address: str
    helo: str
    mail_from: str
    results: tuple[str, ...]
    explanation: str | None
    records: dict[str, list[Any]]


def load_cases(package: Path = PACKAGE) -> list[Case]:
    """Read every case; FileNotFoundError if the package is not there."""
    with tarfile.open(package) as archive:
        member = archive.extractfile(MEMBER)
        assert member is not None, MEMBER
        scenarios = list(yaml.safe_load_all(member.read()))
    return [
        _case(f"{scenario['description']}: {name}", test, scenario["zonedata"])
        for scenario in scenarios
        for name, test in scenario["tests"].items()
    ]


def _case(name: str, test: dict[str, Any], records: dict[str, list[Any]]) -> Case:
    results = [test["result"]] if isinstance(test["result"], str) else test["result"]
    return Case(name, test["host"], test["helo"], test["mailfrom"], tuple(results), test.get("explanation"), records)


def zone_of(case: Case) -> Zone:
    """Return the zone of a case."""
    zone = Zone()
    for name, entries in case.records.items():
        for record_type, value in _records(entries):
            if value == "TIMEOUT":
                zone.silence(name, None if record_type == "TIMEOUT" else RecordType(record_type))
            elif record_type == "CNAME":
                zone.alias(name, value)
            else:
                zone.add(name, RecordType(record_type), [_octets(record_type, value)])
    return zone


def _records(entries: list[Any]) -> Iterator[tuple[str, Any]]:
    """Yield types and values; a record of type SPF stands for one of type TXT where the name has none."""
    pairs = [("TIMEOUT", entry) if isinstance(entry, str) else next(iter(entry.items())) for entry in entries]
    has_txt = any(record_type == "TXT" for record_type, _ in pairs)
    for record_type, value in pairs:
        if record_type == "SPF" and not has_txt:
            yield "TXT", value
        elif record_type != "SPF" and value != "NONE":
            yield record_type, value


def _octets(record_type: str, value: Any) -> bytes:
    if record_type == "MX":
        return f"{value[0]} {value[1]}.".encode()
    return "".join(value).encode()
