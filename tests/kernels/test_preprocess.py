"""Preprocessing: parity, torchvision, exact special images, registration, export, resources."""

import pytest
import torch
from torchvision.transforms import v2

from tests.golden.cases import Case, adapter
from tests.kernels.harness import check_compiled, check_dynamic, check_exported, check_onnx, close, interpreter_test
from zoo.kernels.preprocess import preprocess, reference

test_interpreter = interpreter_test("interpret_preprocess.py")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@adapter("preprocess", "preprocess", repeats=("batch", "height", "width"))
def preprocess_case(case: Case) -> dict:
    images, boxes = case.input["image_nhwc_uint8"], case.input["boxes_top_left_height_width"]
    result = {}
    for name, antialias in (("plain", False), ("antialias", True)):
        for suffix, dtype in (("", torch.float32), ("_fp16", torch.float16)):
            result[f"output/nchw_{name}{suffix}"] = preprocess(
                images, case.arguments["out"], mean=case.arguments["mean"], std=case.arguments["std"],
                boxes=boxes, antialias=antialias, dtype=dtype,
            )  # fmt: skip
    return result


def pictures(batch=3, height=29, width=41, channels=3):
    torch.manual_seed(0)
    return torch.randint(0, 256, (batch, height, width, channels), dtype=torch.uint8)


@pytest.mark.parametrize("size", [16, (7, 50), 1])
@pytest.mark.parametrize("antialias", [True, False])
def test_equals_the_reference(size, antialias):
    images = pictures()
    boxes = torch.tensor([[0, 0, 29, 41], [4, 7, 20, 3], [28, 40, 1, 1]])
    y = preprocess(images, size, mean=MEAN, std=STD, boxes=boxes, antialias=antialias)
    pair = (size, size) if isinstance(size, int) else size
    want = reference.preprocess(images, boxes, pair, torch.tensor(MEAN), torch.tensor(STD), antialias=antialias)
    close(y, want, tolerance=1e-5)
    assert y.is_contiguous()


def test_equals_torchvision_when_rounded():
    images = pictures(1, 60, 80)
    chain = v2.Compose([v2.Resize((24, 24)), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    want = chain(images.permute(0, 3, 1, 2))
    close(preprocess(images, 24, mean=MEAN, std=STD, round_uint8=True), want, tolerance=1e-5)
    exact = preprocess(images, 24, mean=MEAN, std=STD)
    assert float((exact - want).abs().max()) <= 1.01 / 255 / min(STD)


def test_special_images():
    same = preprocess(torch.full((1, 9, 9, 3), 51, dtype=torch.uint8), 5, mean=(0.2,) * 3, std=(1.0,) * 3)
    close(same, torch.zeros(1, 3, 5, 5), tolerance=1e-6)
    images = pictures(1, 8, 8)
    identity = preprocess(images, 8, mean=(0.0,) * 3, std=(1.0,) * 3) * 255
    close(identity, images.permute(0, 3, 1, 2).float(), tolerance=1e-6)
    ramp = torch.arange(0, 64, dtype=torch.uint8).expand(1, 4, 64)[..., None]
    half = preprocess(ramp, (2, 32), mean=(0.0,), std=(1.0,)) * 255
    close(half[0, 0, 0, 1:-1], torch.arange(32)[1:-1] * 2 + 0.5, tolerance=1e-5)


def test_flip_and_order():
    images = pictures()
    flip = torch.tensor([True, False, True])
    y = preprocess(images, 12, mean=MEAN, std=STD)
    mirrored = preprocess(images, 12, mean=MEAN, std=STD, flip=flip)
    assert torch.equal(mirrored[0], y[0].flip(-1))
    assert torch.equal(mirrored[1], y[1])
    assert torch.equal(preprocess(images.flip(0), 12, mean=MEAN, std=STD).flip(0), y)


def test_operator_is_registered_soundly():
    given = (pictures(2), torch.tensor([[0, 0, 20, 30], [1, 2, 3, 4]]), None, [8, 9], [0.5] * 3, [0.2] * 3)
    torch.library.opcheck(torch.ops.zoo.preprocess.default, (*given, True, False, torch.float16))


def test_compile_and_export(tmp_path):
    images = pictures()
    check_compiled(lambda x: preprocess(x, 16, mean=MEAN, std=STD), images)
    sizes = (pictures(2),), (pictures(5),), (pictures(4, 17, 23),)  # three images as three channels would be one size
    check_dynamic(lambda x: preprocess(x, 16, mean=MEAN, std=STD), *sizes)
    check_exported(lambda x: preprocess(x, 16, mean=MEAN, std=STD), images)
    check_onnx(lambda x: preprocess(x, 16, mean=MEAN, std=STD, antialias=False), images, path=tmp_path)


def test_errors():
    images = pictures()
    with pytest.raises(ValueError, match="expected uint8"):
        preprocess(images.float(), 8, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="3 entries"):
        preprocess(images, 8, mean=(0.5,), std=(0.5,))
    with pytest.raises(ValueError, match="leaves the image of 29 x 41"):
        preprocess(images, 8, mean=MEAN, std=STD, boxes=torch.tensor([[0, 0, 30, 3]] * 3))
    with pytest.raises(ValueError, match=r"flip is torch.int64 \(3,\), expected bool \(3,\)"):
        preprocess(images, 8, mean=MEAN, std=STD, flip=torch.tensor([0, 1, 0]))
