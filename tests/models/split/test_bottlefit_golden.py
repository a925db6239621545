"""Parity of BottleFit's parts with the authors' code."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.golden.cases import Case, adapter
from tests.models.split.golden_weights import check_sums, weights_by_rule
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
from zoo.models.split.quantizer import dequantize, quantize_tensor


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _load_by_rule(module: nn.Module, case: Case) -> None:
    if "param_rule" not in case.spec:
        module.load_state_dict(case.param)
        return
    rule = case.spec["param_rule"]
    shapes = {key: value.shape for key, value in module.state_dict().items()}
    state = weights_by_rule(shapes, seed=rule["seed"], gain=rule["gain"])
    check_sums(state, rule["checksums"])
    module.load_state_dict(state)


def _bottleneck(arguments: dict[str, Any]) -> Bottleneck:
    channels, cut, version = (arguments.get(f"bottleneck_{name}") for name in ("channel", "idx", "ver"))
    match arguments["class"]:
        case "Bottleneck4ResNet152":
            return resnet_bottleneck(channels, version=int(version), cut=cut)
        case "Bottleneck4DenseNet":
            return densenet_bottleneck(channels, cut=cut)
        case "Bottleneck4Inception3":
            return inception_bottleneck(channels, cut=cut)
        case "larger_resnet_layer1_bottleneck":
            return layer1_bottleneck(channels, cut=cut)
        case "small_resnet_layer1_bottleneck":
            return layer1_bottleneck(channels, out_channels=64, cut=cut)
        case name:
            raise ValueError(f"no bottleneck for the class {name}")


@adapter("bottlefit", "Bottleneck", "Layer1Bottleneck")
def bottleneck(case: Case) -> dict[str, Any]:
    module = _bottleneck(case.arguments)
    _load_by_rule(module, case)
    module.train(case.mode == "train")
    with torch.no_grad():
        z = module.encoder(case.input["x"])
        message = quantize_tensor(z, num_bits=case.arguments["num_bits"])
        z_hat = dequantize(*message)
        return {
            "output/z": z,
            "output/q": message.code,
            "output/scale": message.scale,
            "output/zero_point": message.zero_point,
            "output/z_hat": z_hat,
            "output/y_float": module.decoder(z),
            "output/y_quantised": module.decoder(z_hat),
            "expected/n_params_encoder": _parameters(module.encoder),
            "expected/n_params_decoder": _parameters(module.decoder),
        }


@adapter("bottlefit", "quantize_tensor")
def quantiser(case: Case) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in case.arguments["tensors"]:
        for bits in case.arguments["num_bits"]:
            message = quantize_tensor(case.input[name], num_bits=bits)
            result[f"output/{name}_b{bits}_q"] = message.code
            result[f"output/{name}_b{bits}_hat"] = dequantize(*message)
            result[f"expected/{name}_b{bits}.scale"] = float(message.scale)
            result[f"expected/{name}_b{bits}.zero_point"] = int(message.zero_point)
    return result


@adapter("bottlefit", "NeuralFilter")
def neural_filter(case: Case) -> dict[str, Any]:
    assert case.arguments["class"] == "Ext4ResNet"
    module = NeuralFilter(in_channels=case.arguments["input_channel"], num_outputs=case.arguments["num_classes"]).eval()
    _load_by_rule(module, case)
    with torch.no_grad():
        logits, probabilities = module.logits(case.input["x"]), module(case.input["x"])
    return {"output/logits": logits, "output/prob": probabilities, "expected/n_params": _parameters(module)}


@adapter("bottlefit", "KDLoss")
def distillation(case: Case) -> dict[str, Tensor]:
    student = case.input["student"].requires_grad_()
    loss = kd_loss(
        student,
        case.input["teacher"],
        case.input["target"],
        alpha=case.arguments["alpha"],
        temperature=case.arguments["temperature"],
        reduction=case.arguments["reduction"],
    )["loss"]
    return {"output/loss": loss, **case.gradients(loss, {"grad/student": student})}


def _student(case: Case) -> BottleFit:
    """The authors' student: one quantiser range for the batch, weights by rule through the key converter."""
    arguments = case.arguments
    network = arguments["class"].removeprefix("custom_")
    model = BottleFit(
        network=network,
        num_outputs=arguments["num_classes"],
        # of a size at which bottleneck and stem align; any other runs too
        image_size=(299, 299) if network.startswith("inception") else (224, 224),
        stem="imagenet",
        bottleneck_channels=arguments["bottleneck_channel"],
        num_bits=arguments.get("num_bits", 8),
        quantizer="batch",
        hint_reduction=arguments.get("reduction", "sum"),
    )
    layers = [*model.head.encoder, *model.tail.decoder]
    moved = Bottleneck(layers, cut=arguments["bottleneck_idx"])
    model.head.encoder, model.tail.decoder = moved.encoder, moved.decoder
    return model


def _reference_key(key: str, network: str) -> str:
    name = key.replace("head.", "bottleneck.").replace("tail.decoder.", "bottleneck.decoder.")
    name = name.removeprefix("tail.layers.")
    return f"features.{name}" if network.startswith("densenet") and not name.startswith("classifier") else name


def _rule(case: Case, part: str) -> tuple[int, float, dict[str, Any]]:
    rule = case.spec["param_rule"]
    several = isinstance(rule["seed"], dict)
    return (
        rule["seed"][part] if several else rule["seed"],
        rule["gain"],
        rule["checksums"][part] if several else rule["checksums"],
    )


def _load_student(model: BottleFit, case: Case) -> None:
    seed, gain, sums = _rule(case, "student")
    own = {key: value.shape for key, value in model.state_dict().items() if not key.startswith("teacher.")}
    reference = weights_by_rule(
        {_reference_key(k, model.network): shape for k, shape in own.items()}, seed=seed, gain=gain
    )
    check_sums(reference, sums)
    assert not model.load_state_dict(BottleFit.convert_state(reference), strict=False).unexpected_keys


@adapter("bottlefit", "student")
def student(case: Case) -> dict[str, Any]:
    model = _student(case).train(case.mode == "train")
    _load_student(model, case)
    with torch.no_grad():
        z = model.head.encoder(case.input["x"])
        return {
            "output/z": z,
            "output/logits": model.tail.layers(model.tail.decoder(z)),
            "output/logits_8bit": model(case.input["x"]).prediction,
            "expected/n_params": _parameters(model.head) + _parameters(model.tail),
        }


@adapter("bottlefit", "GHNDStage1")
def ghnd_stage1(case: Case) -> dict[str, Any]:
    model = _student(case)
    assert model.network == case.arguments["teacher"]
    _load_student(model, case)
    seed, gain, sums = _rule(case, "teacher")
    parts = {**model.teacher.stem.state_dict(), **model.teacher.tail.state_dict()}
    weights = weights_by_rule({key: value.shape for key, value in parts.items()}, seed=seed, gain=gain)
    check_sums(weights, sums)
    for part in (model.teacher.stem, model.teacher.tail):
        part.load_state_dict({key: weights[key] for key in part.state_dict()})
    model.train()
    model.teacher.eval()
    output = model(case.input["x"])
    _, target = model.teacher(case.input["x"])
    pairs = [tuple(pair) for pair in case.arguments["hint_pairs"]]
    terms = hint_terms(output.extras, target, pairs=pairs, reduction=case.arguments["reduction"])
    loss = (terms * terms.new_tensor(case.arguments["hint_weights"])).sum()
    names = [key.split("/", 1)[1] for key in case.wanted if key.startswith("grad/")]
    own = {f"grad/{name}": model.get_parameter(next(iter(BottleFit.convert_state({name: loss})))) for name in names}
    return {
        "output/loss": loss,
        "output/loss_terms": terms,
        "output/layer3_bn_running_mean_after": model.tail.layers.layer3[0].bn1.running_mean,
        **case.gradients(loss, own),
    }
