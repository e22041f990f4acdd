"""CAL. Rao, Chen, Lu, Zhou: Counterfactual attention learning for fine-grained visual
categorization and re-identification (ICCV 2021), on WS-DAN (Hu et al., "See better
before looking closer", arXiv 1901.09891). Good attention changes the answer.

    model = CAL(create("resnet101"), num_classes=200)
    outputs = model(images, targets)
    # of the image, its crop and what is left without a part: {"views": (B, 3, C),
    # "effect": (B, 3, C)}, and {"centre": (B, m * n)}
    losses = model.losses(outputs, targets)
    probabilities = model.eval().predict(images).softmax(1)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from ..images import components, regions
from ..images.enlarge import enlarge
from .heads import linear
from .inputs import side_of
from .method import Criterion, Method

# What the authors' code sets (models/cal.py, utils.py, train_distributed.py).
EPSILON = 1e-6  # under roots
BETA = 0.05  # how far a class's centre follows one of its images
COUNTERFACTUAL = 2.0  # random attention lies between 0 and this
CROP, MARGIN = (0.4, 0.6), 0.1  # levels of the crop's mask; margin, of the image's side
DROP = (0.2, 0.5)  # levels of the mask that is dropped
TEST_MARGIN = 0.05
VIEWS = 3  # the image, its crop, and the image with a part dropped


def attention_pooling(maps: Tensor, attention: Tensor) -> Tensor:
    """Bilinear attention pooling: maps (B, n, h, w), attention (B, m, h, w) -> V (B,
    m * n): the mean over places of each attention map times each map, signed square
    roots of these, length 1.
    """
    places = maps.shape[-2] * maps.shape[-1]
    v = torch.einsum("bmhw,bnhw->bmn", attention, maps).flatten(1) / places
    roots = v.sign() * (v.abs() + EPSILON).sqrt()
    return F.normalize(roots, dim=1)


def drawn(attention: Tensor, count: int) -> Tensor:
    """`count` of each image's maps (B, m, h, w), drawn by the square roots of their
    sums, one more than once or not at all: (B, count, h, w).
    """
    strength = (attention.sum((2, 3)).float() + EPSILON).sqrt()  # (B, m)
    which = torch.multinomial(strength, count, replacement=True)  # (B, count)
    image = torch.arange(len(attention), device=attention.device)
    return attention[image[:, None], which]


class CAL(Method):
    """The whole method. Images are squares (B, 3, S, S), float in [0, 1]; C classes, n
    channels, m attention maps.

    m: attention maps (M in the paper). The head has m * n * C weights.
    effect: whether the effect of attention, what it changes in the logits against
        random attention, is classified too; False is WS-DAN.
    scale: of V, which has length 1, before the head. WS-DAN's 100 is made for SGD; the
        steps of Adam do not shrink with the gradient, and want 5 to 10.
    level: where the mean attention reaches this share of its maximum, the crop looks
        that predicts together with the image. Of few attention maps on few cells all is
        above a tenth: the crop is then the image again.

    What differs from the authors' code: maps are enlarged from where their cells look
    (there from corner to corner). All images of a class in a batch move its centre
    (there one of them). The head has a bias. As there, the BatchNorm of the attention
    maps normalises the image and its two other views apart, and its running statistics
    are of both. Two views predict, as in its validation
    (its final test takes eight: three crops, and all mirrored). What is dropped gets
    the backbone's mean colour, which is the code's 0 after normalisation. With several
    processes the first one's images move the centres, like running statistics.

    Raises InputError for an option out of range.
    """

    VARIANTS = ({}, {"m": 4, "effect": False, "scale": 10.0})
    centres: Tensor  # (C, m * n)

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        m: int = 32,
        effect: bool = True,
        scale: float = 100.0,
        level: float = 0.1,
    ):
        super().__init__()
        if not (m >= 1 and scale > 0 and 0 <= level < 1):
            raise InputError(
                "cal: m >= 1, scale > 0 and 0 <= level < 1 are needed, not m"
                f" {m}, scale {scale}, level {level}."
            )
        self.effect = effect
        self.scale = scale
        self.level = level
        self.backbone = backbone
        n = backbone.channels
        self.view_head = linear(m * n, num_classes)
        self.attention = nn.Sequential(
            nn.Conv2d(n, m, 1, bias=False), nn.BatchNorm2d(m), nn.ReLU()
        )
        self.register_buffer("centres", torch.zeros(num_classes, m * n))

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of the three views, the effect of attention on each, and, where
        targets are given, how far V of the image lies from its class's centre. In
        training this centre then moves.
        """
        maps, attention = self._look(images)
        v = attention_pooling(maps, attention)
        logits = self.view_head(self.scale * v)
        views = self._augmented(images, attention)  # (2B, 3, S, S)
        more_maps, more_attention = self._look(views)
        more_logits = self._logits(more_maps, more_attention)

        outputs = {"views": _by_view(logits, more_logits)}
        if self.effect:
            # the logits less those of attention that knows nothing
            without = self._logits(maps, self._counterfactual(attention))
            other = self._counterfactual(more_attention)
            more_without = self._logits(more_maps, other)
            outputs["effect"] = outputs["views"] - _by_view(without, more_without)
        if targets is not None:
            outputs["centre"] = self._from_centre(v, targets)
        return outputs

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """The softmax losses of the views and of the effects, each averaged over the
        three views (the code's 1/3 + 2/3 and 1), and "centre": the mean squared
        distance from the centres.
        """
        each = targets.repeat_interleave(VIEWS, 0, output_size=len(targets) * VIEWS)
        losses: dict[str, Tensor] = {}
        for name in ("views", "effect"):
            if name in logits:
                losses[name] = criterion(logits[name].flatten(0, 1), each)
        if "centre" in logits:
            losses["centre"] = logits["centre"].square().sum(1).mean()
        return losses

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C): the mean of the image's and of its crop's."""
        maps, attention = self._look(images)
        boxes = self._box(attention.mean(1), images, self.level, TEST_MARGIN)
        crops = regions.crop_zoom(images, boxes[:, None], images.shape[-1])[:, 0]
        of_crops = self._logits(*self._look(crops))
        return (self._logits(maps, attention) + of_crops) / 2

    @torch.no_grad()
    def locate(self, images: Tensor) -> dict[str, Tensor]:
        """{"crop": boxes (B, 4) that predict looks at}, xyxy in input pixels. Call it
        in eval mode.
        """
        _, attention = self._look(images)
        mean = attention.mean(1)
        return {"crop": self._box(mean, images, self.level, TEST_MARGIN)}

    # ---- the steps

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, n, h, w) and attention (B, m, h, w)."""
        maps = self.backbone(images)
        return maps, self.attention(maps)

    def _logits(self, maps: Tensor, attention: Tensor) -> Tensor:
        """Of maps under some attention: (B, C)."""
        return self.view_head(self.scale * attention_pooling(maps, attention))

    def _counterfactual(self, attention: Tensor) -> Tensor:
        """Other attention of this shape: random; in evaluation mode uniform."""
        if self.training:
            return COUNTERFACTUAL * torch.rand_like(attention)
        return torch.ones_like(attention)

    @torch.no_grad()
    def _augmented(self, images: Tensor, attention: Tensor) -> Tensor:
        """The crops round one attention map each, then the images without another:
        (2B, 3, S, S).
        """
        batch = len(images)
        to_crop, to_drop = drawn(attention, 2).unbind(1)  # (B, h, w) each

        level = _uniform(batch, CROP, images)
        boxes = self._box(to_crop, images, level, MARGIN)
        crops = regions.crop_zoom(images, boxes[:, None], images.shape[-1])[:, 0]

        dropped = self._mask(to_drop, images, _uniform(batch, DROP, images))
        rest = torch.where(dropped[:, None], self.backbone.mean, images)
        return torch.cat([crops, rest])

    def _mask(self, of: Tensor, images: Tensor, level: Tensor | float) -> Tensor:
        """Where an attention map (B, h, w), enlarged, reaches `level`, (B,) or one, of
        its maximum: (B, S, S). In float32 also under mixed precision.
        """
        size = side_of(images, "cal")
        depth = self.backbone.depth_at(size)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            of = of.float()
            limit = level * of.amax((1, 2))
            over = enlarge(of, size, depth.stride, depth.first)
            return over >= limit[:, None, None]

    def _box(
        self, of: Tensor, images: Tensor, level: Tensor | float, margin: float
    ) -> Tensor:
        """The box round that mask with a margin, within the image: (B, 4) xyxy."""
        size = images.shape[-1]
        edges = components.bounding_box(self._mask(of, images, level))
        low, high = edges.chunk(2, 1)
        away = margin * size
        return torch.cat([low - away, high + away], 1).clamp(0, size)

    def _from_centre(self, v: Tensor, targets: Tensor) -> Tensor:
        """V minus its class's centre, which has length 1: (B, m * n). A mixed image is
        one of the class that it shows most of.
        """
        labels = targets.argmax(1) if targets.ndim == 2 else targets
        offset = v.float() - F.normalize(self.centres[labels], dim=1)
        if self.training:
            self.centres.index_add_(0, labels, BETA * offset.detach())
        return offset


def _by_view(of_image: Tensor, of_views: Tensor) -> Tensor:
    """(B, C) and (2B, C) -> (B, 3, C)."""
    return torch.stack([of_image, *of_views.chunk(2)], 1)


def _uniform(count: int, ends: tuple[float, float], like: Tensor) -> Tensor:
    """(count,) random numbers between two ends, on the device of `like`."""
    low, high = ends
    return low + (high - low) * torch.rand(count, device=like.device)
