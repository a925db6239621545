"""Parity of LITv2's parts with the authors' code."""

from typing import Any

import torch
from torch import Tensor

from tests.golden.cases import Case, adapter
from zoo.models.vision.hilo import HiLo
from zoo.models.vision.litv2 import LITv2
from zoo.models.vision.token_merging import DeformableTokenMerging


def _part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A part's weights through the converter of the whole network."""
    return {key.removeprefix("backbone."): value for key, value in LITv2.convert_state(state).items()}


@adapter("litv2", "HiLo")
def hilo(case: Case) -> dict[str, Any]:
    arguments = case.arguments
    module = HiLo(
        arguments["dim"],
        num_heads=arguments["num_heads"],
        window_size=arguments["window_size"],
        alpha=arguments["alpha"],
        qkv_bias=arguments["qkv_bias"],
        scale=arguments["qk_scale"],
    ).train(case.mode == "train")
    module.load_state_dict(_part(case.param))
    x = case.input["x"].requires_grad_()
    height, width = arguments["H"], arguments["W"]
    y = module(x.unflatten(1, (height, width))).flatten(1, 2)
    gradients = case.gradients((y**2).sum(), {"grad/x": x})
    return {"output/y": y, "expected/flops": module.macs(height, width), **gradients}


@adapter("litv2", "DeformableTokenMerging")
def token_merging(case: Case) -> dict[str, Tensor]:
    module = DeformableTokenMerging(case.arguments["dim"]).train(case.mode == "train")
    module.load_state_dict(_part(case.param))
    with torch.no_grad():
        merged = module(case.input["x"].unflatten(1, tuple(case.arguments["input_resolution"])))
    return {"output/y": merged.flatten(1, 2)}


@adapter("litv2", "LITv2")
def network(case: Case) -> dict[str, Any]:
    arguments = case.arguments
    model = LITv2(
        num_outputs=arguments["num_classes"],
        in_channels=arguments["in_chans"],
        image_size=(arguments["img_size"],) * 2,
        embed_dim=arguments["embed_dim"],
        depths=arguments["depths"],
        num_heads=arguments["num_heads"],
        drop_path=arguments["drop_path_rate"],
        window_sizes=[window if msa else 0 for window, msa in zip(arguments["local_ws"], arguments["has_msa"])],
        alpha=arguments["alpha"],
        mlp_ratio=arguments["mlp_ratio"],
        qkv_bias=arguments["qkv_bias"],
        patch_size=arguments["patch_size"],
    ).train(case.mode == "train")
    model.load_state_dict(LITv2.convert_state(case.param))
    with torch.no_grad():
        output = model(case.input["x"])
    return {
        "output/logits": output.prediction,
        "output/features": output.latent,
        "expected/params": sum(p.numel() for p in model.parameters()),
    }
