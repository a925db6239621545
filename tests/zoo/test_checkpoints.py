"""Weights are used only with the right hash; interrupted downloads go on; every failure is one line."""

import hashlib
import multiprocessing
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from zoo.checkpoints import DownloadError, fetch, fetch_checkpoint, offline
from zoo.errors import UserError
from zoo.files import file_hash

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, badly on request: the path's first part names how."""

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        how = self.path.split("/")[1]
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-")[1])
        if how == "missing":
            self.send_error(404)
        elif how == "busy" or (how == "busy2" and len(server.requests) <= 2):
            self.send_error(503)
        elif how == "redirect":
            self.answer(302, b"", Location="/good/a.bin")
        elif how == "downgrade":
            self.answer(302, b"", Location="http://example.com/a.bin")
        elif how == "wrong":
            self.answer(200, b"other content")
        elif how == "norange":
            self.answer(200, CONTENT)
        elif start >= len(CONTENT):
            self.send_error(416)
        else:
            # "drop3" loses the connection three times, 100,000 bytes further each time; "always" loses it at once.
            body = CONTENT[start:]
            if how.startswith("drop") and len(server.requests) <= int(how[4:]):
                body = body[:100_000]
            if how == "always":
                body = body[:10] if not start else b""
            self.answer(206 if start else 200, body, length=len(CONTENT) - start, start=start)

    def answer(self, status, body, *, length=None, start=0, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        time.sleep(self.server.delay)
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("zoo.checkpoints.PAUSE_SECONDS", 0)
    for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.requests, running.delay = [], 0.0
    running.url = f"http://127.0.0.1:{running.server_port}"
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def left(folder) -> list[str]:
    """What a download left behind, lock files aside."""
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock") if folder.is_dir() else []


def fails(url: str, folder, sha256: str = SHA256) -> str:
    with pytest.raises((DownloadError, UserError)) as caught:
        fetch(url, sha256=sha256, folder=folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("how", ["good", "redirect", "norange", "drop1", "drop2", "busy2"])
def test_download(server, tmp_path, how):
    path = fetch(f"{server.url}/{how}/a.bin", sha256=SHA256, folder=tmp_path / "w")
    assert path.read_bytes() == CONTENT
    assert left(tmp_path / "w") == [path.name]


def test_default_folder_is_below_zoo_home(server, tmp_path):
    path = fetch(f"{server.url}/good/a.bin", sha256=SHA256)
    assert path.parent == tmp_path / "home" / "checkpoints"


def test_second_time_from_the_cache(server, tmp_path, monkeypatch):
    path = fetch(f"{server.url}/good/a.bin", sha256=SHA256, folder=tmp_path)
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert fetch(f"{server.url}/good/a.bin", sha256=SHA256, folder=tmp_path) == path
    assert len(server.requests) == 1


def test_a_damaged_cached_file_is_fetched_again(server, tmp_path):
    path = fetch(f"{server.url}/good/a.bin", sha256=SHA256, folder=tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert fetch(f"{server.url}/good/a.bin", sha256=SHA256, folder=tmp_path).read_bytes() == CONTENT


def test_lost_connections_are_continued_by_ranges(server, tmp_path):
    fetch(f"{server.url}/drop2/a.bin", sha256=SHA256, folder=tmp_path)
    assert [wanted for _, wanted in server.requests] == [None, "bytes=100000-", "bytes=200000-"]


def test_gives_up_and_keeps_what_it_has_for_the_next_call(server, tmp_path):
    line = fails(f"{server.url}/always/a.bin", tmp_path)
    assert "the connection was lost at 10 of 1,048,576 bytes; 10 bytes are kept, run it again to continue" in line
    (part,) = left(tmp_path)
    assert part.endswith("a.bin.part")
    server.requests.clear()
    path = fetch(f"{server.url}/good/a.bin", sha256=SHA256, folder=tmp_path)
    assert server.requests == [("/good/a.bin", "bytes=10-")]
    assert path.read_bytes() == CONTENT
    assert left(tmp_path) == [path.name]


@pytest.mark.parametrize("part", [b"another file's beginning", CONTENT, CONTENT + b"too long", b""])
def test_whatever_an_earlier_download_left(server, tmp_path, part):
    (tmp_path / f"{SHA256[:16]}-a.bin.part").write_bytes(part)
    path = fetch(f"{server.url}/good/a.bin", sha256=SHA256, folder=tmp_path)
    assert path.read_bytes() == CONTENT
    assert left(tmp_path) == [path.name]


@pytest.mark.parametrize("how", ["good", "wrong"])
def test_wrong_hash_leaves_nothing(server, tmp_path, how):
    wanted = "1" * 64
    line = fails(f"{server.url}/{how}/a.bin", tmp_path, wanted)
    assert "wrong hash: expected sha256 111111111111..., got " in line
    assert left(tmp_path) == []


def test_missing_file(server, tmp_path):
    assert "the server answers 404" in fails(f"{server.url}/missing/a.bin", tmp_path)
    assert left(tmp_path) == []


def test_a_server_that_stays_busy(server, tmp_path):
    assert "the server answers 503" in fails(f"{server.url}/busy/a.bin", tmp_path)
    assert len(server.requests) == 3


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert "Connection refused" in fails("http://127.0.0.1:9/a.bin", tmp_path)


def test_a_redirect_to_plain_http_is_refused(server, tmp_path):
    assert "http://example.com/a.bin: plain http is not safe" in fails(f"{server.url}/downgrade/a.bin", tmp_path)


@pytest.mark.parametrize("variable", ["ZOO_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(server, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert "is not in the cache and ZOO_OFFLINE or HF_HUB_OFFLINE is set" in fails(f"{server.url}/good/a", tmp_path)
    assert not server.requests
    monkeypatch.setenv(variable, "0")
    assert not offline()


def test_two_processes_download_once(server, tmp_path):
    server.delay = 0.3
    context = multiprocessing.get_context("fork")
    arguments = {"sha256": SHA256, "folder": tmp_path}
    processes = [context.Process(target=fetch, args=(f"{server.url}/good/a",), kwargs=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert len(server.requests) == 1


def test_full_disk(server, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 0, 10))
    assert "needs 1,048,576 bytes" in fails(f"{server.url}/good/a.bin", tmp_path)
    assert left(tmp_path) == []


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written(server, tmp_path):
    tmp_path.chmod(0o500)
    assert "set ZOO_HOME to another folder" in fails(f"{server.url}/good/a.bin", tmp_path)


def test_a_file_in_place_of_the_folder(server, tmp_path):
    (tmp_path / "w").write_text("")
    assert "set ZOO_HOME to another folder" in fails(f"{server.url}/good/a.bin", tmp_path / "w")


def test_local_file(tmp_path):
    file = tmp_path / "a b.bin"
    file.write_bytes(CONTENT)
    assert fetch(file.as_uri(), sha256=SHA256) == file
    assert "wrong hash" in fails(file.as_uri(), None, "2" * 64)
    assert file.read_bytes() == CONTENT
    assert "there is no such file" in fails((tmp_path / "c").as_uri(), None)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://example.com/a.bin", "plain http is not safe for weights: use https://"),
        ("ftp://example.com/a.bin", "weights are fetched by https://, hf://, file:// or package://"),
        ("a.bin", "weights are fetched by https://"),
        ("package://../cli.py", "expected the name of a file that ships with the zoo"),
        ("package://absent.safetensors", "there is no such file"),
        ("hf://org/file", "expected hf://org/repo/file"),
    ],
)
def test_bad_addresses(tmp_path, url, line):
    assert line in fails(url, tmp_path)


@pytest.mark.parametrize("sha256", ["", "abc", "X" * 64])
def test_bad_hash(tmp_path, sha256):
    assert "is no sha256" in fails("https://example.com/a.bin", tmp_path, sha256)


def test_hub_offline_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert "hf://zoo-tests/absent/a.bin is not in the cache" in fails("hf://zoo-tests/absent/a.bin", tmp_path)


def test_hub_gives_the_file(tmp_path, monkeypatch):
    file = tmp_path / "a.bin"
    file.write_bytes(CONTENT)
    asked = []

    def download(repo, name, *, revision, **_):
        asked.append((repo, name, revision))
        return str(file)

    monkeypatch.delenv("ZOO_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert fetch("hf://org/repo@v1/sub/a.bin", sha256=SHA256) == file
    assert fetch("hf://org/repo/a.bin", sha256=SHA256) == file
    assert asked == [("org/repo", "sub/a.bin", "v1"), ("org/repo", "a.bin", None)]
    assert "wrong hash" in fails("hf://org/repo/a.bin", tmp_path, "3" * 64)


def test_verb(server, small_catalogue, zoo_command):
    file = small_catalogue / "model" / "litv2.yaml"
    text = file.read_text().replace("https://127.0.0.1:9/a.bin", f"{server.url}/good/a.bin").replace("0" * 64, SHA256)
    file.write_text(text)
    code, out, err = zoo_command("download", "litv2:small", "litv2", "--json")
    assert (code, err) == (0, [])
    path = fetch_checkpoint("litv2")
    assert file_hash(path) == SHA256
    assert out.count(str(path)) == 2


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("litv3", "unknown model 'litv3': did you mean litv2?"),
        ("litv2:smal", "litv2 has no weights tagged 'smal': did you mean small?"),
        ("cbm", "cbm has no released weights: train them with python -m zoo train model=cbm data=digits"),
    ],
)
def test_verb_s_mistakes(small_catalogue, zoo_command, name, line):
    code, out, err = zoo_command("download", "litv2", name, "vibb")
    assert (code, out) == (2, "")
    assert len(err) == 2
    assert line in err[0]
    assert "unknown model 'vibb'" in err[1]
