"""Where the page is found: one socket of this computer."""

import socket

from zoo.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """A socket that already queues connections; port 0 takes a free one.

    Raises:
        UserError: the address is not this computer's, or the port is taken or reserved.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--host {host} --port {port}: {reason}: give another, or --port 0 for any free port") from None


def check_address(host: str, port: int) -> None:
    """Listen for a moment, before anything slow starts.

    Raises:
        UserError: as `listen`.
    """
    listen(host, port).close()


def url_of(sock: socket.socket) -> str:
    """Where a browser on this computer finds the page."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
