"""The guard before the page's server: foreign names, foreign pages and large bodies are refused."""

import asyncio

import pytest

pytest.importorskip("starlette", reason="needs the extra demo: pip install 'bottleneck-zoo[demo]'")

from zoo.serve.guard import LOOPBACK_NAMES, Guard


async def application(scope, receive, send):
    """Answers with the number of bytes it was sent."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    total, more = 0, True
    while more:
        message = await receive()
        total, more = total + len(message["body"]), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(total).encode()})


def ask(headers, *bodies, kind="http", hosts=LOOPBACK_NAMES):
    """The first message and the body that come back."""
    from starlette.middleware.exceptions import ExceptionMiddleware

    sent, parts = [], [*bodies] or [b""]

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": kind, "headers": pairs, "method": "POST", "path": "/"}
    guard = Guard(application, hosts=hosts, limit=10)
    app = guard if kind == "websocket" else ExceptionMiddleware(guard)
    asyncio.run(app(scope, receive, send))
    return sent[0], sent[-1].get("body")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:80"])
def test_own_address_passes(host):
    first, body = ask({"host": host, "origin": f"http://{host}"}, b"12345", b"678")
    assert (first["status"], body) == (200, b"8")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 400),
        ({"host": "127.0.0.1.evil.example"}, 400),
        ({"host": "[::1"}, 400),
        ({}, 400),
        ({"host": "localhost:80", "origin": "http://evil.example"}, 403),
        ({"host": "localhost:80", "origin": "http://localhost:81"}, 403),
        ({"host": "localhost:80", "origin": "null"}, 403),
        ({"host": "localhost", "content-length": "11"}, 413),
        ({"host": "localhost", "content-length": "-1"}, 413),
    ],
)
def test_refused(headers, status):
    assert ask(headers)[0]["status"] == status


def test_body_without_a_length_is_counted():
    assert ask({"host": "localhost"}, b"123456", b"123456")[0]["status"] == 413


def test_other_pages_get_no_socket():
    headers = {"host": "localhost:80", "origin": "http://localhost:80"}
    assert ask(headers, kind="websocket")[0]["type"] == "websocket.accept"
    assert ask(headers | {"origin": "http://evil.example"}, kind="websocket")[0]["type"] == "websocket.close"


def test_any_name_where_the_user_opened_the_page_to_others():
    assert ask({"host": "workstation:80"}, hosts=None)[0]["status"] == 200
