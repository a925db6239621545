"""The CLIP that ships with the zoo: open_clip's classes, 0.3 million weights, and the words of `data=shapes`.

Four convolutions take the place of the image tower's patch embedding (Xiao et al., Early convolutions help transformers
see better, NeurIPS 2021, arXiv 2106.14881): without them it needs many times the pictures to tell shapes apart.

zoo/assets/shapes_clip.json says what it is (architecture, words, preprocessing) and how its weights were made;
shapes_clip.safetensors beside it holds them, as a run of model=clip that was rounded to half precision.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo.models.words import WordTokenizer

NAME = "shapes_clip"
TAG = "shapes"
PREFIX = "backbone.clip."
"""Of the towers' keys in a saved run."""


@cache
def facts() -> dict[str, Any]:
    """The description that ships beside the weights."""
    return json.loads(files("zoo").joinpath(f"assets/{NAME}.json").read_text(encoding="utf-8"))


def tokenizer() -> WordTokenizer:
    return WordTokenizer(facts()["words"], context=facts()["text"]["context_length"])


def build() -> Any:
    """The network as open_clip makes it, with random weights, and `visual.preprocess_cfg` as its factory sets it."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    known = facts()
    text = CLIPTextCfg(vocab_size=tokenizer().size, **known["text"])
    clip = CLIP(known["embed_dim"], CLIPVisionCfg(**known["vision"]), text)
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


def check_weights(pretrained: str | None) -> None:
    """Whether there are such weights.

    Raises:
        ValueError: there are not.
    """
    if pretrained not in (None, TAG) and not Path(str(pretrained)).is_file():
        raise ValueError(f"{NAME} has no weights {pretrained!r} and there is no such file: did you mean {TAG}?")


def weights(pretrained: str) -> dict[str, Tensor]:
    """The towers' tensors: of the weights that ship (`TAG`, whose hash is checked), or of a file of any such run.

    Raises:
        ValueError: not the weights that were shipped, no such file, or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    check_weights(pretrained)
    path = files("zoo").joinpath(f"assets/{NAME}.safetensors") if pretrained == TAG else Path(pretrained)
    content = path.read_bytes()
    if pretrained == TAG and hashlib.sha256(content).hexdigest() != facts()["sha256"]:
        raise ValueError(f"{path}: not the weights that were shipped (wrong sha256): install the zoo again")
    try:
        state = load(content)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or a truncated one ({error})") from None
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
