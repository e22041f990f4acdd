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

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch
from scipy import ndimage
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


@contextmanager
def _evaluating(model: nn.Module, split: Split):
    """Eval mode, and afterwards the model's own again; gives its device. Raises
    InputError for an empty split."""
    if not len(split):
        raise InputError("there are no images to evaluate.")
    training = model.training
    model.eval()
    try:
        yield next(model.parameters()).device
    finally:
        model.train(training)


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
    Raises InputError for a split without ground truth.
    """
    if (
        split.boxes is None
        and split.masks is None
        and split.part_boxes is None
        and split.parts is None
    ):
        raise InputError(
            "localisation needs a data set with boxes, masks or parts; this one has"
            " none."
        )
    size = recipe.image_size
    found: dict[str, list[Tensor]] = {
        f"{name}{suffix}": [] for name in MEASURES for suffix in ("", "_random")
    }
    with _evaluating(model, split) as device:
        for index in torch.arange(len(split)).split(BATCH):
            with torch.no_grad():
                # (B, m, 4)
                boxes = (
                    model.regions(centre(split.images[index].to(device), size))
                    .float()
                    .cpu()
                )
            truth = ground_truth(split, index, size)
            random = [
                score(random_boxes(boxes, index, draw, size), **truth)
                for draw in range(DRAWS)
            ]
            for name, values in score(boxes, **truth).items():
                found[name].append(values)
                found[f"{name}_random"].append(
                    torch.stack([scores[name] for scores in random]).mean(0)
                )
    result: dict = {"n": len(split)}
    for name, parts in found.items():
        scores = torch.cat(parts) if parts else torch.empty(0, 1)
        # (n, m) of the images that can be scored
        scores = scores[scores.isfinite().all(1)]
        if not name.endswith("_random"):
            result[f"{name}_n"] = len(scores)
        result |= _summary(name, scores, cumulative=name.startswith("union_iou"))
    return result


# IoU above which a box counts as found
THRESHOLDS = {"hit30": 0.3, "hit50": 0.5, "hit70": 0.7}


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

    A model that shows the maps behind its boxes (``first_look``, ``activations``,
    ``enlarged``, ``box``, ``to_pixels``, as methods/flrdf.py does) is asked for both
    threshold rules too, "image_max" and "image_mean", and the maps themselves are
    scored by :func:`max_box_acc`: the first result then holds its numbers as
    ``image_maxboxaccv2`` and so on, the second "maxbox_image" (N,) and "boxacc_image"
    (3, 100).

    The model is put in eval mode and works on its own device; its mode is restored.
    Raises InputError for a split without boxes.
    """
    if split.boxes is None:
        raise InputError(
            "boxes can be scored only on a data set with boxes; this one has none."
        )
    size = recipe.image_size
    margin = size * (1 - 0.5**0.5) / 2
    constant = {
        "centre": torch.tensor([margin, margin, size - margin, size - margin]),
        "whole": torch.tensor([0.0, 0.0, size, size]),
    }
    found: dict[str, list[Tensor]] = {}
    at_levels: dict[str, list[Tensor]] = {}
    with _evaluating(model, split) as device:
        for index in torch.arange(len(split)).split(BATCH):
            objects = ground_truth(split, index, size)["objects"].to(device)
            with torch.no_grad():
                images = centre(split.images[index].to(device), size)
                # maps of the class that is predicted, for boxes; and of the true class,
                # for the maps' own score
                if hasattr(model, "first_look"):
                    look = model.first_look(images)
                    located = {
                        f"{name}{end}": model.box(maps, size, rule)
                        for name, maps in model.activations(look).items()
                        for end, rule in (
                            ("", None),
                            ("_max", "max"),
                            ("_mean", "mean"),
                        )
                    }
                    for name, maps in model.activations(
                        look, split.labels[index].to(device)
                    ).items():
                        maps = model.enlarged(maps)
                        ious = best_ious(
                            maps,
                            objects,
                            lambda edges, cells=maps.shape[-1]: model.to_pixels(
                                edges, cells, size
                            ),
                        )
                        at_levels.setdefault(name, []).append(ious)
                else:
                    located = model.locate(images)
                located |= {name: box.to(device) for name, box in constant.items()}
            for name, of_name in located.items():
                found.setdefault(f"iou_{name}", []).append(
                    box_iou(of_name.float(), objects)
                )
    per_image = {name: torch.cat(values).cpu() for name, values in found.items()}
    result: dict = {"n": int(next(iter(per_image.values())).isfinite().sum())}
    for name, iou in per_image.items():
        iou = iou[iou.isfinite()].double()
        hits = {
            measure: (iou >= threshold).double()
            for measure, threshold in THRESHOLDS.items()
        }
        for measure, values in {
            "iou": iou,
            **hits,
            "average": torch.stack(list(hits.values())).mean(0),
        }.items():
            result |= _mean(f"{name.removeprefix('iou_')}_{measure}", values)
    for name, ious in at_levels.items():
        numbers, per_image[f"maxbox_{name}"], per_image[f"boxacc_{name}"] = max_box_acc(
            torch.cat(ious)
        )
        result |= {f"{name}_{key}": value for key, value in numbers.items()}
    return result, per_image


# at which a map is cut: shares of the way from its smallest value to its largest
LEVELS = torch.arange(100) / 100
# a stack's masks do not touch; cells touch also by their corners
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
    maps, objects = maps.cpu(), objects.cpu()
    low, high = (value[..., None, None] for value in maps.flatten(1).aminmax(dim=1))
    stretched = (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)
    masks = stretched[:, None] >= LEVELS[:, None, None]  # (B, 100, h, w)
    labels, _ = ndimage.label(masks.flatten(0, 1).numpy(), IN_PLANE)
    found = [
        (plane.start, x.start, y.start, x.stop, y.stop)
        for plane, y, x in ndimage.find_objects(labels)
    ]
    # of every mask; none in maps of NaN
    components = torch.tensor(found, dtype=torch.int64).view(-1, 5)
    plane, edges = components[:, 0], components[:, 1:]  # (K,), (K, 4)
    ious = box_iou(to_pixels(edges).float(), objects[plane // len(LEVELS)])
    best = (
        torch.zeros(len(maps) * len(LEVELS))
        .scatter_reduce(0, plane, ious.nan_to_num(), "amax")
        .view(-1, len(LEVELS))
    )
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
    known = ious.isfinite().all(1)
    # (3, N, 100)
    reached = torch.stack([ious >= threshold for threshold in THRESHOLDS.values()])
    shares = reached[:, known].double().mean(1)  # (3, 100)
    # the first of equals
    level = shares.argmax(1) if known.any() else torch.zeros(3, dtype=torch.int64)
    # (N,)
    per_image = (
        torch.stack([of_iou[:, at] for of_iou, at in zip(reached, level, strict=True)])
        .double()
        .mean(0)
    )
    numbers = _mean("maxboxaccv2", per_image[known])
    for name, of_iou, at in zip(THRESHOLDS, shares, level.tolist(), strict=True):
        number = name.removeprefix("hit")
        numbers |= {
            f"maxboxacc{number}": float(of_iou[at]) if known.any() else None,
            f"level{number}": round(float(LEVELS[at]), 2) if known.any() else None,
        }
    return numbers, torch.where(known, per_image, torch.nan).float(), shares.float()


def ground_truth(split: Split, index: Tensor, size: int) -> dict[str, Tensor | None]:
    """What :func:`score` needs of the images at `index` (B,), moved from the stored
    images to their centre crops of side `size`.

    Boxes are cut at the crop's border; an object without any area inside, and a part
    whose centre lies outside, become NaN.
    """
    offset = centre_offset(split.images.shape[-1], size)
    objects = masks = points = None
    if split.boxes is not None:
        objects = (split.boxes[index].float() - offset).clamp(0, size)
        inside = (objects[:, 2:] > objects[:, :2]).all(1, keepdim=True)
        objects = torch.where(inside, objects, torch.nan)
    if split.masks is not None:
        masks = (
            split.masks[index][:, offset : offset + size, offset : offset + size] > 0
        )
    if split.part_boxes is not None:
        corners = split.part_boxes[index].float()
        points = (corners[..., :2] + corners[..., 2:]) / 2 - offset  # (B, P, 2)
    elif split.parts is not None:
        parts = split.parts[index].float()
        points = torch.where(parts[..., 2:] > 0, parts[..., :2] - offset, torch.nan)
    if points is not None:
        inside = ((points >= 0) & (points <= size)).all(-1, keepdim=True)
        points = torch.where(inside, points, torch.nan)
    return {"objects": objects, "masks": masks, "points": points}


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
    n, m = boxes.shape[:2]
    for name, value, dimensions, last in (
        ("objects", objects, 2, 4),
        ("masks", masks, 3, None),
        ("points", points, 3, 2),
    ):
        if value is not None and (
            value.ndim != dimensions
            or len(value) != n
            or last not in (None, value.shape[-1])
        ):
            raise InputError(
                f"{name} {tuple(value.shape)} do not fit boxes {tuple(boxes.shape)}."
            )
    boxes = boxes.double()
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2  # (N, m, 2)
    scores = {}
    if masks is not None:
        height, width = masks.shape[1:]
        # the pixel that holds the centre
        x, y = (
            centres[..., 0].long().clamp(0, width - 1),
            centres[..., 1].long().clamp(0, height - 1),
        )
        hit = masks[torch.arange(n)[:, None], y, x]
        scores["hit_object"] = _where(hit, masks.flatten(1).any(1))
    elif objects is not None:
        # false for NaN
        hit = (centres >= objects[:, None, :2]) & (centres <= objects[:, None, 2:])
        scores["hit_object"] = _where(hit.all(-1), objects.isfinite().all(1))
    if points is not None:
        place = points[:, None]  # (N, 1, P, 2)
        # (N, m, P)
        holds = (
            (place >= boxes[:, :, None, :2]) & (place <= boxes[:, :, None, 2:])
        ).all(-1)
        scores["hit_part"] = _where(holds.any(-1), points.isfinite().all(-1).any(-1))
    if objects is not None:
        scores["union_iou"] = _union_iou(boxes, objects.double())
    return scores


def random_boxes(boxes: Tensor, index: Tensor, draw: int, size: int) -> Tensor:
    """Boxes as large as `boxes` (B, m, 4) at random places, uniform inside the image of
    side `size`; index (B,) and draw decide."""
    sides = boxes[..., 2:] - boxes[..., :2]  # (B, m, 2)
    # (B, m, 2)
    random = uniforms(
        SEED, draw, index.to(boxes.device), 2 * boxes.shape[1]
    ).T.unflatten(1, (-1, 2))
    corner = random * (size - sides)
    return torch.cat([corner, corner + sides], -1)


def _union_iou(boxes: Tensor, objects: Tensor) -> Tensor:
    """IoU of the union of the first 1..m boxes (N, m, 4) with objects (N, 4) -> (N, m).

    Exact: all edges of an image together cut the plane into cells, and each box is a
        set of whole cells.
    """
    known = objects.isfinite().all(1)  # (N,)
    shapes = torch.cat([boxes, objects[:, None].nan_to_num()], 1)  # (N, m + 1, 4)
    within, lengths = [], []
    for low, high in (
        (shapes[..., 0], shapes[..., 2]),
        (shapes[..., 1], shapes[..., 3]),
    ):
        edges = torch.cat([low, high], 1).sort(1).values  # (N, 2m + 2)
        middle = (edges[:, None, :-1] + edges[:, None, 1:]) / 2  # (N, 1, 2m + 1)
        # (N, m + 1, 2m + 1)
        within.append((middle > low[..., None]) & (middle < high[..., None]))
        lengths.append(edges.diff(dim=1))
    # (N, m + 1, 2m + 1, 2m + 1)
    covers = within[0][..., :, None] & within[1][..., None, :]
    area = lengths[0][:, None, :, None] * lengths[1][:, None, None, :]
    # (N, m, ..), (N, 1, ..)
    union, target = covers[:, :-1].cumsum(1) > 0, covers[:, -1:]
    return _where(
        (area * (union & target)).sum((2, 3)) / (area * (union | target)).sum((2, 3)),
        known,
    )


def _where(scores: Tensor, scorable: Tensor) -> Tensor:
    """Scores (N, m) as float64, NaN in images that cannot be scored."""
    return torch.where(scorable[:, None], scores.double(), torch.nan)


def _summary(name: str, scores: Tensor, cumulative: bool) -> dict:
    """Scores (n, m) of one measure as plain numbers: mean over images, interval, by
    rank; all None for n = 0."""
    if not len(scores):
        return _mean(name, scores) | {f"{name}_by_rank": None}
    return _mean(name, scores[:, -1] if cumulative else scores.mean(1)) | {
        f"{name}_by_rank": scores.mean(0).tolist()
    }


def _mean(name: str, values: Tensor) -> dict:
    """Mean over images of values (n,) in [0, 1], and its 95 % interval; all None for n
    = 0."""
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
