"""The simple sequential network that Golodov, Dubrovina and Paziya (2018) train from
scratch before they turn to transfer learning.

    model = Simple(None, num_classes=21, head="gap")
    logits = model(images)  # {"image": (B, C)}
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .heads import dense
from .method import Method
from .options import check_choice

HEADS = ("fc", "gap")


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
    image_size: S in pixels. The recipe's, when made by ``methods.build``.
    low: images are first reduced to this fraction of their side: a network for small
        images (paper E's LR-CNN row). 1: they are not.

    Raises InputError for an option out of range.
    """

    VERSION = 1
    VARIANTS = ({"head": "fc"}, {"head": "gap"})
    own_network = True
    from_recipe = ("image_size",)

    def __init__(
        self,
        backbone: object,
        num_classes: int,
        *,
        head: str = "gap",
        filters: tuple[int, ...] = (16, 32, 64),
        image_size: int = 224,
        low: float = 1.0,
    ):
        super().__init__()
        check_choice("head", head, HEADS)
        if not 0 < low <= 1:
            raise InputError(
                f"simple: low is {low}; a fraction of the image's side above 0 and up"
                " to 1 is needed."
            )
        # of the last map, in cells
        side = round(low * image_size) // 2 ** len(filters)
        if not filters or min(filters) < 1 or side < 1:
            raise InputError(
                f"simple: filters are {filters} at {image_size} px; numbers above 0"
                " are needed, at least one, and so few that a pixel is left when each"
                " of them halves the image."
            )
        self.low = low

        layers: list[nn.Module] = []
        inputs = 3
        for outputs in filters:
            layers += [convolution(inputs, outputs), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)

        if head == "fc":
            self.pool: nn.Module = nn.Flatten()
            features = filters[-1] * side**2
        else:
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            features = filters[-1]
        self.image_head = dense(features, num_classes)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by head; `targets` are not used (other methods do)."""
        if self.low < 1:
            side = round(self.low * images.shape[-1])
            images = F.interpolate(
                images,
                size=(side, side),
                mode="bilinear",
                antialias=True,
                align_corners=False,
            )
        maps = self.layers(images)  # (B, filters[-1], S // 8, S // 8)
        return {"image": self.image_head(self.pool(maps))}


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3, which keeps the map's size, and starts as Keras's ``Conv2D`` does: Glorot's
    uniform weights, biases 0.
    """
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.xavier_uniform_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
