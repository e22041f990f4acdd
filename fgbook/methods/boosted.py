"""Boosted heads, after Boost-CNN (Moghimi et al. 2016): each head corrects the sum of
those before it.

    model = Boosted(create("resnet50"), num_classes=200)
    outputs = model(images)  # {"rounds": (B, T, C), "image": their sum (B, C)}
    losses = model.losses(outputs, targets)  # {"round1": .., "round2": .., ...}

Boost-CNN trains a whole network a round, one round after another, and looks for the
best step along it. Here the rounds share a backbone, all learn at once, each from
weights that the rounds before it leave in this batch, and the length of the step is
chosen before a round learns it, not after, so that a prediction is a plain sum.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from .heads import linear
from .method import Criterion, Method


def probabilities(targets: Tensor, num_classes: int) -> Tensor:
    """Targets, labels (B,) or probabilities (B, C), as probabilities q (B, C)."""
    if targets.ndim == 2:
        return targets.float()
    return F.one_hot(targets, num_classes).float()


def weights(u: Tensor, a: Tensor) -> Tensor:
    """Boosting weights w (B, C) at scores f (B, C), from u = exp(f / 2) and a = q / u:
    minus twice the gradient of the risk, which is, of each image, the sum over classes
    k and j other than k of q_k exp(-(f_k - f_j) / 2).

    For a label y: w_j = -exp(-(f_y - f_j) / 2) for the other classes j, and w_y is
    minus their sum, so that each image's weights add up to 0.
    """
    return a * u.sum(1, keepdim=True) - u * a.sum(1, keepdim=True)


def newton_step(scores: Tensor, q: Tensor) -> Tensor:
    """The step along the weights that would be best if the risk were a parabola: s w
    (B, C), with one s > 0 for the whole batch.

    w knows the labels, so that the risk along it falls without end; its parabola at the
    start does not. At equal scores the step puts the label 2 above all other classes.
    """
    # A constant added to an image's scores changes nothing, nor does a factor on all of
    # a, for which s makes up. Chosen so that u and a are at most 1:
    half = (scores - scores.amax(1, keepdim=True)) / 2
    lowest = half.masked_fill(q == 0, 0).amin()
    u = half.exp()
    a = q * (lowest - half).clamp(max=0).exp()

    w = weights(u, a)
    slope = w.square().sum() / 2
    # curvature: a quarter of the sum over k and j of a_k u_j (w_k - w_j)^2
    first = (u * w).sum(1, keepdim=True)
    second = (u * w.square()).sum(1, keepdim=True)
    total = u.sum(1, keepdim=True)
    curvature = (a * (w.square() * total - 2 * w * first + second)).sum() / 4
    # no curvature, no slope: all is right by far
    return w * slope / curvature.clamp(min=torch.finfo(w.dtype).tiny)


class Boosted(Method):
    """T heads on one backbone: f = shrinkage * (g_1 + ... + g_T), each g_t a linear
    head on channels of its own, which a 1x1 convolution with ReLU takes from the map
    before it is pooled. (The sum of linear heads on the same features would be one
    linear head.)

    heads: T, one a round. (Not known to us: how many networks the paper boosts.)
    width: channels of each head.
    shrinkage: share of each g_t that is added; below 1 leaves later rounds more to do.

    A round's step is measured on the batch at hand; boosting proper takes one step for
    all training images.

    Raises InputError for an option out of range.
    """

    VERSION = 1
    VARIANTS = ({}, {"heads": 2, "width": 16, "shrinkage": 0.5})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        heads: int = 4,
        width: int = 128,
        shrinkage: float = 1.0,
    ):
        super().__init__()
        if heads < 1 or width < 1 or not 0 < shrinkage <= 1:
            raise InputError(
                "boosted: heads >= 1, width >= 1 and 0 < shrinkage <= 1 are needed, not"
                f" heads {heads}, width {width} and shrinkage {shrinkage}."
            )
        self.shrinkage = shrinkage
        self.backbone = backbone
        self.views = nn.Conv2d(backbone.channels, heads * width, 1)
        nn.init.kaiming_normal_(self.views.weight, nonlinearity="relu")
        self.heads = nn.ModuleList(linear(width, num_classes) for _ in range(heads))

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{"rounds": every g_t (B, T, C), "image": f (B, C)}; `targets` are not used
        (other methods do).
        """
        maps = self.views(self.backbone(images)).relu()  # (B, T * width, h, w)
        features = maps.mean((2, 3)).chunk(len(self.heads), 1)  # of each round
        pairs = zip(self.heads, features, strict=True)
        rounds = torch.stack([head(feature) for head, feature in pairs], 1)
        return {"rounds": rounds, "image": self.shrinkage * rounds.sum(1)}

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """{"round1": .., ...}: of each round the squared distance of g_t from the step
        that the rounds before it ask for (the paper's least squares), summed over
        classes; targets (B,) int64 or (B, C) probabilities. The recipe's criterion is
        not used: the boosting risk stands in its place.
        """
        rounds = logits["rounds"].float()  # also under mixed precision
        q = probabilities(targets, rounds.shape[2])
        scores = torch.zeros_like(rounds[:, 0])  # f after the rounds so far
        losses = {}
        for number, g in enumerate(rounds.unbind(1), start=1):
            step = newton_step(scores, q)
            losses[f"round{number}"] = (g - step).square().sum(1).mean()
            scores = scores + self.shrinkage * g.detach()
        return losses
