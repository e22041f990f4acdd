"""Self-supervised pretraining: SimSiam (Chen and He 2021), in two stages. Two views of
a picture should look alike; no label is asked for.

    first = SimSiam(create("resnet50"), num_classes=200, part="pretrain", views=2)
    # learns from pictures alone; the classifier rests
    second = SimSiam(create("resnet50"), num_classes=200, part="classifier")
    # starts from first's weights: backbone and a new head are fine-tuned

Paper C lists "self-supervised learning" and does not say which. SimSiam needs neither
large batches, nor negatives, nor a second network.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from .heads import linear
from .method import Criterion, Method
from .options import check_choice

PARTS = ("pretrain", "classifier")


def layer(inputs: int, outputs: int) -> list[nn.Module]:
    """Linear layer with BatchNorm: no bias, because BatchNorm has one."""
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)]


def similarity(
    predicted: tuple[Tensor, Tensor], projected: tuple[Tensor, Tensor]
) -> Tensor:
    """The symmetric loss, their equation 4: each view's prediction p (B, w) against the
    other's projection z (B, w), which gets no gradient.

    D(p, z) is the negative cosine; the loss is the mean over images of D(p1, z2) / 2 +
    D(p2, z1) / 2, from -1 (alike) to 1.
    """
    p1, p2 = predicted
    z1, z2 = projected
    # detach: without the stopped gradient all images become one (section 4.1)
    cosines = F.cosine_similarity(p1, z2.detach(), dim=1)
    cosines = cosines + F.cosine_similarity(p2, z1.detach(), dim=1)
    return -cosines.mean() / 2


def spread(projected: Tensor) -> Tensor:
    """Whether the projections (B, w) have collapsed: the standard deviation over images
    of z / |z|, mean over its w numbers, times the square root of w. About 1 where
    directions are as different as can be, 0 where all images have become one (their
    section 4.1).
    """
    unit = F.normalize(projected.detach(), dim=1)
    return unit.std(0, correction=0).mean() * projected.shape[1] ** 0.5


class SimSiam(Method):
    """Backbone and GAP, a projector and a predictor on top; a linear head for later.
    Images (B, 3, H, W), float in [0, 1].

    part: which half learns. "pretrain": takes two views of each picture, all first ones
        and then all second ones (recipe.views = 2), and learns to predict the one's
        projection from the other's (labels are not used, and its class predictions mean
        nothing). "classifier": the plain backbone with a linear head; start it from a
        pretrained one. The head is then still new.
    width: of the projector, three layers with BatchNorm after each and ReLU between
        them (2048 in the paper, on ResNet-50); hidden: of the predictor's bottleneck (a
        quarter of the width, as there).
    views: the recipe's, when made by ``methods.build``.

    Different from the paper: BatchNorm takes its statistics over both views at once.
    Raises InputError for an option out of range.
    """

    VERSION = 1
    from_recipe = ("views",)

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        part: str = "classifier",
        width: int = 512,
        hidden: int = 128,
        views: int = 1,
    ):
        super().__init__()
        check_choice("part", part, PARTS)
        if width < 1 or hidden < 1:
            raise InputError(
                f"simsiam: width and hidden are numbers of units above 0, not {width}"
                f" and {hidden}."
            )
        if part == "pretrain" and views != 2:
            raise InputError(
                "simsiam: pretraining compares two views of each picture; set views=2"
                f" in the recipe, not {views}."
            )
        self.part = part
        self.backbone = backbone
        # before the rest: the plain backbone's head for the same seed
        self.image_head = linear(backbone.channels, num_classes)
        self.projector = nn.Sequential(
            *layer(backbone.channels, width),
            nn.ReLU(),
            *layer(width, width),
            nn.ReLU(),
            *layer(width, width),
        )
        self.predictor = nn.Sequential(
            *layer(width, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )
        # what rests: in either part the other one's layers
        if part == "pretrain":
            self.image_head.requires_grad_(False)
        else:
            self.projector.requires_grad_(False)
            self.predictor.requires_grad_(False)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Part "classifier": {"image": logits (B, C)}. part "pretrain": 2B views ->
        {"projected", "predicted"}, each (2B, width).
        """
        if self.part == "classifier":
            return {"image": self.predict(images)}
        projected = self.projector(self.backbone(images).mean((2, 3)))
        return {"projected": projected, "predicted": self.predictor(projected)}

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """{"image": criterion(logits, targets)}; or {"similarity": scalar, "spread":
        scalar}: the second one is only to be watched, has no gradient, and wants the
        weight 0 in recipe.loss_weights.
        """
        if self.part == "classifier":
            return super().losses(logits, targets, criterion)
        # cosines in float32 under mixed precision too
        z1, z2 = logits["projected"].float().chunk(2)
        p1, p2 = logits["predicted"].float().chunk(2)
        return {
            "similarity": similarity((p1, p2), (z1, z2)),
            "spread": spread(logits["projected"].float()),
        }

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) of the linear head."""
        return self.image_head(self.backbone(images).mean((2, 3)))
