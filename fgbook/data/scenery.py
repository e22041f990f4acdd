"""All of a drawn picture but the bird: where it sits, the light, what lies behind it
and in front of it.

It is a function of a key, a number that stands for one scene; the background and the
colour of the perch can be chosen apart from it, and then nothing else changes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .drawing import (
    Bird,
    Brush,
    column,
    fraction,
    paint,
    root,
    scramble,
    segment,
    uniform,
)

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


BARKS = ((0.40, 0.31, 0.23), (0.47, 0.43, 0.38), (0.33, 0.25, 0.20))
"""Colours of the perch."""

DISTRACTORS = {"perch": len(BARKS), "background": len(SCENES)}
"""What can be chosen in a scene without touching the bird, and between how many."""


@dataclass(frozen=True)
class Scene:
    """All of B pictures but the species of the bird: pose, place, light, background,
    what is in front, and the sensor's noise.
    """

    key: Tensor  # (B,) int64, see :func:`fgbook.data.fieldguide.keys`
    # (B,) int64, places in SCENES and in BARKS; None: what the key says
    background: Tensor | None = None
    perch: Tensor | None = None

    def __len__(self) -> int:
        return len(self.key)

    def part(self, some: slice) -> "Scene":
        """Some of these scenes."""
        return Scene(
            self.key[some],
            None if self.background is None else self.background[some],
            None if self.perch is None else self.perch[some],
        )


class Nuisance:
    """All that varies between images of one species, as numbers in [0, 1); and two
    choices that are made of these, unless the scene says otherwise.
    """

    background: Tensor  # (B,) int64, a place in SCENES
    bark: Tensor  # (B,) int64, a place in BARKS

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

    def __init__(self, scene: Scene):
        numbers = uniform(scene.key, sum(count for _, count in _DRAWS), stream=1)
        start = 0
        for name, count in _DRAWS:
            part = numbers[:, start : start + count]
            setattr(self, name, part[:, 0] if count == 1 else part)
            start += count
        self.background = _choice(scene.background, self.scene, SCENES)
        self.bark = _choice(scene.perch, self.perch[:, 2], BARKS)


def _choice(chosen: Tensor | None, number: Tensor, among: tuple) -> Tensor:
    """What was chosen, or else what the numbers (B,) in [0, 1) fall on."""
    return (number * len(among)).long() if chosen is None else chosen


def background(
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

    def of_scene(table: tuple) -> Tensor:
        return torch.tensor(table, device=device)[nuisance.background]

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
        distance = root(px.mul_(px).add_(py.mul_(py)))
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


def perch(
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

    bark = torch.tensor(BARKS, device=x.device)[nuisance.bark]
    round_ = (offset / thick).clamp_(-1, 1)
    lines = brush.line(fraction(round_ * 2.2 + grain * 1.6) * 0.03, 0.004)
    light = (1.12 - round_ * 0.38).sub_(lines * 0.25).clamp_(min=0.5)
    paint(canvas, brush.cover(offset.abs() - thick), c(bark) * light[:, None])


class Layer(NamedTuple):
    """Something in front of the bird."""

    cover: Tensor  # (B, S, S) share of a pixel
    colour: Tensor  # (B or 1, 3, 1, 1)
    light: Tensor | None  # (B, S, S) times the colour

    def paint(self, canvas: Tensor) -> None:
        """Over the canvas, in place."""
        lit = self.colour
        if self.light is not None:
            lit = self.colour * self.light[:, None]
        paint(canvas, self.cover, lit)


def front(nuisance: Nuisance, gx: Tensor, gy: Tensor, brush: Brush) -> list[Layer]:
    """Twigs and leaves, from the farthest to the nearest."""
    c, layers = column, []
    wood = torch.tensor([0.30, 0.23, 0.16], device=gx.device)[None, :, None, None]
    for u in nuisance.twigs.split(6, 1):
        # from above or below the image into it
        a = c(u[:, 0] * 1.2 - 0.1), c(torch.where(u[:, 4] < 0.5, -0.05, 1.05))
        b = c(u[:, 1]), c(u[:, 2] * 0.5 + 0.25)
        is_there = c((u[:, 5] < 0.35).float())
        twig = brush.cover(segment(gx, gy, a, b, 0.010, 0.004)) * is_there
        layers.append(Layer(twig, wood, None))

    for u in nuisance.leaves.split(7, 1):
        # its own axes: unit vector (dx, dy) along it
        dx, dy = u[:, 2] - 0.5, u[:, 3] - 0.5
        length = root(dx * dx + dy * dy) + 1e-4
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
        layers.append(Layer(leaf, c(green), light))
    return layers


class Camera:
    """Light, colour temperature, contrast and sensor noise of B scenes."""

    def __init__(self, nuisance: Nuisance, key: Tensor, size: int):
        warm = (nuisance.warmth - 0.5) * 0.30
        light = (nuisance.light * 0.42 + 0.72)[:, None]
        gain = torch.stack([1 + warm, 1 + warm * 0.1, 1 - warm], 1) * light
        contrast = nuisance.contrast * 0.35 + 0.75
        self.gain = column(gain * contrast[:, None])
        self.offset = column((1 - contrast) * 0.45)[:, None]

        # Triangular noise: a channel's own byte plus one that all three share.
        pixel = torch.arange(size * size, device=key.device).reshape(size, size)
        noise = scramble((pixel * 0x9E3779B1 + 0x632BE5AB) ^ column(key))
        shared = ((noise >> 24) & 255).float()
        strength = column(nuisance.noise * (0.055 / 255))
        self.noise = []  # (B, S, S) of each channel
        for channel in range(3):
            own = ((noise >> (8 * channel)) & 255).float()
            self.noise.append(own.add_(shared).sub_(255).mul_(strength))

    def shoot(self, canvas: Tensor) -> Tensor:
        """(B, 3, S, S) in about [0, 1], which is used up -> uint8."""
        canvas.mul_(self.gain).add_(self.offset)
        for channel, noise in enumerate(self.noise):
            canvas[:, channel].add_(noise)
        return canvas.clamp_(0, 1).mul_(255).add_(0.5).floor_().to(torch.uint8)
