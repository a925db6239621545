"""Decoding and preprocessing: every kind of file, and what a damaged one says."""

import io
import tarfile

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from tests.data.pictures import write_image
from tests.shared_data import shared_data
from zoo.data.contract import Preprocessing
from zoo.data.errors import ImageError
from zoo.data.transforms import Transform, augment, decode_image, load_image, set_channels, to_uint8

RGB = Preprocessing(image_size=(32, 24), mean=(0.5,) * 3, std=(0.25,) * 3)


def variants():
    with tarfile.open(shared_data("photos_jpeg") / "decode_variants.tar") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive.getmembers()}


@pytest.mark.parametrize("picture", ["astronaut", "coffee"])
def test_every_encoding_shows_the_same_picture(picture):
    found = {name: content for name, content in variants().items() if name.startswith(picture)}
    reference = decode_image(found[f"{picture}_q95_sub0_base.jpg"], name="reference")
    for name, content in found.items():
        if "truncated" in name:
            with pytest.raises(ImageError, match=f"{picture}_truncated.jpg: is damaged"):
                decode_image(content, name=name)
            continue
        image = decode_image(content, name=name)
        assert image.dtype == torch.uint8, name
        assert image.shape[0] == (1 if "gray" in name else 3), name
        if "37x53" in name:
            continue
        if "exif_rot6" in name:  # stored upright and marked as lying, so it must come out turned clockwise
            image = torch.rot90(image, 1, dims=(1, 2))
        assert image.shape == (image.shape[0], *reference.shape[1:]), name
        difference = set_channels(image, 1).float() - set_channels(reference, 1).float()
        assert difference.abs().mean() < 12, name


def test_transforms_give_every_kind_the_wanted_shape():
    transform = Transform(RGB)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"):
        image = Image.new(mode, (50, 40))
        assert transform(image).shape == (3, 32, 24), mode
    assert transform(np.zeros((40, 50), dtype=np.uint8)).shape == (3, 32, 24)
    assert transform(torch.zeros(1, 40, 50, dtype=torch.uint8)).shape == (3, 32, 24)
    with pytest.raises(ValueError, match="float32"):
        transform(torch.zeros(3, 4, 4))


def test_transparent_is_white_and_sixteen_bits_keep_the_upper_byte():
    assert to_uint8(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).unique().tolist() == [255]
    deep = Image.fromarray(np.full((2, 2), 0x80FF, dtype=np.uint16))
    assert to_uint8(deep).unique().tolist() == [0x80]


def test_exif_orientation_is_applied(tmp_path):
    upright = np.zeros((20, 30, 3), dtype=np.uint8)
    upright[:, :15] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png"):
        Image.fromarray(np.rot90(upright)).save(tmp_path / name, exif=exif)
        image = load_image(tmp_path / name)
        assert image.shape == (3, 20, 30)
        assert image[:, :, :12].float().mean() > 240 > 15 > image[:, :, 18:].float().mean()


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0 half a header"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"broken\.jpg") as caught:
        load_image(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.png: cannot be read"):
        load_image(tmp_path / "nowhere.png")


def test_truncated_png_is_named(tmp_path):
    write_image(tmp_path / "a.png", size=(64, 64))
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"a\.png: is damaged"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(100, 80), (80, 101), (30, 30)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_matches_timm_evaluation_transform(size, interpolation):
    """timm resizes PIL pictures; ours are uint8 tensors: the same geometry, one grey level of rounding apart."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours = Transform(Preprocessing((32, 32), mean, std, crop_pct=0.875, interpolation=interpolation))(smooth)
    theirs = timm.data.create_transform((3, 32, 32), mean=mean, std=std, crop_pct=0.875, interpolation=interpolation)
    assert (ours - theirs(smooth)).abs().max() < 2.5 / 255 / min(std)


def test_size_that_fits_is_not_resampled():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    assert torch.equal(Transform(RGB).crop(pixels), to_uint8(pixels))


def test_nearest_keeps_values():
    pixels = np.array([[0, 255]], dtype=np.uint8)
    preprocessing = Preprocessing((4, 8), (0.0,), (1.0,), interpolation="nearest")
    assert Transform(preprocessing)(pixels).unique().tolist() == [0, 1]


def test_augment_moves_within_an_eighth_and_mirrors():
    image = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    seen = [augment(image, rng=np.random.default_rng(seed), flip=True) for seed in range(40)]
    assert all(result.shape == image.shape for result in seen)
    rows = {int(result[0, 4, 4]) // 8 for result in seen}
    assert rows == {3, 4, 5}
    assert {bool(result[0, 4, 3] > result[0, 4, 4]) for result in seen} == {True, False}


def test_animated_files_show_their_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, format="GIF", save_all=True, append_images=frames[1:])
    assert decode_image(stream.getvalue(), name="a.gif")[:, 0, 0].tolist() == [255, 0, 0]
