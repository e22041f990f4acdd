"""Bilinear CNN (Lin, RoyChowdhury and Maji 2015): which channels answer together at a
place, averaged over places; and compact bilinear pooling (Gao et al. 2016), which
hashes these products into a shorter vector.

    model = Bilinear(create("vgg16"), num_classes=200, width=0)
    compact = Bilinear(create("vgg16"), num_classes=200, width=0, sketch=8192)
    logits = model(images)  # {"image": (B, C)}
    feature = model.describe(images)  # (B, n * n), of length 1
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..backbones.freezing import parameters_of_stage
from ..errors import InputError
from .heads import linear
from .method import Method

EPSILON = 1e-5  # keeps the slope of the root finite at 0; the public codes' value


def products(maps: Tensor) -> Tensor:
    """The mean over places of the outer product of a place's channels with themselves:
    maps (B, n, h, w) -> (B, n, n), symmetric. (Lin et al. sum; what follows has length
    1 either way.)
    """
    places = maps.flatten(2)  # X: (B, n, h * w)
    return places @ places.transpose(1, 2) / places.shape[2]


def rooted(features: Tensor) -> Tensor:
    """Signed square root of each entry, then length 1: (B, d) -> (B, d).

    Public codes add EPSILON to products as large as the maps happen to be. Here they
    are first brought to length 1, so that EPSILON means the same for every backbone;
    and x / sqrt(|x| + EPSILON), unlike sign(x) sqrt(|x| + EPSILON), does not jump at 0.
    """
    unit = F.normalize(features, dim=1)
    return F.normalize(unit * (unit.abs() + EPSILON).rsqrt(), dim=1)


class Sketch(nn.Module):
    """The tensor sketch (Pham and Pagh 2013; Gao et al., algorithm 2) of products (B,
    n, n): (B, size), whose inner products are right in the mean over hashes and signs.

    Channel i has two random hashes h(i) in 0 .. size - 1 and two random signs s(i). The
    paper multiplies two count sketches of each place in Fourier space, which is the
    count sketch of their outer product with hash (h_1(i) + h_2(j)) mod size and sign
    s_1(i) s_2(j). All places share it, so it is taken once, of their mean, and needs no
    Fourier transform: each product is added to its bucket.
    """

    hashes: Tensor  # (2, n) int64
    signs: Tensor  # (2, n), -1 or 1

    def __init__(self, channels: int, size: int):
        super().__init__()
        self.size = size
        # kept with the weights: a head is of use with its own hashes only
        self.register_buffer("hashes", torch.randint(size, (2, channels)))
        signs = 2.0 * torch.randint(2, (2, channels)) - 1
        self.register_buffer("signs", signs)

    def forward(self, of_pairs: Tensor) -> Tensor:
        """Add up, with its sign, what falls into each bucket."""
        h_1, h_2 = self.hashes
        s_1, s_2 = self.signs
        buckets = (h_1[:, None] + h_2) % self.size  # (n, n)
        signed = s_1[:, None] * s_2 * of_pairs  # (B, n, n)
        batch = of_pairs.shape[0]  # not len(): it stays open when exported
        sketch = signed.new_zeros(batch, self.size)
        return sketch.scatter_add(
            1, buckets.flatten().expand(batch, -1), signed.flatten(1)
        )


class Bilinear(Method):
    """Backbone, products of its channels, signed square root, length 1, a linear head.

    The two networks of the paper's [D, M] model are one here, as in its [D, D] and in
    the public codes.

    width: channels that a 1x1 convolution with ReLU leaves of the map before they are
        multiplied; 0: no convolution, all channels, as in the paper (512 of a VGG's).
        The head has width * width inputs.
    sketch: entries of the tensor sketch (8192 in Gao et al.); 0: all products.
    depth: which of the backbone's maps, counted from the deepest, 1. What lies behind
        it is not used and does not learn.
    length: of the feature that the head reads (1 in the paper). At length 1 a step of
        the usual size hardly moves a logit; the public codes train the head at rate 1.0
        for it, which no other layer would bear. Adam moves every weight by about the
        rate, and so a logit by the rate times the sum of the feature's entries: about
        length * width, or length * sqrt(sketch). 500 is like a pooled map's.

    Everything learns from the first step on; the public codes train the head first, on
    a backbone that waits, and then both.

    Raises InputError for an option out of range.
    """

    VERSION = 1
    VARIANTS = ({}, {"sketch": 50, "width": 24}, {"width": 0, "depth": 2})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        width: int = 128,
        sketch: int = 0,
        depth: int = 1,
        length: float = 4.0,
    ):
        super().__init__()
        if width < 0 or sketch < 0 or length <= 0:
            raise InputError(
                "bilinear: width >= 0, sketch >= 0 and length > 0 are needed, not width"
                f" {width}, sketch {sketch} and length {length}."
            )
        if not 1 <= depth <= len(backbone.depths):
            raise InputError(
                f"bilinear: depth is {depth}; {backbone.name} gives maps at"
                f" {len(backbone.depths)} depths, so choose 1 (the deepest) to that."
            )
        self.depth = depth
        self.length = length
        self.backbone = backbone
        if depth > 1:
            used = parameters_of_stage(backbone, -depth)
            for name, parameter in backbone.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name in used)

        n = backbone.depths[-depth].channels
        self.reduce: nn.Module = nn.Identity()
        if width:
            convolution = nn.Conv2d(n, width, 1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            self.reduce = nn.Sequential(convolution, nn.ReLU(inplace=True))
            n = width
        self.sketch = Sketch(n, sketch) if sketch else nn.Flatten()
        self.head = linear(sketch or n * n, num_classes)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{"image": logits (B, C)}; `targets` are not used (other methods do)."""
        return {"image": self.head(self.length * self.describe(images))}

    def describe(self, images: Tensor) -> Tensor:
        """The bilinear feature (B, width * width), or its sketch (B, sketch), float32
        and of length 1.
        """
        maps = self.reduce(self.backbone.stages(images)[-self.depth])
        # products of half-precision numbers would lose the small ones
        with torch.autocast(maps.device.type, enabled=False):
            return rooted(self.sketch(products(maps.float())))
