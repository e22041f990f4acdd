"""Multi-level attention (MAEN of He, Peng, Zhao 2017), as reviewed by Golodov,
Dubrovina and Paziya (2018): a class activation map at several depths.

    model = Levels(create("vgg16"), num_classes=200) logits = model(images)
    # {"level1": (B, C), "level2": (B, C), "image": (B, C)}, from shallow to deep maps =
    model.eval().activation_maps(images)          # {"level1": (B, h1, w1), ...} boxes =
    model.locate(images)                         # {"level1": (B, 4), ...}: one
    discriminative region a depth
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from ..images import components
from .heads import linear
from .method import Method


class Levels(Method):
    """One backbone with global average pooling and a linear head at each of its last
    depths; of each a map, and of each map a box.

    Images are squares (B, 3, S, S), float in [0, 1]. Heads, losses, maps and boxes are
    named "level1", "level2", ... from shallow to deep, but the deepest is "image": it
    is the plain backbone's head, and alone predicts (silent: the paper uses the maps,
    not the predictions).

    levels: how many depths (3: conv4_3, conv5_3 and conv_cam of a VGG).
    cam: channels of the 3x3 convolution between the deepest map and its head (conv_cam;
        1024 in the CAM networks of the paper's time); 0: none, for backbones that end
        in a wide map of their own.

    Raises InputError for an option out of range, or for more levels than the backbone
    has depths.
    """

    VERSION = 1

    def __init__(
        self, backbone: Backbone, num_classes: int, *, levels: int = 3, cam: int = 0
    ):
        super().__init__()
        if not 1 <= levels <= len(backbone.depths):
            raise InputError(
                f"levels: {levels} levels are asked for, but {backbone.name} gives maps"
                f" at {len(backbone.depths)} depths; choose 1 to that."
            )
        if cam < 0:
            raise InputError(
                f"levels: cam is {cam}; a number of channels is needed, or 0 for no"
                " convolution."
            )
        self.backbone = backbone
        self.depths = dict(
            zip(
                [*(f"level{i}" for i in range(1, levels)), "image"],
                backbone.depths[-levels:],
                strict=True,
            )
        )
        self.cam = (
            nn.Sequential(
                nn.Conv2d(backbone.channels, cam, 3, padding=1), nn.ReLU(inplace=True)
            )
            if cam
            else nn.Identity()
        )
        self.heads = nn.ModuleDict(
            {
                name: linear(depth.channels, num_classes)
                for name, depth in self.depths.items()
            }
        )
        if cam:
            self.heads["image"] = linear(cam, num_classes)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by level; `targets` are not used (other methods do)."""
        return {
            name: self.heads[name](maps.mean((2, 3)))
            for name, maps in self._maps(images).items()
        }

    def losses(
        self, logits: dict[str, Tensor], targets: Tensor, criterion=F.cross_entropy
    ) -> dict[str, Tensor]:
        """One softmax loss a level; targets (B,) int64 or (B, C) probabilities."""
        return {name: criterion(of_level, targets) for name, of_level in logits.items()}

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C) used at test time: of the deepest level."""
        return self(images)["image"]

    @torch.no_grad()
    def activation_maps(
        self, images: Tensor, classes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Class activation maps (B, h, w) by level, float32: the sum over channels i of
        W_ki maps_i, with the weights W of the level's own head.

        classes (B,) int64: the class k of each image; None: the one that the deepest
        level predicts, at all levels (silent). Call it in eval mode.
        """
        maps = self._maps(images)
        if classes is None:
            classes = self.heads["image"](maps["image"].mean((2, 3))).argmax(1)
        with torch.autocast(images.device.type, enabled=False):
            return {
                name: torch.einsum(
                    "bn,bnhw->bhw",
                    self.heads[name].weight[classes].float(),
                    maps[name].float(),
                )
                for name in maps
            }

    @torch.no_grad()
    def locate(self, images: Tensor) -> dict[str, Tensor]:
        """The discriminative region of each level: (B, 4) float32 xyxy in input pixels.
        Call it in eval mode.

        Otsu's threshold makes a mask of each map, and the box goes round its largest
        component (cells that touch by a corner are connected: silent), cell by cell: a
        cell stands for `stride` pixels round where it looks. A map without contrast
        gives the box of all its cells. Raises InputError for images that are not
        square.
        """
        size = images.shape[-1]
        if images.shape[-2] != size:
            raise InputError(
                f"levels needs square images, not {size} x {images.shape[-2]} pixels."
            )
        boxes = {}
        for name, maps in self.activation_maps(images).items():
            masks = components.largest_component(
                maps > components.otsu(maps)[:, None, None]
            )
            boxes[name] = components.to_pixels(
                components.bounding_box(masks),
                self.depths[name].stride,
                self.depths[name].first,
                size,
            )
        return boxes

    def _maps(self, images: Tensor) -> dict[str, Tensor]:
        """The feature maps (B, n, h, w) that the heads pool, by level."""
        maps = dict(
            zip(
                self.depths,
                self.backbone.stages(images)[-len(self.depths) :],
                strict=True,
            )
        )
        return maps | {"image": self.cam(maps["image"])}
