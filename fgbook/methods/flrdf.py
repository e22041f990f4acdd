"""Liang and Qu: foreground localisation and region-discriminative feature training
(FLRDF). One backbone looks up to three times.

    model = Flrdf(create("resnet50"), num_classes=200)
    logits = model(images, targets)
    # {"image": (B, C), "foreground": (B, C), "shuffled": (B, C)}
    loss = sum(model.losses(logits, targets).values())
    probabilities = model.eval().predict(images).softmax(1)
    boxes = model.locate(images)["foreground"]  # (B, 4)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone, SecondStatistics
from ..errors import InputError
from ..images import components, regions
from ..images.shuffle import shuffle_patches
from .heads import linear
from .inputs import side_of
from .method import Method
from .options import check_choice
from .suppression import Suppression

CONTROLLERS = ("learnable", "fixed", "none")
ATTENTIONS = ("true", "predicted", "max", "channels")
THRESHOLDS = ("max", "mean", "middle")
TESTS = ("both", "foreground", "image")


class Flrdf(Method):
    """The whole method: (a) the image, (b) its foreground, found without boxes and
    enlarged, (c) that foreground cut up and shuffled; a head each.

    Images are squares (B, 3, S, S), float in [0, 1]; C classes, n channels or patches.
    The text says only a part of what has to be decided (much of our copy is
    unreadable); "silent" marks our choices.

    foreground: False leaves out (b) and the suppression: (c) shuffles the whole image.
        (A row of Table 2.)
    shuffle: False leaves out (c). (A row of Table 2.)
    n: patches a side (Table 4; the best n is silent).
    controller: of the suppression: "learnable" (eq. 1), "fixed" at `bound`, or "none",
        which leaves plain class activation maps. The image head reads the pressed maps,
        else nothing would teach the controller; the other heads read maps as they are
        (silent).
    attention: which classes' activation map is the localisation map (silent): the
        "true" class where forward gets targets (of mixed images the class with the
        larger share), the predicted one otherwise; always the "predicted" one; "max"
        over all classes; or "channels", the sum of the pressed maps over channels,
        which needs no head.
    threshold: what belongs to the foreground (silent): "max": places above `level` of
        the map's maximum, as usual for class activation maps; "mean": above the map's
        mean. Of these the largest connected component counts. "middle", a control:
        whatever the map says, the middle square with half of the image's area.
    finer: before that, the map is enlarged by this factor, bilinearly, so that a box is
        not bound to whole cells (silent; 1: cells).
    test: what predicts (silent): "both" averages the logits of the image head and the
        foreground head; "foreground" or "image", one of them. (c) is for training
        alone.
    separate_statistics: BatchNorm keeps running statistics of its own for (b) and for
        (c) (silent: shared). Without effect where statistics are frozen.

    Raises InputError for an option out of range.
    """

    VERSION = 1
    VARIANTS = (
        {},
        {
            "controller": "fixed",
            "attention": "max",
            "threshold": "mean",
            "separate_statistics": True,
        },
        {"foreground": False},
        {
            "shuffle": False,
            "controller": "none",
            "attention": "predicted",
            "test": "foreground",
        },
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        foreground: bool = True,
        shuffle: bool = True,
        n: int = 4,
        controller: str = "learnable",
        bound: float = 0.7,
        attention: str = "true",
        threshold: str = "max",
        level: float = 0.2,
        finer: int = 4,
        test: str = "both",
        separate_statistics: bool = False,
    ):
        super().__init__()
        check_choice("controller", controller, CONTROLLERS)
        check_choice("attention", attention, ATTENTIONS)
        check_choice("threshold", threshold, THRESHOLDS)
        check_choice("test", test, TESTS)
        if not (n >= 1 and finer >= 1 and 0 <= bound <= 1 and 0 <= level < 1):
            raise InputError(
                "flrdf: n >= 1, finer >= 1, 0 <= bound <= 1 and 0 <= level < 1 are"
                f" needed, not n {n}, finer {finer}, bound {bound}, level {level}."
            )
        self.n = n
        self.attention = attention
        self.threshold = threshold
        self.level = level
        self.finer = finer
        self.test = test if foreground else "image"

        channels = backbone.channels
        self.backbone = backbone
        self.image_head = linear(channels, num_classes)
        self.foreground_head = linear(channels, num_classes) if foreground else None
        self.shuffled_head = linear(channels, num_classes) if shuffle else None
        self.suppression = None
        if foreground and controller != "none":
            fixed = bound if controller == "fixed" else None
            self.suppression = Suppression(channels, fixed)

        self.statistics = nn.ModuleDict()
        if separate_statistics and foreground:
            self.statistics["foreground"] = SecondStatistics(backbone)
        if separate_statistics and shuffle:
            self.statistics["shuffled"] = SecondStatistics(backbone)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of every head; targets (B,) int64 or (B, C) class probabilities, only
        for the localisation map.

        One softmax loss a head follows (eq. 2-4, see Method); the loop adds them up
        with alpha, beta and gamma, the recipe's loss_weights (eq. 5; silent: 1 each).
        """
        _, maps, image_logits = self.first_look(images)
        logits = {"image": image_logits}
        view = images
        if self.foreground_head is not None:
            view = self._foreground(images, maps, image_logits, targets)
            seen = self._closer_look("foreground", view)
            logits["foreground"] = self.foreground_head(seen)
        if self.shuffled_head is not None:
            seen = self._closer_look("shuffled", shuffle_patches(view, self.n))
            logits["shuffled"] = self.shuffled_head(seen)
        return logits

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) used at test time, see `test`; nothing is shuffled, and without
        the foreground head nothing cropped.
        """
        _, maps, image_logits = self.first_look(images)
        if self.test == "image" or self.foreground_head is None:
            return image_logits
        view = self._foreground(images, maps, image_logits, None)
        logits = self.foreground_head(self._closer_look("foreground", view))
        if self.test == "foreground":
            return logits
        return (image_logits + logits) / 2

    @torch.no_grad()
    def activation_maps(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Localisation maps (B, h, w), float32: "foreground", the method's own; where
        maps are pressed also "cam", the same of the maps before that, with the same
        classes. For figures and scores: call it in eval mode.
        """
        return self.activations(self.first_look(images), targets)

    @torch.no_grad()
    def locate(self, images: Tensor) -> dict[str, Tensor]:
        """The boxes (B, 4), float32 xyxy in input pixels, that the maps of
        ``activation_maps`` give. Call it in eval mode.
        """
        boxes = {}
        for name, activation in self.activation_maps(images).items():
            boxes[name] = self.box(activation, images.shape[-1])
        return boxes

    def first_look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(a): the maps X (B, n, h, w), the same pressed, X^s, and the image head's
        logits (B, C) of these.
        """
        side_of(images, "flrdf")
        maps = self.backbone(images)
        pressed = maps if self.suppression is None else self.suppression(maps)
        return maps, pressed, self.image_head(pressed.mean((2, 3)))

    def activations(
        self, look: tuple[Tensor, Tensor, Tensor], targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The maps of ``activation_maps`` from a first look, so that one look gives
        those of several classes.
        """
        maps, pressed, image_logits = look
        found = {"foreground": self._activation(pressed, image_logits, targets)}
        if self.suppression is not None:
            found["cam"] = self._activation(maps, image_logits, targets)
        return found

    def _closer_look(self, name: str, view: Tensor) -> Tensor:
        """(b) and (c): same backbone, GAP: (B, 3, S, S) -> (B, n)."""
        if name in self.statistics:
            maps = self.statistics[name](self.backbone, view)
        else:
            maps = self.backbone(view)
        return maps.mean((2, 3))

    def _activation(
        self, maps: Tensor, image_logits: Tensor, targets: Tensor | None
    ) -> Tensor:
        """The localisation map (B, h, w) of feature maps; in float32 also under mixed
        precision, because a threshold follows.
        """
        with torch.no_grad(), torch.autocast(maps.device.type, enabled=False):
            maps = maps.float()  # (B, n, h, w)
            weight = self.image_head.weight.float()  # (C, n)
            if self.attention == "channels":
                return maps.sum(1)
            if self.attention == "max":
                return F.conv2d(maps, weight[:, :, None, None]).amax(1)
            k = image_logits.argmax(1)
            if self.attention == "true" and targets is not None:
                k = targets if targets.ndim == 1 else targets.argmax(1)
            return torch.einsum("bn,bnhw->bhw", weight[k], maps)

    def enlarged(self, activation: Tensor) -> Tensor:
        """Localisation maps (B, h, w) in finer cells (B, finer * h, finer * w), see
        `finer`.
        """
        cells = self.finer * activation.shape[-1]
        return F.interpolate(activation[:, None], (cells, cells), mode="bilinear")[:, 0]

    def to_pixels(self, edges: Tensor, cells: int, size: int) -> Tensor:
        """Boxes (..., 4) xyxy in finer cells, of which a row has `cells`, as input
        pixels of an image whose side is `size`, float32; see
        :func:`fgbook.images.components.to_pixels`.
        """
        depth = self.backbone.depth_at(size)
        stride = depth.stride / self.finer
        # A cell is cut into finer ones round where it looks; the first looks here.
        first = depth.first - (depth.stride - stride) / 2
        return components.to_pixels(edges, cells, stride, first, size)

    @torch.no_grad()
    def box(
        self, activation: Tensor, size: int, threshold: str | None = None
    ) -> Tensor:
        """The box round the largest component above the threshold (None: the model's
        own): (B, h, w) -> (B, 4) float32 xyxy in input pixels.

        A map with nothing above the threshold gives the whole image.
        """
        threshold = threshold or self.threshold
        if threshold == "middle":
            margin = size * (1 - 0.5**0.5) / 2
            corner = activation.new_full((activation.shape[0], 2), margin)
            return torch.cat([corner, size - corner], 1)

        finer = self.enlarged(activation)
        if threshold == "max":
            limit = self.level * finer.amax((1, 2))
        else:
            limit = finer.mean((1, 2))
        masks = components.largest_component(finer > limit[:, None, None])
        edges = components.bounding_box(masks)  # (B, 4), in cells
        return self.to_pixels(edges, finer.shape[-1], size)

    def _foreground(
        self, images: Tensor, maps: Tensor, image_logits: Tensor, targets: Tensor | None
    ) -> Tensor:
        """The image's foreground, enlarged to the size of the image; a box that is not
        square is stretched (silent).
        """
        size = images.shape[-1]
        activation = self._activation(maps, image_logits, targets)
        boxes = self.box(activation, size)  # (B, 4)
        return regions.crop_zoom(images, boxes[:, None], size)[:, 0]
