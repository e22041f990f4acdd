"""How well a map lies on a cause: pixels of which it is known, by experiment, that the
prediction hangs on them.

Maps (B, S, S), in which less than 0 counts as 0 and a map that is 0 everywhere as an
even one; causes (B, S, S) bool.

* energy: share of the map's sum that lies on the cause. An even map scores the cause's
  share of the picture.
* pointing: does the map's highest pixel lie on the cause or within TOLERANCE of it? Of
  several highest each counts alike.
* rank: how probably a pixel of the cause has a higher value than one elsewhere (equal
  ones: half), the area under the ROC curve. A map that knows nothing scores 1/2,
  whatever the cause's size.
* within: the same among the pixels of the bird and of the cause only. A map that knows
  where the bird is, and no more, scores 1/2 here.

Each is 1 for the cause itself as a map. `agreement` compares the shares that a map
gives to several causes with their sizes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.augment import uniforms
from .explanation import TOLERANCE

MEASURES = ("energy", "pointing", "rank", "within")
CENTRE = 1 / 4  # standard deviation of the centre prior, as a share of the side


def positive(maps: Tensor) -> Tensor:
    """Maps (B, S, S) as they are scored: not negative, and not 0 everywhere."""
    maps = maps.clamp(min=0)
    return torch.where(maps.sum((1, 2), keepdim=True) > 0, maps, 1.0)


def blame(maps: Tensor, causes: Tensor, birds: Tensor) -> dict[str, Tensor]:
    """MEASURES of maps (B, S, S) on causes and birds, (B, S, S) bool: (B,) each in [0,
    1], NaN where there is no cause.
    """
    maps = positive(maps.float())
    highest = (maps == maps.amax((1, 2), keepdim=True)).float()
    found = {
        "energy": energy(maps, causes),
        "pointing": (highest * near(causes)).sum((1, 2)) / highest.sum((1, 2)),
        "rank": rank(maps, causes, torch.ones_like(causes)),
        "within": rank(maps, causes, birds | causes),
    }
    there = causes.flatten(1).any(1)
    return {name: torch.where(there, v, torch.nan) for name, v in found.items()}


def energy(maps: Tensor, causes: Tensor) -> Tensor:
    """The share of the maps' sums that lies on the causes, (B,)."""
    return (maps * causes).sum((1, 2)) / maps.sum((1, 2))


def near(causes: Tensor) -> Tensor:
    """Causes (B, S, S) bool and what is within TOLERANCE of the image's side of them,
    across and down.
    """
    reach = round(TOLERANCE * causes.shape[-1])
    return F.max_pool2d(causes[:, None].float(), 2 * reach + 1, 1, reach)[:, 0] > 0


def rank(maps: Tensor, causes: Tensor, among: Tensor) -> Tensor:
    """The area under the ROC curve of the maps' values for the causes, among pixels (B,
    S, S) bool that hold them: (B,). Maps are not negative.
    """
    # all that does not count comes first in the order
    values = torch.where(among, maps, -1.0).flatten(1)
    before = (~among).flatten(1).sum(1).double()
    in_order = values.sort(1).values
    # of equal values each has the mean of their places, counted from 1
    below = torch.searchsorted(in_order, values)
    up_to = torch.searchsorted(in_order, values, right=True)
    place = (below + up_to + 1).double() / 2 - before[:, None]

    inside = causes.flatten(1)
    many = inside.sum(1).double()
    few = values.shape[1] - before - many
    over = (place * inside).sum(1) - many * (many + 1) / 2
    return (over / (many * few)).float()


def agreement(values: Tensor, others: Tensor) -> Tensor:
    """Spearman's rank correlation of two rows of numbers (B, K) each, over the places
    where both are finite: (B,). NaN where fewer than 3 are, or one row is all alike.
    """
    valid = values.isfinite() & others.isfinite()
    a, b = _places(values, valid), _places(others, valid)
    count = valid.sum(1, keepdim=True)
    a = torch.where(valid, a - a.sum(1, keepdim=True) / count, 0)
    b = torch.where(valid, b - b.sum(1, keepdim=True) / count, 0)
    found = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(count[:, 0] >= 3, found, torch.nan).float()


def _places(values: Tensor, valid: Tensor) -> Tensor:
    """Of each valid number its place among those of its row, 0 for others: (B, K)."""
    one, other = values.double()[:, :, None], values.double()[:, None]
    below = (other < one).double() + (other == one).double() / 2
    return (below * valid[:, None]).sum(2) * valid


# ---- maps that know nothing of the network


def controls(images: Tensor, birds: Tensor) -> dict[str, Tensor]:
    """Maps (B, S, S) by name that are made without any network, for images (B, 3, S, S)
    in [0, 1] with objects `birds` (B, S, S) bool:

    "even"; "centre": a Gaussian in the middle, where photographers put things; "edges":
    how steep the picture is; "bird": the object's mask. See also :func:`random_box`.
    """
    count, size = len(images), images.shape[-1]
    middle = (torch.arange(size, device=images.device) + 0.5) / size - 0.5
    bell = (-0.5 * (middle / CENTRE) ** 2).exp()
    even = torch.ones_like(images[:, 0])
    return {
        "even": even,
        "centre": (bell[:, None] * bell).expand(count, -1, -1),
        "edges": edges(images),
        "bird": birds.float(),
    }


def edges(images: Tensor) -> Tensor:
    """Sobel's gradient of the brightness of images (B, 3, S, S): its length, (B, S,
    S).
    """
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=images.device)
    kernels = torch.stack([across, across.T])[:, None]
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(grey, kernels).square().sum(1).sqrt()


def random_box(causes: Tensor) -> Tensor:
    """A box with the sides of the box around each cause (B, S, S), at a random place
    that depends on nothing but the cause's number: (B, S, S) of 0 and 1.
    """
    size, device = causes.shape[-1], causes.device
    index = torch.arange(len(causes), device=device)
    share = uniforms(0, 0, index, 2).T  # (B, 2)
    place = torch.arange(size, device=device)
    inside = []
    for side, at in ((2, share[:, 0]), (1, share[:, 1])):  # rows, columns
        some = causes.any(side)
        first = torch.where(some, place, size).amin(1)
        length = (torch.where(some, place + 1, 0).amax(1) - first).clamp(min=0)
        start = (at * (size - length + 1)).long()
        within = (place >= start[:, None]) & (place < (start + length)[:, None])
        inside.append(within)
    down, across = inside
    return (down[:, :, None] & across[:, None]).float()
