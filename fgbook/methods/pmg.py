"""PMG (Du et al. 2020): progressive multi-granularity training of jigsaw patches. Each
stage of the backbone learns from an image cut into patches of its own size, in an
optimiser step of its own; then all of them together from the whole image. (Where the
recipe freezes early stages, these steps teach their blocks and heads alone.)

    model = PMG(create("resnet50"), num_classes=200)
    model.rounds  # ("stage1", "stage2", "stage3", "concat"): four steps a batch
    logits = model(images, targets, "stage1")  # {"stage1": (B, C)}, of the jigsaw
    logits = model.look(images)  # all four heads on the whole image: (B, C) each
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone, Depth
from ..errors import InputError
from ..images.shuffle import shuffle_patches
from .heads import linear
from .method import Criterion, Method
from .options import check_choice

STEPS = ("each", "sum")


class Norm(nn.BatchNorm1d):
    """BatchNorm of vectors (B, n). A single one has no variance: it is normalised by
    the running statistics.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, n) -> (B, n)."""
        if self.training and len(input) > 1:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias
        )


def block(inputs: int, width: int) -> nn.Sequential:
    """What turns a stage's map (B, inputs, h, w) into one of (B, 2 * width, h, w)."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(inplace=True),
    )


def classifier(inputs: int, width: int, num_classes: int) -> nn.Sequential:
    """A head of two layers: (B, inputs) -> (B, C)."""
    return nn.Sequential(
        Norm(inputs),
        nn.Linear(inputs, width, bias=False),
        Norm(width),
        nn.ELU(),
        linear(width, num_classes),
    )


class PMG(Method):
    """A block and a head at each of the backbone's last stages, and a head on all of
    them. Images are squares (B, 3, S, S), float in [0, 1], of at least max(n) pixels.

    n: patches a side for each of these stages, from shallow to deep; as many stages as
        numbers. Where n does not divide S, a frame of fewer than n pixels stays where
        it is.
    width: of the layers of blocks and heads (512, made for ResNet-50 at 448 pixels;
        beside a small backbone 64 to 128, or the heads cost more than the backbone).
    steps: "each": every loss gets its own optimiser step on every batch, from shallow
        to deep (paper); "sum": one step for the sum of the losses.

    Where the public code and we differ:

    - Code: swaps patches one after another, by the same permutation for the whole
      batch, which always moves every patch. Here a uniform one for each image.
    - Code: all blocks and heads run in every step. Here a stage's block and head run in
      its own step and in the last, on the jigsaw and on the image, so that their
      running statistics know both.
    - Code, as here: every step runs the whole backbone, and running statistics are
      those of jigsaws and images together, while test images are whole.
      recipe.recompute_statistics makes them anew from whole images.
    - Code, with the PyTorch of its time: parameters that a step does not use still move
      by momentum and weight decay. Here they rest.
    - Code: running statistics of the blocks move by 0.01 a step, for 200 epochs; here
      by 0.1. It normalises images with mean and deviation 0.5; here as the backbone
      was trained. Heads start as all heads here do.

    Raises InputError for an option out of range.
    """

    VERSION = 1
    VARIANTS = (
        {"width": 16},
        {"n": (3, 1), "width": 8, "steps": "sum"},
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        n: tuple[int, ...] = (8, 4, 2),
        width: int = 512,
        steps: str = "each",
    ):
        super().__init__()
        check_choice("steps", steps, STEPS)
        if min(n, default=0) < 1 or width < 1:
            raise InputError(
                "pmg: n must be numbers of patches, each at least 1, and width at least"
                f" 1, not n {n} and width {width}."
            )
        if len(n) > len(backbone.depths):
            raise InputError(
                f"pmg: n gives patches for {len(n)} stages, but {backbone.name} gives"
                f" maps at {len(backbone.depths)} depths; give at most so many."
            )
        stages = [f"stage{i}" for i, _ in enumerate(n, 1)]
        self.patches = dict(zip(stages, n, strict=True))
        self.rounds = (*stages, "concat") if steps == "each" else ()

        self.backbone = backbone
        self.blocks = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        depths = backbone.depths[-len(n) :]
        for name, depth in zip(stages, depths, strict=True):
            self.blocks[name] = block(depth.channels, width)
            self.heads[name] = classifier(2 * width, width, num_classes)
        self.heads["concat"] = classifier(2 * width * len(n), width, num_classes)

    def forward(
        self, images: Tensor, targets: Tensor | None = None, only: str | None = None
    ) -> dict[str, Tensor]:
        """Logits (B, C) of the head `only`, of each if None: a stage's on its jigsaw,
        "concat" on the image. `targets` are not used (other methods do).
        """
        logits = {}
        for name in [only] if only else self.heads:
            if name == "concat":
                logits[name] = self.look(images)[name]
            else:
                jigsaw = shuffle_patches(images, self.patches[name])
                vector = self._vectors(jigsaw, [name])[name]
                logits[name] = self.heads[name](vector)
        return logits

    def losses(
        self,
        logits: dict[str, Tensor],
        targets: Tensor,
        criterion: Criterion = F.cross_entropy,
    ) -> dict[str, Tensor]:
        """A softmax loss for each head that there are logits of, that of "concat"
        twice: the paper's alpha = 1 and beta = 2.
        """
        losses = super().losses(logits, targets, criterion)
        if "concat" in losses:
            losses["concat"] = 2 * losses["concat"]
        return losses

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C), the sum over all heads, of the image as it is."""
        return torch.stack(list(self.look(images).values())).sum(0)

    def look(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, C) of every head, of the image as it is, in one pass."""
        vectors = self._vectors(images, list(self.patches))
        logits = {name: self.heads[name](vectors[name]) for name in vectors}
        together = torch.cat(list(vectors.values()), 1)
        return {**logits, "concat": self.heads["concat"](together)}

    def looks_at(self, size: int) -> dict[str, tuple[nn.Module, Depth]]:
        """Of each stage, the block whose maps its head reads, and where their cells
        look, in images of `size` pixels.
        """
        depths = self.backbone.depths_at(size)[-len(self.patches) :]
        blocks = zip(self.blocks.values(), depths, strict=True)
        return dict(zip(self.patches, blocks, strict=True))

    def _vectors(self, images: Tensor, names: list[str]) -> dict[str, Tensor]:
        """What these stages see: the maximum over space of their block's map, (B, 2 *
        width) by stage.
        """
        stages = self.backbone.stages(images)[-len(self.patches) :]
        maps = dict(zip(self.patches, stages, strict=True))
        return {name: self.blocks[name](maps[name]).amax((2, 3)) for name in names}
