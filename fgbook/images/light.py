"""Pictures lit where a map is high: they need no colour scale, so a bird keeps its
colours.
"""

import torch.nn.functional as F
from torch import Tensor

DUSK = 1 / 8
"""What is left of the light where a map is lowest."""


def scaled(values: Tensor) -> Tensor:
    """A map from 0, where it is lowest, to 1, where it is highest; an even one is 0."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=1e-9)


def dimmed(image: Tensor, light: Tensor) -> Tensor:
    """The image (3, S, S), as it is where the light (S, S) is 1 and at DUSK where it is
    0.
    """
    return image * (DUSK + (1 - DUSK) * light)


def lit(image: Tensor, explanation: Tensor) -> Tensor:
    """The image (3, S, S), lit where the map (h, w) of an explanation is high; less
    than 0 counts as 0, and cells are enlarged evenly (see fgbook/explain/offered.py).
    """
    light = scaled(explanation.clamp(min=0))[None, None]
    side = tuple(image.shape[-2:])
    return dimmed(image, F.interpolate(light.float(), side, mode="bilinear")[0])
