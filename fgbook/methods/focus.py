"""Feng, Fu, Zhao: Learning to focus and discriminate for fine-grained classification
(2019). One backbone looks twice.

    model = Focus(create("resnet50"), num_classes=200)
    logits = model(images, targets)
    # {"image": (B, C), "region": (B, m, C), "hybrid": (B, C)}
    loss = sum(model.losses(logits, targets).values())
    probabilities = model.eval().predict(images).softmax(1)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbones import Backbone, SecondStatistics
from ..errors import InputError
from ..images import regions
from .constants import Constants
from .heads import linear
from .inputs import side_of
from .method import Criterion, Method
from .options import check_choice

ATTENTIONS = ("max", "predicted", "true")
HEADS = ("hybrid", "image")


class Focus(Method):
    """The whole method (section 3): a map made from the classifier's own weights
    proposes regions, the same backbone looks at them closely.

    Images are squares (B, 3, S, S), float in [0, 1]. Letters as in the paper: C
    classes, n channels, m regions, l in the hybrid head. Defaults are the paper's
    (section 4.2); what it leaves open is marked "silent".

    m, l: regions proposed, and how many of the best enter the hybrid head; 1 <= l <= m.
    threshold: boxes that overlap a better one by more than this IoU are dropped.
    box, zoom: side of a region, and of its enlarged crop, as fractions of S (160 and
        224 of 448 pixels).
    sigma: of the Gaussian that smooths the map, as a fraction of the map's side
        (silent: 1 cell of the paper's 14).
    attention: "max" over all class maps (eq. 2); the ablations "predicted" (map of the
        predicted class) and "true" (map of the true class where forward gets targets,
        as in training; of the predicted class otherwise).
    heads: "hybrid", or "image" for the ablation without the hybrid head, which predicts
        with the image head and crops nothing at test time.
    separate_statistics: BatchNorm keeps running statistics of its own for the zoomed
        regions (silent: shared). Without effect where statistics are frozen.

    Raises InputError for an option out of range.
    """

    # 2: boxes are centred where a cell looks, not half a stride to the right of it and
    # below; sigma scales with the map
    VERSION = 2
    VARIANTS = (
        {},
        {"attention": "predicted", "m": 3, "l": 1},
        {"attention": "true", "separate_statistics": True},
        {"heads": "image"},
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        m: int = 6,
        l: int = 4,  # noqa: E741  # the paper's letter
        threshold: float = 0.25,
        box: float = 160 / 448,
        zoom: float = 224 / 448,
        sigma: float = 1 / 14,
        attention: str = "max",
        heads: str = "hybrid",
        separate_statistics: bool = False,
    ):
        super().__init__()
        check_choice("attention", attention, ATTENTIONS)
        check_choice("heads", heads, HEADS)
        if not 1 <= l <= m:
            raise InputError(f"focus: l is {l} and m is {m}; 1 <= l <= m is needed.")
        if not (0 <= threshold <= 1 and 0 < box <= 1 and zoom > 0 and sigma >= 0):
            raise InputError(
                "focus: 0 <= threshold <= 1, 0 < box <= 1, zoom > 0 and sigma >= 0 are"
                f" needed, not threshold {threshold}, box {box}, zoom {zoom}, sigma"
                f" {sigma}."
            )
        self.m = m
        self.l = l
        self.threshold = threshold
        self.box = box
        self.zoom = zoom
        self.sigma = sigma
        self.attention = attention

        n = backbone.channels
        self.backbone = backbone
        self.second = SecondStatistics(backbone) if separate_statistics else None
        self.image_head = linear(n, num_classes)
        self.region_head = linear(n, num_classes)  # one for all regions
        hybrid = heads == "hybrid"
        self.hybrid_head = linear((1 + l) * n, num_classes) if hybrid else None
        self._constants = Constants()

    # ---- what the loop calls

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of every head. Raises InputError if the map has fewer than m cells."""
        maps, feature, image_logits = self._first_look(images)
        attention = self._attention(maps, image_logits, targets)
        boxes = self._propose(attention, images, self.m)  # (B, m, 4)
        region_features = self._second_look(images, boxes)  # F^R: (B, m, n)
        logits = {"image": image_logits, "region": self.region_head(region_features)}
        if self.hybrid_head is not None:
            logits["hybrid"] = self.hybrid_head(self._joined(feature, region_features))
        return logits

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """One softmax loss a head (section 3.3), the region loss averaged over regions;
        targets (B,) int64 or (B, C) probabilities.
        """
        losses = {"image": criterion(logits["image"], targets)}
        of_regions = logits["region"].flatten(0, 1)  # (B * m, C)
        # with the size told, a GPU need not count
        each_m_times = targets.repeat_interleave(
            self.m, 0, output_size=len(targets) * self.m
        )
        losses["region"] = criterion(of_regions, each_m_times)
        if "hybrid" in logits:
            losses["hybrid"] = criterion(logits["hybrid"], targets)
        return losses

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) used at test time: of the hybrid head, from l regions; without
        it, of the image head, from no region at all.
        """
        maps, feature, image_logits = self._first_look(images)
        if self.hybrid_head is None:
            return image_logits
        boxes = self._propose(self._attention(maps, image_logits), images, self.l)
        region_features = self._second_look(images, boxes)
        return self.hybrid_head(self._joined(feature, region_features))

    # ---- for figures and scores: in evaluation mode

    @torch.no_grad()
    def attention_map(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """The smoothed map M (B, h, w), float32."""
        maps, _, image_logits = self._first_look(images)
        return self._attention(maps, image_logits, targets)

    @torch.no_grad()
    def regions(self, images: Tensor) -> Tensor:
        """The boxes of the m regions (B, m, 4), xyxy in input pixels, the best
        first.
        """
        return self._propose(self.attention_map(images), images, self.m)

    # ---- the steps of section 3

    def _first_look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Section 3.1: the maps Z (B, n, h, w), the feature F^I (B, n) and the scores S
        (B, C) of the whole image.
        """
        side_of(images, "focus")
        maps = self.backbone(images)  # Z
        feature = maps.mean((2, 3))  # F^I: global average pooling
        return maps, feature, self.image_head(feature)  # eq. 1; our head has a bias too

    def _attention(
        self, maps: Tensor, image_logits: Tensor, targets: Tensor | None = None
    ) -> Tensor:
        """Eq. 2 and the smoothing that follows it: M (B, h, w). In float32 also under
        mixed precision: close scores decide which region is chosen.
        """
        with torch.no_grad(), torch.autocast(maps.device.type, enabled=False):
            z = maps.float()  # (B, n, h, w)
            w = self.image_head.weight.float()  # (C, n)
            if self.attention == "max":
                # eq. 2: all M_k (B, C, h, w), a 1x1 convolution; maximum over k
                attention = F.conv2d(z, w[:, :, None, None]).amax(1)
            else:
                # as in class activation mapping: the map M_k of a single class
                k = image_logits
                if self.attention == "true" and targets is not None:
                    k = targets
                if k.ndim == 2:  # of mixed images the larger part counts
                    k = k.argmax(1)
                attention = torch.einsum("bn,bnhw->bhw", w[k], z)
            return regions.gaussian_smooth(attention, self.sigma * attention.shape[-1])

    def _propose(self, attention: Tensor, images: Tensor, count: int) -> Tensor:
        """Section 3.2: every cell of M stands for a box, scored by M there; the best
        `count` after NMS (B, count, 4).
        """
        h, w = attention.shape[1:]
        boxes, iou = self._geometry(h, w, images.shape[-1], images.device)
        scores = attention.flatten(1)  # (B, h * w)
        return boxes[regions.select(scores, iou, count, self.threshold)]

    def _geometry(
        self, h: int, w: int, size: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """All boxes (h * w, 4) and their overlaps (h * w, h * w).

        The same for all images of a size, so they are made once and kept.
        """

        def make() -> tuple[Tensor, Tensor]:
            depth = self.backbone.depth_at(size)
            side = self.box * size
            boxes = regions.centre_boxes(
                h, w, size, side, depth.stride, depth.first, device
            )
            return boxes, regions.iou_matrix(boxes)

        boxes, iou = self._constants.get((h, w, size, self.box, device), make)
        return boxes, iou

    def _second_look(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Cut out, zoom in, same backbone, GAP: boxes (B, count, 4) -> F^R (B, count,
        n).
        """
        side = round(self.zoom * images.shape[-1])
        crops = regions.crop_zoom(images, boxes, side)  # (B, count, 3, side, side)
        together = crops.flatten(0, 1)
        if self.second is None:
            maps = self.backbone(together)
        else:
            maps = self.second(self.backbone, together)
        return maps.mean((2, 3)).unflatten(0, boxes.shape[:2])

    def _joined(self, feature: Tensor, region_features: Tensor) -> Tensor:
        """F = [F^I F_1^R .. F_l^R] (section 3.1): (B, (1 + l) n)."""
        best = region_features[:, : self.l]
        return torch.cat([feature[:, None], best], 1).flatten(1)
