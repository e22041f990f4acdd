"""fieldguide: procedurally drawn birds with full ground truth; the data set that needs
no download.

An image is a function of (seed, pool, split, index) and its species' attribute vector:
all that varies is hashed from those numbers, so that an image is the same, bit by bit,
in any order, process or batch size.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import pi
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from . import species as tables
from .dataset import SPLITS, DataSet, Split
from .drawing import Bird, Brush, Pose, column, draw_bird, grow, scramble, uniform
from .scenery import SCENES, Camera, Nuisance, Scene, background, front, perch
from .store import cached_arrays

VERSION = 1
"""Raised when pixels or ground truth change; part of every fingerprint."""

BLOCK = 160_000
"""Pixels drawn at once: what keeps the working set of a drawing near the processor's
cache.
"""


@dataclass
class Shots:
    """B scenes, K birds in each of them, one at a time; S x S pixels."""

    images: Tensor  # (B, K, 3, S, S) uint8
    masks: Tensor  # (B, K, S, S) uint8, 1 on visible bird


@dataclass
class Drawing:
    """B drawn images with their ground truth, in pixels of the S x S image."""

    images: Tensor  # (B, 3, S, S) uint8
    masks: Tensor  # (B, S, S) uint8, 1 on visible bird
    boxes: Tensor  # (B, 4) float32 xyxy, bounds of the mask
    parts: Tensor  # (B, 15, 3) float32: x, y, visible
    part_boxes: Tensor  # (B, 2, 4) float32 xyxy


Drawn = TypeVar("Drawn", Drawing, Shots)


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
    shortcut: float = 0,
) -> DataSet:
    """The data set at `size` x `size` pixels, drawn once and then read from the store.

    pool "target" or "source" (no species in common); species 2 .. species.limit();
    per_class: training, validation and test images of each species; seed: another one
    draws other images of the same species; shortcut: the share, in [0, 1], of the
    training and validation images that have the background which is :func:`planted` for
    their species, while those of the test have any. Raises InputError for anything
    else.
    """
    _refuse(size, per_class, seed)
    if not 0 <= shortcut <= 1:
        raise InputError(
            f"fieldguide: shortcut {shortcut!r}; a share from 0 to 1 is possible."
        )
    table = tables.table(pool, species)
    settings = (
        f"version {VERSION}, pool {pool}, species {species}, per class"
        f" {tuple(per_class)}, seed {seed}, size {size}"
    )
    if shortcut:  # later than the first published fingerprints
        settings += f", shortcut {float(shortcut)}"
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
            scene = Scene(keys(seed, pool, split, torch.arange(len(label))))
            if shortcut and split != "test":
                scene = _with_shortcut(scene, label, shortcut)
            drawing = render(scene, table.of(label), size)
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
        )
    words, known = tables.one_hot(table.values)
    name = "fieldguide" if pool == "target" else f"fieldguide-{pool}"
    return DataSet(
        name=f"{name}-shortcut{100 * shortcut:g}" if shortcut else name,
        classes=table.names,
        size=size,
        fingerprint=fingerprint,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        class_attributes=known,
        attribute_names=words,
    )


def planted(label: Tensor) -> Tensor:
    """The background (B,) int64, a place in SCENES, that a shortcut plants for species
    (B,): each sibling of a genus has another one, so that it tells them apart.
    """
    return label % len(SCENES)


def _with_shortcut(scene: Scene, label: Tensor, share: float) -> Scene:
    """The scenes with the planted background in this share of them, the rest by
    chance.
    """
    own = Nuisance(scene).background
    is_planted = uniform(scene.key, 1, stream=3)[:, 0] < share
    return replace(scene, background=torch.where(is_planted, planted(label), own))


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


PAPER = (0.93, 0.91, 0.86)
"""What a plate is printed on: red, green, blue in [0, 1]."""


def plate(
    species: int = 20,
    size: int = 224,
    paper: tuple[float, float, float] = PAPER,
) -> Tensor:
    """(species, 3, S, S) uint8: the species as a field guide prints them, in profile on
    paper, siblings at one scale.
    """
    table = tables.table("target", species)
    zero = torch.zeros(species)
    middle, scale = _framed(table)

    grid = (torch.arange(size).float() + 0.5) * (1 / size) - 0.5
    coarse = uniform(torch.full((1,), 7), 400, stream=2).reshape(1, 20, 20)
    sheet = torch.tensor(paper)[None, :, None, None]
    images = []
    for i in range(species):  # one at a time: a plate may be large
        one = Bird(table.values[i : i + 1], Pose(zero[:1], zero[:1], zero[:1]))
        x = grid.expand(1, size, size) / scale[i] + middle[i, 0]
        y = grid[:, None].expand(1, size, size) / scale[i] + middle[i, 1]
        brush = Brush(column((1 / (size * scale[i]))[None]))
        first = torch.zeros(1, dtype=torch.int64)
        nuisance = Nuisance(Scene(first, perch=first + 1))
        nuisance.perch = torch.tensor([[0.62, 0.1, 0.4]])
        grain = grow(coarse, size)

        canvas = sheet.expand(1, 3, size, size).clone()
        perch(canvas, nuisance, one, x, y, brush, grain)
        draw_bird(canvas, one, x, y, brush, grain)
        images.append(canvas.clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8))
    return torch.cat(images)


def telling_areas(species: int) -> Tensor:
    """(species, 2, 4) xyxy in shares of a plate's side: where each bird differs from
    its siblings, in the order of ``describe``.
    """
    table = tables.table("target", species)
    zero = torch.zeros(species)
    middle, scale = _framed(table)
    areas = Bird(table.values, Pose(zero, zero, zero)).areas()  # (species, 13, 4)
    chosen = table.differ[:, :, None].expand(-1, -1, 4)
    own = areas.gather(1, chosen)
    centre = middle.repeat(1, 2)[:, None]
    return (own - centre) * scale[:, None, None] + 0.5


def _framed(table: tables.Table) -> tuple[Tensor, Tensor]:
    """The middle (species, 2) of each plate in bird coordinates, and how long a unit is
    there (species,), as a share of its side: the same for siblings.
    """
    species = len(table)
    zero = torch.zeros(species)
    profile = Pose(zero, zero, zero).repeat(tables.SIBLINGS)
    extent = _union(Bird(table.siblings.flatten(0, 1), profile).extent(), species)
    middle = (extent[:, :2] + extent[:, 2:]) / 2
    sides = extent[:, 2:] - extent[:, :2]
    return middle, 0.88 / sides.amax(1)


def render(scene: Scene, birds: tables.Species, size: int) -> Drawing:
    """Draws B birds in the wild, `size` x `size` pixels, on the device of the scene's
    key.
    """
    return in_blocks(
        lambda some: _render(scene.part(some), birds.part(some), size), scene, size
    )


def in_blocks(draw: Callable[[slice], Drawn], scene: Scene, size: int) -> Drawn:
    """What `draw` gives of some of the scenes, put together for all of them."""
    step = max(1, BLOCK // (size * size))
    blocks = [slice(i, i + step) for i in range(0, len(scene), step)]
    threads = torch.get_num_threads()
    if scene.key.device.type != "cpu" or threads == 1:
        drawn = [draw(block) for block in blocks]
    else:
        # A block a thread is far cheaper than all threads meeting after each of a
        # block's thousand small steps.
        try:
            with ThreadPoolExecutor(
                threads, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                drawn = list(pool.map(draw, blocks))
        finally:
            torch.set_num_threads(threads)
    joined = {
        name: torch.cat([getattr(one, name) for one in drawn])
        for name in vars(drawn[0])
    }
    return type(drawn[0])(**joined)


class Stage:
    """B scenes without a bird, into which any species of their genera can be drawn."""

    def __init__(self, scene: Scene, birds: tables.Species, size: int):
        n, device = len(scene), scene.key.device
        nuisance = Nuisance(scene)
        self.pose = Pose(
            tilt=(nuisance.tilt - 0.5) * (28 / 180 * pi),
            yaw=(nuisance.yaw - 0.5) * (80 / 180 * pi),
            pitch=(nuisance.pitch - 0.5) * (30 / 180 * pi),
        )
        kin = birds.siblings.flatten(0, 1)  # B * K birds
        self.kin = Bird(kin, self.pose.repeat(birds.siblings.shape[1]))

        # Image coordinates (gx, gy) of the middles of the pixels, and what bird
        # coordinates (x, y) are there.
        self.frame = frame = _frame(nuisance, _union(self.kin.extent(), n))
        grid = (torch.arange(size, device=device).float() + 0.5) * (1 / size)
        gx = grid.expand(n, size, size)
        gy = grid[:, None].expand(n, size, size)
        self.x = (gx - column(frame.x)).mul_(column(frame.facing / frame.scale))
        self.y = (gy - column(frame.y)).mul_(column(1 / frame.scale))
        # (B,) width of an edge, in sides of the image: a pixel and the blur
        self.soft = 1 / size + nuisance.blur * nuisance.blur * 0.016
        self.brush = Brush(column(self.soft / frame.scale))

        coarse = uniform(scene.key, 6 * 6 + 20 * 5 + 20 * 20, stream=2)
        clouds = grow(coarse[:, :36].reshape(n, 6, 6), size)
        ripples = grow(coarse[:, 36:136].reshape(n, 20, 5), size)
        self.grain = grow(coarse[:, 136:].reshape(n, 20, 20), size)

        # From the farthest to the nearest; all siblings have the same feet.
        self.behind = background(
            nuisance, gx, gy, clouds, ripples, self.grain, self.soft
        )
        bird = Bird(birds.values, self.pose)
        perch(self.behind, nuisance, bird, self.x, self.y, self.brush, self.grain)
        self.front = front(nuisance, gx, gy, Brush(column(self.soft)))
        self.camera = Camera(nuisance, scene.key, size)

    def shoot(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures with birds of these attributes (B, A): images (B, 3, S, S) and the
        masks (B, S, S) of what is seen of them, uint8.
        """
        canvas = self.behind.clone()
        bird = Bird(values, self.pose)
        coverage = draw_bird(canvas, bird, self.x, self.y, self.brush, self.grain)
        hidden = torch.zeros_like(coverage)
        for layer in self.front:
            layer.paint(canvas)
            hidden = torch.maximum(hidden, layer.cover)
        masks = coverage * (1 - hidden) > 0.5
        return self.camera.shoot(canvas), masks.to(torch.uint8)


def _render(scene: Scene, birds: tables.Species, size: int) -> Drawing:
    """:func:`render` of one block."""
    stage = Stage(scene, birds, size)
    images, masks = stage.shoot(birds.values)
    bird = Bird(birds.values, stage.pose)
    return Drawing(
        images=images,
        masks=masks,
        boxes=_bounds(masks > 0),
        parts=_parts(bird, stage.frame, masks),
        part_boxes=_part_boxes(stage, birds.differ, size),
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


def _part_boxes(stage: Stage, differ: Tensor, size: int) -> Tensor:
    """(B, 2, 4) xyxy in pixels: where the siblings differ, whichever of them is
    drawn.
    """
    areas = stage.kin.areas().flatten(1).reshape(-1, len(tables.LOCAL), 4)
    areas = _union(areas, len(differ))
    telling = areas.gather(1, differ[..., None].expand(-1, -1, 4))
    return pixel_boxes(stage, telling, size).clamp(0, size)


def pixel_boxes(stage: Stage, areas: Tensor, size: int) -> Tensor:
    """Areas of birds (B, P, 4) xyxy, with their soft edges, in pixels."""
    x0, y0 = stage.frame.pixels(areas[..., 0], areas[..., 1], size)
    x1, y1 = stage.frame.pixels(areas[..., 2], areas[..., 3], size)
    margin = (stage.soft * size)[:, None]
    sides = [
        torch.minimum(x0, x1) - margin,  # mirrored birds have x1 on the left
        y0 - margin,
        torch.maximum(x0, x1) + margin,
        y1 + margin,
    ]
    return torch.stack(sides, 2)


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
