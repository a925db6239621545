"""Released weights on this machine: fetched once, kept in the cache folder, never used before their hash is right.

https://host/file          downloaded; an interrupted download is resumed
http://127.0.0.1/file      the same, on this machine only
hf://org/repo/file         from the Hugging Face Hub, in its own cache; hf://org/repo@revision/file pins one
file:///path/file          used where it lies
package://file             shipped with the zoo
"""

import os
import re
import shutil
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from zoo.catalogue import entry
from zoo.data.paths import zoo_home
from zoo.errors import UserError, ZooError
from zoo.files import file_hash
from zoo.terminal import ByteProgress
from zoo.transport import open_url, refuse_plain_http

BLOCK = 1 << 20
ATTEMPTS, PAUSE_SECONDS = 3, 0.3


class DownloadError(ZooError):
    """Weights could not be fetched, or are not what the catalogue says; nothing that was there before is lost."""


def fetch(url: str, *, sha256: str, folder: Path | None = None) -> Path:
    """The local file behind `url`, whose contents have the given hash.

    folder: where downloads are kept; default `zoo_home()/checkpoints`.

    Raises:
        UserError: an address or hash of no known form.
        DownloadError: unreachable, offline, incomplete, or another hash than `sha256`.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UserError(f"{url}: {sha256!r} is no sha256 (64 hexadecimal digits)")
    scheme, _, rest = url.partition("://")
    if scheme == "package":
        return _checked(_packaged(rest), sha256, url)
    if scheme == "file":
        return _checked(Path(unquote(urlsplit(url).path)), sha256, url)
    if scheme == "hf":
        return _from_hub(rest, sha256, url)
    if scheme in ("https", "http"):
        refuse_plain_http(url)
        return _from_web(url, sha256, folder or zoo_home() / "checkpoints")
    raise UserError(f"{url}: weights are fetched by https://, hf://, file:// or package://")


def fetch_checkpoint(name: str, tag: str | None = None) -> Path:
    """The released weights of a catalogue model, by tag; without one the first.

    Raises:
        UserError: no such model or tag, or a model without released weights.
        DownloadError: see `fetch`.
    """
    checkpoint = entry(name).checkpoint(tag)
    return fetch(checkpoint.url, sha256=checkpoint.sha256)


def offline() -> bool:
    """Whether the user forbids the network, by ZOO_OFFLINE or HF_HUB_OFFLINE."""
    settings = (os.environ.get(name, "") for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"))
    return any(setting.lower() in ("1", "true", "yes", "on") for setting in settings)


def _packaged(name: str) -> Path:
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"package://{name}: expected the name of a file that ships with the zoo")
    return Path(__file__).parent / "assets" / name


def _checked(path: Path, sha256: str, url: str) -> Path:
    if not path.is_file():
        raise DownloadError(f"{url}: there is no such file")
    if (found := file_hash(path)) != sha256:
        raise DownloadError(
            f"{url}: wrong hash: expected sha256 {sha256[:12]}..., the file has {found[:12]}...; not used"
        )
    return path


def _from_hub(address: str, sha256: str, url: str) -> Path:
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+?))?/([^@]+)", address)
    if match is None:
        raise UserError(f"{url}: expected hf://org/repo/file or hf://org/repo@revision/file")
    from huggingface_hub import hf_hub_download

    repo, revision, name = match.groups()
    try:
        for again in (False, True):
            path = Path(
                hf_hub_download(repo, name, revision=revision, local_files_only=offline(), force_download=again)
            )
            if file_hash(path) == sha256 or offline():
                break
    except Exception as error:
        if offline():
            raise DownloadError(_offline_line(url)) from None
        reason = " ".join(str(error).split())
        raise DownloadError(f"{url}: the Hub does not give it: {type(error).__name__}: {reason[:300]}") from None
    return _checked(path, sha256, url)


def _offline_line(url: str) -> str:
    return f"{url} is not in the cache and ZOO_OFFLINE or HF_HUB_OFFLINE is set: unset it, or download it beforehand"


def _from_web(url: str, sha256: str, folder: Path) -> Path:
    name = re.sub(r"[^\w.-]", "_", unquote(urlsplit(url).path).rsplit("/", 1)[-1]) or "weights"
    path = folder / f"{sha256[:16]}-{name}"
    if path.is_file() and file_hash(path) == sha256:
        return path
    if offline():
        raise DownloadError(_offline_line(url))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{path.name}.lock"):
            if not (path.is_file() and file_hash(path) == sha256):
                _download(url, sha256, path)
    except OSError as error:
        raise DownloadError(f"cannot write to {folder}: {error.strerror}: set ZOO_HOME to another folder") from None
    return path


def _download(url: str, sha256: str, path: Path) -> None:
    """Fill `<path>.part`, check it, rename it; what an interrupted download leaves is continued by the next one."""
    part = path.with_name(f"{path.name}.part")
    resumed = part.exists()
    _receive_all(url, part)
    found = file_hash(part)
    if found != sha256 and resumed:
        # The file at the address may have changed between the two halves.
        part.unlink()
        _receive_all(url, part)
        found = file_hash(part)
    if found != sha256:
        part.unlink()
        raise DownloadError(f"{url}: wrong hash: expected sha256 {sha256[:12]}..., got {found[:12]}...; removed")
    part.replace(path)


def _receive_all(url: str, part: Path) -> None:
    """Receive until complete, continuing after a lost connection a few times."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _receive(url, part)
            return
        except urllib.error.HTTPError as error:
            problem = f"the server answers {error.code} {error.reason}"
            if error.code < 500:
                part.unlink(missing_ok=True)
                break
        except (HTTPException, urllib.error.URLError, ConnectionError, TimeoutError, SSLError) as error:
            problem = str(getattr(error, "reason", None) or error)
        if attempt < ATTEMPTS:
            time.sleep(PAUSE_SECONDS * attempt)
    have = part.stat().st_size if part.exists() else 0
    kept = f"; {have:,} bytes are kept, run it again to continue" if have else ""
    raise DownloadError(f"{url}: {problem}{kept}")


def _receive(url: str, part: Path) -> None:
    """One request, continued from what `part` holds where the server can."""
    have = part.stat().st_size if part.exists() else 0
    try:
        response = open_url(url, start=have)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing left after `have`: either complete, which the hash tells, or another file.
        return
    with response:
        continued = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if continued else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if total and total - have > (free := shutil.disk_usage(part.parent).free):
            raise DownloadError(f"{url} needs {total - have:,} bytes, {part.parent} has {free:,} left: set ZOO_HOME")
        with part.open("ab" if continued else "wb") as file, ByteProgress(url.rsplit("/", 1)[-1], have, total) as bar:
            while block := response.read(BLOCK):
                file.write(block)
                have += len(block)
                bar.update(have)
        if total is not None and have < total:
            raise ConnectionError(f"the connection was lost at {have:,} of {total:,} bytes")
