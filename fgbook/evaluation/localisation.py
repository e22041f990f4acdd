"""Where the selected regions lie, against ground truth, and where boxes of the same
size would lie by chance.

Three questions for each region of an image, in input pixels (x to the right, y down,
pixel i covers [i, i + 1]):

* hit_object: does its centre lie on the object, that is inside the foreground mask, or
  inside the object's box where there is no mask?
* hit_part: does it hold a discriminative part, that is the centre of at least one of
  the boxes of the parts that tell siblings apart? Where a data set marks no such parts
  (CUB), the visible ones of its fifteen parts count, which is much easier to meet:
  compare with the random boxes.
* union_iou: intersection over union of all regions together with the object's box
  (exact areas).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ..data.dataset import Split
from ..errors import InputError
from ..images.augment import centre, centre_offset, uniforms
from ..images.regions import box_iou
from ..recipe import Recipe

MEASURES = ("hit_object", "hit_part", "union_iou")
BATCH = 64
DRAWS = 10  # random sets of boxes for each image
SEED = 0  # of the random boxes: the same for all models


# ---- what a model must offer to be scored here


@runtime_checkable
class ProposesRegions(Protocol):
    """A model that looks closely at regions, as methods/focus.py does."""

    def regions(self, images: Tensor) -> Tensor:
        """The boxes (B, m, 4), xyxy in input pixels, the best first."""


@runtime_checkable
class Locates(Protocol):
    """A model that draws boxes round the object, as methods/levels.py does."""

    def locate(self, images: Tensor) -> dict[str, Tensor]:
        """Boxes (B, 4) by name, xyxy in input pixels."""


@runtime_checkable
class ShowsMaps(Protocol):
    """A model that also shows the maps behind its boxes, as methods/flrdf.py does: they
    can be made of another class, and be cut at another threshold.
    """

    def first_look(self, images: Tensor) -> Any:
        """What all maps of the images are made from, computed once."""

    def activations(
        self, look: Any, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The maps (B, h, w) by name, of the classes `targets` (B,), or of the
        predicted ones.
        """

    def enlarged(self, activation: Tensor) -> Tensor:
        """A map (B, h, w) in the finer cells in which boxes are drawn."""

    def to_pixels(self, edges: Tensor, cells: int, size: int) -> Tensor:
        """Boxes (K, 4) in finer cells, `cells` in a row, as input pixels of images of
        side `size`.
        """

    def box(
        self, activation: Tensor, size: int, threshold: str | None = None
    ) -> Tensor:
        """The box (B, 4) of a map (B, h, w), xyxy in input pixels. threshold: "max",
        "mean", or the model's own rule.
        """


@contextmanager
def _evaluating(model: nn.Module, split: Split) -> Iterator[torch.device]:
    """Eval mode, and afterwards the model's own again; gives its device. Raises
    InputError for an empty split.
    """
    if not len(split):
        raise InputError("there are no images to evaluate.")
    training = model.training
    model.eval()
    try:
        yield next(model.parameters()).device
    finally:
        model.train(training)


# ---- regions


@torch.no_grad()
def measure(model: nn.Module, split: Split, recipe: Recipe) -> dict:
    """Score ``model.regions(images)`` (B, m, 4), the best region first, on the centre
    crops that evaluation sees.

    Returns plain numbers. For each of MEASURES ("hit_object", say): `hit_object`, the
    mean over images (of an image's share of regions); its 95 % interval
    `hit_object_low`, `hit_object_high` (normal, over images: another model of the same
    row varies more); `hit_object_by_rank`, a list of m: the share of first, second..
    regions that hit, and for union_iou the overlap of the first 1, 2.. m regions;
    `hit_object_n`, how many images can be scored, with the object, or a part, inside
    the crop; `hit_object_random` (with _low, _high, _by_rank), the same for as many
    boxes of the regions' sizes at uniformly random places inside the image, averaged
    over 10 draws. Their places depend on nothing but the image's position in the split;
    they may overlap freely, which regions after non-maximum suppression do not. `n`:
    images. None where the ground truth is missing or no image can be scored.

    The model is put in eval mode and works on its own device; its mode is restored.
    Raises InputError for a model without regions and a split without ground truth.
    """
    if not isinstance(model, ProposesRegions):
        raise InputError(
            f"{type(model).__name__} proposes no regions that could be scored."
        )
    known = (split.boxes, split.masks, split.part_boxes, split.parts)
    if all(truth is None for truth in known):
        raise InputError(
            "localisation needs a data set with boxes, masks or parts; this one has"
            " none."
        )

    size = recipe.image_size
    found: dict[str, list[Tensor]] = {}  # measure -> (B, m) a batch
    for name in MEASURES:
        found[name] = []
        found[f"{name}_random"] = []
    with _evaluating(model, split) as device:
        for index in torch.arange(len(split)).split(BATCH):
            images = centre(split.images[index].to(device), size)
            regions = model.regions(images).float().cpu()  # (B, m, 4)
            truth = ground_truth(split, index, size)
            by_chance = _random_scores(regions, index, size, truth)
            for name, values in score(regions, **truth).items():
                found[name].append(values)
                found[f"{name}_random"].append(by_chance[name])

    result: dict = {"n": len(split)}
    for name, parts in found.items():
        scores = torch.cat(parts) if parts else torch.empty(0, 1)  # (N, m)
        # of the images that can be scored
        scores = scores[scores.isfinite().all(1)]
        if not name.endswith("_random"):
            result[f"{name}_n"] = len(scores)
        result |= _summary(name, scores, cumulative=name.startswith("union_iou"))
    return result


def _random_scores(
    regions: Tensor, index: Tensor, size: int, truth: dict[str, Tensor | None]
) -> dict[str, Tensor]:
    """What boxes as large as the regions (B, m, 4) score at random places: (B, m) by
    measure, mean over DRAWS.
    """
    draws = []
    for draw in range(DRAWS):
        draws.append(score(random_boxes(regions, index, draw, size), **truth))
    means = {}
    for name in draws[0]:
        means[name] = torch.stack([scores[name] for scores in draws]).mean(0)
    return means


# ---- boxes

# IoU above which a box counts as found
THRESHOLDS = {"hit30": 0.3, "hit50": 0.5, "hit70": 0.7}


@torch.no_grad()
def boxes(
    model: nn.Module, split: Split, recipe: Recipe
) -> tuple[dict, dict[str, Tensor]]:
    """Score the boxes of ``model.locate(images)``, a dictionary of named (B, 4), by
    their IoU with the object's box, on the centre crops that evaluation sees; beside
    them two that know nothing of the image: "centre", the middle square with half its
    area, and "whole".

    First result, plain numbers: `n`, the images with an object in the crop; and for
    each name, as ``image_hit50``, with ``_low`` and ``_high`` (95 %, normal, over
    images): `iou`, its mean; `hit30`, `hit50`, `hit70`, the share of images whose IoU
    is at least that; `average`, the mean of these three. Second: {"iou_image", ...},
    (N,) float32 on the CPU, NaN for an image without an object.

    A model that shows the maps behind its boxes (:class:`ShowsMaps`) is asked for both
    threshold rules too, "image_max" and "image_mean", and the maps themselves are
    scored by :func:`max_box_acc`: the first result then holds its numbers as
    ``image_maxboxaccv2`` and so on, the second "maxbox_image" (N,) and "boxacc_image"
    (3, 100).

    The model is put in eval mode and works on its own device; its mode is restored.
    Raises InputError for a model without boxes and a split without boxes.
    """
    if not isinstance(model, Locates):
        raise InputError(f"{type(model).__name__} draws no boxes that could be scored.")
    if split.boxes is None:
        raise InputError(
            "boxes can be scored only on a data set with boxes; this one has none."
        )

    size = recipe.image_size
    found: dict[str, list[Tensor]] = {}  # name of a box -> IoU (B,) a batch
    at_levels: dict[str, list[Tensor]] = {}  # name of a map -> IoU (B, 100) a batch
    with _evaluating(model, split) as device:
        for index in torch.arange(len(split)).split(BATCH):
            images = centre(split.images[index].to(device), size)
            objects = _objects(split.boxes[index], _offset(split, size), size)
            objects = objects.to(device)

            if isinstance(model, ShowsMaps):
                # One look. Boxes, the method's result, are of the class that is
                # predicted; the maps' own score is of the true class.
                look = model.first_look(images)
                located = _boxes_by_rule(model, look, size)
                labels = split.labels[index].to(device)
                scores = _map_scores(model, look, labels, objects, size)
                for name, ious in scores.items():
                    at_levels.setdefault(name, []).append(ious)
            else:
                located = model.locate(images)

            located |= _blind_boxes(size, device)
            for name, of_name in located.items():
                ious = box_iou(of_name.float(), objects)
                found.setdefault(f"iou_{name}", []).append(ious)

    per_image = {name: torch.cat(parts).cpu() for name, parts in found.items()}
    first = next(iter(per_image.values()))
    result: dict = {"n": int(first.isfinite().sum())}
    for name, ious in per_image.items():
        result |= _box_numbers(name.removeprefix("iou_"), ious[ious.isfinite()])
    for name, parts in at_levels.items():
        numbers, shares, levels = max_box_acc(torch.cat(parts))
        result |= {f"{name}_{key}": value for key, value in numbers.items()}
        per_image[f"maxbox_{name}"] = shares
        per_image[f"boxacc_{name}"] = levels
    return result, per_image


def _blind_boxes(size: int, device: torch.device) -> dict[str, Tensor]:
    """Boxes (4,) that know nothing of the image of side `size`."""
    margin = size * (1 - 0.5**0.5) / 2  # of the square with half the area
    end = size - margin
    return {
        "centre": torch.tensor([margin, margin, end, end], device=device),
        "whole": torch.tensor([0.0, 0.0, size, size], device=device),
    }


def _boxes_by_rule(model: ShowsMaps, look: Any, size: int) -> dict[str, Tensor]:
    """Boxes (B, 4) of each map: by the model's own rule, and by either threshold."""
    found = {}
    for name, maps in model.activations(look).items():
        found[name] = model.box(maps, size)
        found[f"{name}_max"] = model.box(maps, size, "max")
        found[f"{name}_mean"] = model.box(maps, size, "mean")
    return found


def _map_scores(
    model: ShowsMaps, look: Any, labels: Tensor, objects: Tensor, size: int
) -> dict[str, Tensor]:
    """How well the best box of each map of the true class fits at every level: IoU
    (B, 100) by the map's name.
    """
    found = {}
    for name, maps in model.activations(look, labels).items():
        finer = model.enlarged(maps)
        cells = finer.shape[-1]

        def to_pixels(edges: Tensor, cells: int = cells) -> Tensor:
            return model.to_pixels(edges, cells, size)

        found[name] = best_ious(finer, objects, to_pixels)
    return found


def _box_numbers(name: str, ious: Tensor) -> dict:
    """What :func:`boxes` says of IoU (n,), with intervals."""
    ious = ious.double()
    hits = {}
    for measure, threshold in THRESHOLDS.items():
        hits[measure] = (ious >= threshold).double()
    average = torch.stack(list(hits.values())).mean(0)

    numbers = _mean(f"{name}_iou", ious)
    for measure, reached in hits.items():
        numbers |= _mean(f"{name}_{measure}", reached)
    return numbers | _mean(f"{name}_average", average)


# ---- maps

# at which a map is cut: shares of the way from its smallest value to its largest
LEVELS = torch.arange(100) / 100
# of a stack of masks (plane, y, x): planes do not touch; cells touch also by their
# corners
IN_PLANE = np.array([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])


def best_ious(
    maps: Tensor, objects: Tensor, to_pixels: Callable[[Tensor], Tensor]
) -> Tensor:
    """How well the best box of each map fits, cut at each of LEVELS: maps (B, h, w),
    objects (B, 4) xyxy -> IoU (B, 100) float32, on the CPU.

    A map is stretched to 0..1; the cells at a level or above fall into connected
    components, each gives the box round it, ``to_pixels`` turns boxes (K, 4) in cells
    into pixels, and the largest IoU with the object counts: 0 where no cell is left,
    NaN for a row of NaN in objects.
    """
    from scipy import ndimage  # late: finished runs need none of it

    maps, objects = maps.cpu(), objects.cpu()

    # stretched to 0..1, then cut at every level
    lowest, highest = maps.flatten(1).aminmax(dim=1)
    lowest, highest = lowest[:, None, None], highest[:, None, None]
    contrast = (highest - lowest).clamp(min=torch.finfo(maps.dtype).tiny)
    stretched = (maps - lowest) / contrast
    masks = stretched[:, None] >= LEVELS[:, None, None]  # (B, 100, h, w)

    # the box round every component of every mask
    labels, _ = ndimage.label(masks.flatten(0, 1).numpy(), IN_PLANE)
    found = []
    for plane, y, x in ndimage.find_objects(labels):
        found.append((plane.start, x.start, y.start, x.stop, y.stop))
    components = torch.tensor(found, dtype=torch.int64)
    components = components.view(-1, 5)  # maps of NaN have none
    plane, edges = components[:, 0], components[:, 1:]  # (K,), (K, 4)

    # the best of each mask
    of_component = box_iou(to_pixels(edges).float(), objects[plane // len(LEVELS)])
    best = torch.zeros(len(maps) * len(LEVELS))
    best = best.scatter_reduce(0, plane, of_component.nan_to_num(), "amax")
    best = best.view(-1, len(LEVELS))  # (B, 100)
    return torch.where(objects.isfinite().all(1, keepdim=True), best, torch.nan)


def max_box_acc(ious: Tensor) -> tuple[dict, Tensor, Tensor]:
    """MaxBoxAccV2 (Choe et al. 2020, "Evaluating weakly supervised object localization
    methods right") from the IoU of :func:`best_ious` (N, 100).

    For an IoU of 0.3, 0.5 and 0.7: the share of images whose box reaches it, at the one
    level (for all images) at which that share is largest; of the three, the mean. The
    level is chosen on the very images that are scored: that is how the measure is
    defined. It is about the maps, and says nothing of a method's own rule for the box,
    which may do worse or (adapting to each image) better: for that, see `average` in
    :func:`boxes`.

    As published, but for what follows from small maps: they are enlarged as the method
    does it and not to every pixel, and cut at 100 levels. The maps that :func:`boxes`
    gives are those of the true class ("ground truth known").

    First result: `maxboxaccv2` with ``_low`` and ``_high`` (95 %, over images, at the
    chosen levels), `maxboxacc30`, `maxboxacc50`, `maxboxacc70`, and where, `level30`
    and so on (the lowest of equally good levels). Second: (N,) float32, each image's
    share of the three that its boxes reach at the chosen levels, so that the mean is
    MaxBoxAccV2 and rows can be compared image by image; NaN where there is no object.
    Third: the shares at all levels, (3, 100) float32. Numbers are None, and shares NaN,
    without any object.
    """
    known = ious.isfinite().all(1)  # (N,)
    reached = torch.stack([ious >= threshold for threshold in THRESHOLDS.values()])
    shares = reached[:, known].double().mean(1)  # (3, 100), from (3, N, 100)
    level = shares.argmax(1)  # (3,); of equals the first

    at_level = reached[torch.arange(3), :, level]  # (3, N)
    per_image = at_level.double().mean(0)

    numbers = _mean("maxboxaccv2", per_image[known])
    for name, of_iou, at in zip(THRESHOLDS, shares, level.tolist(), strict=True):
        number = name.removeprefix("hit")
        share, where = float(of_iou[at]), round(float(LEVELS[at]), 2)
        numbers[f"maxboxacc{number}"] = share if known.any() else None
        numbers[f"level{number}"] = where if known.any() else None

    per_image = torch.where(known, per_image, torch.nan)
    return numbers, per_image.float(), shares.float()


# ---- ground truth, and scores against it


def ground_truth(split: Split, index: Tensor, size: int) -> dict[str, Tensor | None]:
    """What :func:`score` needs of the images at `index` (B,), moved from the stored
    images to their centre crops of side `size`: "objects" (B, 4), "masks" (B, size,
    size) bool, "points" (B, P, 2), None for what the split lacks.

    Boxes are cut at the crop's border; an object without any area inside, and a part
    whose centre lies outside, become NaN.
    """
    offset = _offset(split, size)
    objects = masks = points = None
    if split.boxes is not None:
        objects = _objects(split.boxes[index], offset, size)
    if split.masks is not None:
        crop = slice(offset, offset + size)
        masks = split.masks[index][:, crop, crop] > 0
    if split.part_boxes is not None:
        corners = split.part_boxes[index].float()
        points = (corners[..., :2] + corners[..., 2:]) / 2 - offset  # (B, P, 2)
    elif split.parts is not None:
        parts = split.parts[index].float()  # (B, P, 3): x, y, visible
        visible = parts[..., 2:] > 0
        points = torch.where(visible, parts[..., :2] - offset, torch.nan)
    if points is not None:
        inside = ((points >= 0) & (points <= size)).all(-1, keepdim=True)
        points = torch.where(inside, points, torch.nan)
    return {"objects": objects, "masks": masks, "points": points}


def _offset(split: Split, size: int) -> int:
    """Where the centre crop begins in the stored images."""
    return centre_offset(split.images.shape[-1], size)


def _objects(boxes: Tensor, offset: int, size: int) -> Tensor:
    """Boxes (B, 4) of the stored images, in the crop: (B, 4) float32."""
    objects = (boxes.float() - offset).clamp(0, size)
    inside = (objects[:, 2:] > objects[:, :2]).all(1, keepdim=True)
    return torch.where(inside, objects, torch.nan)


def score(
    boxes: Tensor,
    objects: Tensor | None = None,
    masks: Tensor | None = None,
    points: Tensor | None = None,
) -> dict[str, Tensor]:
    """Scores of regions against ground truth, image by image and rank by rank; no
    model, no randomness.

    boxes (N, m, 4) xyxy, the best first; objects (N, 4) xyxy, NaN rows where there is
    none; masks (N, S, S) bool, true on the object; points (N, P, 2), x and y of part
    centres, NaN rows where there are fewer. Returns (N, m) float64: `hit_object` and
    `hit_part`, 0 or 1 for each region, and `union_iou`, in [0, 1], of the first 1, 2..
    m regions with the object. NaN for an image without an object (an empty mask) or
    part; a measure without its ground truth is left out. Borders belong to a box.
    Raises InputError for shapes that do not fit.
    """
    _check_fits(boxes, "objects", objects, dimensions=2, last=4)
    _check_fits(boxes, "masks", masks, dimensions=3, last=None)
    _check_fits(boxes, "points", points, dimensions=3, last=2)
    boxes = boxes.double()
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2  # (N, m, 2)

    scores = {}
    if masks is not None:
        hit = _on_mask(centres, masks)
        scores["hit_object"] = _where(hit, masks.flatten(1).any(1))
    elif objects is not None:
        # comparing with NaN is false
        right_of = centres >= objects[:, None, :2]
        left_of = centres <= objects[:, None, 2:]
        hit = (right_of & left_of).all(-1)
        scores["hit_object"] = _where(hit, objects.isfinite().all(1))
    if points is not None:
        place = points[:, None]  # (N, 1, P, 2)
        right_of = place >= boxes[:, :, None, :2]
        left_of = place <= boxes[:, :, None, 2:]
        holds = (right_of & left_of).all(-1)  # (N, m, P)
        known = points.isfinite().all(-1).any(-1)
        scores["hit_part"] = _where(holds.any(-1), known)
    if objects is not None:
        scores["union_iou"] = _union_iou(boxes, objects.double())
    return scores


def _check_fits(
    boxes: Tensor, name: str, truth: Tensor | None, dimensions: int, last: int | None
) -> None:
    """Refuse ground truth of other images, or with other dimensions."""
    if truth is None:
        return
    fits = truth.ndim == dimensions and len(truth) == len(boxes)
    if last is not None:
        fits = fits and truth.shape[-1] == last
    if not fits:
        raise InputError(
            f"{name} {tuple(truth.shape)} do not fit boxes {tuple(boxes.shape)}."
        )


def _on_mask(centres: Tensor, masks: Tensor) -> Tensor:
    """Whether the pixel that holds a centre (N, m, 2) is on the mask (N, h, w):
    (N, m) bool.
    """
    height, width = masks.shape[1:]
    x = centres[..., 0].long().clamp(0, width - 1)
    y = centres[..., 1].long().clamp(0, height - 1)
    image = torch.arange(len(masks))[:, None]
    return masks[image, y, x]


def random_boxes(boxes: Tensor, index: Tensor, draw: int, size: int) -> Tensor:
    """Boxes as large as `boxes` (B, m, 4) at random places, uniform inside the image of
    side `size`; index (B,) and draw decide.
    """
    sides = boxes[..., 2:] - boxes[..., :2]  # (B, m, 2)
    count = 2 * boxes.shape[1]  # an x and a y for each
    random = uniforms(SEED, draw, index.to(boxes.device), count).T  # (B, 2m)
    corner = random.unflatten(1, (-1, 2)) * (size - sides)
    return torch.cat([corner, corner + sides], -1)


def _union_iou(boxes: Tensor, objects: Tensor) -> Tensor:
    """IoU of the union of the first 1..m boxes (N, m, 4) with objects (N, 4) -> (N, m).

    Exact: all edges of an image together cut the plane into cells, and each box is a
    set of whole cells.
    """
    known = objects.isfinite().all(1)  # (N,)
    shapes = torch.cat([boxes, objects[:, None].nan_to_num()], 1)  # (N, m + 1, 4)
    in_column, widths = _intervals(shapes[..., 0], shapes[..., 2])
    in_row, heights = _intervals(shapes[..., 1], shapes[..., 3])

    # (N, m + 1, 2m + 1, 2m + 1): which cells, column by row, belong to which shape
    covers = in_column[..., :, None] & in_row[..., None, :]
    area = widths[:, None, :, None] * heights[:, None, None, :]

    union = covers[:, :-1].cumsum(1) > 0  # of the first 1, 2.. m boxes
    target = covers[:, -1:]
    both = (area * (union & target)).sum((2, 3))
    either = (area * (union | target)).sum((2, 3))
    return _where(both / either, known)


def _intervals(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Along one axis, shapes reach from low to high (N, k). Their ends cut it into
    2k - 1 intervals: which of these lie within each shape, (N, k, 2k - 1), and their
    lengths, (N, 2k - 1).
    """
    edges = torch.cat([low, high], 1).sort(1).values  # (N, 2k)
    middle = (edges[:, None, :-1] + edges[:, None, 1:]) / 2  # (N, 1, 2k - 1)
    within = (middle > low[..., None]) & (middle < high[..., None])
    return within, edges.diff(dim=1)


# ---- numbers


def _where(scores: Tensor, scorable: Tensor) -> Tensor:
    """Scores (N, m) as float64, NaN in images that cannot be scored."""
    return torch.where(scorable[:, None], scores.double(), torch.nan)


def _summary(name: str, scores: Tensor, cumulative: bool) -> dict:
    """Scores (n, m) of one measure as plain numbers: mean over images, interval, by
    rank; all None for n = 0.
    """
    if not len(scores):
        return _mean(name, scores) | {f"{name}_by_rank": None}
    of_image = scores[:, -1] if cumulative else scores.mean(1)
    return _mean(name, of_image) | {f"{name}_by_rank": scores.mean(0).tolist()}


def _mean(name: str, values: Tensor) -> dict:
    """Mean over images of values (n,) in [0, 1], and its 95 % interval; all None for
    n = 0.
    """
    n = len(values)
    if not n:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    mean = float(values.mean())
    # one image says nothing about others
    half = 1.96 * float(values.std()) / n**0.5 if n > 1 else 1.0
    return {
        name: mean,
        f"{name}_low": max(mean - half, 0.0),
        f"{name}_high": min(mean + half, 1.0),
    }
