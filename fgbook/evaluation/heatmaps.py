"""Occlusion maps as numbers: how large and how strong the area is that a network's
answer hangs on, and how good a coarse map is.

The measures of a map m, not negative, for logits v of the untouched image:

* area: (sum m)^2 / (places * sum m^2), the share of the image over which m would have
  to be spread evenly to be as concentrated as it is. 1 for an even map, 1 / places for
  a single point; twice the map has the same area.
* half: share of the image where m is more than half of its maximum, which is what the
  eye takes for the area in a normalised picture. It hangs on one place, the highest,
  and a grey square on the grid of a strided network easily makes such a place.
* strength: log2 of the mean of m; 1 more means twice as strong.
* relative: log2 of (mean of m / |v - mean v|^2); longer logits make a map stronger even
  where the network looks at nothing else.
"""

import numpy as np
import torch
from torch import Tensor

from .. import explain
from ..data.dataset import Split
from ..errors import InputError
from ..images.augment import evaluation_view, uniform
from ..methods import Method
from ..recipe import Recipe

MEASURES = ("area", "half", "strength", "relative")
PATCH = 1 / 6  # side of the grey patch over that of the image; the paper does not say
GRID = 14  # about how many rows and columns of places are evaluated
# of a test split that are measured: always the same ones
IMAGES = {"quick": 64, "photo": 128, "paper": 512}
BATCH = 64  # images whose maps are made at a time
CHUNK = 16  # images predicted at a time: few enough for a processor's cache
TINY = 1e-30  # stands for 0 where a logarithm or a quotient follows


@torch.no_grad()
def measure(
    model: Method, split: Split, recipe: Recipe, images: int, patch: float = PATCH
) -> dict[str, np.ndarray]:
    """`heat_area`, `heat_half`, `heat_strength` and `heat_relative` of `images` images
    of a split, (N,) float32; NaN for all others.

    The maps are those of low-resolution images where the recipe has a low resolution,
    as in the paper, and of the centre crops as they are where it has none; `patch` is a
    share of the image's side. Places are an odd number of pixels apart, so that they
    fall on all cells of a network's strides alike, and nothing is interpolated:
    averages over them are fair estimates of averages over all pixels. Which images are
    measured depends on the split's length only. In float32, on the model's device;
    leaves it in eval mode. Raises InputError for an empty split.
    """
    if not len(split):
        raise InputError("there are no images to measure heat maps of.")
    model.eval()
    device = next(model.parameters()).device
    side = odd(patch * recipe.image_size)
    stride = odd(recipe.image_size / GRID)

    found = {}
    for name in MEASURES:
        found[f"heat_{name}"] = np.full(len(split), np.nan, np.float32)
    for index in sample(len(split), images).split(BATCH):
        seen = views(split, index, recipe, device)
        maps = explain.occlusion(model, seen, side, stride)
        # only the places that were evaluated: each is the middle of its cell
        places = maps[:, stride // 2 :: stride, stride // 2 :: stride]
        for name, values in measures(places, logits(model, seen)).items():
            found[f"heat_{name}"][index] = values.cpu()
    return found


def measures(maps: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """MEASURES (see the module) of maps (B, H, W), of all pixels or of a grid of them,
    for logits (B, C): each (B,).
    """
    flat = maps.flatten(1)  # (B, places)
    mean = flat.mean(1).clamp(min=TINY)
    shape = flat / mean[:, None]
    centred = logits - logits.mean(1, keepdim=True)
    length = centred.square().sum(1).clamp(min=TINY)  # squared
    return {
        # at least 1, but for rounding and for maps that are 0 everywhere
        "area": 1 / shape.square().mean(1).clamp(min=1),
        "half": (flat > flat.amax(1, keepdim=True) / 2).float().mean(1),
        "strength": mean.log2(),
        "relative": (mean / length).log2(),
    }


def agreement(maps: Tensor, exact: Tensor) -> dict[str, Tensor]:
    """How near maps (B, H, W) come to exact ones: `error`, |maps - exact| / |exact|,
    and `rank`, Spearman's correlation over pixels; each (B,).
    """
    maps, exact = maps.flatten(1), exact.flatten(1)
    error = (maps - exact).norm(dim=1) / exact.norm(dim=1)

    # Pearson's correlation of the ranks
    first, second = _centred_ranks(maps), _centred_ranks(exact)
    lengths = first.norm(dim=1) * second.norm(dim=1)
    return {"error": error, "rank": (first * second).sum(1) / lengths}


def _centred_ranks(values: Tensor) -> Tensor:
    """The rank of each of values (B, n) in its row, minus their mean: float64."""
    ranks = values.argsort(1).argsort(1).double()
    return ranks - ranks.mean(1, keepdim=True)


def sample(count: int, images: int) -> Tensor:
    """The places in a split of `count` of the images that are measured, in order: those
    with the smallest of fixed random numbers.
    """
    random = uniform(0, 0, torch.arange(count), 0)
    return random.argsort(stable=True)[:images].sort().values


def views(split: Split, index: Tensor, recipe: Recipe, device: torch.device) -> Tensor:
    """What the network sees of the images at `index` (B,): (B, 3, s, s), at low
    resolution where the recipe has one.
    """
    resolution = "low" if recipe.low_side else "high"
    images = split.images[index].to(device)
    return evaluation_view(images, index.to(device), recipe, resolution)


def odd(side: float) -> int:
    """The odd number of pixels nearest to `side` (the larger of two): a patch has a
    pixel in its middle.
    """
    return 2 * int(side / 2) + 1


@torch.no_grad()
def logits(model: Method, images: Tensor) -> Tensor:
    """(B, C), a few images at a time."""
    return torch.cat([model.predict(part) for part in images.split(CHUNK)])
