"""From a method to the program that both formats are made of."""

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..images import augment
from ..methods import Method
from ..recipe import Recipe

EXAMPLES = 2
"""Images in the batch that is traced: with one, the batch would be taken for fixed."""


class Predicting(nn.Module):
    """What is exported: images (B, 3, S, S), float32 in [0, 1], as the recipe's
    evaluation sees them before it lowers their resolution -> logits (B, C).
    """

    def __init__(self, model: Method, recipe: Recipe):
        super().__init__()
        self.model = model
        # as the training images were
        self.low = recipe.low_side if recipe.resolution == "low" else None
        self.upsample = recipe.upsample

    def forward(self, images: Tensor) -> Tensor:
        """The method's logits at test time."""
        if self.low is not None:
            images = augment.degrade(images, self.low, self.upsample)
        return self.model.predict(images)


def predicting(model: Method, about: dict) -> Predicting:
    """The module to export, on the CPU, in evaluation mode, of what
    :func:`fgbook.evidence.runs.load_model` gives.
    """
    return Predicting(model.cpu(), Recipe.of(about["recipe"])).eval()


def probes(size: int, count: int, seed: int = 0) -> Tensor:
    """Smooth random images (count, 3, size, size) in [0, 1], to trace and to compare
    with.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 7, 7, generator=generator)
    smooth = nn.functional.interpolate(coarse, size, mode="bicubic")
    return smooth.clamp(0, 1)


def program(module: Predicting, size: int) -> torch.export.ExportedProgram:
    """The traced program, for square images of `size` pixels and any number of them.

    Raises InputError, with PyTorch's reason, for a method that cannot be traced.
    """
    images = probes(size, EXAMPLES)
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad():
            return torch.export.export(
                module, (images,), dynamic_shapes=({0: batch},), strict=False
            )
    except Exception as error:  # as many kinds as there are reasons
        name = type(module.model).__name__
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{name} cannot be exported ({reason}).") from error
