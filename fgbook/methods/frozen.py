"""What methods on a backbone that never learns have in common."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbones import Backbone
from .method import Criterion, Method


class Frozen(Method):
    """A pretrained backbone that extracts features, and a head that reads its maps (B,
    n, h, w), itself a Method.

    The backbone is always in evaluation mode and gets no gradient, so that an image has
    one feature map, whatever else is in its batch: the maps are computed once, and
    `head` alone is trained and kept.
    """

    frozen_backbone = True

    def __init__(self, backbone: Backbone, head: Method):
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.head = head

    def train(self, mode: bool = True) -> "Frozen":
        """As every module's; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What the head gives of the images' maps."""
        with torch.no_grad():
            maps = self.backbone(images)  # (B, n, h, w)
        return self.head(maps, targets)

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """The head's."""
        return self.head.losses(logits, targets, criterion)
