"""Golodov, Dubrovina, Paziya: Transfer learning approach to fine-grained image
classification (2018). A backbone that never learns, and a classifier.

    model = Transfer(create("inception_v3"), num_classes=21, image_size=299)
    logits = model(images)  # {"image": (B, C)}

    # The "bottleneck features" are computed once and kept (fgbook.training.features),
    # and the classifier reads them as often as training asks for them.
    maps = model.backbone(images)
    logits = model.head(maps)
"""

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from .frozen import Frozen
from .heads import dense
from .method import Method
from .options import check_choice

POOLS = ("flatten", "gap")


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
        self.pool = pool
        features = n * h * w if pool == "flatten" else n
        if hidden:
            self.layers = nn.Sequential(
                dense(features, hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                dense(hidden, num_classes),
            )
        else:
            self.layers = nn.Sequential(dense(features, num_classes))

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by head; the `images` are feature maps (B, n, h, w), and `targets` are
        not used (other methods do).
        """
        maps = images
        features = maps.flatten(1) if self.pool == "flatten" else maps.mean((2, 3))
        return {"image": self.layers(features)}


class Transfer(Frozen):
    """A pretrained backbone that extracts features (Figure 8), and a classifier that
    alone is trained (Figure 9).

    Images are squares (B, 3, S, S), float in [0, 1].

    pool: "flatten" as in the paper (every place of the map has weights of its own; S
        must be `image_size`), or "gap" (their mean over space).
    hidden: units of the hidden layer (256); 0: none, that is a linear probe, and no
        dropout.
    dropout: share of the hidden units that are dropped in training (0.5).
    image_size: S in pixels, which sets the number of weights behind "flatten". The
        recipe's, when made by ``methods.build``.

    Raises InputError for an option out of range.
    """

    VERSION = 1
    VARIANTS = ({}, {"pool": "gap", "hidden": 0})
    from_recipe = ("image_size",)

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
        check_choice("pool", pool, POOLS)
        if hidden < 0 or not 0 <= dropout < 1:
            raise InputError(
                "transfer: hidden >= 0 and 0 <= dropout < 1 are needed, not hidden"
                f" {hidden} and dropout {dropout}."
            )
        with torch.no_grad():
            device = next(backbone.parameters()).device
            empty = torch.zeros(1, 3, image_size, image_size, device=device)
            _, n, h, w = backbone.eval()(empty).shape
        head = Classifier((n, h, w), num_classes, pool, hidden, dropout)
        super().__init__(backbone, head)
