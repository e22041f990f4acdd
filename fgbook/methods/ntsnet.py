"""NTS-Net. Yang, Luo, Wang, Hu, Gao, Wang: Learning to navigate for fine-grained
classification (ECCV 2018). A navigator proposes regions, a teacher judges them, a
scrutinizer looks at the best together with the image.

    model = NTSNet(create("resnet50"), num_classes=200)
    outputs = model(images)
    # {"image": (B, C), "part": (B, m, C), "concat": (B, C), "score": (B, m)}
    losses = model.losses(outputs, targets)  # of image, part, concat, and rank
    probabilities = model.eval().predict(images).softmax(1)
"""

from itertools import product
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from ..images import regions
from .constants import Constants
from .heads import linear
from .inputs import side_of
from .method import Criterion, Method

THIRD = 2 ** (1 / 3)  # of an octave
PYRAMID = (  # sides of the boxes of each level, as fractions of the image's
    (48 / 448 * THIRD, 48 / 448 * THIRD**2),
    (96 / 448 * THIRD, 96 / 448 * THIRD**2),
    (192 / 448, 192 / 448 * THIRD, 192 / 448 * THIRD**2),
)
RATIOS = (2 / 3, 1.0, 3 / 2)  # width / height, of boxes of equal area
MARGIN = 1.0  # between the scores of two regions


class NTSNet(Method):
    """The whole method, which the paper describes at 448 pixels with a ResNet-50.

    Images are squares (B, 3, S, S), float in [0, 1].

    m, k: regions proposed (the paper's M), and how many of the best are joined with the
        image (K); 1 <= k <= m.
    sides: of the boxes, as fractions of S, each with three ratios, centred where the
        cells of the backbone's map look; none: the paper's pyramid of three maps, each
        half as fine as the one before.
    threshold: boxes that overlap a better one by more than this IoU are dropped.
    zoom: side of a region's enlarged crop, as a fraction of S.
    dropout: of the pooled features, of the image and of the regions.
    channels: of the navigator's maps.

    The public code differs: boxes leave the image there, which is padded with black
    (here they are shifted inside); dropout acts at test time too, a mistake; and where
    fewer than m boxes survive it fails (here the best of the dropped ones follow). The
    image is joined behind its regions, as there; any other order would only be an order
    of the head's columns.

    Raises InputError for an option out of range.
    """

    VARIANTS = ({}, {"sides": (0.3, 0.45), "m": 4, "k": 2, "dropout": 0.0})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        m: int = 6,
        k: int = 4,
        sides: tuple[float, ...] | None = None,
        threshold: float = 0.25,
        zoom: float = 224 / 448,
        dropout: float = 0.5,
        channels: int = 128,
    ):
        super().__init__()
        if not 1 <= k <= m:
            raise InputError(f"ntsnet: k is {k} and m is {m}; 1 <= k <= m is needed.")
        if sides is not None:
            _check_sides(sides)
        if not (0 <= threshold <= 1 and zoom > 0 and 0 <= dropout < 1 and channels > 0):
            raise InputError(
                "ntsnet: 0 <= threshold <= 1, zoom > 0, 0 <= dropout < 1 and channels >"
                f" 0 are needed, not threshold {threshold}, zoom {zoom}, dropout"
                f" {dropout}, channels {channels}."
            )
        self.m = m
        self.k = k
        self.threshold = threshold
        self.zoom = zoom
        self.dropout = dropout
        self.levels = PYRAMID if sides is None else (sides,)

        n = backbone.channels
        self.backbone = backbone
        self.image_head = linear(n, num_classes)
        self.part_head = linear(n, num_classes)  # the teacher's, one for all regions
        self.concat_head = linear((k + 1) * n, num_classes)  # the scrutinizer's
        shapes = [len(level) * len(RATIOS) for level in self.levels]
        self.navigator = Navigator(n, channels, shapes)
        self._constants = Constants()

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of every head, and the navigator's scores of the m regions."""
        maps, feature = self._see(images)  # (B, n, h, w), (B, n)
        score, boxes = self._propose(maps, images, self.m)
        parts = self._look_closer(images, boxes)  # (B, m, n)
        return {
            "image": self.image_head(feature),
            "part": self.part_head(parts),
            "concat": self.concat_head(self._joined(parts, feature)),
            "score": score,
        }

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """The softmax loss of each head, that of parts averaged over regions, and
        "rank": all weights are 1, as in the public code. (The paper's L_I is rank, its
        L_S concat, and its L_C that of parts and image.)

        Rank compares the teacher's losses and trains the navigator alone. It is a sum
        over up to m (m - 1) / 2 pairs, so with clip_norm it can shorten the others'
        steps.
        """
        of_parts = logits["part"].flatten(0, 1)  # (B * m, C)
        # with the size told, a GPU need not count
        each = targets.repeat_interleave(self.m, 0, output_size=len(of_parts))
        teacher = F.cross_entropy(of_parts.detach(), each, reduction="none")
        return {
            "image": criterion(logits["image"], targets),
            "part": criterion(of_parts, each),
            "concat": criterion(logits["concat"], targets),
            "rank": rank_loss(logits["score"], teacher.unflatten(0, (-1, self.m))),
        }

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) used at test time: of image and k regions together."""
        maps, feature = self._see(images)
        _, boxes = self._propose(maps, images, self.k)
        parts = self._look_closer(images, boxes)
        return self.concat_head(self._joined(parts, feature))

    @torch.no_grad()
    def regions(self, images: Tensor) -> Tensor:
        """The boxes of the m regions (B, m, 4), xyxy in input pixels, the best first;
        in evaluation mode.
        """
        return self._propose(self._see(images)[0], images, self.m)[1]

    # ---- the steps

    def _see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The maps (B, n, h, w) and the pooled features (B, n)."""
        maps = self.backbone(images)
        return maps, F.dropout(maps.mean((2, 3)), self.dropout, self.training)

    def _propose(
        self, maps: Tensor, images: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """The best regions after NMS: scores (B, count) and boxes (B, count, 4).

        The navigator does not reach into the backbone. In float32 also under mixed
        precision: close scores decide which region is chosen.
        """
        with torch.autocast(maps.device.type, enabled=False):
            scores = self.navigator(maps.detach().float())  # (B, A)
        boxes, overlaps = self._geometry(images, *maps.shape[2:])
        chosen = regions.select(scores.detach(), overlaps, count, self.threshold)
        return scores.gather(1, chosen), boxes[chosen]

    def _geometry(self, images: Tensor, h: int, w: int) -> tuple[Tensor, ...]:
        """All boxes (A, 4) in the order of the scores, and their overlaps (A, A)."""
        size = side_of(images, "ntsnet")

        def make() -> tuple[Tensor, ...]:
            depth = self.backbone.depth_at(size)
            boxes = []
            for number, level in enumerate(self.levels):
                step = 2**number  # a strided convolution keeps where cell 0 looks
                cells = (-(-h // step), -(-w // step))
                for side, ratio in product(level, RATIOS):
                    box = (size * side / sqrt(ratio), size * side * sqrt(ratio))
                    of_shape = regions.centre_boxes(
                        *cells, size, box, depth.stride * step, depth.first
                    )
                    boxes.append(of_shape.to(images.device))
            together = torch.cat(boxes)
            return together, regions.iou_matrix(together)

        return self._constants.get((h, w, size, images.device), make)

    def _look_closer(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Cut out, zoom in, same backbone: boxes (B, count, 4) -> (B, count, n)."""
        side = round(self.zoom * images.shape[-1])
        crops = regions.crop_zoom(images, boxes, side)  # (B, count, 3, side, side)
        return self._see(crops.flatten(0, 1))[1].unflatten(0, boxes.shape[:2])

    def _joined(self, parts: Tensor, feature: Tensor) -> Tensor:
        """The k best regions and the image: (B, (k + 1) n)."""
        return torch.cat([parts[:, : self.k].flatten(1), feature], 1)


class Navigator(nn.Module):
    """Maps (B, n, h, w) -> a score for each shape of box at each cell of each level:
    (B, A), level after level, shape after shape, row by row.

    shapes: how many shapes of box each level has. Every level after the first has half
    the cells of the one before. Weights start so that scores are near 0, and spread as
    much at one level as at another (silent): a level learns only from boxes that were
    chosen.
    """

    def __init__(self, inputs: int, channels: int, shapes: list[int]):
        super().__init__()
        self.convolutions = nn.ModuleList()
        self.heads = nn.ModuleList()
        for level, count in enumerate(shapes):
            stride = 2 if level else 1
            convolution = nn.Conv2d(inputs, channels, 3, stride, 1)
            head = nn.Conv2d(channels, count, 1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.normal_(head.weight, std=0.01)
            for layer in (convolution, head):
                nn.init.zeros_(layer.get_parameter("bias"))
            self.convolutions.append(convolution)
            self.heads.append(head)
            inputs = channels

    def forward(self, maps: Tensor) -> Tensor:
        """The scores, unbounded."""
        scores = []
        for convolution, head in zip(self.convolutions, self.heads, strict=True):
            maps = convolution(maps).relu()
            scores.append(head(maps).flatten(1))
        return torch.cat(scores, 1)


def rank_loss(scores: Tensor, losses: Tensor) -> Tensor:
    """A region that the teacher finds better shall have the higher score: scores and
    the teacher's losses (B, m) -> the hinge of every pair in the wrong order or too
    close, summed over pairs, averaged over images. Equal losses make no pair.
    """
    behind = losses[:, None] > losses[:, :, None]  # (B, i, j): j is worse than i
    hinge = (MARGIN - scores[:, :, None] + scores[:, None]).relu()
    return (hinge * behind).sum((1, 2)).mean()


def _check_sides(sides: tuple[float, ...]) -> None:
    largest = 1 / sqrt(max(RATIOS))
    if not sides or not all(0 < side <= largest for side in sides):
        raise InputError(
            f"ntsnet: sides are {sides}; fractions of the image above 0 and up to"
            f" {largest:.2f} are needed, so that the oblong boxes fit in."
        )
