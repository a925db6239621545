"""What a request must be before the page's server looks at it: for this address, from this page, and not too large."""

import ipaddress
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """ASGI middleware.

    - The Host header must be one of `hosts` (None: any), so that a foreign name that resolves to this computer is
      refused.
    - A request with an Origin must come from a page of the same address, so that no other site's page can talk to us.
    - No body is longer than `limit` bytes, whatever its header says.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str] | None, limit: int):
        self.app, self.limit = app, limit
        self.hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refusal(headers)
        if refusal is None:
            await self.app(scope, self._counting(receive), send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)

    def _refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and line of a refusal."""
        address, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts is not None and _host(f"//{address}") not in self.hosts:
            return 400, "this page answers only under its own address"
        if origin is not None and urlsplit(origin).netloc != address:
            return 403, "requests of other pages are refused"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limit:
            return 413, f"at most {self.limit:,} bytes at once"
        return None

    def _counting(self, receive: Receive) -> Receive:
        """`receive`, until more bytes of a body have come than may."""
        total = 0

        async def counted() -> Message:
            nonlocal total
            message: dict[str, Any] = dict(await receive())
            if message["type"] == "http.request":
                total += len(message.get("body", b""))
                if total > self.limit:
                    raise HTTPException(413, f"at most {self.limit:,} bytes at once")
            return message

        return counted


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
