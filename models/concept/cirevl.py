"""Composed image retrieval by language (CIReVL): Karthik, Roth, Mancini, Akata, ICLR 2024, arXiv 2310.09291.

    reference image --captioner--> caption --rewriter, instruction--> target text --CLIP--> ranking of a gallery

Nothing is trained, and a person corrects a query by editing its caption. Captioners and rewriters stand in
`zoo.models.concept.query_texts`, the benchmarks' figures in `zoo.tasks.metrics.composed_retrieval`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.backbone import Backbone
from zoo.models.concept.query_texts import Captioner, FileCaptioner, FileRewriter, Rewriter, TemplateRewriter
from zoo.models.contract import Intervention, Output, Stage, ZooModel


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
