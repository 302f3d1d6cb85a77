"""Asking others over HTTP: the webhook, Dovecot. The only place with a client of aiohttp.

Every request ends within its time-out, and of a reply no more than MAX_REPLY octets are read. Redirects are not followed, proxies
that the environment names are not used, cookies are not kept: what is sent goes where the operator said, or nowhere.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

MAX_REPLY = 64 * 1024  # octets; the longest is Dovecot's list of commands, some 25 000


class HttpError(Exception):
    """There was no reply that could be used; the text says why, and holds no key."""


class HttpTimeout(HttpError):
    """There was no reply in time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A status and the reply's octets."""

    status: int
    content: bytes


async def post_json(url: str, content: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
    """Post JSON to a URL and return the reply, whatever its status. Raises HttpError."""
    return await _within(seconds, _ask("POST", url, content, {**headers, "Content-Type": "application/json"}))


async def get(url: str, headers: Mapping[str, str], seconds: float) -> Reply:
    """Get what is at a URL and return the reply, whatever its status. Raises HttpError."""
    return await _within(seconds, _ask("GET", url, None, headers))


def place_of(url: str) -> str:
    """Return which server a URL means, for the log: without path and query, which may hold a secret.

    >>> place_of("https://chat.example.net:8443/hook/s3cret?token=1")
    'https://chat.example.net:8443'
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "a URL that is none"
    return f"{parts.scheme}://{parts.hostname}{port}"


async def _within(seconds: float, asking: Coroutine[None, None, Reply]) -> Reply:
    try:
        return await asyncio.wait_for(asking, seconds)
    except TimeoutError:
        raise HttpTimeout(f"no answer within {seconds:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError, ssl.CertificateError) as error:  # ValueError: a bad URL or header
        raise HttpError(_why(error)) from None


async def _ask(method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Reply:
    if urlsplit(url).scheme not in ("http", "https"):
        raise HttpError("a URL that is not http or https")
    # A connection for each: they are rare, and one that was kept would be closed by the other side at the worst time.
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=1),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,  # a small reply that unpacks to a large one stays small
        ) as session,
        session.request(
            method,
            url,
            data=content,
            headers={"User-Agent": "mailward", **headers},
            allow_redirects=False,
        ) as response,
    ):
        kept = bytearray()
        async for chunk in response.content.iter_any():
            kept += chunk
            if len(kept) > MAX_REPLY:
                raise HttpError(f"a reply of more than {MAX_REPLY} octets")
        return Reply(response.status, bytes(kept))


def _why(error: Exception) -> str:
    """Return why it failed, without the URL and the headers that aiohttp's own words may quote."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
