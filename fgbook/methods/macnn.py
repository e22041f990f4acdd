"""MA-CNN, simplified. Zheng, Fu, Mei, Luo: Learning multi-attention convolutional
neural network for fine-grained image recognition (ICCV 2017). Channels that peak at the
same place are a part.

    model = MACNN(create("vgg19"), num_classes=200)
    outputs = model(images)
    # {"image": (B, C), "parts": (B, p, C), "joint": (B, C), "maps": (B, p, h, w)}
    losses = model.losses(outputs, targets)  # of each head, "distance", "diversity"
    boxes = model.eval().regions(images)  # (B, p, 4)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from ..images import regions
from .heads import linear
from .inputs import check_depth, side_of
from .method import Criterion, Method, Views

# Of the published layers (their prototxt): what is taken off the other parts' maps, and
# how much the diversity loss counts.
MARGIN, DIVERSITY = 0.02, 2.0
GROUPED = 2.0  # before the sigmoid: how much a part begins with its own channels


def distance_loss(maps: Tensor) -> Tensor:
    """How far a part's map (B, p, h, w) spreads round its peak t (the paper's Dis): the
    sum over parts and places (x, y) of m(x, y) |(x, y) - t|^2, with the map's side for
    unit; mean over images.
    """
    h, w = maps.shape[2:]
    x = (torch.arange(w, device=maps.device) / w).expand(h, w).flatten()  # (h * w,)
    y = (torch.arange(h, device=maps.device) / h)[:, None].expand(h, w).flatten()
    m = maps.flatten(2)  # (B, p, h * w)
    peak = m.argmax(2, keepdim=True)  # (B, p, 1)
    squared = (x - x[peak]) ** 2 + (y - y[peak]) ** 2
    return (m * squared).sum((1, 2)).mean()


def diversity_loss(maps: Tensor) -> Tensor:
    """How much parts (B, p, h, w) lie on each other (the paper's Div): the sum over
    parts i and places of m_i [max over k != i of m_k - 0.02]; mean over images.
    """
    parts = maps.shape[1]
    itself = torch.eye(parts, dtype=torch.bool, device=maps.device)[..., None, None]
    # (B, i, k, h, w)
    others = maps[:, None].masked_fill(itself, float("-inf")).amax(2)
    return (maps * (others - MARGIN)).sum((1, 2, 3)).mean()


def grouping(channels: int, hidden: int) -> nn.Sequential:
    """The weights of a part's channels from the maps' mean, brought to length 1: (B, n)
    -> (B, n), 0..1.
    """
    first = nn.Linear(channels, hidden)
    # of a mean of length 1 the units are then about 1: neither nothing nor saturated
    nn.init.normal_(first.weight)
    last = nn.Linear(hidden, channels)
    return nn.Sequential(first, nn.Tanh(), last, nn.Sigmoid())


class MACNN(Method):
    """Images are squares (B, 3, S, S), float in [0, 1]; C classes, n channels.

    parts: p, how many (4 in the paper); 2 or more.
    depth: which of the backbone's maps parts are found on, from the deepest, 1.
    sharpness: the power of a part's map. The published layers pool with the fourth.
    hidden: units between the two layers that weigh a part's channels.
    box: side of the square round a part's peak that ``regions`` gives, as a fraction of
        S (128 of 448 pixels, for birds).

    Part p weighs the channels by d_p in (0, 1), from the mean of the maps through two
    layers; its map is the sigmoid of the weighed sum of the maps, divided by its sum;
    its feature is the mean of the maps under it. Two kinds of loss reach different
    layers, as in the paper, where they alternate; here both are in each step: distance
    and diversity train the weights d_p, on maps that they do not move; the softmax
    losses train backbone and heads, with part maps that they do not move.

    Simplified, because no training code was published and nobody reports to have
    trained it:

    * The second stage is left out: a network for each part, on crops round the peaks.
      The head on all parts and the image, which the paper trains then, learns at the
      same time, from features that it does not move.
    * The paper clusters channels by where they peak in the training images, and trains
      d_p to give these groups. Here the clusters are where d_p start.
    * The weighed sum is brought to mean 0 and variance 1 over places before the
      sigmoid, which it would saturate otherwise, and the map is sharpened.
    * A map's sum is 1, so the margin of the diversity loss has no gradient here.

    Raises InputError for an option out of range.
    """

    VERSION = 2
    VARIANTS = ({}, {"parts": 2, "depth": 2, "hidden": 8})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        parts: int = 4,
        depth: int = 1,
        sharpness: float = 4.0,
        hidden: int = 64,
        box: float = 128 / 448,
    ):
        super().__init__()
        if not (parts >= 2 and sharpness > 0 and hidden >= 1 and 0 < box <= 1):
            raise InputError(
                "macnn: parts >= 2, sharpness > 0, hidden >= 1 and 0 < box <= 1 are"
                f" needed, not parts {parts}, sharpness {sharpness}, hidden {hidden},"
                f" box {box}."
            )
        check_depth("macnn", depth, backbone)
        self.depth = depth
        self.sharpness = sharpness
        self.box = box
        self.backbone = backbone
        self.image_head = linear(backbone.channels, num_classes)
        n = backbone.depths[-depth].channels
        self.part_heads = nn.ModuleList(linear(n, num_classes) for _ in range(parts))
        self.joint_head = linear(backbone.channels + parts * n, num_classes)
        self.grouping = nn.ModuleList(grouping(n, hidden) for _ in range(parts))

        self._deal(torch.randperm(n) % parts)

    @torch.no_grad()
    def _deal(self, part: Tensor) -> None:
        """Each part begins with the channels whose number in `part` (n,) is its own."""
        for i, layers in enumerate(self.grouping):
            bias = layers.get_parameter("2.bias")
            bias.copy_(torch.where(part == i, GROUPED, -GROUPED))

    def prepare(self, views: Views) -> None:
        """Deal the channels by where they peak in the training images."""
        from scipy.cluster.vq import kmeans2  # late: it takes time to load

        peaks = []
        for images, _ in views:
            maps = self.backbone.stages(images)[-self.depth]
            cell = maps.flatten(2).argmax(2)  # (B, n)
            across = maps.shape[3]
            peaks.append(torch.stack([cell % across, cell // across], 2).cpu())
        of_channel = torch.cat(peaks).transpose(0, 1).flatten(1)  # (n, 2 * images)
        parts = len(self.grouping)
        _, part = kmeans2(of_channel.double().numpy(), parts, minit="++", seed=0)
        self._deal(torch.from_numpy(part).to(self.joint_head.weight.device))

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of every head, and the parts' maps."""
        maps, of_image, of_parts = self._features(images)
        logits = [head(of_parts[:, i]) for i, head in enumerate(self.part_heads)]
        return {
            "image": self.image_head(of_image),
            "parts": torch.stack(logits, 1),
            "joint": self._joined(of_image, of_parts),
            "maps": maps,
        }

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """The softmax loss of each head, those of the parts added up; "distance" and
        twice the diversity, as published.
        """
        of_parts = logits["parts"].unbind(1)
        return {
            "image": criterion(logits["image"], targets),
            "parts": torch.stack([criterion(p, targets) for p in of_parts]).sum(),
            "joint": criterion(logits["joint"], targets),
            "distance": distance_loss(logits["maps"]),
            "diversity": DIVERSITY * diversity_loss(logits["maps"]),
        }

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) from the image and all parts together."""
        _, of_image, of_parts = self._features(images)
        return self._joined(of_image, of_parts)

    @torch.no_grad()
    def regions(self, images: Tensor) -> Tensor:
        """The squares (B, p, 4) round the peaks of the parts, xyxy in input pixels, in
        the order of the parts. Call it in eval mode.
        """
        size = side_of(images, "macnn")
        maps, _, _ = self._features(images)
        h, w = maps.shape[2:]
        depth = self.backbone.depths_at(size)[-self.depth]
        boxes = regions.centre_boxes(
            h, w, size, self.box * size, depth.stride, depth.first, images.device
        )  # (h * w, 4)
        return boxes[maps.flatten(2).argmax(2)]

    def part_maps(self, maps: Tensor) -> Tensor:
        """Maps (B, n, h, w) -> of each part a map with sum 1: (B, p, h, w)."""
        h, w = maps.shape[2:]
        of_image = F.normalize(maps.mean((2, 3)), dim=1)
        d = torch.stack([layers(of_image) for layers in self.grouping], 1)  # (B, p, n)
        weighed = torch.einsum("bpn,bnhw->bphw", d, maps)
        even = F.layer_norm(weighed.flatten(2).float(), (h * w,))
        m = even.sigmoid() ** self.sharpness
        return (m / m.sum(2, keepdim=True)).unflatten(2, (h, w))

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The parts' maps (B, p, h, w); features of image and parts, (B, p, n)."""
        stages = self.backbone.stages(images)
        maps = stages[-self.depth]
        # what trains the parts' maps moves no backbone ..
        m = self.part_maps(maps.detach())
        # .. and what trains the backbone moves no part
        of_parts = torch.einsum("bphw,bnhw->bpn", m.detach(), maps)
        return m, stages[-1].mean((2, 3)), of_parts

    def _joined(self, of_image: Tensor, of_parts: Tensor) -> Tensor:
        """Logits (B, C) from all features. These are divided by how many there are: a
        step of Adam then moves the logits as far as it does those of the image head.
        """
        features = torch.cat([of_image, of_parts.flatten(1)], 1)
        return self.joint_head(features.detach() / (1 + of_parts.shape[1]))
