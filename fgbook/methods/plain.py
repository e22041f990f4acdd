"""The plain backbone: what every method is compared with."""

from torch import Tensor

from ..backbones import Backbone
from .heads import linear
from .method import Method


class Plain(Method):
    """Backbone, global average pooling (GAP), one linear head.

    forward(images): images (B, 3, H, W), float in [0, 1] -> {"image": logits (B, C)}.
    """

    VERSION = 1

    def __init__(self, backbone: Backbone, num_classes: int):
        super().__init__()
        self.backbone = backbone
        self.image_head = linear(backbone.channels, num_classes)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by head; `targets` are not used (other methods do)."""
        maps = self.backbone(images)  # (B, n, h, w)
        return {"image": self.image_head(maps.mean((2, 3)))}
