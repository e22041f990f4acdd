"""Super-resolution before the classifier: the baseline of paper E (Peng et al. 2016,
section 4.1), in two stages.

    first = SuperResolution(create("alexnet"), num_classes=196, part="restorer")
    # learns to restore; the classifier rests
    second = SuperResolution(create("alexnet"), num_classes=196, part="classifier")
    # starts from first's weights; the restorer rests
    probabilities = second.eval().predict(low_resolution_images).softmax(1)
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from ..images.augment import degrade
from .heads import linear
from .method import Criterion, Method
from .options import check_choice

PARTS = ("restorer", "classifier")
UPSAMPLE = ("bicubic", "bilinear")


class Restorer(nn.Module):
    """Learns what enlarging an image has left out: (B, 3, S, S), enlarged, in [0, 1] ->
    the same size, restored, not clamped.

    As in VDSR (Kim et al. 2016), 3x3 convolutions estimate the residual between the
    sharp image and the enlarged one. They work on cells of 4 x 4 pixels, which are
    moved into the channels and back again (Shi et al. 2016): about the pixels of the
    small image, so that nothing is lost and the work is a sixteenth. The last
    convolution starts at zero, so that the untrained network returns the enlarged
    image.
    """

    CELL = 4
    # of the leaky ReLUs: with plain ones, and pixels that are not centred, some
    # trainings end where they began
    SLOPE = 0.1

    def __init__(self, channels: int = 32, depth: int = 6):
        super().__init__()
        pixels = 3 * self.CELL**2
        widths = [pixels, *[channels] * (depth - 1), pixels]
        convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
        *inner, last = convolutions

        layers: list[nn.Module] = []
        for convolution in inner:
            nn.init.kaiming_normal_(convolution.weight, a=self.SLOPE)
            _zero(convolution.bias)
            layers += [convolution, nn.LeakyReLU(self.SLOPE, inplace=True)]
        _zero(last.weight)
        _zero(last.bias)
        self.body = nn.Sequential(*layers, last)

    def forward(self, enlarged: Tensor) -> Tensor:
        """The enlarged image plus what its residual is estimated to be."""
        height, width = enlarged.shape[-2:]
        # to whole cells, by repeating the border
        beyond = (0, -width % self.CELL, 0, -height % self.CELL)
        whole = F.pad(enlarged, beyond, mode="replicate")
        cells = F.pixel_unshuffle(whole - 0.5, self.CELL)  # (B, 48, h / 4, w / 4)
        residual = F.pixel_shuffle(self.body(cells), self.CELL)
        return enlarged + residual[..., :height, :width]


class SuperResolution(Method):
    """A restoring network before backbone, global average pooling and a linear head.
    Images (B, 3, S, S), float in [0, 1].

    The paper enlarges its images with a Naive Bayes super-resolution forest (NBSRF,
    Salvador and Perez-Pellitero 2015); :class:`Restorer` stands in for it. Like there,
    the classifier is trained and tested on restored images.

    part: which half learns. "restorer": takes sharp images, reduces and enlarges them
        itself, and learns to undo that (L1 loss; the classifier keeps its pretrained
        weights, and its predictions mean nothing). "classifier": takes reduced and
        enlarged images, restores them, and learns to classify the result; start it from
        a trained restorer, which stays as it is.
    low: side of the reduced image as a fraction of S (50 of 227 pixels). upsample: how
        it is enlarged; as in the recipe of the rows.
    channels, depth: of the restoring network.

    Raises InputError for an option out of range.
    """

    VERSION = 1
    VARIANTS = ({}, {"part": "restorer"})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        part: str = "classifier",
        low: float = 50 / 227,
        upsample: str = "bicubic",
        channels: int = 32,
        depth: int = 6,
    ):
        super().__init__()
        check_choice("part", part, PARTS)
        check_choice("upsample", upsample, UPSAMPLE)
        if not (0 < low < 1 and channels > 0 and depth > 1):
            raise InputError(
                "superres: 0 < low < 1, channels > 0 and depth > 1 are needed, not low"
                f" {low}, channels {channels}, depth {depth}."
            )
        self.part = part
        self.low = low
        self.upsample = upsample
        self.backbone = backbone
        self.image_head = linear(backbone.channels, num_classes)
        self.restorer = Restorer(channels, depth)
        # what rests: the half that does not learn
        if part == "restorer":
            self.backbone.requires_grad_(False)
            self.image_head.requires_grad_(False)
        else:
            self.restorer.requires_grad_(False)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Part "classifier": logits of the head. part "restorer": the sharp images, and
        what is restored from their reduced ones.
        """
        if self.part == "classifier":
            return {"image": self.predict(images)}
        return {"sharp": images, "restored": self.restorer(self.reduce(images))}

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """One scalar: {"image": criterion(logits (B, C), targets)}, or {"restoration":
        mean absolute difference of the pixels}.
        """
        if self.part == "classifier":
            return super().losses(logits, targets, criterion)
        return {"restoration": F.l1_loss(logits["restored"], logits["sharp"])}

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) of restored images; they are meant to be low-resolution ones,
        enlarged.
        """
        return self.image_head(self.maps(images).mean((2, 3)))

    def maps(self, images: Tensor) -> Tensor:
        """The feature maps (B, n, h, w) of restored images: what is pooled."""
        return self.backbone(self.restore(images))

    def reduce(self, images: Tensor) -> Tensor:
        """Sharp images as low resolution shows them: reduced and enlarged again, the
        same shape.
        """
        return degrade(images, round(self.low * images.shape[-1]), self.upsample)

    def restore(self, images: Tensor) -> Tensor:
        """Enlarged images restored, in [0, 1], without gradient: the classifier does
        not move the restorer.
        """
        with torch.no_grad():
            return self.restorer(images).clamp(0, 1)


def _zero(values: Tensor | None) -> None:
    if values is not None:
        nn.init.zeros_(values)
