"""Cross-X (Luo et al. 2019): several excitations of the same maps, each pushed to mean
the same in all images and something else than the others; and two layers that have to
agree.

    model = CrossX(create("resnet50"), num_classes=200)
    outputs = model(images)
    # logits (B, C): "image" (last layer), "early" (the one before), "both"
    # parts (B, P, n): "image_parts", "early_parts", "both_parts"
    losses = model.losses(outputs, targets)  # {"classes": .., "agree": .., "parts": ..}
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from .heads import linear
from .method import Criterion, Method
from .options import check_choice

POOLS = ("avg", "max")
LAYERS = ("image", "early", "both")


class Excitations(nn.Module):
    """One squeeze, P excitations (OSME, section 3.1): maps (B, n, h, w) -> gates (B, P,
    n, 1, 1), each sigmoid(W_2p ReLU(W_1p mean over places)).
    """

    def __init__(self, channels: int, parts: int, reduction: int):
        super().__init__()
        hidden = max(1, channels // reduction)
        # 1x1 convolutions of one place; a group for each p
        self.first = nn.Conv2d(channels, parts * hidden, 1)
        self.last = nn.Conv2d(parts * hidden, parts * channels, 1, groups=parts)
        self.parts = parts

    def forward(self, maps: Tensor) -> Tensor:
        """The gates m_p."""
        squeezed = maps.mean((2, 3), keepdim=True)  # (B, n, 1, 1)
        gates = self.last(self.first(squeezed).relu()).sigmoid()
        return gates.unflatten(1, (self.parts, -1))


def separation(parts: Tensor) -> Tensor:
    """Cross-category, cross-semantic regulariser (C3S, section 3.2), a scalar: sum over
    p of (1 - S_pp) and over p < q of S_pq, where S_pq is the mean cosine of excitation
    p in one image and q in another, over all pairs of images, whatever their class;
    parts (B, P, n).

    The mean of all cosines is the inner product of the mean unit vectors, so no (B, B)
    matrix is made. In float32 also under mixed precision.
    """
    with torch.autocast(parts.device.type, enabled=False):
        means = F.normalize(parts.float(), dim=2).mean(0)  # (P, n)
        s = means @ means.T  # (P, P)
    return (1 - s.diagonal()).sum() + s.triu(1).sum()


class CrossX(Method):
    """Three heads on the parts of two layers, trained on the sum of their logits.

    The authors gate what the last block of a ResNet's stage adds to its input, before
    the sum, and take what is positive. Not all maps end in such a sum, so here the
    stage's map is gated as it is. The maxima of such a map can be large: the head of
    the early parts reads them brought to mean 0 and variance 1, or it would start far
    from equal probabilities, and the other layers have to agree with it. Where the
    early layer is frozen, only its gates and its head learn.

    parts: excitations P (2; 3 for the authors' dogs).
    reduction: channels of a map over hidden units of an excitation. (256 in the public
        code, for maps of 1024 and 2048 channels; 16 is the usual one.)
    pool: of the early layer's parts, over places: "max" (the authors' for birds) or
        "avg" (cars, dogs, aircraft). Parts of the other two are averaged.
    gammas: weights of the separation of the last, the early and the combined layer's
        parts (0.5, 0.25, 0.5 for birds; 1, 0.25, 1 for cars).

    Raises InputError for an option out of range, or a backbone with one depth.
    """

    VERSION = 2
    VARIANTS = ({}, {"parts": 3, "pool": "avg", "reduction": 8})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        parts: int = 2,
        reduction: int = 16,
        pool: str = "max",
        gammas: tuple[float, ...] = (0.5, 0.25, 0.5),
    ):
        super().__init__()
        check_choice("pool", pool, POOLS)
        if parts < 1 or reduction < 1:
            raise InputError(
                "crossx: parts and reduction must be at least 1, not parts"
                f" {parts} and reduction {reduction}."
            )
        if len(gammas) != len(LAYERS) or min(gammas) < 0:
            raise InputError(
                "crossx: gammas must be three numbers of at least 0, of the last, the"
                f" early and the combined layer; got {gammas!r}."
            )
        if len(backbone.depths) < 2:
            raise InputError(
                f"crossx: {backbone.name} gives a map at one depth and two are needed;"
                " choose a convolutional backbone."
            )
        self.pool = pool
        self.gammas = gammas
        self.backbone = backbone
        early, late = (depth.channels for depth in backbone.depths[-2:])
        self.late_gates = Excitations(late, parts, reduction)
        self.early_gates = Excitations(early, parts, reduction)

        # for each part on its own (groups): to the early layer's channels, and the
        # convolution after their sum
        wide, narrow = parts * late, parts * early
        self.narrow = nn.Conv2d(wide, narrow, 1, bias=False, groups=parts)
        self.join = nn.Sequential(
            nn.Conv2d(narrow, narrow, 3, padding=1, bias=False, groups=parts),
            nn.BatchNorm2d(narrow),
        )
        self.heads = nn.ModuleDict()
        for name, inputs in zip(LAYERS, (wide, narrow, narrow), strict=True):
            self.heads[name] = linear(inputs, num_classes)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits (B, C) by layer, and what they are made of: parts (B, P, n) by layer;
        `targets` are not used (other methods do).
        """
        early, late = self.backbone.stages(images)[-2:]
        u = self.late_gates(late) * late[:, None]  # U_p: (B, P, n, h, w)
        l = self.early_gates(early) * early[:, None]  # noqa: E741  # the paper's L_p
        # the late parts on the early layer's grid, both added, and convolved
        narrowed = self.narrow(u.flatten(1, 2))  # (B, P * n', h, w)
        enlarged = F.interpolate(narrowed, size=early.shape[-2:])
        both = self.join(l.flatten(1, 2) + enlarged).unflatten(1, l.shape[1:3])

        parts = {
            "image": u.mean((3, 4)),
            "early": l.amax((3, 4)) if self.pool == "max" else l.mean((3, 4)),
            "both": both.mean((3, 4)),
        }
        read = {name: part.flatten(1) for name, part in parts.items()}
        read["early"] = F.layer_norm(read["early"], read["early"].shape[1:])
        logits = {name: self.heads[name](read[name]) for name in LAYERS}
        return logits | {f"{name}_parts": parts[name] for name in LAYERS}

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """{"classes", "agree", "parts"}: the classification loss of the summed logits;
        the divergences KL(image || early) + KL(image || both) of the predicted
        probabilities (section 3.3; as in the authors' code, both sides learn from
        them); and the separation of each layer's parts times its gamma.
        """
        # as a logarithm: a probability of exactly 0 would have no gradient
        last = logits["image"].log_softmax(1)
        early = logits["early"].log_softmax(1)
        both = logits["both"].log_softmax(1)
        agree = F.kl_div(early, last, reduction="batchmean", log_target=True)
        agree = agree + F.kl_div(both, last, reduction="batchmean", log_target=True)

        apart = torch.zeros_like(agree)
        for name, gamma in zip(LAYERS, self.gammas, strict=True):
            apart = apart + gamma * separation(logits[f"{name}_parts"])

        classes = criterion(_summed(logits), targets)
        return {"classes": classes, "agree": agree, "parts": apart}

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C), the sum of the three layers'."""
        return _summed(self(images))


def _summed(logits: dict[str, Tensor]) -> Tensor:
    return logits["image"] + logits["early"] + logits["both"]
