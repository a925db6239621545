"""The image and text towers of any CLIP in open_clip as a backbone (Radford et al., ICML 2021, arXiv 2103.00020)."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.models import word_clip
from zoo.models.backbone import Backbone
from zoo.models.library_errors import nearest, not_built
from zoo.models.quiet import quiet
from zoo.models.words import WordTokenizer


class Clip(Backbone):
    """CLIP's image embedding, not normalised, with `encode_text` for the words beside it.

    Warns where the weights were trained with QuickGELU and the architecture has GELU, which changes every number
    without an error.

    Args:
        name: an architecture of open_clip, or `hf-hub:...`, `local-dir:...`, or one of the zoo's own: `word_clip`, and
            `shapes_clip`, which ships (see `zoo.models.word_clip`).
        pretrained: a tag or a local file (read without executing pickle); None or false starts from random weights.
        words, context: of the zoo's own, which words it reads and how many at once; weights bring theirs along.

    Raises:
        ValueError: unknown name or tag (with the nearest ones), or weights out of reach.
    """

    def __init__(
        self,
        *,
        name: str = "ViT-B-32",
        pretrained: str | bool | None = None,
        frozen: bool = False,
        words: Sequence[str] | None = None,
        context: int | None = None,
    ):
        from zoo.models.attention_patch import with_zoo_attention

        super().__init__()
        self.name = name
        self.check_weights(name=name, pretrained=pretrained)
        reading = {"words": words, "context": context} | self.arguments_of_weights(name=name, pretrained=pretrained)
        self.tokenizer = word_clip.tokenizer(name, **reading) if name in word_clip.NAMES else None
        self.clip = with_zoo_attention(create(name, str(pretrained) if pretrained else None, self.tokenizer))
        settings = self.clip.visual.preprocess_cfg
        self.input_size = pair(settings["size"])
        self.preprocessing = preprocessing_of(settings, self.input_size)
        device = next(self.clip.parameters()).device
        # the towers of open_clip name their widths differently: one blank image tells both
        self.eval()
        with torch.no_grad():
            blank = torch.zeros(1, 3, *self.input_size, device=device)
            self.feature_dim = self(blank).shape[1]
            self.feature_channels = self.feature_map(blank).shape[1]
        self.train()
        if frozen:
            self.freeze()

    @classmethod
    def check_weights(cls, *, name: str = "ViT-B-32", pretrained: str | bool | None = None, **_: Any) -> None:
        """Whether there are such a network and such weights, without fetching any.

        Raises:
            ValueError: there are not.
        """
        if pretrained is True:
            raise ValueError(f"say which weights: pretrained=TAG of open_clip for {name}, or a file, not true")
        check_names(name, pretrained or None)

    @classmethod
    def arguments_of_weights(
        cls, *, name: str = "ViT-B-32", pretrained: str | bool | None = None, **_: Any
    ) -> dict[str, Any]:
        """Arguments that the name and the weights decide, so that the network can be built again without them."""
        if name not in word_clip.NAMES:
            return {"words": None, "context": None}
        return word_clip.arguments_of_weights(str(pretrained), name=name) if pretrained else {}

    def forward(self, images: Tensor) -> Tensor:
        return self.clip.encode_image(images)

    def feature_map(self, images: Tensor) -> Tensor:
        """The last map of the image tower before its pooling and projection."""
        result = self.clip.visual.forward_intermediates(images, indices=1, intermediates_only=True)
        return result["image_intermediates"][-1]

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """K texts -> (K, feature_dim), not normalised, each text as it stands without a template."""
        return self.clip.encode_text(self.tokenize(texts).to(next(self.clip.parameters()).device))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """K texts -> (K, context length) numbers of words or of parts of words.

        Raises:
            ValueError: a word that one of the zoo's own does not know.
        """
        if self.tokenizer is not None:
            return self.tokenizer(texts)
        import open_clip

        return open_clip.get_tokenizer(self.name)(list(texts))


def check_names(name: str, pretrained: str | None) -> None:
    import open_clip

    if ":" in name:
        folder = Path(name.removeprefix("local-dir:"))
        if name.startswith("local-dir:") and not (folder / "open_clip_config.json").is_file():
            raise ValueError(f"the folder {folder} holds no open_clip_config.json")
        return
    if name in word_clip.NAMES:
        word_clip.arguments_of_weights(pretrained, name=name)
        return
    known = open_clip.list_models()
    if name not in known:
        raise ValueError(f"unknown network of open_clip {name!r}: {nearest(name, [*known, *word_clip.NAMES])}")
    if pretrained is None:
        return
    if Path(pretrained).is_file():
        warn_quick_gelu(name, known)
        return
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained.lower().replace("-", "_") not in {tag.lower().replace("-", "_") for tag in tags}:
        advice = nearest(pretrained, tags)
        raise ValueError(f"{name} has no weights {pretrained!r} and there is no such file: {advice}")


def warn_quick_gelu(name: str, known: Sequence[str]) -> None:
    """A file does not say which activation it was trained with; open_clip checks the tags itself."""
    if f"{name}-quickgelu" in known:
        warnings.warn(
            f"the file cannot say whether it was trained with QuickGELU: weights of OpenAI, MetaCLIP and DFN were, "
            f"and then need name={name}-quickgelu",
            stacklevel=3,
        )


def create(name: str, pretrained: str | None, tokenizer: WordTokenizer | None) -> Any:
    if tokenizer is not None:
        clip = word_clip.build(tokenizer)
        if pretrained is not None:
            word_clip.load_weights(clip, pretrained)
        return clip
    import open_clip

    try:
        # the default device may be meta, where nothing is computed; open_clip would move its model to the processor
        device = torch.get_default_device()
        # open_clip warns that random weights are random: they are wanted, or loaded afterwards
        with quiet() if pretrained is None and ":" not in name else nullcontext():
            return open_clip.create_model(name, pretrained=pretrained, pretrained_text=False, device=device)
    except (OSError, RuntimeError) as error:
        raise not_built(name, error, file="backbone.pretrained", random="backbone.pretrained=null") from error


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def preprocessing_of(settings: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    if settings.get("resize_mode", "shortest") != "shortest":
        mode = settings["resize_mode"]
        warnings.warn(f"these weights expect images resized by {mode!r}; the zoo crops the middle", stacklevel=3)
    return {
        "image_size": size,
        "mean": tuple(settings["mean"]),
        "std": tuple(settings["std"]),
        "crop_pct": 1.0,
        "interpolation": settings.get("interpolation", "bicubic"),
    }
