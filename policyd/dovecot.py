"""The auth-policy server: Dovecot asks over HTTP before a login (`allow`), and tells what became of it (`report`).

The only place with a server of aiohttp. A request without the key is not read, and one that is large, slow or strange is refused
in a sentence. All that a request looks up or charges is one charging, so that it is one call of the store. Where we fail by
our own fault that is an HTTP error, and Dovecot's auth_policy_reject_on_fail decides, as it does where nobody answers.

After a right password Dovecot asks again, in the same words: whoever has been suspended meanwhile is stopped there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, Protocol

from aiohttp import web

from mailward.daemon.log import Log
from mailward.daemon.metrics import Counter
from mailward.model.accounts import Account
from mailward.model.errors import ProtocolError
from mailward.model.limits import Charging, Outcome
from mailward.model.ports import Counts
from mailward.policy.logins import (
    Answer,
    Attempt,
    Cause,
    LoginRules,
    Result,
    answer,
    look,
    networks_beyond,
    report,
)
from mailward.policy.owners import account_of
from policyd.acceptor import Acceptor
from policyd.login_request import LoginRequest, read_command, read_request
from policyd.strangers import Strangers

MAX_REQUEST = 64 * 1024  # octets; Dovecot sends some 300, and what its operator adds
READ_SECONDS = 5.0  # for a request that has begun; Dovecot itself has given up after 2
CLOSE_SECONDS = 60.0  # at the end, for what is being answered
LOOK_SECONDS = 1.0  # how often it is looked for connections that show no key
TELL_AGAIN_SECONDS = 60.0  # that such are closed; the counter has every one

ANSWERS, REPORTS, REFUSED = "login_answers", "login_reports", "login_requests_refused"

ChargeOne = Callable[[Charging], Awaitable[Outcome | None]]


class Refusal(Enum):
    """Why a request was not answered. The words of the counter's label."""

    METHOD = "method"
    KEY = "key"
    SIZE = "size"
    SLOW = "slow"
    CONTENT = "content"
    HTTP = "http"  # it was none
    OUR_ERROR = "our-error"


METRICS = (
    Counter(
        ANSWERS, "Logins that Dovecot asked about, by what it was told", "cause", tuple(one.value for one in Cause)
    ),
    Counter(
        REPORTS, "Logins that Dovecot reported, by what became of them", "result", tuple(one.value for one in Result)
    ),
    Counter(REFUSED, "Requests that were no question of Dovecot's", "reason", tuple(one.value for one in Refusal)),
)


class AccountsKept(Protocol):
    """What is known of accounts, and who is told of one that logs in from too many networks; policyd.keeper has it."""

    @property
    def accounts(self) -> Mapping[str, Account]:
        """Return the accounts of which something is known, by their names."""

    def many_networks(self, account: str, networks: int) -> None:
        """Take note that a login succeeds from so many networks."""


class DovecotServer:
    """The server; rules and key are those of the moment, so that a reload changes them in place."""

    def __init__(
        self,
        rules: Callable[[], LoginRules],
        charge: ChargeOne,
        keeper: AccountsKept,
        api_key: Callable[[], str],
        metrics: Counts,
        log: Log,
    ) -> None:
        """`charge` asks the store; None: it could not. An empty key: nobody may ask."""
        self._metrics = metrics
        self._log = log
        self._told_until = 0.0
        self._strangers = Strangers(self._closed_stranger)
        edge = _Edge(_Logins(rules, charge, keeper, metrics, log), api_key, self._strangers, metrics, log)
        # Some versions refuse what is as long, some what is longer.
        app = web.Application(client_max_size=MAX_REQUEST + 1)
        app.router.add_route("*", "/{path:.*}", edge.serve)
        # The rest of a request that was refused is awaited for a moment, so that its sender can read why.
        options: dict[str, Any] = {"access_log": None, "auto_decompress": False, "lingering_time": 0.5}
        self._runner = web.AppRunner(app, logger=_HttpLog(metrics, log), **options)
        self._listener: socket.socket | None = None
        self._acceptor: Acceptor | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Begin to answer on a socket that is bound and listening."""
        await self._runner.setup()
        listener.setblocking(False)
        self._listener = listener
        self._acceptor = Acceptor(listener, self._connection)
        self._acceptor.start()
        self._looking = asyncio.get_running_loop().create_task(self._look())

    async def close(self) -> None:
        """End: what is being answered is answered before, and idle connections are closed."""
        if self._looking is not None:
            self._looking.cancel()
        if self._acceptor is not None and self._listener is not None:
            await self._acceptor.stop()
            self._listener.close()
        server = self._runner.server
        if server is not None:
            for connection in server.connections:
                connection.close()
            await server.shutdown(CLOSE_SECONDS)
        await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        assert self._runner.server is not None
        connection = self._runner.server()
        # Just before connection_made(), which is put behind it at once: what has no transport is closed.
        asyncio.get_running_loop().call_soon(self._strangers.came, connection, time.monotonic())
        return connection

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._strangers.expire(time.monotonic())

    def _closed_stranger(self) -> None:
        self._metrics.count(REFUSED, Refusal.SLOW.value)
        now = time.monotonic()
        if now >= self._told_until:
            self._told_until = now + TELL_AGAIN_SECONDS
            self._log.warning("login-request-refused", reason="a connection that showed no key, or too many of them")


class _Logins:
    """What Dovecot asks and tells, answered."""

    def __init__(
        self, rules: Callable[[], LoginRules], charge: ChargeOne, keeper: AccountsKept, metrics: Counts, log: Log
    ) -> None:
        self._rules = rules
        self._charge = charge
        self._keeper = keeper
        self._metrics = metrics
        self._log = log

    async def answer(self, request: LoginRequest) -> Answer:
        """Answer one request."""
        if request.result is None:
            answered = await self._allow(request.attempt)
            self._metrics.count(ANSWERS, answered.cause.value)
            return answered
        networks = await self._report(request.attempt, request.result)
        self._metrics.count(REPORTS, request.result.value)
        attempt = request.attempt
        self._log.info(
            "login",
            login=attempt.login,
            result=request.result.value,
            client=attempt.remote,
            protocol=request.protocol,
            session=request.session,
            networks=networks or "",
        )
        return Answer(0, Cause.ORDINARY)

    async def _allow(self, attempt: Attempt) -> Answer:
        rules = self._rules()  # the same before and after the store has answered
        account = self._keeper.accounts.get(account_of(attempt.login))
        if account is not None and account.suspension is not None:
            return answer(attempt, account, None, rules)
        return answer(attempt, account, await self._charge(look(attempt, rules)), rules)

    async def _report(self, attempt: Attempt, result: Result) -> int:
        """Charge what a report costs; return from how many networks the login succeeds, where those are too many."""
        rules = self._rules()
        charging = report(attempt, result, rules)
        if not charging.charges:
            return 0
        networks = networks_beyond(attempt, charging, await self._charge(charging), rules)
        if networks:
            self._keeper.many_networks(account_of(attempt.login), networks)
        return networks


class _Refused(Exception):
    """A request that is not answered, with the status and the sentence it gets instead."""

    def __init__(self, refusal: Refusal, status: int, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal
        self.status = status


class _Edge:
    """HTTP, up to the JSON."""

    def __init__(
        self, logins: _Logins, api_key: Callable[[], str], strangers: Strangers, metrics: Counts, log: Log
    ) -> None:
        self._logins = logins
        self._api_key = api_key
        self._strangers = strangers
        self._metrics = metrics
        self._log = log

    async def serve(self, request: web.Request) -> web.Response:
        """Answer one HTTP request, whatever it is."""
        try:
            answered = await self._logins.answer(await self._read(request))
        except _Refused as refused:
            self._metrics.count(REFUSED, refused.refusal.value)
            self._log.warning("login-request-refused", reason=str(refused), client=request.remote)
            return _closing(refused.status, str(refused))
        except Exception:  # noqa: BLE001 - the edge that must answer Dovecot, which goes on without us then
            self._metrics.count(REFUSED, Refusal.OUR_ERROR.value)
            self._log.exception("login-request-failed")
            return _closing(500, "Mailward failed; its log says why")
        return web.json_response({"status": answered.status, "msg": answered.text})

    async def _read(self, request: web.Request) -> LoginRequest:
        if request.method != "POST":
            raise _Refused(Refusal.METHOD, 405, "expected POST")
        api_key = self._api_key().encode("utf-8")
        if not api_key or not any(hmac.compare_digest(key, api_key) for key in _keys_of(request)):
            raise _Refused(
                Refusal.KEY, 401, "expected the key of dovecot_api_key_file in auth_policy_server_api_header"
            )
        self._strangers.has_shown_key(request.protocol)
        try:
            command = read_command(request.path, request.query.getall("command", []))
            return read_request(command, await _body(request))
        except ProtocolError as error:
            raise _Refused(Refusal.CONTENT, 400, str(error)) from None


def _keys_of(request: web.Request) -> list[bytes]:
    """Return the keys that a request brings: X-API-Key, and a password in the URL, which becomes Basic (RFC 7617)."""
    keys = [value.strip().encode("utf-8", "surrogateescape") for value in request.headers.getall("X-API-Key", [])[:1]]
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            login_and_password = base64.b64decode(value.strip(), validate=True)
        except (binascii.Error, ValueError):
            return keys
        keys.append(login_and_password.partition(b":")[2])
    return keys


async def _body(request: web.Request) -> bytes:
    if "Content-Encoding" in request.headers:
        raise ProtocolError("expected JSON that is not compressed")
    too_large = _Refused(Refusal.SIZE, 413, f"expected at most {MAX_REQUEST} octets")
    try:
        async with asyncio.timeout(READ_SECONDS):
            octets = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None
    except TimeoutError:
        raise _Refused(Refusal.SLOW, 408, f"expected a whole request within {READ_SECONDS:.0f} s") from None
    except Exception:  # noqa: BLE001 - aiohttp raises something else in each version for a body that is broken
        raise ProtocolError("expected a whole request") from None
    if len(octets) > MAX_REQUEST:
        raise too_large
    return octets


def _closing(status: int, text: str) -> web.Response:
    response = web.json_response({"msg": text}, status=status)
    response.force_close()  # the rest of the request is not to be read
    return response


class _HttpLog:
    """In the place of aiohttp's own log, which writes tracebacks of what strangers send to stderr."""

    def __init__(self, metrics: Counts, log: Log) -> None:
        self._metrics = metrics
        self._log = log

    def debug(self, *_arguments: object, **_named: object) -> None:
        """Write nothing."""

    def warning(self, *_arguments: object, **_named: object) -> None:
        """Say that something was no HTTP, and nothing of what it was."""
        self._metrics.count(REFUSED, Refusal.HTTP.value)
        self._log.warning("login-request-refused", reason="no HTTP that we know")

    info = debug
    error = exception = critical = warning
