"""RA-CNN. Fu, Zheng, Mei: Look closer to see better: recurrent attention convolutional
neural network for fine-grained image recognition (CVPR 2017). At each scale the network
says where the next one looks closer.

    model = RACNN(create("vgg19"), num_classes=200)
    outputs = model(images)
    # {"image": (B, C), "zoom1": .., "zoom2": .., "joint": .., "peak1": (B, 2), "peak2"}
    losses = model.losses(outputs, targets)  # of each head, "rank", and "peak"
    boxes = model.eval().locate(images)  # {"zoom1": (B, 4), "zoom2": (B, 4)}
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from ..images import regions
from .heads import linear
from .inputs import side_of
from .method import Criterion, Method

SMALLEST, LARGEST = 1 / 3, 2 / 3  # sides of a crop, as fractions of the view it is of
GRID = 4  # cells a side of what the attention proposal reads


class Proposal(nn.Module):
    """The attention proposal network: maps (B, n, h, w) -> (B, 3): the centre, x and y
    in [-1, 1], and the side of a square within the view, a fraction of its side.

    Two fully connected layers with tanh between, as in the paper. The maps that they
    read are pooled to 4 x 4 cells and, all together, of length 1, so that the steps of
    Adam do not saturate the hidden layer. It starts with the middle square of half the
    side, for all images.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.first = nn.Linear(channels * GRID**2, hidden)
        self.last = nn.Linear(hidden, 3)
        nn.init.normal_(self.first.weight)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Squares that lie within the view, whatever the layers say."""
        read = pooled(pooled(maps, 2), 3).flatten(1)
        said = self.last(self.first(F.normalize(read, dim=1)).tanh()).float()
        side = SMALLEST + (LARGEST - SMALLEST) * said[:, 2:].sigmoid()
        centre = said[:, :2].tanh() * (1 - side)
        return torch.cat([centre, side], 1)


def pooled(maps: Tensor, dim: int) -> Tensor:
    """The maximum of each of GRID parts along a dimension, as ``adaptive_max_pool2d``
    cuts them (which ONNX has no operation for): maps, with GRID cells there.
    """
    n = maps.shape[dim]
    parts = []
    for i in range(GRID):
        first, last = i * n // GRID, -(-(i + 1) * n // GRID)
        parts.append(maps.narrow(dim, first, last - first).amax(dim))
    return torch.stack(parts, dim)


def within(boxes: Tensor, squares: Tensor) -> Tensor:
    """The squares (B, 3) of a :class:`Proposal`, each within a box (B, 4) xyxy, as
    boxes (B, 4) in the same pixels.
    """
    start, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    centre, side = squares[:, :2], squares[:, 2:]
    upper_left = start + sides * (centre + 1 - side) / 2
    return torch.cat([upper_left, upper_left + sides * side], 1)


class RACNN(Method):
    """Images are squares (B, 3, S, S), float in [0, 1].

    scales: views of an image, each but the first a crop of the one before; 2 or more.
    zoom: side of a crop when it is enlarged, as a fraction of S (224 of 448 pixels).
    margin: by which the true class's probability should rise from scale to scale.
    hidden: units of each attention proposal (1024 in the paper, for 512 channels).

    The authors published no training code. What differs here:

    * One backbone sees all scales; they have one each.
    * A crop is a bilinear sample of the image, which has a derivative in its place and
      side. In the paper it is multiplied by a mask of sigmoids for that; its authors'
      code replaces the derivative by a pattern of signs.
    * The paper first points each proposal at the peak of the mean map, then alternates:
      backbone and heads, then proposals from the rank loss alone. Here all is one step:
      "peak" stays a loss (the recipe weighs it; it pulls the centre, not the side, and
      at a weight of 1 weakly beside what is lost on the crop), proposals learn from all
      that is lost on their crops, and the backbone learns nothing from what a proposal
      reads.
    * The coarser scale's probability is a reference in the rank loss, without a
      gradient: otherwise the loss also falls when the coarser scale gets worse.
    * The paper joins the scales when all are trained. Here that head, which predicts,
      learns at the same time, from features that it does not move.

    Raises InputError for an option out of range.
    """

    VARIANTS = ({}, {"scales": 2, "zoom": 1.0, "hidden": 8})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        scales: int = 3,
        zoom: float = 224 / 448,
        margin: float = 0.05,
        hidden: int = 128,
    ):
        super().__init__()
        if not (scales >= 2 and zoom > 0 and 0 <= margin <= 1 and hidden >= 1):
            raise InputError(
                "racnn: scales >= 2, zoom > 0, 0 <= margin <= 1 and hidden >= 1 are"
                f" needed, not scales {scales}, zoom {zoom}, margin {margin}, hidden"
                f" {hidden}."
            )
        self.zoom = zoom
        self.margin = margin
        self.backbone = backbone
        n = backbone.channels
        self.image_head = linear(n, num_classes)
        closer = range(scales - 1)
        self.zoom_heads = nn.ModuleList(linear(n, num_classes) for _ in closer)
        self.joint_head = linear(scales * n, num_classes)
        self.proposals = nn.ModuleList(Proposal(n, hidden) for _ in closer)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits (B, C) of each scale and of all together, and how far each crop's
        centre lies from the peak of the view that it is of.
        """
        features, _, offsets = self._zoom_in(images)
        outputs = {"image": self.image_head(features[0])}
        for i, head in enumerate(self.zoom_heads, 1):
            outputs[f"zoom{i}"] = head(features[i])
        outputs["joint"] = self._joined(features)
        return outputs | {f"peak{i}": offset for i, offset in enumerate(offsets, 1)}

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """The softmax loss of each head; "rank", by how much the true class's
        probability fails to rise by `margin` (hinges), and "peak" (smooth L1), both
        summed over scales.
        """
        losses = {}
        rank = peak = torch.zeros((), device=targets.device)
        reference = _of_truth(logits["image"], targets)
        for name, of_head in logits.items():
            if name.startswith("peak"):
                peak = peak + F.smooth_l1_loss(of_head, torch.zeros_like(of_head))
                continue
            losses[name] = criterion(of_head, targets)
            if name.startswith("zoom"):
                finer = _of_truth(of_head, targets)
                rank = rank + F.relu(reference.detach() - finer + self.margin).mean()
                reference = finer
        return losses | {"rank": rank, "peak": peak}

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) from all scales together."""
        features, _, _ = self._zoom_in(images)
        return self._joined(features)

    @torch.no_grad()
    def locate(self, images: Tensor) -> dict[str, Tensor]:
        """{"zoom1": boxes (B, 4) of the first crop, ...}, xyxy in input pixels. Call it
        in eval mode.
        """
        _, boxes, _ = self._zoom_in(images)
        return {f"zoom{i}": box for i, box in enumerate(boxes, 1)}

    def _zoom_in(
        self, images: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """For each scale its feature (B, n); for each but the first its box (B, 4) in
        the image and its centre's offset (B, 2) from the peak.
        """
        size = side_of(images, "racnn")
        view = images
        corner = images.new_zeros(images.shape[0], 2)
        box = torch.cat([corner, corner + size], 1)  # all of the image
        maps = self.backbone(view)
        features, boxes, offsets = [maps.mean((2, 3))], [], []
        for proposal in self.proposals:
            square = proposal(maps.detach())
            offsets.append(square[:, :2] - self._peak(maps, view, square))
            # each crop from the image itself, so that none is enlarged twice
            box = within(box, square)
            boxes.append(box)
            side = round(self.zoom * size)
            view = regions.crop_zoom(images, box[:, None], side)[:, 0]
            maps = self.backbone(view)
            features.append(maps.mean((2, 3)))
        return features, boxes, offsets

    def _joined(self, features: list[Tensor]) -> Tensor:
        """Logits (B, C) from the features of all scales. These are divided by how many
        there are: a step of Adam then moves the logits as far as it does those of the
        image head.
        """
        together = torch.cat(features, 1).detach()
        return self.joint_head(together / len(features))

    @torch.no_grad()
    def _peak(self, maps: Tensor, view: Tensor, square: Tensor) -> Tensor:
        """Where the mean of the maps is highest, x and y in [-1, 1] of the view: (B,
        2); as near to it as the centre of such a square can come.
        """
        cell = maps.mean(1).flatten(1).argmax(1)  # (B,)
        across = maps.shape[-1]
        xy = torch.stack([cell % across, cell // across], 1)
        depth = self.backbone.depth_at(view.shape[-1])
        pixel = depth.first + depth.stride * xy
        reach = 1 - square[:, 2:]
        return (2 * pixel / view.shape[-1] - 1).clamp(-reach, reach)


def _of_truth(logits: Tensor, targets: Tensor) -> Tensor:
    """The probability (B,) of the true class; of mixed images, of their mixture."""
    if targets.ndim == 1:
        targets = F.one_hot(targets, logits.shape[1])
    return (logits.softmax(1) * targets).sum(1)
