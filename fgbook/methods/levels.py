"""Multi-level attention (MAEN of He, Peng, Zhao 2017), as reviewed by Golodov,
Dubrovina and Paziya (2018): a class activation map at several depths.

    model = Levels(create("vgg16"), num_classes=200)
    logits = model(images)
    # {"level1": (B, C), "level2": (B, C), "image": (B, C)}, from shallow to deep
    maps = model.eval().activation_maps(images)  # {"level1": (B, h1, w1), ...}
    boxes = model.locate(images)  # {"level1": (B, 4), ...}: a region a depth
"""

import torch
from torch import Tensor, nn

from ..backbones import Backbone, Depth
from ..errors import InputError
from ..images import components
from .heads import linear
from .inputs import side_of
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

    # 2: what touches the border of the map reaches to the border of the image
    VERSION = 2
    VARIANTS = ({}, {"levels": 2, "cam": 8})

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
        self.names = [*(f"level{i}" for i in range(1, levels)), "image"]

        # What each head pools: the backbone's maps, the deepest one through conv_cam.
        channels = [depth.channels for depth in backbone.depths[-levels:]]
        self.cam: nn.Module = nn.Identity()
        if cam:
            convolution = nn.Conv2d(backbone.channels, cam, 3, padding=1)
            self.cam = nn.Sequential(convolution, nn.ReLU(inplace=True))
            channels[-1] = cam

        self.heads = nn.ModuleDict()
        for name, inputs in zip(self.names, channels, strict=True):
            self.heads[name] = linear(inputs, num_classes)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by level, each with a softmax loss of its own (see Method); `targets`
        are not used (other methods do).
        """
        logits = {}
        for name, maps in self._maps(images).items():
            logits[name] = self.heads[name](maps.mean((2, 3)))
        return logits

    @torch.no_grad()
    def activation_maps(
        self, images: Tensor, classes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Class activation maps (B, h, w) by level, float32: the sum over channels i of
        W_ki maps_i, with the weights W of the level's own head.

        classes (B,) int64: the class k of each image; None: the one that the deepest
        level predicts, at all levels (silent). Call it in eval mode.
        """
        return self._activations(self._maps(images), classes)

    @torch.no_grad()
    def locate(self, images: Tensor) -> dict[str, Tensor]:
        """The discriminative region of each level: (B, 4) float32 xyxy in input pixels.
        Call it in eval mode.

        Otsu's threshold makes a mask of each map, and the box goes round its largest
        component (cells that touch by a corner are connected: silent), cell by cell: a
        cell stands for `stride` pixels round where it looks, at the border for all that
        is left (silent). A map without contrast gives the whole image. Raises
        InputError for images that are not square.
        """
        size = side_of(images, "levels")
        return self._boxes(self.activation_maps(images), size)

    def depths_at(self, size: int) -> dict[str, Depth]:
        """Where the cells of each level's map look, in images of `size` pixels."""
        depths = self.backbone.depths_at(size)[-len(self.names) :]
        return dict(zip(self.names, depths, strict=True))

    def _maps(self, images: Tensor) -> dict[str, Tensor]:
        """The feature maps (B, n, h, w) that the heads pool, by level."""
        stages = self.backbone.stages(images)[-len(self.names) :]
        maps = dict(zip(self.names, stages, strict=True))
        maps["image"] = self.cam(maps["image"])
        return maps

    @torch.no_grad()
    def _activations(
        self, maps: dict[str, Tensor], classes: Tensor | None
    ) -> dict[str, Tensor]:
        """See :meth:`activation_maps`, of the feature maps."""
        if classes is None:
            classes = self.heads["image"](maps["image"].mean((2, 3))).argmax(1)

        activations = {}
        # in float32 also under mixed precision: a threshold follows
        with torch.autocast(classes.device.type, enabled=False):
            for name, of_level in maps.items():
                weight = self.heads[name].get_parameter("weight")[classes]  # (B, n)
                activations[name] = torch.einsum(
                    "bn,bnhw->bhw", weight.float(), of_level.float()
                )
        return activations

    def _boxes(self, activations: dict[str, Tensor], size: int) -> dict[str, Tensor]:
        """See :meth:`locate`, of the activation maps of images of `size` pixels."""
        depths = self.depths_at(size)
        boxes = {}
        for name, maps in activations.items():
            masks = maps > components.otsu(maps)[:, None, None]
            edges = components.bounding_box(components.largest_component(masks))
            depth = depths[name]
            boxes[name] = components.to_pixels(
                edges, maps.shape[-1], depth.stride, depth.first, size
            )
        return boxes
