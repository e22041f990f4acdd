"""DFL-CNN (Wang, Morariu and Davis 2018): a bank of filters, some for each class, that
look for what tells at a single place, beside the usual look at the whole image.

    model = DFLCNN(create("resnet50"), num_classes=200)
    logits = model(images)  # {"image": (B, C), "filters": (B, C), "side": (B, C)}
    answers = model.answers(model.backbone.stages(images)[-2])  # (B, C * k)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import InputError
from .heads import linear
from .inputs import check_depth
from .method import Criterion, Method, Views
from .options import check_choice

STARTS = ("patches", "random")


class DFLCNN(Method):
    """Two streams over one backbone (section 3.1). The G-stream is the plain backbone.
    The P-stream asks each of k filters a class how strongly it answers at its best
    place, and has a linear head on all answers. The side branch has no weights: a
    class's score is the mean answer of its own k filters, which is what makes them its
    own (section 3.2).

    k: filters a class (10).
    depth: the map that the filters look at, counted from the deepest, 1. 2: the one
        before it (stride 8 of a VGG, 16 of a ResNet), whose cells see about a patch.
    side: weight of the side branch in the loss and in the prediction (0.1).
    start: of the filters, of length 1. "patches": centres of clusters of the class's
        patches with much energy (section 3.3); here the places of the map that are
        longer than all round them, as directions, clustered by k-means. Of a class with
        fewer than k such places they are drawn. "random": all are, as in the code that
        is public, which is not the authors'.

    Answers are as long as the backbone's maps: their head reads them brought to mean 0
    and variance 1, or a step of Adam would throw its logits about (neither paper nor
    code). The G-stream's head is linear on the pooled map: the paper has fully
    connected layers, the public code C maps with BatchNorm and ReLU, whose logits
    cannot be negative.

    Where early stages are frozen up to the map that the filters look at, they choose
    among its channels as they are: they teach the backbone nothing.

    Raises InputError for an option out of range.
    """

    VERSION = 2
    VARIANTS = ({}, {"k": 2, "depth": 1, "side": 1.0, "start": "random"})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        k: int = 10,
        depth: int = 2,
        side: float = 0.1,
        start: str = "patches",
    ):
        super().__init__()
        check_choice("start", start, STARTS)
        if k < 1 or side < 0:
            raise InputError(
                f"dflcnn: k >= 1 and side >= 0 are needed, not k {k} and side {side}."
            )
        check_depth("dflcnn", depth, backbone)
        self.k = k
        self.depth = depth
        self.side = side
        self.start = start
        self.backbone = backbone
        self.image_head = linear(backbone.channels, num_classes)  # G-stream

        # P-stream: the filters of class 0, then those of class 1, ...
        self.bank = nn.Conv2d(backbone.depths[-depth].channels, num_classes * k, 1)
        with torch.no_grad():
            drawn = torch.randn_like(self.bank.weight)
            self.bank.weight.copy_(F.normalize(drawn, dim=1))
            self.bank.get_parameter("bias").zero_()
        self.filter_head = linear(num_classes * k, num_classes)

    def prepare(self, views: Views) -> None:
        """Start the filters from the training images, all of them."""
        if self.start == "random":
            return
        from scipy.cluster.vq import kmeans2  # late: it takes time to load

        vectors, of_class = [], []
        for images, labels in views:
            maps = self.backbone.stages(images)[-self.depth].float()
            energy = maps.norm(dim=1)  # (B, h, w)
            highest = F.max_pool2d(energy, 3, stride=1, padding=1)
            image, y, x = ((energy == highest) & (energy > 0)).nonzero(as_tuple=True)
            vectors.append(F.normalize(maps[image, :, y, x]).cpu())
            of_class.append(labels[image].cpu())
        places, classes = torch.cat(vectors), torch.cat(of_class)

        for label, filters in enumerate(self.bank.weight.split(self.k)):
            own = places[classes == label].numpy()
            if len(own) >= self.k:
                centres, _ = kmeans2(own, self.k, minit="++", seed=0)
                found = torch.from_numpy(centres).to(filters)
                filters.copy_(F.normalize(found)[..., None, None])

    def forward(
        self, images: Tensor, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits (B, C) of the G-stream, "image", the P-stream, "filters", and the side
        branch, "side"; `targets` are not used (other methods do).
        """
        stages = self.backbone.stages(images)
        answers = self.answers(stages[-self.depth])  # (B, C * k)
        return {
            "image": self.image_head(stages[-1].mean((2, 3))),
            "filters": self.filter_head(F.layer_norm(answers, answers.shape[1:])),
            # cross-channel pooling: (B, C, k) -> (B, C)
            "side": answers.unflatten(1, (-1, self.k)).mean(2),
        }

    def answers(self, maps: Tensor) -> Tensor:
        """Of each filter its answer at its best place: maps (B, n, h, w) -> (B,
        C * k).
        """
        return self.bank(maps).amax((2, 3))

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """A softmax loss for each of the three, the side branch's times `side`;
        targets (B,) int64 or (B, C) probabilities.
        """
        losses = super().losses(logits, targets, criterion)
        losses["side"] = self.side * losses["side"]
        return losses

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C), the sum of all three with the weights of their losses."""
        logits = self(images)
        return logits["image"] + logits["filters"] + self.side * logits["side"]
