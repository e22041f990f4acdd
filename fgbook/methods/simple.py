"""The simple sequential network that Golodov, Dubrovina and Paziya (2018) train from
scratch before they turn to transfer learning.

    model = Simple(None, num_classes=21, head="gap")
    logits = model(images)                              # {"image": (B, C)}
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, unknown
from .heads import dense
from .method import Method


class Simple(Method):
    """Input-Conv-MaxPool-Conv-MaxPool-Conv-MaxPool-(Flatten | GlobalAvgPool)-FC-SoftMax
    (section III.A); the softmax is in the loss.

    Images are squares (B, 3, S, S), float in [0, 1], and stay so, as in the Keras
    examples of the paper's year: no mean is subtracted.

    backbone: ignored. This method brings its own network; recipes say backbone="none",
        weights="none".
    head: "fc" reads all C_3 * (S // 8) ** 2 numbers of the last map (S must be
        `image_size`), "gap" their means over space.
    filters: of the convolutions (silent: 16, 32, 64). They are 3x3 with ReLU and keep
        the map's size (silent); each pooling halves it.
    image_size: S in pixels. The recipe's, when made by ``models.build``.
    low: images are first reduced to this fraction of their side: a network for small
        images (paper E's LR-CNN row). 1: they are not.

    Raises InputError for an option out of range.
    """

    VERSION = 1

    def __init__(
        self,
        backbone,
        num_classes: int,
        *,
        head: str = "gap",
        filters: tuple[int, ...] = (16, 32, 64),
        image_size: int = 224,
        low: float = 1.0,
    ):
        super().__init__()
        if head not in ("fc", "gap"):
            raise unknown("head", head, ("fc", "gap"))
        side = round(low * image_size) // 2 ** len(filters)
        if not 0 < low <= 1:
            raise InputError(
                f"simple: low is {low}; a fraction of the image's side above 0 and up"
                " to 1 is needed."
            )
        if not filters or min(filters) < 1 or side < 1:
            raise InputError(
                f"simple: filters are {filters} at {image_size} px; at least one number"
                " above 0 is needed, and no more than halvings that leave a pixel."
            )
        self.low = low
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *filters), filters):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            nn.init.xavier_uniform_(convolution.weight)  # Keras's default
            nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers)
        self.pool = (
            nn.Flatten()
            if head == "fc"
            else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        )
        self.image_head = dense(
            filters[-1] * (side**2 if head == "fc" else 1), num_classes
        )

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by head; `targets` are not used (other methods do)."""
        if self.low < 1:
            images = F.interpolate(
                images,
                size=(round(self.low * images.shape[-1]),) * 2,
                mode="bilinear",
                antialias=True,
                align_corners=False,
            )
        maps = self.layers(images)  # (B, filters[-1], S // 8, S // 8)
        return {"image": self.image_head(self.pool(maps))}

    def losses(
        self, logits: dict[str, Tensor], targets: Tensor, criterion=F.cross_entropy
    ) -> dict[str, Tensor]:
        """{"image": scalar}; targets (B,) int64 or (B, C) probabilities."""
        return {"image": criterion(logits["image"], targets)}

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) used at test time."""
        return self(images)["image"]
