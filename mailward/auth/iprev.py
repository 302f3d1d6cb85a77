"""iprev: does the client's address have a name that leads back to it (RFC 8601 3)? No I/O."""

from __future__ import annotations

from collections.abc import Callable

from mailward.auth.client import Client, is_among, read_client
from mailward.model.dns import Answer, AnswerStatus, Question, RecordType
from mailward.model.domain import InvalidDomain, normalize
from mailward.model.results import IprevResult, Result

MAX_NAMES = 10  # RFC 8601 3 asks for a limit and names none: that of SPF's ptr (RFC 7208 4.6.4)


def check_iprev(client_address: str, ask: Callable[[Question], Answer], *, max_names: int = MAX_NAMES) -> IprevResult:
    """Look for a name of the address that has the address, among the first `max_names` of its names.

    RFC 8601 2.7.3: no name at all is a permerror, names that do not lead back are a fail. One that does is enough; where
    none did and one of them could not be asked about, nothing is known. NONE where there is no address to ask about.
    """
    client = read_client(client_address)
    if client is None:
        return IprevResult(Result.NONE, "", reason="no network client" if not client_address else "no IP address")
    answer = ask(Question(client.reverse_name, RecordType.PTR))
    if answer.status is AnswerStatus.TEMPFAIL:
        return IprevResult(Result.TEMPERROR, client.text, reason="no DNS answer for the address's name")
    if not answer.records:
        return IprevResult(Result.PERMERROR, client.text, reason="the address has no name")
    return _confirm(client, _names(answer.records[:max_names]), ask)


def _names(records: tuple[bytes, ...]) -> list[str]:
    names = []
    for record in records:
        try:
            names.append(normalize(record.decode("ascii")))
        except (UnicodeDecodeError, InvalidDomain):
            continue
    return names


def _confirm(client: Client, names: list[str], ask: Callable[[Question], Answer]) -> IprevResult:
    is_known = True
    for name in names:
        answer = ask(Question(name, client.record_type))
        if is_among(client, answer.records):
            return IprevResult(Result.PASS, client.text, name=name)
        is_known = is_known and answer.status is not AnswerStatus.TEMPFAIL
    if not is_known:
        return IprevResult(Result.TEMPERROR, client.text, reason="no DNS answer for the name's address")
    return IprevResult(Result.FAIL, client.text, reason="no name of the address leads back to it")
