"""fieldguide: procedurally drawn birds with full ground truth; the data set that needs
no download.

An image is a function of (seed, pool, split, index) and its species' attribute vector:
all that varies is hashed from those numbers, so that an image is the same, bit by bit,
in any order, process or batch size.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from . import species as tables
from .dataset import SPLITS, DataSet, Split
from .drawing import (
    Bird,
    Brush,
    Pose,
    column,
    draw_bird,
    fraction,
    grow,
    paint,
    scramble,
    segment,
    uniform,
)
from .store import cached_arrays

VERSION = 1
"""Raised when pixels or ground truth change; part of every fingerprint."""

BLOCK = 160_000
"""Pixels drawn at once: what keeps the working set of a drawing near the processor's
cache.
"""

# Backgrounds: far colours (top, bottom), third colour for clouds or leaves; and the
# strength of each ingredient. A column a scene.
# fmt: off
SCENES = ("sky", "foliage", "water", "branch")
_TOP = ((118, 168, 220), (74, 106, 58), (146, 176, 182), (132, 138, 112))
_BOTTOM = ((206, 226, 240), (122, 146, 74), (72, 112, 128), (96, 98, 80))
_THIRD = ((250, 250, 250), (186, 196, 108), (196, 214, 214), (168, 164, 132))
_CLOUD = (1.0, 0.75, 0.10, 0.45)   # large soft shapes
_RIPPLE = (0.0, 0.0, 1.0, 0.0)     # wide flat shapes
_LEAFY = (0.0, 0.42, 0.05, 0.16)   # small shapes
_BOKEH = (0.0, 0.55, 0.18, 0.30)   # discs of unsharp light
_BOUGHS = (0.0, 0.12, 0.0, 1.0)    # unsharp branches

# The uniform numbers behind an image, by name and count.
_DRAWS = (
    ("scene", 1), ("flip", 1), ("tilt", 1), ("yaw", 1), ("pitch", 1), ("scale", 1),
    ("place", 2), ("blur", 1), ("noise", 1), ("light", 1), ("warmth", 1),
    ("contrast", 1), ("tint", 3), ("perch", 3), ("bokeh", 24), ("boughs", 10),
    ("twigs", 12), ("leaves", 28),
)
# fmt: on


@dataclass
class Drawing:
    """B drawn images with their ground truth, in pixels of the S x S image."""

    images: Tensor  # (B, 3, S, S) uint8
    masks: Tensor  # (B, S, S) uint8, 1 on visible bird
    boxes: Tensor  # (B, 4) float32 xyxy, bounds of the mask
    parts: Tensor  # (B, 15, 3) float32: x, y, visible
    part_boxes: Tensor  # (B, 2, 4) float32 xyxy


class Nuisance:
    """All that varies between images of one species, as numbers in [0, 1)."""

    scene: Tensor  # (B,)
    flip: Tensor  # (B,) which side the bird faces
    tilt: Tensor  # (B,) of the body
    yaw: Tensor  # (B,) of the head, as pitch
    pitch: Tensor
    scale: Tensor  # (B,)
    place: Tensor  # (B, 2) in the frame
    blur: Tensor  # (B,)
    noise: Tensor  # (B,) of the sensor
    light: Tensor  # (B,) how much of it
    warmth: Tensor  # (B,) its colour
    contrast: Tensor  # (B,)
    tint: Tensor  # (B, 3) of the background
    perch: Tensor  # (B, 3)
    bokeh: Tensor  # (B, 24) four for each of six discs
    boughs: Tensor  # (B, 10) five for each of two
    twigs: Tensor  # (B, 12) six for each of two
    leaves: Tensor  # (B, 28) seven for each of four

    def __init__(self, key: Tensor):
        """`key` (B,) int64."""
        numbers = uniform(key, sum(count for _, count in _DRAWS), stream=1)
        start = 0
        for name, count in _DRAWS:
            part = numbers[:, start : start + count]
            setattr(self, name, part[:, 0] if count == 1 else part)
            start += count


def keys(seed: int, pool: str, split: str, index: Tensor) -> Tensor:
    """(B,) int64 hash keys of images `index` (B,)."""
    place = tables.POOLS.index(pool) * len(SPLITS) + SPLITS.index(split)
    start = torch.tensor(seed, device=index.device) * 64 + place + 0x5F3759DF
    start = scramble(scramble(start))
    return scramble(start + scramble(index + 0x1F123BB5))


def load(
    size: int,
    pool: str = "target",
    species: int = 20,
    per_class: tuple[int, int, int] = (40, 10, 25),
    seed: int = 0,
) -> DataSet:
    """The data set at `size` x `size` pixels, drawn once and then read from the store.

    pool "target" or "source" (no species in common); species 2 .. species.limit();
    per_class: training, validation and test images of each species; seed: another one
    draws other images of the same species. Raises InputError for anything else.
    """
    _refuse(size, per_class, seed)
    table = tables.table(pool, species)
    settings = (
        f"version {VERSION}, pool {pool}, species {species}, per class"
        f" {tuple(per_class)}, seed {seed}, size {size}"
    )
    content = settings.encode() + table.values.numpy().tobytes()
    fingerprint = hashlib.sha256(content).hexdigest()[:16]
    counts = dict(zip(SPLITS, per_class, strict=True))

    def labels(split: str) -> Tensor:
        """(N,): species take turns."""
        return torch.arange(counts[split] * species) % species

    def build() -> dict[str, np.ndarray]:
        arrays = {}
        for split in SPLITS:
            label = labels(split)
            drawing = render(
                table.values[label],
                table.siblings[label],
                table.differ[label],
                keys(seed, pool, split, torch.arange(len(label))),
                size,
            )
            for name, value in vars(drawing).items():
                arrays[f"{split}_{name}"] = value.numpy()
        return arrays

    arrays = cached_arrays(f"fieldguide-{pool}-{size}-{fingerprint}", build)
    splits = {}
    for split in SPLITS:
        label = labels(split)
        splits[split] = Split(
            images=torch.from_numpy(arrays[f"{split}_images"]),
            labels=label,
            files=[f"{pool}/{split}/{i:05d}.png" for i in range(len(label))],
            boxes=torch.from_numpy(arrays[f"{split}_boxes"]),
            parts=torch.from_numpy(arrays[f"{split}_parts"]),
            part_boxes=torch.from_numpy(arrays[f"{split}_part_boxes"]),
            masks=torch.from_numpy(arrays[f"{split}_masks"]),
            attributes=table.values[label],
        )
    words, known = tables.one_hot(table.values)
    return DataSet(
        name="fieldguide" if pool == "target" else f"fieldguide-{pool}",
        classes=table.names,
        size=size,
        fingerprint=fingerprint,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        genus=table.genus,
        class_attributes=known,
        attribute_names=words,
    )


def _refuse(size: object, per_class: tuple[int, int, int], seed: object) -> None:
    """Raises InputError for settings that :func:`load` does not take."""
    if not _whole(size, 16, 4096):
        raise InputError(
            f"fieldguide: size {size!r}; a whole number of pixels from 16 to 4096 is"
            " possible."
        )
    three = isinstance(per_class, tuple | list) and len(per_class) == 3
    if not three or not all(_whole(count, 1, 100_000) for count in per_class):
        raise InputError(
            f"fieldguide: per_class {per_class!r}; three whole numbers from 1 to 100000"
            " (train, val, test) are needed."
        )
    if not _whole(seed, 0, 2**31 - 1):
        raise InputError(
            f"fieldguide: seed {seed!r}; a whole number from 0 to {2**31 - 1} is"
            " possible."
        )


def _whole(value: object, low: int, high: int) -> bool:
    # True is an int to Python
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return low <= value <= high


def species_names(pool: str = "target", count: int = 20) -> list[str]:
    """Names of the first `count` species of a pool; unique over both pools."""
    return tables.table(pool, count).names


def plate(species: int = 20, size: int = 224, pool: str = "target") -> Tensor:
    """(species, 3, S, S) uint8: the species as a field guide prints them, in profile on
    paper, siblings at one scale.
    """
    table = tables.table(pool, species)
    zero = torch.zeros(species)
    profile = Pose(zero, zero, zero).repeat(tables.SIBLINGS)
    extent = _union(Bird(table.siblings.flatten(0, 1), profile).extent(), species)
    middle = (extent[:, :2] + extent[:, 2:]) / 2
    sides = extent[:, 2:] - extent[:, :2]
    scale = 0.88 / sides.amax(1)

    grid = (torch.arange(size).float() + 0.5) * (1 / size) - 0.5
    coarse = uniform(torch.full((1,), 7), 400, stream=2).reshape(1, 20, 20)
    paper = torch.tensor([0.93, 0.91, 0.86])[None, :, None, None]
    images = []
    for i in range(species):  # one at a time: a plate may be large
        one = Bird(table.values[i : i + 1], Pose(zero[:1], zero[:1], zero[:1]))
        x = grid.expand(1, size, size) / scale[i] + middle[i, 0]
        y = grid[:, None].expand(1, size, size) / scale[i] + middle[i, 1]
        brush = Brush(column((1 / (size * scale[i]))[None]))
        nuisance = Nuisance(torch.zeros(1, dtype=torch.int64))
        nuisance.perch = torch.tensor([[0.62, 0.1, 0.4]])
        grain = grow(coarse, size)

        canvas = paper.expand(1, 3, size, size).clone()
        _perch(canvas, nuisance, one, x, y, brush, grain)
        draw_bird(canvas, one, x, y, brush, grain)
        images.append(canvas.clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8))
    return torch.cat(images)


def render(
    values: Tensor, siblings: Tensor, differ: Tensor, key: Tensor, size: int
) -> Drawing:
    """Draws B birds in the wild, on the device of `key`.

    values (B, A) attribute vectors; siblings (B, K, A) those of their genus, so that
    siblings are framed alike and the boxes of their telling parts agree; differ (B, 2)
    indices into species.LOCAL; key (B,) from :func:`keys`; size S in pixels.
    """
    step = max(1, BLOCK // (size * size))
    blocks = list(
        zip(
            values.split(step),
            siblings.split(step),
            differ.split(step),
            key.split(step),
            strict=True,
        )
    )

    def draw(block: tuple[Tensor, Tensor, Tensor, Tensor]) -> Drawing:
        return _render(*block, size)

    threads = torch.get_num_threads()
    if key.device.type != "cpu" or threads == 1:
        drawings = [draw(block) for block in blocks]
    else:
        # A block a thread is far cheaper than all threads meeting after each of a
        # block's thousand small steps.
        try:
            with ThreadPoolExecutor(
                threads, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                drawings = list(pool.map(draw, blocks))
        finally:
            torch.set_num_threads(threads)
    return Drawing(
        images=torch.cat([drawing.images for drawing in drawings]),
        masks=torch.cat([drawing.masks for drawing in drawings]),
        boxes=torch.cat([drawing.boxes for drawing in drawings]),
        parts=torch.cat([drawing.parts for drawing in drawings]),
        part_boxes=torch.cat([drawing.part_boxes for drawing in drawings]),
    )


def _render(
    values: Tensor, siblings: Tensor, differ: Tensor, key: Tensor, size: int
) -> Drawing:
    """:func:`render` of one block."""
    n, device = len(key), key.device
    nuisance = Nuisance(key)
    pose = Pose(
        tilt=(nuisance.tilt - 0.5) * (28 / 180 * pi),
        yaw=(nuisance.yaw - 0.5) * (80 / 180 * pi),
        pitch=(nuisance.pitch - 0.5) * (30 / 180 * pi),
    )
    bird = Bird(values, pose)
    kin = Bird(siblings.flatten(0, 1), pose.repeat(siblings.shape[1]))  # B * K birds

    # Image coordinates (gx, gy) of the middles of the pixels, and what bird coordinates
    # (x, y) are there.
    frame = _frame(nuisance, _union(kin.extent(), n))
    grid = (torch.arange(size, device=device).float() + 0.5) * (1 / size)
    gx = grid.expand(n, size, size)
    gy = grid[:, None].expand(n, size, size)
    x = (gx - column(frame.x)).mul_(column(frame.facing / frame.scale))
    y = (gy - column(frame.y)).mul_(column(1 / frame.scale))
    # (B,) width of an edge, in sides of the image: a pixel and the blur
    soft = 1 / size + nuisance.blur * nuisance.blur * 0.016
    brush = Brush(column(soft / frame.scale))

    coarse = uniform(key, 6 * 6 + 20 * 5 + 20 * 20, stream=2)
    clouds = grow(coarse[:, :36].reshape(n, 6, 6), size)
    ripples = grow(coarse[:, 36:136].reshape(n, 20, 5), size)
    grain = grow(coarse[:, 136:].reshape(n, 20, 20), size)

    # From the farthest to the nearest.
    canvas = _background(nuisance, gx, gy, clouds, ripples, grain, soft)
    _perch(canvas, nuisance, bird, x, y, brush, grain)
    coverage = draw_bird(canvas, bird, x, y, brush, grain)
    hidden = _front(canvas, nuisance, gx, gy, Brush(column(soft)))
    images = _camera(canvas, nuisance, key)

    masks = coverage * (1 - hidden) > 0.5
    return Drawing(
        images=images,
        masks=masks.to(torch.uint8),
        boxes=_bounds(masks),
        parts=_parts(bird, frame, masks),
        part_boxes=_part_boxes(kin, differ, frame, soft, size),
    )


def _frame(nuisance: Nuisance, extent: Tensor) -> "_Frame":
    """The box around all siblings in this pose, `extent` (B, 4) in bird coordinates,
    takes 0.45 to 0.9 of the image, at any place.
    """
    width = extent[:, 2] - extent[:, 0]
    height = extent[:, 3] - extent[:, 1]
    scale = (nuisance.scale * 0.45 + 0.45) / torch.maximum(width, height)
    facing = torch.where(nuisance.flip < 0.5, -1.0, 1.0)
    left = nuisance.place[:, 0] * (1 - width * scale)
    top = nuisance.place[:, 1] * (1 - height * scale)
    # the side of the box that is on the left once the bird faces its way
    nearest = torch.where(facing > 0, extent[:, 0], -extent[:, 2])
    return _Frame(scale, facing, left - nearest * scale, top - extent[:, 1] * scale)


# A bird that faces left shows its left side: the names of the paired parts (eyes, legs,
# wings) change places.
_MIRRORED = [0, 1, 2, 3, 4, 5, 10, 11, 12, 9, 6, 7, 8, 13, 14]


def _parts(bird: Bird, frame: "_Frame", masks: Tensor) -> Tensor:
    """(B, 15, 3) x, y in pixels and whether the part is seen: the pose shows it, it is
    in the image, and nothing hides it there.
    """
    size = masks.shape[-1]
    parts = bird.parts()
    px, py = frame.pixels(parts[..., 0], parts[..., 1], size)
    inside = (px >= 0) & (px < size) & (py >= 0) & (py < size)
    place = py.floor().long().clamp(0, size - 1) * size
    place = place + px.floor().long().clamp(0, size - 1)
    on_bird = masks.flatten(1).gather(1, place).bool()
    shown = parts[..., 2] * (inside & on_bird).float()
    parts = torch.stack([px, py, shown], 2)
    faces_right = (frame.facing > 0)[:, None, None]
    return torch.where(faces_right, parts, parts[:, _MIRRORED])


def _part_boxes(
    kin: Bird, differ: Tensor, frame: "_Frame", soft: Tensor, size: int
) -> Tensor:
    """(B, 2, 4) xyxy in pixels: where the siblings differ, whichever of them is
    drawn.
    """
    n = len(differ)
    areas = _union(kin.areas().flatten(1).reshape(-1, len(tables.LOCAL), 4), n)
    telling = areas.gather(1, differ[..., None].expand(-1, -1, 4))
    x0, y0 = frame.pixels(telling[..., 0], telling[..., 1], size)
    x1, y1 = frame.pixels(telling[..., 2], telling[..., 3], size)
    margin = (soft * size)[:, None]  # edges are this soft
    sides = [
        torch.minimum(x0, x1) - margin,  # mirrored birds have x1 on the left
        y0 - margin,
        torch.maximum(x0, x1) + margin,
        y1 + margin,
    ]
    return torch.stack(sides, 2).clamp(0, size)


@dataclass
class _Frame:
    """Where bird coordinates lie in the image (sides of length 1); (B,) each."""

    scale: Tensor
    facing: Tensor  # 1: right, -1: left
    x: Tensor
    y: Tensor

    def pixels(self, bx: Tensor, by: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """(B, k) bird coordinates -> (B, k) pixels."""
        x = bx * (self.facing * self.scale)[:, None] + self.x[:, None]
        y = by * self.scale[:, None] + self.y[:, None]
        return x * size, y * size


def _union(boxes: Tensor, n: int) -> Tensor:
    """(n * K, ..., 4) boxes -> (n, ..., 4) around the K of each."""
    boxes = boxes.reshape(n, -1, *boxes.shape[1:])
    return torch.cat([boxes[..., :2].amin(1), boxes[..., 2:].amax(1)], -1)


def _bounds(masks: Tensor) -> Tensor:
    """(B, S, S) bool -> (B, 4) xyxy; zeros where a mask is empty."""
    x0, x1 = _span(masks.any(1))
    y0, y1 = _span(masks.any(2))
    box = torch.stack([x0, y0, x1, y1], 1).float()
    return box * (x1 > 0).float()[:, None]


def _span(some: Tensor) -> tuple[Tensor, Tensor]:
    """(B, S) bool -> (B,) the first place that is true, (B,) one more than the last."""
    size = some.shape[-1]
    place = torch.arange(size, device=some.device)
    first = torch.where(some, place, size).amin(1)
    end = torch.where(some, place + 1, 0).amax(1)
    return first, end


def _background(
    nuisance: Nuisance,
    gx: Tensor,
    gy: Tensor,
    clouds: Tensor,
    ripples: Tensor,
    grain: Tensor,
    soft: Tensor,
) -> Tensor:
    """(B, 3, S, S): sky, foliage, water or branches, out of focus. All maps (B, S, S);
    soft (B,).
    """
    c, device = column, gx.device
    scene = (nuisance.scene * len(SCENES)).long()

    def of_scene(table: tuple) -> Tensor:
        return torch.tensor(table, device=device)[scene]

    shift = (nuisance.tint - 0.5) * 0.16
    top = c(of_scene(_TOP) / 255.0 + shift)
    bottom = c(of_scene(_BOTTOM) / 255.0 + shift)
    third = c(of_scene(_THIRD) / 255.0 + shift)
    ripple = c(of_scene(_RIPPLE))

    # From top to bottom, wavy; then clouds, ripples, leaves.
    flow = (gy + (clouds - 0.5) * 0.3).clamp_(0, 1)
    canvas = (bottom - top) * flow[:, None] + top
    cloudy = (clouds - 0.42).mul_(2.4).clamp_(0, 0.9)
    paint(canvas, cloudy * c(of_scene(_CLOUD)), third)
    wavy = (ripples - 0.5).mul_(2.2).clamp_(0, 0.6)
    paint(canvas, wavy * ripple, third)
    leafy = (grain - 0.5) * c(of_scene(_LEAFY))
    canvas.mul_(1 + (leafy + (0.5 - ripples) * ripple * 0.22)[:, None])

    brush = Brush(torch.ones_like(c(soft)) * 0.05)
    bokeh = of_scene(_BOKEH)
    for i, u in enumerate(nuisance.bokeh.split(4, 1)):  # x, y, radius, strength
        px, py = gx - c(u[:, 0]), gy - c(u[:, 1])
        distance = px.mul_(px).add_(py.mul_(py)).sqrt_()
        spot = brush.cover(distance.sub_(c(u[:, 2]) * 0.09 + 0.03))
        light = third if i % 2 else bottom * 0.6
        paint(canvas, spot * c(bokeh * (0.25 + 0.75 * u[:, 3])), light)

    boughs = c(of_scene(_BOUGHS))
    brown = torch.tensor([0.06, 0.03, 0.0], device=device)[:, None, None]
    for u in nuisance.boughs.split(5, 1):  # where it begins and ends, how thick it is
        a = c(u[:, 0] * 0.6 - 0.3), c(u[:, 1])
        b = c(1.2 - u[:, 2] * 0.3), c(u[:, 3] * 1.6 - 0.3)
        thick, thin = c(u[:, 4]) * 0.05 + 0.03, c(u[:, 4]) * 0.03 + 0.015
        bough = segment(gx, gy, a, b, thick, thin)
        paint(canvas, brush.cover(bough) * boughs * 0.8, brown + bottom * 0.5)
    return canvas


def _perch(
    canvas: Tensor,
    nuisance: Nuisance,
    bird: Bird,
    x: Tensor,
    y: Tensor,
    brush: Brush,
    grain: Tensor,
) -> None:
    """A branch under the feet, in place."""
    c = column
    slope = c((nuisance.perch[:, 0] - 0.5) * 0.3)
    thick = c(nuisance.perch[:, 1] * 0.035 + 0.04)
    far, near = bird.feet()
    # below (positive) or above the middle of the branch
    offset = (y - c(bird.perch)).sub_((x - c((far[0] + near[0]) / 2)) * slope)
    offset.sub_(thick * 0.75).add_((grain - 0.5) * 0.03)

    barks = [[0.40, 0.31, 0.23], [0.47, 0.43, 0.38], [0.33, 0.25, 0.20]]
    kind = (nuisance.perch[:, 2] * 3).long()
    bark = torch.tensor(barks, device=x.device)[kind]
    round_ = (offset / thick).clamp_(-1, 1)
    lines = brush.line(fraction(round_ * 2.2 + grain * 1.6) * 0.03, 0.004)
    light = (1.12 - round_ * 0.38).sub_(lines * 0.25).clamp_(min=0.5)
    paint(canvas, brush.cover(offset.abs() - thick), c(bark) * light[:, None])


def _front(
    canvas: Tensor, nuisance: Nuisance, gx: Tensor, gy: Tensor, brush: Brush
) -> Tensor:
    """Twigs and leaves in front of the bird, in place; returns their coverage (B, S,
    S).
    """
    c, hidden = column, torch.zeros_like(gx)
    wood = torch.tensor([0.30, 0.23, 0.16], device=gx.device)[None, :, None, None]
    for u in nuisance.twigs.split(6, 1):
        # from above or below the image into it
        a = c(u[:, 0] * 1.2 - 0.1), c(torch.where(u[:, 4] < 0.5, -0.05, 1.05))
        b = c(u[:, 1]), c(u[:, 2] * 0.5 + 0.25)
        is_there = c((u[:, 5] < 0.35).float())
        twig = brush.cover(segment(gx, gy, a, b, 0.010, 0.004)) * is_there
        paint(canvas, twig, wood)
        hidden = torch.maximum(hidden, twig)

    for u in nuisance.leaves.split(7, 1):
        # its own axes: unit vector (dx, dy) along it
        dx, dy = u[:, 2] - 0.5, u[:, 3] - 0.5
        length = (dx * dx + dy * dy).sqrt() + 1e-4
        dx, dy = c(dx / length), c(dy / length)
        px, py = gx - c(u[:, 0] * 1.1 - 0.05), gy - c(u[:, 1] * 1.1 - 0.05)
        reach = c(u[:, 4] * 0.035 + 0.04)
        along = ((px * dx).add_(py * dy)).div_(reach)  # -1 to 1
        across = (py * dx).sub_(px * dy)

        blade = across.abs().sub_((1 - along * along).mul_(reach * 0.42))
        shape = torch.maximum(blade, along.abs().sub_(1).mul_(reach))
        is_there = c((u[:, 5] < 0.5).float())
        leaf = brush.cover(shape) * is_there
        shade = u[:, 6]
        green = torch.stack(
            [0.26 + 0.34 * shade, 0.42 + 0.20 * shade, 0.16 + 0.06 * shade], 1
        )
        rib = brush.line(across, 0.002) * 0.25
        light = 1 + (across * (1 / 0.12)).clamp_(-0.22, 0.22) - rib
        paint(canvas, leaf, c(green) * light[:, None])
        hidden = torch.maximum(hidden, leaf)
    return hidden


def _camera(canvas: Tensor, nuisance: Nuisance, key: Tensor) -> Tensor:
    """Light, colour temperature, contrast and sensor noise; (B, 3, S, S) in about [0,
    1] -> uint8.
    """
    warm = (nuisance.warmth - 0.5) * 0.30
    light = (nuisance.light * 0.42 + 0.72)[:, None]
    gain = torch.stack([1 + warm, 1 + warm * 0.1, 1 - warm], 1) * light
    contrast = nuisance.contrast * 0.35 + 0.75
    canvas.mul_(column(gain * contrast[:, None]))
    canvas.add_(column((1 - contrast) * 0.45)[:, None])

    # Triangular noise: a channel's own byte plus one that all three share.
    size = canvas.shape[-1]
    pixel = torch.arange(size * size, device=key.device).reshape(size, size)
    noise = scramble((pixel * 0x9E3779B1 + 0x632BE5AB) ^ column(key))
    shared = ((noise >> 24) & 255).float()
    strength = column(nuisance.noise * (0.055 / 255))
    for channel in range(3):
        own = ((noise >> (8 * channel)) & 255).float()
        canvas[:, channel].add_(own.add_(shared).sub_(255).mul_(strength))
    return canvas.clamp_(0, 1).mul_(255).add_(0.5).floor_().to(torch.uint8)
