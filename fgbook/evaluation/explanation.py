"""Where a network looks, as numbers: Grad-CAM of the predicted class against the
object, its parts, and what the prediction hangs on.

    # {"focus_energy": (N,), "focus_part": (N,), ...}
    found = measure(model, data.test, recipe, images=512, curved=64)
    # maps (B, S, S) -> {"energy": (B,), "object": (B,), "part": (B,)}
    scores = score(maps, **truth(data.test, index, size))
    # {"insertion": (B, STEPS + 1), "deletion": (B, STEPS + 1)}
    curves = insertion_deletion(model, images, maps)

The measures of a map, not negative, over the S x S pixels of an image:

* energy: share of the map's sum that lies in the object's box (Wang et al. 2020).
* object: does its highest pixel lie on the object: the mask, or the box where there is
  no mask? The pointing game of Zhang et al. (2016).
* part: does it lie on a part that tells siblings apart, or within TOLERANCE of it?
  Where a data set marks no such parts (CUB) all visible ones of the fifteen count. Of
  several highest pixels each counts alike: the share of them that hit.
* insertion: mean probability of the predicted class while the pixels of the image
  replace those of a blurred copy, the highest of the map first.
* deletion: the same while grey replaces the pixels of the image: here less is better
  (both: Petsiuk et al. 2018).

So an even map scores what a random pixel would: the object's or the parts' share of the
image, exactly. That is `chance`. A photographer puts the bird in the middle, so a map
that knows nothing of an image scores more than that: `others` is the mean of the maps
of all other images.
"""

import numpy as np
import torch
from torch import Tensor

from .. import explain
from ..data.dataset import Split
from ..errors import InputError
from ..images.augment import centre, centre_offset, degrade, uniforms
from ..methods import Method
from ..recipe import Recipe
from .heatmaps import TINY, sample
from .localisation import ground_truth

# of a test split that have maps: always the same ones
IMAGES = {"quick": 128, "photo": 512, "paper": 2048}
# of these, those with insertion and deletion, which take 4 (STEPS + 1) predictions each
CURVED = {"quick": 16, "photo": 64, "paper": 256}
# of the image's side: how far from a part still counts (Zhang et al.: 15 pixels)
TOLERANCE = 15 / 224
STEPS = 10  # equal portions of the pixels
# a blurred copy is the image reduced to 1 / BLUR of its side and enlarged again
BLUR = 16
BATCH = 64
SEED = 0  # of the random maps: the same for all networks


# ---- a whole split


@torch.no_grad()
def measure(
    model: Method, split: Split, recipe: Recipe, images: int, curved: int
) -> dict[str, np.ndarray]:
    """Of `images` images of a split, and the curves of `curved` of them: arrays (N,)
    float32, NaN for all others, by name.

    focus_energy, focus_object, focus_part: of the maps behind attention's gates, which
    are what the head reads (the module's docstring defines them). The same with _chance
    (an even map), _others (the mean of the other images' maps), and _backbone (Grad-CAM
    at the backbone's last map, before the gates; the same numbers where there are no
    gates). Those whose ground truth the split lacks are left out; an image without an
    object, or a part, in the centre crop has NaN. focus_insertion, focus_deletion, and
    both with _random: for the order of a random map with as many cells.

    A map that is 0 everywhere counts as an even one. In float32, on the model's device;
    leaves it in eval mode. Raises InputError for an empty split, and for a network
    without a linear head on pooled maps.
    """
    if not len(split):
        raise InputError("there are no images to explain.")
    model.eval()
    chosen = sample(len(split), images)
    few = sample(len(split), min(curved, images))
    found = {}
    for name, values in _scores(model, split, recipe.image_size, chosen).items():
        found[name] = _spread(values, chosen, len(split))
    for name, values in _areas(model, split, recipe.image_size, few).items():
        found[name] = _spread(values, few, len(split))
    return found


def _scores(
    model: Method, split: Split, size: int, chosen: Tensor
) -> dict[str, list[Tensor]]:
    """The scores of the maps of the images at `chosen` (n,), by name, in batches."""
    device = next(model.parameters()).device
    scores: dict[str, list[Tensor]] = {}

    coarse = []  # all maps, (B, h, w) a batch
    for index in chosen.split(BATCH):
        images = _seen(split, index, size, device)
        known = _known(split, index, size, device)
        maps = focus(model, images)
        coarse.append(maps)
        before = focus(model, images, gated=False) if hasattr(model, "maps") else maps
        even = torch.ones_like(maps)
        _keep(scores, score(over(model, maps, size), **known), "")
        _keep(scores, score(over(model, before, size), **known), "_backbone")
        _keep(scores, score(over(model, even, size), **known), "_chance")

    # the mean of the other images' maps, each with the same weight
    shares = []
    for maps in coarse:
        total = over(model, maps, size).sum((1, 2)).clamp(min=TINY)
        shares.append(maps / total[:, None, None])
    alike = torch.cat(shares)  # (n, h, w)
    others = (alike.sum(0) - alike).clamp(min=0)  # rounding may leave less than 0
    for index, maps in zip(chosen.split(BATCH), others.split(BATCH), strict=True):
        known = _known(split, index, size, device)
        _keep(scores, score(over(model, maps, size), **known), "_others")
    return scores


def _areas(
    model: Method, split: Split, size: int, chosen: Tensor
) -> dict[str, list[Tensor]]:
    """The areas under the curves of the images at `chosen` (n,), by name, in
    batches.
    """
    device = next(model.parameters()).device
    scores: dict[str, list[Tensor]] = {}
    for index in chosen.split(BATCH):
        images = _seen(split, index, size, device)
        maps = focus(model, images)
        cells = maps[0].numel()
        random = uniforms(SEED, 0, index.to(device), cells).T.reshape(maps.shape)
        for suffix, order in (("", maps), ("_random", random)):
            curves = insertion_deletion(model, images, over(model, order, size))
            areas = {name: area(curve) for name, curve in curves.items()}
            _keep(scores, areas, suffix)
    return scores


def _seen(split: Split, index: Tensor, size: int, device: torch.device) -> Tensor:
    """The centre crops of the images at `index` (B,): (B, 3, size, size)."""
    images = centre(split.images[index].to(device), size)
    return images.contiguous(memory_format=torch.channels_last)


def _known(
    split: Split, index: Tensor, size: int, device: torch.device
) -> dict[str, Tensor | None]:
    """:func:`truth` on the device."""
    known = {}
    for name, value in truth(split, index, size).items():
        known[name] = None if value is None else value.to(device)
    return known


def _keep(
    scores: dict[str, list[Tensor]], found: dict[str, Tensor], suffix: str
) -> None:
    """Add a batch's scores under the names that the record has for them."""
    for name, values in found.items():
        scores.setdefault(f"focus_{name}{suffix}", []).append(values)


def _spread(parts: list[Tensor], chosen: Tensor, count: int) -> np.ndarray:
    """Values of the chosen images, in batches, among all `count`; NaN elsewhere."""
    spread = np.full(count, np.nan, np.float32)
    spread[chosen] = torch.cat(parts).cpu()
    return spread


# ---- maps, and what they are held against


def focus(model: Method, images: Tensor, gated: bool = True) -> Tensor:
    """Grad-CAM of the class that is predicted: images (B, 3, S, S) -> (B, h, w), not
    negative, of the maps that the head pools.

    Those are behind attention's gates, where Grad-CAM is the class activation map cut
    at 0 (see :func:`fgbook.explain.cam`). With `gated` false it is taken at the
    backbone's last map. There the mean of the gradient over places levels out what a
    spatial gate does.
    """
    if gated:
        return explain.cam(model, images).clamp(min=0).float()
    return explain.grad_cam(model, images, None, model.backbone).float()


def over(model: Method, maps: Tensor, size: int) -> Tensor:
    """Maps (B, h, w) of a model over the pixels of its images, (B, size, size)."""
    depth = model.backbone.depth_at(size)
    return explain.enlarge(maps, size, depth.stride, depth.first)


def truth(split: Split, index: Tensor, size: int) -> dict[str, Tensor | None]:
    """What :func:`score` needs of the images at `index` (B,), in pixels of their centre
    crops: objects (B, 4), masks (B, S, S), parts (B, P, 4).

    A part is a box; CUB's are points, boxes of no size. One whose middle lies outside
    the crop is NaN, as is an object wholly outside.
    """
    known = ground_truth(split, index, size)
    points = known["points"]  # (B, P, 2)
    parts = None
    if points is not None and split.part_boxes is not None:
        offset = centre_offset(split.images.shape[-1], size)
        inside = points.isfinite().all(-1, keepdim=True)
        boxes = split.part_boxes[index].float() - offset
        parts = torch.where(inside, boxes, torch.nan)
    elif points is not None:
        parts = torch.cat([points, points], -1)
    return {"objects": known["objects"], "masks": known["masks"], "parts": parts}


def score(
    maps: Tensor,
    objects: Tensor | None = None,
    masks: Tensor | None = None,
    parts: Tensor | None = None,
) -> dict[str, Tensor]:
    """`energy`, `object` and `part` (see the module) of maps (B, S, S), not negative:
    each (B,) in [0, 1].

    objects (B, 4) xyxy, masks (B, S, S) bool, parts (B, P, 4) xyxy, NaN rows where
    there are fewer; all on the maps' device. A measure without its ground truth is left
    out; NaN for an image without an object (an empty mask) or without any part. Pixels
    that a box covers in part count in part.
    """
    size = maps.shape[-1]
    # a map that is 0 everywhere is taken for an even one
    maps = torch.where(maps.sum((1, 2), keepdim=True) > 0, maps, 1.0)
    highest = (maps == maps.amax((1, 2), keepdim=True)).float()

    scores = {}
    if objects is not None:
        inside = (maps * _covered(objects, size)).sum((1, 2))
        scores["energy"] = inside / maps.sum((1, 2))  # NaN without an object
    if masks is not None:
        on_object = _share(highest, masks)
        scores["object"] = torch.where(masks.flatten(1).any(1), on_object, torch.nan)
    elif objects is not None:
        on_object = _share(highest, _near(objects[:, None], size, 0))
        scores["object"] = torch.where(objects.isfinite().all(1), on_object, torch.nan)
    if parts is not None:
        on_part = _share(highest, _near(parts, size, TOLERANCE * size))
        any_part = parts.isfinite().all(-1).any(1)
        scores["part"] = torch.where(any_part, on_part, torch.nan)
    return scores


def _share(highest: Tensor, where: Tensor) -> Tensor:
    """Of the highest pixels, 1 in (B, S, S), the share that lies where (B, S, S) is
    true: (B,).
    """
    return (highest * where).sum((1, 2)) / highest.sum((1, 2))


def _covered(boxes: Tensor, size: int) -> Tensor:
    """Which share of each pixel the boxes (B, 4) cover: (B, size, size). NaN for a box
    of NaN.
    """
    left, top, right, bottom = boxes.T[..., None]  # (B, 1) each
    pixel = torch.arange(size, device=boxes.device)
    # pixel i covers [i, i + 1]
    width = torch.minimum(right, pixel + 1) - torch.maximum(left, pixel)
    height = torch.minimum(bottom, pixel + 1) - torch.maximum(top, pixel)
    return height.clamp(min=0)[:, :, None] * width.clamp(min=0)[:, None]


def _near(boxes: Tensor, size: int, tolerance: float) -> Tensor:
    """Which pixels have their middle in one of the boxes (B, P, 4) or at most
    `tolerance` pixels from it: (B, size, size) bool. NaN: no box.
    """
    middle = torch.arange(size, device=boxes.device) + 0.5
    near = torch.zeros(len(boxes), size, size, dtype=torch.bool, device=boxes.device)
    # one part of all images at a time: all at once would take P times the memory
    for box in boxes.unbind(1):  # (B, 4)
        left, top, right, bottom = box.T[..., None]  # (B, 1) each
        beside = torch.maximum(left - middle, middle - right).clamp(min=0)  # (B, size)
        above = torch.maximum(top - middle, middle - bottom).clamp(min=0)
        distance = above.square()[:, :, None] + beside.square()[:, None]  # squared
        near |= distance <= tolerance**2  # comparing with NaN is false
    return near


# ---- curves


def insertion_deletion(
    model: Method, images: Tensor, maps: Tensor, steps: int = STEPS
) -> dict[str, Tensor]:
    """Probability of the class that is predicted for the untouched image, after 0,
    1/steps .. 1 of the pixels: two (B, steps + 1), float32.

    "insertion": pixels of the image in place of those of a blurred copy (see BLUR);
    "deletion": grey in place of those of the image. Pixels go in the order of maps (B,
    S, S), the highest first; of equal ones the upper, then the left one. Portions are
    rounded down. Each step is one prediction of the batch.
    """
    size = images.shape[-1]
    classes = model.predict(images).argmax(1, keepdim=True)
    rank = _ranks(maps)
    blurred = degrade(images, max(1, size // BLUR), "bilinear")
    grey = torch.full_like(images, explain.GREY)

    curves = {}
    for name, before, after in (
        ("insertion", blurred, images),
        ("deletion", images, grey),
    ):
        curve = []
        for step in range(steps + 1):
            portion = step * size * size // steps  # pixels
            seen = torch.where(rank < portion, after, before)
            seen = seen.contiguous(memory_format=torch.channels_last)
            probabilities = model.predict(seen).float().softmax(1)
            curve.append(probabilities.gather(1, classes)[:, 0])
        curves[name] = torch.stack(curve, 1)
    return curves


def _ranks(maps: Tensor) -> Tensor:
    """The place of each pixel of maps (B, S, S) in the order of their values, from 0,
    the highest: (B, 1, S, S) int64.
    """
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=maps.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return rank.view(len(maps), 1, *maps.shape[1:])


def area(curve: Tensor) -> Tensor:
    """The area under curves (B, steps + 1) over the share of the pixels, from 0 to 1,
    by the trapezoid rule: (B,).
    """
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)
