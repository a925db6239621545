"""The server's socket and application."""

import socket
import subprocess
import sys

import pytest

pytest.importorskip("nicegui", reason="needs the extra demo: pip install 'bottleneck-zoo[demo]'")

from zoo.errors import UserError
from zoo.serve.address import listen, url_of


def test_free_port_on_this_computer_only():
    with listen("127.0.0.1", 0) as sock:
        host, port = sock.getsockname()
        assert host == "127.0.0.1"
        assert url_of(sock) == f"http://127.0.0.1:{port}/"
        with socket.create_connection((host, port), timeout=5):
            pass


def test_address_for_everybody_is_shown_as_one_that_a_browser_opens():
    with listen("0.0.0.0", 0) as sock:
        assert url_of(sock).startswith("http://127.0.0.1:")


def test_taken_port_and_foreign_address():
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: .* or --port 0 for any free port"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"--host 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_application_has_no_documentation_and_no_relay(trained_run):
    """In a process of its own: the page's library keeps one application for the whole process."""
    code = f"""
from nicegui import core
from zoo.serve.server import build_app
from zoo.trained import open_trained
app = build_app(open_trained({str(trained_run)!r}), host="127.0.0.1")
assert core.air is None
for one in (app, core.app):
    assert not {{"/docs", "/redoc", "/openapi.json"}} & {{getattr(route, "path", "") for route in one.routes}}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
