"""BottleFit as a model: its two halves, its stages, its teacher, its errors and its exports."""

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from tests.shared_data import shared_data
from zoo.models.split.bottlefit import BottleFit
from zoo.models.split.bottlenecks import (
    Bottleneck,
    densenet_bottleneck,
    inception_bottleneck,
    layer1_bottleneck,
    resnet_bottleneck,
)
from zoo.models.split.distillation import hint_terms, kd_loss
from zoo.models.split.neural_filter import NeuralFilter
from zoo.models.split.wire import compression


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(**arguments) -> BottleFit:
    torch.manual_seed(0)
    defaults = {"num_outputs": 4, "in_channels": 1, "image_size": (8, 8), "network": "resnet10"}
    return BottleFit(**defaults | {"bottleneck_channels": 2} | arguments)


def batch(size: int = 6, **shape) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    images = torch.randn(size, shape.get("channels", 1), *shape.get("size", (8, 8)))
    return {"image": images, "label": torch.arange(size) % 4, "index": torch.arange(size)}


def learn(model: BottleFit, name: str) -> None:
    """Let the parameters of a stage learn and the rest rest, as training does."""
    stage = next(stage for stage in model.stages() if stage.name == name)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key.startswith(stage.trains))
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()


def steps(model: BottleFit, name: str, data: dict[str, torch.Tensor], number: int = 3, lr: float = 1e-3) -> list[float]:
    learn(model, name)
    loss = getattr(model, next(stage for stage in model.stages() if stage.name == name).loss)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(number):
        value = loss(model(data["image"]), data)["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


# the tables of the paper


@pytest.mark.parametrize(("version", "sizes"), [(1, (447, 1788)), (2, (10432, 12736)), (3, (147904, 166336))])
def test_encoders_have_the_published_sizes(version, sizes):
    assert tuple(count(resnet_bottleneck(b, version=version).encoder) for b in (3, 12)) == sizes


@pytest.mark.parametrize(
    ("bottleneck", "decoder", "shape", "image"),
    [
        (resnet_bottleneck(3, version=1), 3_280_774, (56, 56), 224),
        (resnet_bottleneck(3, version=2), 3_154_950, (29, 29), 224),
        (resnet_bottleneck(3, version=3), 3_154_950, (15, 15), 224),
        (densenet_bottleneck(3), 2_106_374, (29, 29), 224),
        (inception_bottleneck(3), 462_854, (37, 37), 299),
    ],
)
def test_decoders_and_codes_have_the_published_sizes(bottleneck: Bottleneck, decoder, shape, image):
    assert count(bottleneck.decoder) == decoder
    assert bottleneck.to("meta").encoder(torch.empty(1, 3, image, image, device="meta")).shape[1:] == (3, *shape)


def test_layer1_bottleneck_has_the_published_sizes():
    module = layer1_bottleneck(3)
    assert (count(module.encoder), count(module.decoder), count(layer1_bottleneck(12).encoder)) == (
        148_992,
        428_166,
        151_296,
    )


@pytest.mark.parametrize(
    ("network", "parameters"),
    [("resnet50", 27_277_486), ("resnet101", 46_269_614), ("densenet201", 20_701_102), ("inception_v3", 24_135_182)],
)
def test_students_have_the_published_sizes(network, parameters):
    size = (299, 299) if network.startswith("inception") else (224, 224)
    with torch.device("meta"):
        model = BottleFit(num_outputs=1000, image_size=size, network=network, bottleneck_channels=3)
    assert count(model.head) + count(model.tail) == parameters


# one network in two halves


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"version": 1},
        {"version": 3, "num_bits": 4},
        {"quantizer": "batch"},
        {"image_size": (64, 32), "in_channels": 3},
        {"network": "densenet169", "image_size": (64, 64), "in_channels": 3},
    ],
)
def test_tail_of_head_is_forward_to_the_bit(arguments):
    model = small(**arguments).eval()
    images = torch.randn(3, arguments.get("in_channels", 1), *arguments.get("image_size", (8, 8)))
    with torch.no_grad():
        output, message = model(images), model.head(images)
        assert torch.equal(output.prediction, model.tail(*message))
    assert torch.equal(output.code, message.code)
    assert output.code.dtype == torch.uint8
    assert output.prediction.shape == (3, 4)


def test_an_answer_does_not_depend_on_the_batch():
    model, images = small().eval(), batch()["image"]
    images[1] *= 50
    with torch.no_grad():
        torch.testing.assert_close(model(images).prediction[:1], model(images[:1]).prediction)


def test_bytes_are_those_of_the_packed_code():
    model = small(num_bits=3).eval()
    output = model(batch(2)["image"])
    assert model.code_bytes(output)["tensor"].tolist() == [-(-2 * 5 * 5 * 3 // 8) + 8] * 2
    assert model.diagnostics(output, {})["code_bytes"].shape == (2,)


def test_a_real_image_is_smaller_as_code_than_as_jpeg():
    photo = shared_data("photos_cc0") / "astronaut.png"
    image = torchvision.transforms.functional.pil_to_tensor(Image.open(photo).convert("RGB").resize((224, 224)))
    model = BottleFit(num_outputs=10, bottleneck_channels=3).eval()
    with torch.no_grad():
        report = compression(image, model.head(image[None] / 255).code[0])
    assert report["bytes"] == 3 * 29 * 29 + 8
    assert report["jpeg95_bytes"] > report["jpeg50_bytes"] > report["bytes"]


# training in stages


def test_stages_train_what_the_paper_trains():
    model = small()
    assert [stage.name for stage in model.stages()] == ["teacher", "distil", "finetune"]
    steps(model, "teacher", batch())
    for name, moving in (("distil", ("head.", "tail.decoder.")), ("finetune", ("tail.",))):
        before = copy.deepcopy(model.state_dict())
        steps(model, name, batch())
        changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
        if name == "distil":
            changed = {key for key in changed if not key.startswith("teacher.tail.")}
        assert changed
        assert all(key.startswith(moving) for key in changed), sorted(changed)[:3]


def test_the_teacher_of_a_student_is_the_network_that_was_trained():
    model, data = small(), batch()
    steps(model, "teacher", data, number=4)
    steps(model, "distil", data, number=1)
    model.eval()
    with torch.no_grad():
        whole = model.tail.layers(model.teacher.stem(data["image"]))
        assert torch.equal(model.teacher(data["image"])[0], whole)
        steps_before = model.teacher(data["image"])[0]
    steps(model, "finetune", data, number=2)
    model.eval()
    assert torch.equal(model.teacher(data["image"])[0], steps_before)


@pytest.mark.parametrize("arguments", [{}, {"hints": "hnd"}, {"hint_reduction": "mean"}, {"quantize_training": True}])
def test_every_stage_lowers_its_loss(arguments):
    model, data = small(**arguments), batch(16)
    for name in ("teacher", "distil", "finetune"):
        losses = steps(model, name, data, number=8)
        assert losses[-1] < losses[0], name


def test_the_teachers_stage_tells_the_teachers_accuracy():
    model, data = small().eval(), batch(8)
    with torch.no_grad():
        teacher = model.tail.layers(model.teacher.stem(data["image"]))
        terms = model.teacher_loss(model(data["image"]), data | {"label": teacher.argmax(-1)})
    assert terms["acc"] == 1


def test_hints_vanish_where_the_student_is_the_teacher():
    model, data = small(), batch()
    model.head.encoder, model.tail.decoder = nn.Identity(), model.teacher.stem
    learn(model, "distil")
    model.eval().quantize_training = False
    model.head.quantizer = model.tail.quantizer = _NoQuantizer()
    assert model.distil_loss(model(data["image"]), data)["loss"].item() == 0


class _NoQuantizer(nn.Module):
    def forward(self, z):
        from zoo.models.split.quantizer import Message

        return Message(z, z.new_ones(1), z.new_zeros(1))

    def dequantize(self, code, scale, zero_point):
        return code


def test_finetuning_everything_moves_the_encoder():
    model = small(finetune="all", kd_alpha=1.0)
    before = copy.deepcopy(model.head.state_dict())
    steps(model, "finetune", batch())
    assert not torch.equal(model.head.encoder[0].weight, before["encoder.0.weight"])


def test_kd_without_weight_on_the_teacher_is_cross_entropy_and_of_itself_has_no_divergence():
    logits, label = torch.randn(5, 7), torch.arange(5)
    assert kd_loss(logits, torch.randn(5, 7), label, alpha=1.0)["loss"] == nn.functional.cross_entropy(logits, label)
    summed, mean = (kd_loss(logits, 2 * logits, label, reduction=way)["loss"] for way in ("sum", "batchmean"))
    torch.testing.assert_close(summed, 5 * mean)
    assert float(kd_loss(logits, logits, label, temperature=3.0)["distillation"]) == pytest.approx(0, abs=1e-6)


def test_hints_add_up_pair_by_pair_and_average_where_asked():
    student, teacher = (
        {"a": torch.ones(2, 3), "b": torch.zeros(4)},
        {"c": torch.zeros(2, 3), "d": torch.full((4,), 2.0)},
    )
    pairs = [("a", "c"), ("b", "d")]
    assert hint_terms(student, teacher, pairs=pairs).tolist() == [6.0, 16.0]
    assert hint_terms(student, teacher, pairs=pairs, reduction="mean").tolist() == [1.0, 4.0]


# the teacher's weights


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_given_teacher_is_loaded_into_both_halves_and_skips_its_stage(tmp_path: Path, suffix):
    torch.manual_seed(3)
    network = torchvision.models.resnet18(num_classes=4).eval()
    path = tmp_path / f"teacher.{suffix}"
    state = network.state_dict()
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    model = BottleFit(num_outputs=4, image_size=(64, 64), teacher_checkpoint=str(path))
    assert [stage.name for stage in model.stages()] == ["distil", "finetune"]
    model.prepare(None)
    model.eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.teacher(images)[0], network(images))
        torch.testing.assert_close(model.tail.layers(model.teacher.stem(images)), network(images))
    assert model.fitted_arguments() == {"teacher_checkpoint": None, "teacher_pretrained": False}


def test_a_teacher_of_other_classes_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "teacher.safetensors"
    save_file(torchvision.models.resnet18(num_classes=5).state_dict(), path)
    model = BottleFit(num_outputs=4, image_size=(64, 64), teacher_checkpoint=str(path))
    with pytest.raises(ValueError, match=r"misfit the teacher resnet18 in 2 tensors: fc\.weight"):
        model.prepare(None)


def test_inference_needs_no_teacher():
    model, images = small().eval(), batch()["image"]
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith(BottleFit.training_only)}
    fresh = small().eval()
    missing, unexpected = fresh.load_state_dict(kept, strict=False)
    assert not unexpected
    assert all(key.startswith("teacher.") for key in missing)
    with torch.no_grad():
        assert torch.equal(fresh(images).prediction, model(images).prediction)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"network": "resnet19"}, "did you mean resnet18"),
        ({"image_size": (224, 100), "stem": "imagenet"}, "do not align"),
        ({"image_size": (15, 15)}, "even size"),
        ({"image_size": (16, 16), "network": "densenet169", "in_channels": 3}, "too small"),
        ({"version": 4}, "choose 1, 2 or 3"),
        ({"task": "regression"}, "takes no regression"),
        ({"teacher_checkpoint": "nowhere.pth"}, "no file nowhere.pth"),
        ({"teacher_pretrained": True}, "resnet10 has no pretrained weights"),
        ({"teacher_pretrained": True, "network": "resnet18"}, "needs images of 3 channels"),
        ({"num_bits": 12}, "1 to 8 bits"),
        ({"network": "inception_v3", "image_size": (75, 75)}, "another channel count"),
    ],
)
def test_impossible_settings_are_one_line(arguments, words):
    with pytest.raises(ValueError, match=words) as caught:
        small(**arguments)
    assert "\n" not in str(caught.value)


# the neural filter


def test_neural_filter_keeps_what_is_likely_enough():
    module = NeuralFilter().eval()
    features = torch.randn(2, 64, 20, 30)
    probability = module(features)[:, 1]
    assert count(module) == 88_402
    assert module.keep(features, threshold=probability.max().item()).sum() == 1
    assert torch.equal(module.train().eval()(features).sum(1).round(decimals=5), torch.ones(2))


# export


def test_head_and_tail_export_with_any_batch_size():
    model, images = small().eval(), batch(4)["image"]
    message = model.head(images[:2])
    size = torch.export.Dim("batch", min=1, max=64)
    head = torch.export.export(model.head, (images[:2],), dynamic_shapes=({0: size},)).module()
    tail = torch.export.export(model.tail, tuple(message), dynamic_shapes=({0: size},) * 3).module()
    with torch.no_grad():
        torch.testing.assert_close(tail(*head(images)), model(images).prediction)


@pytest.mark.slow
def test_onnx_of_head_and_tail_agrees(tmp_path: Path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, images = small(image_size=(32, 32)).eval(), torch.randn(5, 1, 32, 32)
    message = model.head(images[:2])
    size = torch.export.Dim("batch", min=1, max=64)
    for part, inputs in (("head", (images[:2],)), ("tail", tuple(message))):
        program = torch.onnx.export(
            getattr(model, part), inputs, dynamo=True, dynamic_shapes=({0: size},) * len(inputs), verbose=False
        )
        program.save(tmp_path / f"{part}.onnx")
    head, tail = (runtime.InferenceSession(tmp_path / f"{part}.onnx") for part in ("head", "tail"))
    sent = head.run(None, {head.get_inputs()[0].name: images.numpy()})
    logits = tail.run(None, {field.name: value for field, value in zip(tail.get_inputs(), sent)})[0]
    with torch.no_grad():
        output = model(images)
    assert (torch.from_numpy(sent[0]).int() - output.code.int()).abs().max() <= 1
    assert (torch.from_numpy(logits).argmax(1) == output.prediction.argmax(1)).all()
    torch.testing.assert_close(torch.from_numpy(logits), output.prediction, atol=5e-3, rtol=1e-2)
