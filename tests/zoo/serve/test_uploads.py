"""Uploads: pictures pass; what is too large, too many pixels or no picture is refused before it is decoded."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from zoo.data.errors import ImageError
from zoo.serve import uploads
from zoo.serve.uploads import data_url, read_upload


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_pictures_pass(kind):
    assert read_upload("a", encoded(Image.new("RGB", (9, 7), "red"), kind)).shape == (3, 7, 9)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_other_files_are_refused(content):
    with pytest.raises(ImageError, match=r"^a\.png is not a picture \(JPEG, .*\): drop another file$"):
        read_upload("a.png", content)


def test_damaged_picture_is_refused():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    with pytest.raises(ImageError, match="damaged"):
        read_upload("a.png", encoded(noise)[:900])


def test_too_many_pixels_are_refused_before_decoding(monkeypatch):
    def decode(*_, **__):
        raise AssertionError("was decoded")

    monkeypatch.setattr(uploads, "decode_image", decode)
    for side, words in ((8000, "8000 x 8000 pixels"), (15000, "far too many pixels")):
        bomb = encoded(Image.new("1", (side, side)))
        assert len(bomb) < 1e6
        with pytest.raises(ImageError, match=words):
            read_upload("a.png", bomb)


def test_too_many_bytes_are_refused(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BYTES", 10)
    with pytest.raises(ImageError, match="the limit is"):
        read_upload("a.png", encoded(Image.new("RGB", (9, 7))))


@pytest.mark.parametrize(("size", "channels", "shown"), [((8, 8), 1, (8, 8)), ((960, 480), 3, (480, 240))])
def test_shown_picture(size, channels, shown):
    picture = read_upload("a", encoded(Image.new("L" if channels == 1 else "RGB", size, 7)))
    kind, text = data_url(picture).split(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert image.size == shown
