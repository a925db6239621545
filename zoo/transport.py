"""HTTP as far as downloads need it: ranges, https only (plain http on this machine), and no secret or downgrade on a
redirect."""

import urllib.request
from http.client import HTTPResponse
from urllib.parse import urlsplit

import zoo
from zoo.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TIMEOUT_SECONDS = 30


def refuse_plain_http(url: str) -> None:
    """Let https through, and http on this machine.

    Raises:
        UserError: an http:// address of another machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise UserError(f"{url}: plain http is not safe for weights: use https://")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        refuse_plain_http(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(url: str, *, start: int = 0) -> HTTPResponse:
    """GET `url` from byte `start` on; this machine is asked directly, never through a proxy.

    Raises:
        urllib.error.URLError: unreachable, or an HTTP status that is no success.
    """
    headers = {"User-Agent": f"bottleneck-zoo/{zoo.__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    handlers: list[urllib.request.BaseHandler] = [_Redirects()]
    if urlsplit(url).hostname in LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
