"""A CLIP small enough to train on a laptop, whose text tower reads the words of its data: open_clip's classes.

Four convolutions take the place of the image tower's patch embedding (Xiao et al., Early convolutions help transformers
see better, NeurIPS 2021, arXiv 2106.14881): without them it needs many times the pictures to tell shapes apart.

Its words come from the data that it is trained on (`ZooDataModule.words`) and stand in the description of the run, so
that a run brings its tokenizer along. `zoo.models.shapes_clip` are the weights that ship, of the same architecture.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo.models import shapes_clip
from zoo.models.shapes_clip import TAG
from zoo.models.words import WordTokenizer

NAME = "word_clip"
NAMES = (NAME, shapes_clip.NAME)
"""The second is the same network with the words that ship, unless weights or arguments bring others."""
PREFIX = "backbone.clip."
"""Of the towers' keys in a saved run."""
CONTEXT = 32
"""Words that the text tower reads at once, and one number for the end."""


def tokenizer(name: str, words: Sequence[str] | None, context: int | None) -> WordTokenizer:
    """For these words; `shapes_clip` has those that ship, and their context, where none are given.

    Raises:
        ValueError: no words.
    """
    if name == shapes_clip.NAME:
        ships = shapes_clip.facts()
        words, context = words or ships["words"], context or ships["text"]["context_length"]
    if not words:
        raise ValueError(f"{NAME} has no words: give words=[...], or pretrained=RUN with a run of model=clip")
    return WordTokenizer(words, context=context or CONTEXT)


def build(tokenize: WordTokenizer) -> Any:
    """The network as open_clip makes it, with random weights, and `visual.preprocess_cfg` as its factory sets it."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    known = shapes_clip.facts()
    text = known["text"] | {"vocab_size": tokenize.size, "context_length": tokenize.context}
    clip = CLIP(known["embed_dim"], CLIPVisionCfg(**known["vision"]), CLIPTextCfg(**text))
    clip.visual.conv1 = stem(known["stem"])
    clip.visual.preprocess_cfg = known["preprocessing"]
    return clip


def stem(widths: Sequence[int]) -> nn.Sequential:
    """A convolution of stride 2 for each width, with group normalisation and ReLU: n of them make patches of 2^n."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((3, *widths)):
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.GroupNorm(8, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def arguments_of_weights(pretrained: str | None, *, name: str = NAME) -> dict[str, Any]:
    """The words and the context of weights: of those that ship, or as the file of a run says.

    Raises:
        ValueError: there are no such weights, or they are no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if pretrained is None:
        return {}
    words = list(shapes_clip.facts()["words"])
    if pretrained == TAG:
        return {"words": words, "context": shapes_clip.facts()["text"]["context_length"]}
    if not Path(pretrained).is_file():
        raise ValueError(
            f"{name} has no weights {pretrained!r} and there is no such file: did you mean {TAG}? "
            "(or a run of model=clip)"
        )
    positions = f"{PREFIX}positional_embedding"
    try:
        with safe_open(pretrained, "pt") as file:
            description = json.loads((file.metadata() or {}).get("zoo", "{}"))
            context = file.get_slice(positions).get_shape()[0] if positions in file.keys() else None  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{pretrained}: not a safetensors file, or a truncated one ({error})") from None
    own = ((description.get("recipe") or {}).get("backbone") or {}).get("arguments") or {}
    return {"words": own.get("words") or words, "context": context}


def weights(pretrained: str) -> dict[str, Tensor]:
    """The towers' tensors: of the weights that ship (`TAG`), or of the file of a run.

    Raises:
        ValueError: not the weights that were shipped, or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = shapes_clip.content() if pretrained == TAG else Path(pretrained).read_bytes()
    try:
        state = load(content)
    except SafetensorError as error:
        raise ValueError(f"{pretrained}: not a safetensors file, or a truncated one ({error})") from None
    return {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}


def load_weights(clip: Any, pretrained: str) -> None:
    """Copy weights into the network.

    Raises:
        ValueError: see `weights`, or weights of another network.
    """
    state, own = weights(pretrained), clip.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or [key for key in own if own[key].shape != state[key].shape]
    if wrong:
        raise ValueError(f"{pretrained}: no run of model=clip with backbone={NAME}: it lacks or misfits {wrong[0]}")
    clip.load_state_dict(state)
