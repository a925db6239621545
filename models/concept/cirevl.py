"""Composed image retrieval by language (CIReVL): Karthik, Roth, Mancini, Akata, ICLR 2024, arXiv 2310.09291.

    reference image --captioner--> caption --rewriter, instruction--> target text --CLIP--> ranking of a gallery

Nothing is trained, and a person corrects a query by editing its caption. A captioner and a rewriter are any callables;
the ones here read files, fill a template, or wrap a language model that the user brings. As in the released code, an
answer of a language model without the line "Edited Description:" falls back to the instruction.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.backbone import Backbone
from zoo.models.contract import Intervention, Output, Stage, ZooModel

MARK = "Edited Description:"


class Captioner(Protocol):
    def __call__(self, image: str) -> str:
        """A caption of the image of this name."""


class Rewriter(Protocol):
    def __call__(self, caption: str, instruction: str) -> str:
        """The caption of the wanted image: what `caption` says, changed as `instruction` asks."""


class FileCaptioner:
    """Captions from a JSON object {image name: caption}."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @cached_property
    def captions(self) -> dict[str, str]:
        return read_table(self.path)

    def __call__(self, image: str) -> str:
        if image not in self.captions:
            raise ValueError(f"{self.path.name} holds no caption of {image!r}: add it, or give a captioner")
        return self.captions[image]


class TemplateRewriter:
    """The rewriter without a language model: both sentences in one."""

    def __init__(self, template: str = "{caption}, but {instruction}"):
        self.template = template

    def __call__(self, caption: str, instruction: str) -> str:
        return self.template.format(caption=caption.strip().rstrip("."), instruction=instruction.strip().rstrip("."))


class FileRewriter:
    """Finished texts from a JSON object {caption: {instruction: text}}."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @cached_property
    def texts(self) -> dict[str, dict[str, str]]:
        return read_table(self.path)

    def __call__(self, caption: str, instruction: str) -> str:
        found = self.texts.get(caption, {}).get(instruction)
        if found is None:
            raise ValueError(f"{self.path.name} holds no text for caption {caption!r} and instruction {instruction!r}")
        return found


class LanguageModelRewriter:
    """Asks `complete`, any callable from a prompt to an answer, and reads the answer's "Edited Description:" line."""

    PROMPT = (
        "An image is described as: {caption}\n"
        "It shall be changed like this: {instruction}\n"
        f"Describe the changed image in one sentence. Answer with one line that starts with '{MARK}'."
    )

    def __init__(self, complete: Callable[[str], str], *, prompt: str = PROMPT):
        self.complete, self.prompt = complete, prompt

    def __call__(self, caption: str, instruction: str) -> str:
        return read_answer(self.complete(self.prompt.format(caption=caption, instruction=instruction)), instruction)


def read_answer(answer: str, instruction: str) -> str:
    """The text after the first "Edited Description:" that starts a line, or the instruction where there is none.

    >>> read_answer("Sure!\\nEdited Description: a red cup", "make it red")
    'a red cup'
    """
    lines = (line.strip() for line in answer.splitlines())
    found = next((line.removeprefix(MARK).strip() for line in lines if line.startswith(MARK)), "")
    return found or instruction


def read_table(path: str | Path) -> dict[str, Any]:
    table = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(table, Mapping):
        raise ValueError(f"{Path(path).name} holds a {type(table).__name__} where a JSON object is expected")
    return dict(table)


def pad_to_ratio(image: Tensor, *, ratio: float = 1.25) -> Tensor:
    """Pad the shorter side of image (C, H, W) with zeros on both sides until the longer is at most `ratio` times it."""
    height, width = image.shape[-2:]
    wanted = max(height, width) / ratio
    rows, columns = max(int((wanted - height) / 2), 0), max(int((wanted - width) / 2), 0)
    return F.pad(image, (columns, columns, rows, rows))


class CIReVL(ZooModel):
    """Ranks a gallery of images for an image and an instruction, or for any text.

    Args:
        backbone: a CLIP with `encode_text` (`zoo.models.clip_backbone.Clip`).
        gallery_size: images in the gallery; set when `prepare` or `index` has filled it.
        captions, texts: JSON files of captions and of rewritten captions. template: rewrites without a file.

    Attributes:
        captioner, rewriter: made from these arguments; assign any callable of the same form.
    """

    instead_of_training = 'it finds images and has no classes: python -m zoo search "TEXT" IMAGES --but "WHAT DIFFERS"'
    gallery: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        gallery_size: int = 0,
        captions: str | None = None,
        texts: str | None = None,
        template: str = "{caption}, but {instruction}",
    ):
        super().__init__()
        if not hasattr(backbone, "encode_text"):
            raise ValueError("cirevl compares images with texts: choose a CLIP (backbone=clip)")
        self.backbone = backbone
        self.captioner: Captioner | None = FileCaptioner(captions) if captions else None
        self.rewriter: Rewriter = FileRewriter(texts) if texts else TemplateRewriter(template)
        self.register_buffer("gallery", torch.zeros(gallery_size, backbone.feature_dim))

    def stages(self) -> list[Stage]:
        """None: nothing is trained."""
        return []

    @torch.no_grad()
    def prepare(self, datamodule: Any) -> None:
        """Index the training images, in the order of their index."""
        self.eval()
        rows, order = [], []
        for batch in datamodule.train_dataloader():
            cached = batch.get("features")
            rows.append(self.backbone(batch["image"].to(self.gallery)) if cached is None else cached.to(self.gallery))
            order.append(batch["index"])
        self.index(torch.cat(rows)[torch.cat(order).argsort()])

    def fitted_arguments(self) -> dict[str, Any]:
        return {"gallery_size": len(self.gallery)}

    def index(self, features: Tensor) -> None:
        """Make images with these features (G, D) the gallery."""
        self.gallery = F.normalize(features, dim=-1)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features (B, D) of images or texts; `prediction` (B, G) is the cosine with each image of the gallery."""
        return Output(F.normalize(features, dim=-1) @ self.gallery.mT, latent=features)

    def describe(self, images: Sequence[str], instructions: Sequence[str]) -> list[str]:
        """The target texts of queries: caption each named image and rewrite it."""
        if self.captioner is None:
            raise ValueError("cirevl has no captions: give model.captions=FILE.json, or assign model.captioner")
        return [self.rewriter(self.captioner(image), text) for image, text in zip(images, instructions, strict=True)]

    @torch.no_grad()
    def search(self, texts: Sequence[str], *, reference: Tensor | None = None) -> Output:
        """Rank the gallery for texts. `reference` (B, D), features of reference images, is averaged in (GeneCIS)."""
        query = F.normalize(self.backbone.encode_text(texts), dim=-1)  # type: ignore[operator]
        if reference is not None:
            query = F.normalize(query + F.normalize(reference, dim=-1), dim=-1)
        return self.forward_features(query)


def ranks(similarity: Tensor, target: Tensor) -> Tensor:
    """0-based rank of the gallery images `target` (Q, T) in rows of similarity (Q, G); ties go to the lower index."""
    order = similarity.argsort(dim=-1, descending=True, stable=True)
    return order.argsort(dim=-1).gather(1, target)


def share_within(rank: Tensor, k: int) -> float:
    return float((rank < k).double().mean()) * 100


def fashion_iq(similarity: Tensor, target: Tensor, *, at: Sequence[int] = (10, 50)) -> dict[str, float]:
    """Recall@k in percent, similarity (Q, G), target (Q,)."""
    rank = ranks(similarity, target[:, None])[:, 0]
    return {f"Recall@{k}": share_within(rank, k) for k in at}


def cirr(
    similarity: Tensor,
    target: Tensor,
    reference: Tensor,
    group: Tensor,
    *,
    at: Sequence[int] = (1, 5, 10, 50),
    group_at: Sequence[int] = (1, 2, 3),
) -> dict[str, float]:
    """recall@k without the reference image in the ranking, and group_recall@k among the group members (Q, 5) alone."""
    without = similarity.scatter(1, reference[:, None], -torch.inf)
    rank = ranks(without, target[:, None])[:, 0]
    members = without.gather(1, group)
    in_group = ranks(members, (group == target[:, None]).int().argmax(1, keepdim=True))[:, 0]
    recall = {f"recall@{k}": share_within(rank, k) for k in at}
    return recall | {f"group_recall@{k}": share_within(in_group, k) for k in group_at}


def circo(similarity: Tensor, targets: Tensor, *, at: Sequence[int] = (5, 10, 25, 50)) -> dict[str, float]:
    """mAP@k over all targets (Q, T), padded with -1, and recall@k of the first, in percent.

    AP@k = 1 / min(T, k) * sum over targets at rank r <= k of (targets up to r) / r.
    """
    valid = targets >= 0
    places = ranks(similarity, targets.clamp(min=0)).double().masked_fill(~valid, torch.inf) + 1
    places = places.sort(dim=-1).values
    precision = torch.arange(1, places.shape[1] + 1, device=places.device) / places
    scores = {}
    for k in at:
        average = (precision * (places <= k)).sum(1) / valid.sum(1).clamp(max=k)
        scores[f"mAP@{k}"] = float(average.mean()) * 100
    first = ranks(similarity, targets[:, :1])[:, 0]
    return scores | {f"recall@{k}": share_within(first, k) for k in at}
