"""API-Net (Zhuang, Wang and Qiao 2020): attentive pairwise interaction. Two images that
are easily confused are looked at together, as people do, and each shows the other where
to look.

    model = APINet(create("resnet101"), num_classes=200)
    outputs = model(images, targets)  # recipe.per_class = 4: pairs within the batch
    # {"self": (B, 2, 2, C), "other": (B, 2, 2, C), "partner": (B, 2)}
    losses = model.losses(outputs, targets)  # {"softmax", "rank"}
    probabilities = model.eval().predict(images).softmax(1)  # each image alone
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from .heads import linear
from .method import Criterion, Method


class APINet(Method):
    """In training, each image meets the most similar image of its own class in the
    batch and the most similar one of another class; alone, at test time, it is the
    plain backbone with its head. Images (B, 3, H, W), float in [0, 1].

    The recipe's per_class lets classes meet themselves in a batch (paper: 30 classes,
    4 images of each).

    width: between the two layers that make the mutual vector of a pair (512).
    margin: by how much an image's own gate has to be ahead of its partner's (0.05).
    dropout: in the mutual vector and before the head (0.5).

    Where the paper's rule leaves something open, or code and paper differ from us:

    - An image without a partner of the one kind meets that of the other kind twice, so
      that every image counts the same; one without any partner meets itself. Public
      code: takes the first image of the batch.
    - Code, not here: the backbone rests for the first 8 epochs.
    - Code, as here: training's features are longer than those at test time, by the
      factor 1 + gate.

    Raises InputError for an option out of range.
    """

    VERSION = 1
    VARIANTS = ({}, {"width": 16, "margin": 0.2, "dropout": 0.0})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        width: int = 512,
        margin: float = 0.05,
        dropout: float = 0.5,
    ):
        super().__init__()
        if width < 1 or margin < 0 or not 0 <= dropout < 1:
            raise InputError(
                "apinet: width >= 1, margin >= 0 and 0 <= dropout < 1 are needed, not"
                f" width {width}, margin {margin}, dropout {dropout}."
            )
        self.margin = margin
        self.backbone = backbone
        self.image_head = linear(backbone.channels, num_classes)
        self.dropout = nn.Dropout(dropout)
        # no nonlinearity in between, as in the public code
        self.mutual = nn.Sequential(
            nn.Linear(2 * backbone.channels, width),
            nn.Dropout(dropout),
            nn.Linear(width, backbone.channels),
        )

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of pairs (B, 2, 2, C): of each image, the pair with its own class and
        that with another one; in each, the image and its partner. "self": seen through
        its own gate, "other": through the other's. "partner" (B, 2): who that is.

        Without targets there are no pairs: "image", logits (B, C), see ``predict``.
        """
        vectors = self.backbone(images).mean((2, 3))  # (B, n)
        if targets is None:
            return {"image": self.image_head(vectors)}
        partner = partners(vectors, targets)  # (B, 2)
        first = vectors[:, None].expand(-1, 2, -1)
        pair = torch.stack([first, vectors[partner]], 2)  # (B, 2, 2, n)

        # the mutual vector, the gates, and what they do (eq. 1-3)
        mutual = self.mutual(pair.flatten(2))[:, :, None]  # (B, 2, 1, n)
        gates = (mutual * pair).sigmoid()
        by_self = pair + pair * gates
        by_other = pair + pair * gates.flip(2)
        return {
            "self": self.image_head(self.dropout(by_self)),
            "other": self.image_head(self.dropout(by_other)),
            "partner": partner,
        }

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """The criterion of all 8 B logits, "softmax"; and "rank", the mean over the 4 B
        members of max(0, p_other - p_self + margin), p being the probability of the
        member's own class (of mixed images: the sum over its classes by their shares).
        """
        first = targets[:, None].expand(-1, 2, *targets.shape[1:])
        of_pair = torch.stack([first, targets[logits["partner"]]], 2).flatten(0, 2)
        by_self = logits["self"].flatten(0, 2)  # (4B, C)
        by_other = logits["other"].flatten(0, 2)

        everything = torch.cat([by_self, by_other])
        softmax = criterion(everything, torch.cat([of_pair, of_pair]))

        shares = of_pair
        if targets.ndim == 1:
            classes = torch.arange(by_self.shape[1], device=targets.device)
            shares = (of_pair[:, None] == classes).float()
        # in float32 also under mixed precision: the margin is small
        p_self = (by_self.float().softmax(1) * shares).sum(1)
        p_other = (by_other.float().softmax(1) * shares).sum(1)
        rank = (p_other - p_self + self.margin).clamp(min=0).mean()
        return {"softmax": softmax, "rank": rank}

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) of each image alone: no pair, no gate."""
        return self.image_head(self.backbone(images).mean((2, 3)))


@torch.no_grad()
def partners(vectors: Tensor, targets: Tensor) -> Tensor:
    """The nearest image of the same class, and the nearest of another class, by
    Euclidean distance: vectors (B, n), targets (B,) or (B, C) -> (B, 2) int64.

    Where one is missing it is the other one; where both are, the image itself. The
    class of mixed images is that with the largest share.
    """
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    with torch.autocast(vectors.device.type, enabled=False):
        distance = torch.cdist(vectors.float(), vectors.float())  # (B, B)
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)

    of_same = distance.masked_fill(~same | itself, torch.inf).argmin(1)
    of_other = distance.masked_fill(same, torch.inf).argmin(1)
    has_same = (same & ~itself).any(1)
    has_other = (~same).any(1)

    alone = torch.where(
        has_same, of_same, torch.arange(len(labels), device=labels.device)
    )
    other = torch.where(has_other, of_other, alone)
    return torch.stack([torch.where(has_same, of_same, other), other], 1)
