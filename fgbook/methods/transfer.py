"""Golodov, Dubrovina, Paziya: Transfer learning approach to fine-grained image
classification (2018). A trunk that never learns, and a classifier.

model = Transfer(create("inception_v3"), num_classes=21, image_size=299) logits =
model(images)                              # {"image": (B, C)} maps =
model.backbone(images)                       # the "bottleneck features": computed
once, kept (see fgbook/features.py) ... logits = model.head(maps)
# ... and read by the classifier as often as training asks for them
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError, unknown
from .heads import dense
from .method import Method


class Classifier(Method):
    """The classifier network (Figures 9 and 11): feature maps (B, n, h, w) -> {"image":
    logits (B, C)}; the softmax is in the loss.

    shape: (n, h, w). pool, hidden, dropout: see :class:`Transfer`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_classes: int,
        pool: str,
        hidden: int,
        dropout: float,
    ):
        super().__init__()
        n, h, w = shape
        self.pool, features = pool, n * h * w if pool == "flatten" else n
        layers = (
            [
                dense(features, hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                dense(hidden, num_classes),
            ]
            if hidden
            else [dense(features, num_classes)]
        )
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
        """Logits by head; `targets` are not used (other methods do)."""
        return {
            "image": self.layers(
                maps.flatten(1) if self.pool == "flatten" else maps.mean((2, 3))
            )
        }

    def losses(
        self, logits: dict[str, Tensor], targets: Tensor, criterion=F.cross_entropy
    ) -> dict[str, Tensor]:
        """{"image": scalar}, the categorical cross-entropy; targets (B,) int64 or (B,
        C) probabilities."""
        return {"image": criterion(logits["image"], targets)}

    def predict(self, maps: Tensor) -> Tensor:
        """Logits (B, C) used at test time."""
        return self(maps)["image"]


class Transfer(Method):
    """A pretrained trunk as feature extractor (Figure 8), and a classifier that alone
    is trained (Figure 9).

    Images are squares (B, 3, S, S), float in [0, 1]. The trunk is always in evaluation
    mode and gets no gradient, so that an image has one feature map, whatever else is in
    its batch.

    pool: "flatten" as in the paper (every place of the map has weights of its own; S
        must be `image_size`), or "gap" (their mean over space).
    hidden: units of the hidden layer (256); 0: none, that is a linear probe, and no
        dropout.
    dropout: share of the hidden units that are dropped in training (0.5).
    image_size: S in pixels, which sets the number of weights behind "flatten". The
        recipe's, when made by ``models.build``.

    Raises InputError for an option out of range.
    """

    VERSION = 1

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        pool: str = "flatten",
        hidden: int = 256,
        dropout: float = 0.5,
        image_size: int = 224,
    ):
        super().__init__()
        if pool not in ("flatten", "gap"):
            raise unknown("pool", pool, ("flatten", "gap"))
        if hidden < 0 or not 0 <= dropout < 1:
            raise InputError(
                "transfer: hidden >= 0 and 0 <= dropout < 1 are needed, not hidden"
                f" {hidden} and dropout {dropout}."
            )
        self.backbone = backbone.eval().requires_grad_(False)
        with torch.no_grad():
            shape = tuple(
                backbone(backbone.mean.new_zeros(1, 3, image_size, image_size)).shape[
                    1:
                ]
            )
        self.head = Classifier(shape, num_classes, pool, hidden, dropout)

    def train(self, mode: bool = True) -> "Transfer":
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by head."""
        with torch.no_grad():
            maps = self.backbone(images)  # (B, n, h, w)
        return self.head(maps, targets)

    def losses(
        self, logits: dict[str, Tensor], targets: Tensor, criterion=F.cross_entropy
    ) -> dict[str, Tensor]:
        """{"image": scalar}."""
        return self.head.losses(logits, targets, criterion)

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) used at test time, from images."""
        return self(images)["image"]
