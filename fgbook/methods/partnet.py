"""PartNet. Zhang, Jia, Wang: Part-aware fine-grained object categorization using weakly
supervised part detection network (arXiv 1806.06198; IEEE Transactions on Multimedia
2020). Boxes where channels peak; one stream says which are parts, one what they show.

    model = PartNet(create("vgg19"), num_classes=200)
    outputs = model(images)  # {"image": (B, C) logits, "score": (B, C) probabilities}
    losses = model.losses(outputs, targets)
    boxes = model.eval().regions(images)  # (B, p, 4): of each part the best
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
from .inputs import check_depth, side_of
from .method import Criterion, Method

RATIOS = (1 / 2, 1.0, 2.0)  # width / height, of boxes of equal area
BINS = 3  # cells a side of a box's feature
DROPOUT = 0.5
TINY = 1e-6  # under logarithms


def votes(maps: Tensor) -> Tensor:
    """Each channel of maps (B, n, h, w) votes for the cell where it is highest (equal:
    the first), one that is the same everywhere for none: how many each cell gets, (B,
    h, w).
    """
    batch, _, h, w = maps.shape
    places = maps.flatten(2)
    low, high = places.aminmax(dim=2)  # (B, n)
    count = torch.zeros(batch, h * w, device=maps.device)
    count.scatter_add_(1, places.argmax(2), (high > low).to(count.dtype))
    return count.unflatten(1, (h, w))


def centres(maps: Tensor, square: int) -> Tensor:
    """Maps (B, n, h, w) cut into squares of `square` cells, the last of a row narrower
    where they do not fit: the number of the cell in each that has most votes, (B, K)
    int64. Equal votes, also none: the highest sum over channels.
    """
    strength = maps.float().sum(1)  # (B, h, w)
    low, high = strength.aminmax(dim=1, keepdim=True)
    low, high = low.amin(2, keepdim=True), high.amax(2, keepdim=True)
    share = (strength - low) / (high - low + TINY)  # 0 .. 1
    key = votes(maps) + 0.5 * share  # votes are whole numbers
    _, cells = F.max_pool2d(key[:, None], square, ceil_mode=True, return_indices=True)
    return cells.flatten(1)


class Stream(nn.Sequential):
    """Features of boxes (B, R, f) -> probabilities (B, R, outputs), which add up to
    less than 1: the rest is the background's.
    """

    def __init__(self, features: int, hidden: int, outputs: int):
        super().__init__(
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            linear(hidden, outputs + 1),
        )

    def forward(self, boxes: Tensor) -> Tensor:
        """Softmax over the outputs and the background, which is dropped."""
        return super().forward(boxes).float().softmax(2)[..., :-1]


class PartNet(Method):
    """PartNet and the image classifier that it starts from, without the classifiers of
    the parts' crops that "PartNet-Full" adds: no crop is cut from an image.

    Images are squares (B, 3, S, S), float in [0, 1]; C classes, n channels, R boxes.

    parts: p, how many are looked for (3 in the paper).
    depth: which of the backbone's maps boxes lie on, from the deepest, 1.
    square: cells a side of the squares that each give one centre (4 of 28 there).
    sizes: of the boxes, as fractions of S, each with three ratios (28 shapes there,
        from a fourteenth of the side to all of it).
    width: channels that a box's feature is made of, by a 1x1 convolution with BatchNorm
        and ReLU (none there: 512).
    hidden: units of each stream (4096 there).
    sharpness: what the detection stream's probabilities are multiplied with before the
        softmax over boxes. 1 in the code, where weights of boxes then differ by less
        than a factor e: nearly a mean over all boxes. Larger ones choose.

    Choices where paper and code differ, or neither fits: backbone and image head learn
    together with the streams, not first. Boxes begin where cells look, and a box is
    sampled at the middles of 3 x 3 bins, not pooled by maximum. Equal votes go to the
    highest sum (code: the first cell). A channel that is 0 everywhere, as half of them
    can be, has no vote (code: it votes for the first cell). The binary cross-entropy is
    summed over classes, not averaged, to weigh as much as the image's loss. Singular
    values of the last layers are not clipped after each epoch.

    Raises InputError for an option out of range.
    """

    VERSION = 2
    VARIANTS = ({}, {"parts": 2, "depth": 2, "square": 3, "sizes": (0.5,)})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        parts: int = 3,
        depth: int = 1,
        square: int = 2,
        sizes: tuple[float, ...] = (0.25, 0.4, 0.6),
        width: int = 128,
        hidden: int = 256,
        sharpness: float = 1.0,
    ):
        super().__init__()
        if not sizes or not all(0 < size <= 1 for size in sizes):
            raise InputError(
                f"partnet: sizes are fractions of the image's side, not {sizes}."
            )
        if min(parts, square, width, hidden) < 1 or sharpness <= 0:
            raise InputError(
                "partnet: parts, square, width and hidden are at least 1, and sharpness"
                f" is above 0; not parts {parts}, square {square}, width {width},"
                f" hidden {hidden}, sharpness {sharpness}."
            )
        check_depth("partnet", depth, backbone)
        self.depth = depth
        self.square = square
        self.sizes = sizes
        self.sharpness = sharpness
        self._constants = Constants()
        self.backbone = backbone
        self.image_head = linear(backbone.channels, num_classes)
        n = backbone.depths[-depth].channels
        self.narrow = nn.Sequential(
            nn.Conv2d(n, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.classification = Stream(width * BINS**2, hidden, num_classes)
        self.detection = Stream(width * BINS**2, hidden, parts)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of the image, and the parts' scores of each class, in [0, 1]."""
        image_logits, _, a, d = self._look(images)
        return {"image": image_logits, "score": class_scores(a, d)}

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """The image's softmax loss, and the scores' binary cross-entropy with the
        classes' shares in the target, summed over classes.
        """
        score = logits["score"].clamp(TINY, 1 - TINY)
        share = targets
        if targets.ndim == 1:
            share = F.one_hot(targets, score.shape[1])
        entropy = -(share * score.log() + (1 - share) * (-score).log1p())
        return {
            "image": criterion(logits["image"], targets),
            "score": entropy.sum(1).mean(),
        }

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C): of the mean of both probabilities, the image's and the scores
        divided by their sum, as "PartNet-Full" averages all of its classifiers.
        """
        image_logits, _, a, d = self._look(images)
        score = class_scores(a, d)
        of_parts = score / score.sum(1, keepdim=True)
        return ((image_logits.float().softmax(1) + of_parts) / 2 + TINY).log()

    @torch.no_grad()
    def regions(self, images: Tensor) -> Tensor:
        """Of each part the box that counts most: (B, p, 4), xyxy in input pixels. Call
        it in eval mode.
        """
        _, boxes, _, d = self._look(images)
        best = d.argmax(1)  # (B, p)
        return boxes.gather(1, best[..., None].expand(-1, -1, 4))

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The image's logits (B, C); the boxes (B, R, 4); what they show, A (B, R, C),
        and how much each counts for each part, D (B, R, p), which adds up to 1.
        """
        size = side_of(images, "partnet")
        stages = self.backbone.stages(images)
        image_logits = self.image_head(stages[-1].mean((2, 3)))
        maps = stages[-self.depth]
        boxes = self._propose(maps.detach(), size)  # (B, R, 4)

        # boxes in cells, of which cell i covers [i, i + 1]
        depth = self.backbone.depths_at(size)[-self.depth]
        cells = (boxes - depth.first) / depth.stride + 0.5
        features = regions.crop_zoom(self.narrow(maps).float(), cells, BINS).flatten(2)
        a = self.classification(features)
        d = (self.sharpness * self.detection(features)).softmax(1)
        return image_logits, boxes, a, d

    @torch.no_grad()
    def _propose(self, maps: Tensor, size: int) -> Tensor:
        """Boxes of all shapes round each centre, cut at the border: (B, R, 4)."""
        cells = centres(maps, self.square)  # (B, K)
        depth = self.backbone.depths_at(size)[-self.depth]
        across = maps.shape[-1]
        xy = torch.stack([cells % across, cells // across], 2)
        xy = depth.first + depth.stride * xy.repeat(1, 1, 2)  # (B, K, 4): x y x y
        shapes = self._shapes(size, maps.device)  # (T, 4)
        return (xy[:, :, None] + shapes).flatten(1, 2).clamp(0, size)

    def _shapes(self, size: int, device: torch.device) -> Tensor:
        """Boxes round the origin: (T, 4)."""

        def make() -> tuple[Tensor, ...]:
            shapes = []
            for side, ratio in product(self.sizes, RATIOS):
                x, y = side * sqrt(ratio) / 2, side / sqrt(ratio) / 2
                shapes.append([-x, -y, x, y])
            return (size * torch.tensor(shapes, device=device),)

        return self._constants.get((size, device), make)[0]


def class_scores(a: Tensor, d: Tensor) -> Tensor:
    """A (B, R, C) and D (B, R, p) -> scores (B, C): A'D, its mean over parts."""
    # in half precision a score near 1 becomes 1, whose loss would be infinite
    with torch.autocast(a.device.type, enabled=False):
        return torch.einsum("brc,brp->bcp", a.float(), d.float()).mean(2)
