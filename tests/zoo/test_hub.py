"""hf:// through the real Hub client, against a server on this machine that answers as the Hub does."""

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

CONTENT = bytes(range(256)) * 1024
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """One repository, org/repo, with one file, a.bin."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        if self.answer():
            self.server.sent += 1
            self.wfile.write(CONTENT)

    def answer(self) -> bool:
        found = self.path == "/org/repo/resolve/main/a.bin"
        known = self.path.startswith("/org/repo/")
        headers = {"X-Repo-Commit": "a" * 40, "ETag": f'"{SHA256}"', "Content-Length": str(len(CONTENT))}
        if not found:
            headers = {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound", "Content-Length": "0"}
        self.send_response(200 if found else 404)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        return found

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    """A function that fetches an address in a fresh process and returns its path or its error line."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.sent = 0
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"

    def fetch(url: str, sha256: str = SHA256, **settings: str) -> str:
        script = (
            "import sys; from zoo.checkpoints import DownloadError, fetch\n"
            "try: print(fetch(sys.argv[1], sha256=sys.argv[2]))\n"
            "except DownloadError as error: print(error)"
        )
        environment = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
        environment |= {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(tmp_path), "HF_TOKEN": ""} | settings
        command = [sys.executable, "-c", script, url, sha256]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert finished.stderr == ""
        return finished.stdout.removesuffix("\n")

    fetch.server = server
    yield fetch
    server.shutdown()
    server.server_close()


def test_file_is_fetched_once_and_serves_offline(hub):
    path = hub("hf://org/repo/a.bin")
    with open(path, "rb") as file:
        assert file.read() == CONTENT
    assert hub("hf://org/repo/a.bin") == path
    assert hub("hf://org/repo/a.bin", HF_HUB_OFFLINE="1") == path
    assert hub("hf://org/repo/a.bin", ZOO_OFFLINE="1") == path
    assert hub.server.sent == 1


@pytest.mark.parametrize(
    ("url", "sha256", "line"),
    [
        ("hf://org/repo/b.bin", SHA256, "the Hub does not give it"),
        ("hf://org/other/a.bin", SHA256, "the Hub does not give it"),
        ("hf://org/repo/a.bin", "0" * 64, "wrong hash"),
    ],
)
def test_refusals_are_one_line(hub, url, sha256, line):
    said = hub(url, sha256)
    assert said.startswith(f"{url}: {line}")
    assert "\n" not in said
