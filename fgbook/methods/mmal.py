"""MMAL-Net. Zhang, Li, Zhai, Liu: Multi-branch and multi-scale attention learning for
fine-grained visual categorization (MMM 2021). Where the maps are strong is the object,
where those of the object are strong are its parts; no layer is added for either.

    model = MMAL(create("resnet50"), num_classes=200)
    outputs = model(images)  # {"image": (B, C), "object": (B, C), "part": (B, 7, C)}
    losses = model.losses(outputs, targets)
    probabilities = model.eval().predict(images).softmax(1)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbones import Backbone
from ..errors import InputError
from ..images import components, regions
from .constants import Constants
from .heads import linear
from .inputs import side_of
from .method import Criterion, Method
from .options import check_choice

GRID = 14  # cells a side of the paper's map: 448 pixels, stride 32
Shape = tuple[int, int]  # height and width, in cells of that map
# Of each scale, how many windows are taken and their shapes.
WINDOWS: dict[str, tuple[tuple[int, tuple[Shape, ...]], ...]] = {
    "birds": (
        (2, ((4, 4), (3, 5), (5, 3))),
        (3, ((6, 6), (5, 7), (7, 5))),
        (2, ((8, 8), (6, 10), (10, 6), (7, 9), (9, 7), (7, 10), (10, 7))),
    ),
    "rigid": (
        (3, ((6, 6), (5, 7), (7, 5))),
        (2, ((8, 8), (6, 10), (10, 6), (7, 9), (9, 7))),
        (1, ((10, 10), (9, 11), (11, 9), (8, 12), (12, 8))),
    ),
}


class MMAL(Method):
    """Three branches with one backbone and one classifier: the image, the object that
    is cut out of it, and parts that are cut out of the object (in training alone).

    Images are squares (B, 3, S, S), float in [0, 1].

    windows: what parts look like: "birds" (7 parts, CUB) or "rigid" (6 larger parts,
        Cars and Aircraft).
    crop: whether the object is cut out (the paper's AOLM); if not, the object branch
        sees the whole image again: the ablation.
    both: whether the object lies where both the last map and the one before it are
        above their means; if not, where the last one is.
    threshold: windows that overlap a better one of their scale by more than this IoU
        are dropped.
    zoom: side of a part's enlarged crop, as a fraction of S (224 of 448 pixels).
    dropout: of the pooled features.

    The public code trains the image branch alone in the first epoch; here all branches
    learn from the first step on: the object is found by pretrained maps, which say
    something before the classifier does. Its second map is that of the block before the
    last, of equal size and after a ReLU; here it is the backbone's map of the depth
    before the last, after a ReLU, at as many places as the last one has cells; where
    early stages are frozen up to there, that mask does not learn. Windows
    are rounded to cells of the map at hand, and those that become equal count once.

    Raises InputError for an option out of range.
    """

    VARIANTS = (
        {},
        {"windows": "rigid", "both": False, "dropout": 0.0},
        {"crop": False},
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        windows: str = "birds",
        crop: bool = True,
        both: bool = True,
        threshold: float = 0.25,
        zoom: float = 224 / 448,
        dropout: float = 0.5,
    ):
        super().__init__()
        check_choice("windows", windows, tuple(WINDOWS))
        if not (0 <= threshold <= 1 and zoom > 0 and 0 <= dropout < 1):
            raise InputError(
                "mmal: 0 <= threshold <= 1, zoom > 0 and 0 <= dropout < 1 are needed,"
                f" not threshold {threshold}, zoom {zoom}, dropout {dropout}."
            )
        self.scales = WINDOWS[windows]
        self.crop = crop
        self.both = both
        self.threshold = threshold
        self.zoom = zoom
        self.dropout = dropout
        self.backbone = backbone
        self.image_head = linear(backbone.channels, num_classes)  # of all branches
        self._constants = Constants()

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of the three branches; the third has all parts, (B, P, C)."""
        stages = self.backbone.stages(images)
        objects = self._cut_out(images, self._find(images, stages))  # (B, 3, S, S)
        maps = self.backbone(objects)  # (B, n, h, w)
        parts = self._choose(maps, images.shape[-1])  # (B, P, 4)
        side = round(self.zoom * images.shape[-1])
        views = regions.crop_zoom(objects, parts, side)  # (B, P, 3, side, side)
        of_parts = self._classify(self.backbone(views.flatten(0, 1)))
        return {
            "image": self._classify(stages[-1]),
            "object": self._classify(maps),
            "part": of_parts.unflatten(0, parts.shape[:2]),
        }

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """One softmax loss a branch, that of parts averaged over parts; all weights are
        1.
        """
        batch, count, _ = logits["part"].shape
        # with the size told, a GPU need not count
        each = targets.repeat_interleave(count, 0, output_size=batch * count)
        return {
            "image": criterion(logits["image"], targets),
            "object": criterion(logits["object"], targets),
            "part": criterion(logits["part"].flatten(0, 1), each),
        }

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) used at test time: of the object, which takes two passes."""
        box = self._find(images, self.backbone.stages(images))
        return self._classify(self.backbone(self._cut_out(images, box)))

    # ---- for figures and scores: in evaluation mode

    @torch.no_grad()
    def locate(self, images: Tensor) -> dict[str, Tensor]:
        """The box of the object (B, 4), xyxy in input pixels."""
        return {"object": self._find(images, self.backbone.stages(images))}

    @torch.no_grad()
    def regions(self, images: Tensor) -> Tensor:
        """The boxes of the parts (B, P, 4), xyxy in input pixels: scale after scale
        from small to large, the best of a scale first.
        """
        size = images.shape[-1]
        box = self.locate(images)["object"][:, None]  # (B, 1, 4)
        maps = self.backbone(self._cut_out(images, box[:, 0]))
        inside = self._choose(maps, size) / size  # in fractions of the object's box
        corner, sides = box[..., :2], box[..., 2:] - box[..., :2]
        return corner.repeat(1, 1, 2) + inside * sides.repeat(1, 1, 2)

    # ---- the steps

    def _classify(self, maps: Tensor) -> Tensor:
        """Maps (B, n, h, w) -> logits (B, C)."""
        feature = F.dropout(maps.mean((2, 3)), self.dropout, self.training)
        return self.image_head(feature)

    def _find(self, images: Tensor, stages: list[Tensor]) -> Tensor:
        """AOLM: the box of the object (B, 4); of the whole image where no cell is left.

        Cells above the mean of the map, the largest component of them (cells that touch
        by a corner are connected), of these the cells where the map before is above its
        mean too, and the box round all that are left.
        """
        size = side_of(images, "mmal")
        last = stages[-1]
        h, w = last.shape[2:]
        if self.crop:
            mask = components.largest_component(_above_mean(last))
            if self.both:
                before = stages[-2].detach().float().relu()
                before = F.interpolate(
                    before, (h, w), mode="bilinear", align_corners=True
                )
                mask = mask & _above_mean(before)
        else:
            mask = torch.ones_like(last[:, 0], dtype=torch.bool)
        depth = self.backbone.depth_at(size)
        return components.to_pixels(
            components.bounding_box(mask), w, depth.stride, depth.first, size
        )

    def _cut_out(self, images: Tensor, box: Tensor) -> Tensor:
        """The object in the size of the image: (B, 3, S, S)."""
        return regions.crop_zoom(images, box[:, None], images.shape[-1])[:, 0]

    def _choose(self, maps: Tensor, size: int) -> Tensor:
        """APPM: the windows of each scale with the strongest maps, after NMS within the
        scale: (B, P, 4) in pixels of the image that these maps (B, n, h, w) are of.
        """
        h, w = maps.shape[2:]
        strength = maps.detach().float().sum(1, keepdim=True)  # (B, 1, h, w)
        constants = iter(self._geometry(h, w, size, maps.device))
        chosen = []
        for count, shapes in self.scales:
            boxes, overlaps = next(constants), next(constants)
            means = [
                F.avg_pool2d(strength, shape, 1).flatten(1)
                for shape in _in_cells(shapes, h, w)
            ]
            scores = torch.cat(means, 1)  # (B, N)
            best = regions.select(scores, overlaps, count, self.threshold)
            chosen.append(boxes[best])
        return torch.cat(chosen, 1)

    def _geometry(
        self, h: int, w: int, size: int, device: torch.device
    ) -> tuple[Tensor, ...]:
        """For each scale, its windows (N, 4) in pixels and their overlaps (N, N)."""

        def make() -> tuple[Tensor, ...]:
            depth = self.backbone.depth_at(size)
            constants = []
            for _, shapes in self.scales:
                cells = [
                    regions.windows(h, w, *shape, device=device)
                    for shape in _in_cells(shapes, h, w)
                ]
                boxes = components.to_pixels(
                    torch.cat(cells), w, depth.stride, depth.first, size
                )
                constants += [boxes, regions.iou_matrix(boxes)]
            return tuple(constants)

        return self._constants.get((h, w, size, device), make)


def _above_mean(maps: Tensor) -> Tensor:
    """Where the sum of the channels is above its mean: (B, h, w) bool."""
    strength = maps.detach().float().sum(1)
    return strength > strength.mean((1, 2), keepdim=True)


def _in_cells(shapes: tuple[Shape, ...], h: int, w: int) -> list[Shape]:
    """Windows of the paper's map on a map of h x w cells: each once, halves up."""
    cells = [
        (max(1, int(height * h / GRID + 0.5)), max(1, int(width * w / GRID + 0.5)))
        for height, width in shapes
    ]
    return list(dict.fromkeys(cells))
