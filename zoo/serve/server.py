"""The page's server: one socket, loopback unless the user says otherwise, nothing that calls home."""

import contextlib
import io
import os
import sys
import warnings
import webbrowser

import uvicorn
from fastapi import FastAPI
from nicegui import ui
from PIL import Image

from zoo.serve.address import listen, url_of
from zoo.serve.guard import LOOPBACK_NAMES, Guard, is_loopback
from zoo.serve.page import Page
from zoo.serve.session import Session
from zoo.serve.uploads import MAX_BYTES
from zoo.trained import Trained

FORM_BYTES = 64 * 1024
"""What a browser wraps around an uploaded file, at most."""


def build_app(trained: Trained, *, host: str) -> FastAPI:
    """The page as an ASGI application without API documents; `host` as the user gave it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    local = is_loopback(host)

    async def show() -> None:
        await Page(trained, local=local).build()

    ui.run_with(
        app,
        root=show,
        title=f"{trained.info.name}: concepts",
        favicon="🔎",
        tailwind=False,
        show_welcome_message=False,
        on_air=None,
    )
    hosts = LOOPBACK_NAMES | {host} if local else None
    app.add_middleware(Guard, hosts=hosts, limit=MAX_BYTES + FORM_BYTES)
    return app


def serve(trained: Trained, *, host: str, port: int, browser: bool) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: the address cannot be used.
    """
    # nicegui looks through all objects of the process for its server, and some of torch's old ones complain
    warnings.filterwarnings("ignore", category=FutureWarning, module="nicegui")
    sock = listen(host, port)
    app = build_app(trained, host=host)
    _warm_up(trained)
    url = url_of(sock)
    reach = "" if is_loopback(host) else ", open to everybody who reaches this computer"
    print(f"{trained.info.name} on {trained.info.data}: {url}  (Ctrl-C ends it{reach})", flush=True)
    if browser and _has_display():
        webbrowser.open(url)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, server_header=False)
    with contextlib.suppress(KeyboardInterrupt), sock:
        uvicorn.Server(config).run(sockets=[sock])
    print("stopped")


def _warm_up(trained: Trained) -> None:
    """Load what the first picture needs, so that it is answered like all others."""
    blank = io.BytesIO()
    Image.new("RGB", (80, 80)).save(blank, "PNG")
    Session(trained).add("blank", blank.getvalue())


def _has_display() -> bool:
    """Whether a browser can show itself; one that draws in the terminal would take it away from the user."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
