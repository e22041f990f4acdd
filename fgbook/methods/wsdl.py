"""Weakly supervised discriminative localisation (WSDL) of He, Peng and Zhao (2019), in
its smallest form: the boxes of multi-level attention (see :mod:`fgbook.methods.levels`)
are what n pathways look at more closely.

    model = WSDL(create("resnet50"), num_classes=200)
    logits = model(images, targets)
    # {"level1", "image", "path1", "path2": (B, C)}, of two levels
    boxes = model.eval().locate(images)  # {"level1": (B, 4), ...}
"""

import math

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from ..images.regions import crop_zoom
from .heads import linear
from .inputs import side_of
from .levels import Levels


class WSDL(Levels):
    """A pathway for each level: its box, cut out, enlarged, through the same backbone,
    and a head of its own.

    In the paper a detector (a region proposal network, and n region networks on its
    features) learns the boxes, so that they come without the maps at test time. Here
    the maps draw them at test time too: no proposals, no regression of boxes, a second
    pass of the backbone in place of pooled regions. What is kept is what the paper is
    about: boxes from attention at several depths alone, one pathway each, and the mean
    of the pathways' class probabilities.

    Images are squares (B, 3, S, S), float in [0, 1]. No gradient passes through a box.
    In training it is drawn for the true class (of mixed images the one with the larger
    share), else for the one that the deepest level predicts.

    levels, cam: see :class:`Levels`; 2, one pathway fewer than in the paper, because
        the third map from the end is that of an early stage here. Where early stages
        are frozen up to a level's map, only its head learns, and its boxes are wide.
    zoom: side of the enlarged boxes, as a share of S.
    whole: whether the deepest level's own probabilities count as one more pathway
        (silent: the paper's fusion of scores is not in its published code).

    Raises InputError for an option out of range, or for more levels than the backbone
    has depths.
    """

    VERSION = 1
    VARIANTS = ({}, {"levels": 1, "cam": 8, "whole": False})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        levels: int = 2,
        cam: int = 0,
        zoom: float = 1.0,
        whole: bool = True,
    ):
        super().__init__(backbone, num_classes, levels=levels, cam=cam)
        if not 0 < zoom <= 2:
            raise InputError(
                f"wsdl: zoom is {zoom}; a share above 0, up to 2, is needed."
            )
        self.zoom, self.whole = zoom, whole
        self.paths = [f"path{i}" for i in range(1, levels + 1)]
        self.pathways = nn.ModuleDict()
        for name in self.paths:
            self.pathways[name] = linear(backbone.channels, num_classes)

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits by level and by pathway, each with a softmax loss of its own."""
        size = side_of(images, "wsdl")
        maps = self._maps(images)
        logits = {}
        for name, of_level in maps.items():
            logits[name] = self.heads[name](of_level.mean((2, 3)))

        # where each pathway looks
        classes = targets if self.training else None
        if classes is not None and classes.ndim == 2:
            classes = classes.argmax(1)
        boxes = self._boxes(self._activations(maps, classes), size)
        together = torch.stack(list(boxes.values()), 1)  # (B, n, 4)

        # and what it sees there
        side = max(1, round(self.zoom * size))
        crops = crop_zoom(images, together, side).flatten(
            0, 1
        )  # (B * n, 3, side, side)
        features = self.backbone(crops).mean((2, 3))
        of_path = features.unflatten(0, together.shape[:2]).unbind(1)
        for name, feature in zip(self.paths, of_path, strict=True):
            logits[name] = self.pathways[name](feature)
        return logits

    def predict(self, images: Tensor) -> Tensor:
        """Logarithms (B, C) of the mean of the pathways' class probabilities."""
        logits = self(images)
        names = [*self.paths, "image"] if self.whole else self.paths
        said = torch.stack([logits[name].log_softmax(1) for name in names])
        return said.logsumexp(0) - math.log(len(names))
