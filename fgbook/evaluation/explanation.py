"""Where a network looks, as numbers: Grad-CAM of the predicted class against the
    object, its parts, and what the prediction hangs on.

    found = measure(model, data.test, recipe, images=512, curved=64)   #
    {"focus_energy": (N,), "focus_part": (N,), ...} scores = score(maps,
    **truth(data.test, index, size))              # maps (B, S, S) -> {"energy": (B,),
    "object": (B,), "part": (B,)} curves = insertion_deletion(model, images, maps)
    # {"insertion": (B, STEPS + 1), "deletion": (B, STEPS + 1)}

The measures of a map, not negative, over the S x S pixels of an image:

    energy     share of the map's sum that lies in the object's box (Wang et al. 2020).
    object     does its highest pixel lie on the object: the mask, or the box where
    there is no mask? The pointing game of Zhang et al. (2016). part       does it lie
    on a part that tells siblings apart, or within TOLERANCE of it? Where a data set
    marks no such parts (CUB) all visible ones of the fifteen count. Of several highest
    pixels each counts alike: the share of them that hit. insertion  mean probability of
    the predicted class while the pixels of the image replace those of a blurred copy,
    the highest of the map first. deletion   the same while grey replaces the pixels of
    the image: here less is better (both: Petsiuk et al. 2018).

So an even map scores what a random pixel would: the object's or the parts' share of the
image, exactly. That is `chance`. A photographer puts the bird in the middle, so a map
that knows nothing of an image scores more than that: `others` is the mean of the maps
of all other images.
"""

import numpy as np
import torch
from torch import Tensor, nn

from .. import explain
from ..data.dataset import Split
from ..errors import InputError
from ..images.augment import centre, centre_offset, degrade, uniforms
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


@torch.no_grad()
def measure(
    model: nn.Module, split: Split, recipe: Recipe, images: int, curved: int
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
    device, size = next(model.parameters()).device, recipe.image_size
    chosen = sample(len(split), images)
    see = lambda index: centre(split.images[index].to(device), size).contiguous(
        memory_format=torch.channels_last
    )
    scores: dict[str, list[Tensor]] = {}
    coarse = []
    for index in chosen.split(BATCH):
        seen, known = see(index), _on(truth(split, index, size), device)
        maps = focus(model, seen)
        coarse.append(maps)
        before = focus(model, seen, gated=False) if hasattr(model, "maps") else maps
        for suffix, each in (
            ("", maps),
            ("_backbone", before),
            ("_chance", torch.ones_like(maps)),
        ):
            _keep(scores, score(over(model, each, size), **known), suffix)
    # of equal weight
    total = torch.cat(
        [
            each / over(model, each, size).sum((1, 2)).clamp(min=TINY)[:, None, None]
            for each in coarse
        ]
    )
    others = (total.sum(0) - total).clamp(min=0)  # (n, h, w)
    for index, each in zip(chosen.split(BATCH), others.split(BATCH), strict=True):
        _keep(
            scores,
            score(over(model, each, size), **_on(truth(split, index, size), device)),
            "_others",
        )
    found = {name: _spread(parts, chosen, len(split)) for name, parts in scores.items()}

    few, scores = sample(len(split), min(curved, images)), {}
    for index in few.split(BATCH):
        seen = see(index)
        maps = focus(model, seen)
        random = uniforms(SEED, 0, index.to(device), maps[0].numel()).T.reshape(
            maps.shape
        )
        for suffix, each in (("", maps), ("_random", random)):
            curves = insertion_deletion(model, seen, over(model, each, size))
            _keep(scores, {name: area(curve) for name, curve in curves.items()}, suffix)
    return found | {
        name: _spread(parts, few, len(split)) for name, parts in scores.items()
    }


def focus(model: nn.Module, images: Tensor, gated: bool = True) -> Tensor:
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


def over(model: nn.Module, maps: Tensor, size: int) -> Tensor:
    """Maps (B, h, w) of a model over the pixels of its images, (B, size, size)."""
    return explain.enlarge(maps, size, model.backbone.stride, model.backbone.first)


def truth(split: Split, index: Tensor, size: int) -> dict[str, Tensor | None]:
    """What :func:`score` needs of the images at `index` (B,), in pixels of their centre
    crops: objects (B, 4), masks (B, S, S), parts (B, P, 4).

    A part is a box; CUB's are points, boxes of no size. One whose middle lies outside
    the crop is NaN, as is an object wholly outside.
    """
    known = ground_truth(split, index, size)
    parts = points = known["points"]  # (B, P, 2)
    if split.part_boxes is not None:
        boxes = split.part_boxes[index].float() - centre_offset(
            split.images.shape[-1], size
        )
        parts = torch.where(points.isfinite().all(-1, keepdim=True), boxes, torch.nan)
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
    maps = torch.where(maps.sum((1, 2), keepdim=True) > 0, maps, 1.0)
    highest = (maps == maps.amax((1, 2), keepdim=True)).float()
    hits = lambda where: (highest * where).sum((1, 2)) / highest.sum((1, 2))
    size = maps.shape[-1]
    scores = {}
    if objects is not None:
        pixel = torch.arange(size, device=maps.device)
        covered = lambda low, high: (
            torch.minimum(high[:, None], pixel + 1) - torch.maximum(low[:, None], pixel)
        ).clamp(min=0)
        # (B, S, S) of each pixel
        inside = (
            covered(objects[:, 1], objects[:, 3])[:, :, None]
            * covered(objects[:, 0], objects[:, 2])[:, None]
        )
        # NaN without an object
        scores["energy"] = (maps * inside).sum((1, 2)) / maps.sum((1, 2))
    if masks is not None:
        scores["object"] = torch.where(masks.flatten(1).any(1), hits(masks), torch.nan)
    elif objects is not None:
        scores["object"] = torch.where(
            objects.isfinite().all(1), hits(_near(objects[:, None], size, 0)), torch.nan
        )
    if parts is not None:
        scores["part"] = torch.where(
            parts.isfinite().all(-1).any(1),
            hits(_near(parts, size, TOLERANCE * size)),
            torch.nan,
        )
    return scores


def insertion_deletion(
    model: nn.Module, images: Tensor, maps: Tensor, steps: int = STEPS
) -> dict[str, Tensor]:
    """Probability of the class that is predicted for the untouched image, after 0,
    1/steps .. 1 of the pixels: two (B, steps + 1), float32.

    "insertion": pixels of the image in place of those of a blurred copy (see BLUR);
    "deletion": grey in place of those of the image. Pixels go in the order of maps (B,
    S, S), the highest first; of equal ones the upper, then the left one. Portions are
    rounded down. Each step is one prediction of the batch.
    """
    size = images.shape[-1]
    pixels = size * size
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = (
        torch.empty_like(order)
        .scatter_(1, order, torch.arange(pixels, device=maps.device).expand_as(order))
        .view(-1, 1, size, size)
    )
    blurred = degrade(images, max(1, size // BLUR), "bilinear")
    grey = torch.full_like(images, explain.GREY)
    classes = model.predict(images).argmax(1, keepdim=True)
    curves = {}
    for name, before, after in (
        ("insertion", blurred, images),
        ("deletion", images, grey),
    ):
        steps_seen = (
            torch.where(rank < step * pixels // steps, after, before)
            for step in range(steps + 1)
        )
        logits = [
            model.predict(seen.contiguous(memory_format=torch.channels_last)).float()
            for seen in steps_seen
        ]
        curves[name] = torch.stack(
            [each.softmax(1).gather(1, classes)[:, 0] for each in logits], 1
        )
    return curves


def area(curve: Tensor) -> Tensor:
    """The area under curves (B, steps + 1) over the share of the pixels, from 0 to 1,
    by the trapezoid rule: (B,)."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


def _near(boxes: Tensor, size: int, tolerance: float) -> Tensor:
    """Which pixels have their middle in one of the boxes (B, P, 4) or at most
    `tolerance` pixels from it: (B, size, size) bool. NaN: no box."""
    middle = torch.arange(size, device=boxes.device) + 0.5
    away = lambda low, high: (
        torch.maximum(low[:, None] - middle, middle - high[:, None])
        .clamp(min=0)
        .square()
    )  # (B, size)
    near = torch.zeros(len(boxes), size, size, dtype=torch.bool, device=boxes.device)
    # one part of all images at a time
    for left, top, right, bottom in boxes.permute(1, 2, 0):
        near |= (
            away(top, bottom)[:, :, None] + away(left, right)[:, None] <= tolerance**2
        )
    return near


def _on(
    known: dict[str, Tensor | None], device: torch.device
) -> dict[str, Tensor | None]:
    return {
        name: None if value is None else value.to(device)
        for name, value in known.items()
    }


def _keep(
    scores: dict[str, list[Tensor]], found: dict[str, Tensor], suffix: str
) -> None:
    for name, values in found.items():
        scores.setdefault(f"focus_{name}{suffix}", []).append(values)


def _spread(parts: list[Tensor], chosen: Tensor, count: int) -> np.ndarray:
    """Values of the chosen images, in batches, among all `count`; NaN elsewhere."""
    spread = np.full(count, np.nan, np.float32)
    spread[chosen] = torch.cat(parts).cpu()
    return spread
