"""The plain backbone: what every method is compared with."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone


def linear(features: int, num_classes: int) -> nn.Linear:
    """A new head: weights from N(0, 0.01), biases 0, so that training starts near equal
    probabilities whatever the number of features."""
    head = nn.Linear(features, num_classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


class Plain(nn.Module):
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

    def losses(
        self, logits: dict[str, Tensor], targets: Tensor, criterion=F.cross_entropy
    ) -> dict[str, Tensor]:
        """{"image": scalar}; targets (B,) int64 or (B, C) probabilities,
        criterion(logits (N, C), targets) -> scalar."""
        return {"image": criterion(logits["image"], targets)}

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) used at test time."""
        return self(images)["image"]
