"""The same question on photographs, as far as they allow it: each marked part is taken
away, or exchanged for another bird's, and the explanation is asked which parts matter.

    found = measure(model, data.test, recipe, explanations, images=64)
    # {"deleted": {"CAM": (n,), ...}, "swapped": {...}, "both": (n,)}

Nobody can draw a photographed bird again with another beak. So a disc round the part is
blurred (*deleted*), or filled with the disc round the same part of a picture of another
class (*swapped*). Both make pictures of a kind that no network has seen; the disc holds
more than the part; the other bird has another pose and size. How well the effects of
both agree with each other (`both`) is therefore the most that can be asked of a map.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.dataset import Split
from ..errors import InputError
from ..explain import Explanation
from ..explain.classes import logits_of
from ..images.augment import centre, degrade
from ..recipe import Recipe
from .blame import agreement, edges, energy, positive
from .causal import moved_odds
from .explanation import BLUR, truth
from .heatmaps import sample

RADIUS = 1 / 14  # of a part's disc, as a share of the image's side
BATCH = 16


@torch.no_grad()
def measure(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    explanations: Mapping[str, Explanation],
    images: int,
) -> dict[str, dict[str, Tensor]]:
    """Of `images` pictures of a split, spread evenly: Spearman's correlation, over the
    visible parts of a picture, of the share of a map on a part's disc with how far the
    log-odds of the named class move when the part is edited.

    "deleted" and "swapped": (n,) by explanation, and for the maps "edges" and "middle",
    which know nothing; "both": {"effects": (n,)}, the agreement of the two edits. NaN
    where fewer than three parts are to be seen. Raises InputError for a split without
    marked parts.
    """
    if split.parts is None:
        raise InputError(
            "editing parts needs a data set with marked parts, such as cub50."
        )
    model.eval()
    found: dict[str, dict[str, list[Tensor]]] = {}
    chosen = sample(len(split), images)
    for index, donors in zip(
        chosen.split(BATCH), _of_another_class(split, chosen).split(BATCH), strict=True
    ):
        for edit, by_map in _of_batch(
            model, split, recipe, explanations, index, donors
        ).items():
            for name, values in by_map.items():
                found.setdefault(edit, {}).setdefault(name, []).append(values)
    return {
        edit: {name: torch.cat(parts) for name, parts in by_map.items()}
        for edit, by_map in found.items()
    }


def _of_another_class(split: Split, chosen: Tensor) -> Tensor:
    """For each chosen picture (n,) the next one of them that is of another class; with
    one class only, the picture itself.
    """
    labels = split.labels[chosen]
    apart = labels[:, None] != labels  # (n, n)
    place = torch.arange(len(chosen))
    behind = (place - place[:, None]) % len(chosen)  # how far ahead each other one is
    return chosen[torch.where(apart, behind, len(chosen)).argmin(1)]


def _of_batch(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    explanations: Mapping[str, Explanation],
    index: Tensor,
    donors: Tensor,
) -> dict[str, dict[str, Tensor]]:
    """:func:`measure` of pictures at `index` (B,), with parts from those at `donors`
    (B,).
    """
    device, size = next(model.parameters()).device, recipe.image_size
    views = centre(split.images[index].to(device), size)
    others = centre(split.images[donors].to(device), size)
    places = _places(split, index, size).to(device)  # (B, P, 2)
    theirs = _places(split, donors, size).to(device)

    discs = disc(places, size)  # (B, P, S, S)
    blurred = degrade(views, max(1, size // BLUR), "bilinear")
    logits = logits_of(model, views).float()
    deleted, swapped = [logits], [logits]
    for p, covered in enumerate(discs.unbind(1)):
        inside = covered[:, None]
        moved = shifted(others, theirs[:, p] - places[:, p])
        pictures = (blurred, moved)
        for kept, other in zip((deleted, swapped), pictures, strict=True):
            edited = torch.where(inside, other, views)
            kept.append(logits_of(model, edited).float())

    visible = places.isfinite().all(2)
    gone = moved_odds(torch.stack(deleted, 1))
    gone = torch.where(visible, gone, torch.nan)
    exchanged = moved_odds(torch.stack(swapped, 1))
    both_visible = visible & theirs.isfinite().all(2)
    exchanged = torch.where(both_visible, exchanged, torch.nan)

    classes = logits.argmax(1)
    with torch.enable_grad():  # an explanation may need gradients
        maps = {name: f(views, classes).detach() for name, f in explanations.items()}
    middle = torch.full((len(views), 1, 2), size / 2, device=device)
    maps["edges"] = edges(views)
    maps["middle"] = -distance(middle, size)[:, 0] + size
    found: dict[str, dict[str, Tensor]] = {"deleted": {}, "swapped": {}}
    for name, each in maps.items():
        each = positive(_over(each, size))
        shares = torch.stack([energy(each, d) for d in discs.unbind(1)], 1)
        found["deleted"][name] = agreement(shares, gone).cpu()
        found["swapped"][name] = agreement(shares, exchanged).cpu()
    return {**found, "both": {"effects": agreement(gone, exchanged).cpu()}}


def _over(maps: Tensor, size: int) -> Tensor:
    """Maps (B, h, w) over the pixels."""
    if maps.shape[1:] == (size, size):
        return maps.float()
    return F.interpolate(maps[:, None].float(), (size, size), mode="bilinear")[:, 0]


def _places(split: Split, index: Tensor, size: int) -> Tensor:
    """Where the parts are in the centre crops, (B, P, 2) x, y; NaN: not to be seen."""
    known = truth(split, index, size)["parts"]
    assert known is not None  # there are parts
    return (known[..., :2] + known[..., 2:]) / 2


def distance(places: Tensor, size: int) -> Tensor:
    """From the middle of each pixel to places (B, P, 2): (B, P, S, S)."""
    middle = torch.arange(size, device=places.device) + 0.5
    x, y = (places[..., k, None] - middle for k in (0, 1))  # (B, P, S)
    return (x.square()[:, :, None] + y.square()[..., None]).sqrt()


def disc(places: Tensor, size: int) -> Tensor:
    """The pixels within RADIUS of places (B, P, 2): (B, P, S, S) bool; NaN: none."""
    return distance(places, size) <= RADIUS * size


def shifted(images: Tensor, by: Tensor) -> Tensor:
    """Images (B, 3, S, S) moved to the left and up by (B, 2) pixels, which are rounded;
    at the border the last pixel goes on. NaN: not moved.
    """
    size = images.shape[-1]
    whole = by.nan_to_num(0).round().long()
    place = torch.arange(size, device=images.device)
    columns = (place + whole[:, :1]).clamp(0, size - 1)  # (B, S)
    rows = (place + whole[:, 1:]).clamp(0, size - 1)
    across = images.gather(3, columns[:, None, None].expand_as(images))
    return across.gather(2, rows[:, None, :, None].expand_as(images))
