"""MC-Loss (Chang et al. 2020): the mutual-channel loss. Every class owns some channels
of the backbone's map; each of these has to tell its class, and all of them have to look
at different places.

    model = MCLoss(create("resnet50"), num_classes=200)
    outputs = model(images)
    # {"image": (B, C), "channels": (B, C), "diversity": (B, C)}
    losses = model.losses(outputs, targets)  # by the same names
    probabilities = model.eval().predict(images).softmax(1)  # the plain backbone
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from .heads import linear
from .method import Criterion, Method


class MCLoss(Method):
    """The plain backbone, and two losses on its last map. Images (B, 3, H, W), float in
    [0, 1]; D channels of h * w places, C classes.

    mu: weight of both losses beside the softmax loss (0.005, for pretrained backbones;
        the public code, which trains from scratch: 1.5).
    diversity: weight of the second loss within (lambda, 10; from scratch 20 / 1.5).
    masked: share of a class's channels that are hidden, by chance for each image
        (paper: a half; public code: one of three, the same for all images of a batch).
    xi: channels a class. 0: the D channels of the backbone's map are dealt out, so that
        they must be at least C; the last classes get one more where D is no multiple
        (as in the paper, 152 x 10 and 48 x 11 of 2048). Above 0: a 1x1 convolution
        with ReLU makes C * xi channels of that map, for these losses alone (the public
        code, from scratch: the backbone's own last layer has 3 C).

    Raises InputError for an option out of range, or with fewer channels than classes.
    """

    VERSION = 1
    VARIANTS = ({}, {"xi": 3, "mu": 1.5, "masked": 0.34})

    index: Tensor  # (C, xi) int64: the channels of each class
    count: Tensor  # (C,) int64: how many are its own; the rest repeat the last of them

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        mu: float = 0.005,
        diversity: float = 10.0,
        masked: float = 0.5,
        xi: int = 0,
    ):
        super().__init__()
        if mu < 0 or diversity < 0 or not 0 <= masked < 1 or xi < 0:
            raise InputError(
                "mcloss: mu >= 0, diversity >= 0, 0 <= masked < 1 and xi >= 0, not mu"
                f" {mu}, diversity {diversity}, masked {masked} and xi {xi}."
            )
        channels = xi * num_classes or backbone.channels
        if channels < num_classes:
            raise InputError(
                f"mcloss: {backbone.name} gives {channels} channels, fewer than the"
                f" {num_classes} classes; set xi to 3, so that each class gets three."
            )
        self.mu = mu
        self.diversity = diversity
        self.masked = masked

        self.backbone = backbone
        self.image_head = linear(backbone.channels, num_classes)
        self.channels: nn.Module = nn.Identity()
        if xi:
            convolution = nn.Conv2d(backbone.channels, channels, 1)
            self.channels = nn.Sequential(convolution, nn.ReLU(inplace=True))

        # the channels of each class, one after another
        few, rest = divmod(channels, num_classes)
        count = torch.tensor([few] * (num_classes - rest) + [few + 1] * rest)
        first = count.cumsum(0) - count
        place = torch.arange(few + bool(rest)).expand(num_classes, -1)
        index = first[:, None] + place.minimum(count[:, None] - 1)
        self.register_buffer("count", count, persistent=False)
        self.register_buffer("index", index, persistent=False)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits (B, C): "image", of the head, and "channels", what the classes' own
        channels say; and "diversity" (B, C), how different the places are at which a
        class's channels look, 1 / xi to 1. `targets` are not used (other methods do).
        """
        maps = self.backbone(images)  # (B, D, h, w)
        # in float32 also under mixed precision: a softmax over many places follows
        places = self.channels(maps).flatten(2).float()
        groups = places.index_select(1, self.index.flatten())
        groups = groups.unflatten(1, self.index.shape)  # (B, C, xi, h * w)
        return {
            "image": self.image_head(maps.mean((2, 3))),
            "channels": self.discriminality(groups),
            "diversity": self.diversities(groups),
        }

    def discriminality(self, groups: Tensor) -> Tensor:
        """Class scores without a head: hide some channels of each class, take the
        maximum over the others at each place, and the mean over places: (B, C, xi,
        places) -> (B, C).
        """
        xi = groups.shape[2]
        # Places in a random order; what repeats a channel comes first and is hidden.
        chance = torch.rand(groups.shape[:3], device=groups.device)
        own = torch.arange(xi, device=groups.device) < self.count[:, None]  # (C, xi)
        order = torch.where(own, chance, -1.0).argsort(2).argsort(2)
        hidden = xi - self.count + (self.count * self.masked).long()  # (C,)
        seen = order >= hidden[:, None]
        # not 0, as in the public code: maps without a ReLU have values below
        return groups.masked_fill(~seen[..., None], -torch.inf).amax(2).mean(2)

    def diversities(self, groups: Tensor) -> Tensor:
        """Each channel's softmax over places, the maximum over a class's channels at
        each place, summed over places and divided by the number of channels: (B, C, xi,
        places) -> (B, C). 1 / xi where all channels are equal, 1 where each looks at
        one place of its own.
        """
        return groups.softmax(3).amax(2).sum(2) / self.count

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """L_CE + mu (L_dis - lambda L_div), with 1 - L_div in place of - L_div, which
        has the same gradient and is not below 0 (as in the public code).
        """
        spread = 1 - logits["diversity"].mean()
        return {
            "image": criterion(logits["image"], targets),
            "channels": self.mu * criterion(logits["channels"], targets),
            "diversity": self.mu * self.diversity * spread,
        }

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) of the head alone."""
        return self.image_head(self.backbone(images).mean((2, 3)))
