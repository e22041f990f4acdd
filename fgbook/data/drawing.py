"""How fieldguide draws a bird: signed distance functions, painted over one another, on
batches of images.

Bird coordinates: the bird faces right, x to the right, y down, the origin in the middle
of the breast; from the bill to the tail it is about 1.6 long. Every shape is a distance
in these units; its coverage of a pixel is a ramp as wide as the pixel (and the blur),
hence antialiased at any size.

Only operations that IEEE 754 rounds exactly are used on pixels (+ - * / sqrt, minimum,
maximum, floor, comparisons, integers; no sin, exp, lerp or fused multiply-add, whose
last bit depends on where in a vector an element stands). So an image is the same bit by
bit in any batch and on any processor.
"""

from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from .dataset import PART_NAMES
from .species import ATTRIBUTES, BUILDS, LOCAL, MARKS, PALETTES

HEAD = 0.165
"""Radius of the head at head size 1."""

EYE = (0.42, -0.14, 0.896)
"""Direction of the near eye from the middle of the head: forward, down, towards the
viewer.
"""

HIP = (0.17, -0.20)
"""Where the legs begin: along and across the body."""

DARK = (0.13, 0.11, 0.10)
WHITE = (0.98, 0.97, 0.94)

Point = tuple[Tensor, Tensor]
"""x and y, (B,) each, or (B, 1, 1) for maps."""

Number = Tensor | float


# ---- numbers


def sine(x: Tensor) -> Tensor:
    """sin(x) for |x| <= pi, within 1e-6, by its Taylor series in double precision: the
    same bits whatever the batch.
    """
    x = x.double()
    square = x * x
    # x - x^3/3! + x^5/5! - ... from its last term inwards (Horner)
    total = torch.ones_like(x)
    for k in (18, 16, 14, 12, 10, 8, 6, 4, 2):
        total = 1 - square * total / (k * (k + 1))
    return (x * total).float()


def cosine(x: Tensor) -> Tensor:
    """cos(x) for |x| <= pi / 2."""
    return sine(pi / 2 - x.abs())


def root(x: Tensor) -> Tensor:
    """The square root, in place. On a CPU by NumPy: torch may leave it to a library of
    Intel's, which on some processors rounds the last bit otherwise.
    """
    if x.device.type != "cpu":
        return x.sqrt_()
    np.sqrt(x.numpy(), out=x.numpy())
    return x


def scramble(key: Tensor) -> Tensor:
    """A 32-bit integer hash (two rounds of multiply and xor-shift) of int64 numbers;
    results 0 .. 2^32 - 1.
    """
    key = key & 0xFFFFFFFF
    key = ((key ^ (key >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    key = ((key ^ (key >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return key ^ (key >> 16)


def uniform(key: Tensor, count: int, stream: int) -> Tensor:
    """(B,) int64 keys -> (B, count) float32 in [0, 1); another `stream`, other
    numbers.
    """
    counter = torch.arange(count, device=key.device) + stream * 65536
    bits = scramble(scramble(counter * 0x9E3779B1 + 1) + key[:, None])
    # 24 bits are what a float32 holds exactly
    return (bits >> 8).float() * 2.0**-24


def grow(values: Tensor, size: int) -> Tensor:
    """(B, h, w) random numbers -> (B, size, size) smooth textures by quadratic
    B-splines, their spread restored to about 0 .. 1.
    """
    for dim in (1, 2):
        spacing = (values.shape[dim] - 2) / size
        place = (torch.arange(size, device=values.device).float() + 0.5) * spacing
        low = place.floor().long().clamp_(max=values.shape[dim] - 3)
        f = place - low
        weights = ((1 - f) * (1 - f) * 0.5, 0.5 + f * (1 - f), f * f * 0.5)
        taps = []
        for k, weight in enumerate(weights):
            if dim == 1:
                weight = weight[:, None]
            taps.append(values.index_select(dim, low + k).mul_(weight))
        values = taps[0].add_(taps[1]).add_(taps[2])
    # averages of neighbours spread less than the numbers did
    return values.sub_(0.5).mul_(1.7).add_(0.5)


# ---- shapes: distance in bird units, negative inside


def segment(
    x: Tensor,
    y: Tensor,
    a: Point | tuple[float, float],
    b: Point | tuple[float, float],
    ra: Number,
    rb: Number,
    bulge: float = 0.0,
) -> Tensor:
    """A tapered capsule from `a` (radius ra) to `b` (radius rb), fatter by `bulge` / 4
    in the middle; nearly exact for mild tapers.
    """
    dx, dy = b[0] - a[0], b[1] - a[1]
    inverse = 1 / (dx * dx + dy * dy)
    px, py = x - a[0], y - a[1]
    # u: the nearest place between a (0) and b (1); then the way to it
    u = (px * (dx * inverse)).add_(py * (dy * inverse)).clamp_(0, 1)
    px.sub_(u * dx)
    py.sub_(u * dy)
    distance = root(px.mul_(px).add_(py.mul_(py)))
    radius = u * (rb - ra) + ra
    if bulge:
        radius.add_((u * (1 - u)).mul_(bulge))
    return distance.sub_(radius)


def disc(x: Tensor, y: Tensor, cx: Number, cy: Number, radius: Number) -> Tensor:
    """A disc round (cx, cy)."""
    px, py = x - cx, y - cy
    return root(px.mul_(px).add_(py.mul_(py))).sub_(radius)


def ellipse(x: Tensor, y: Tensor, cx: float, cy: float, rx: float, ry: float) -> Tensor:
    """An ellipse with these half axes. Approximate distance: exact on the axes'
    crossing points, right sign everywhere.
    """
    px, py = (x - cx).mul_(1 / rx), (y - cy).mul_(1 / ry)
    relative = root(px.mul_(px).add_(py.mul_(py)))
    return relative.sub_(1).mul_(min(rx, ry))


def fade(distance: Tensor, width: float) -> Tensor:
    """1 inside, 0 outside, a ramp of that width between: for edges that are soft on the
    bird itself.
    """
    return (distance * (-1 / width)).add_(0.5).clamp_(0, 1)


def blend(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Union of two shapes with the inner corner filled over a width of about k
    (polynomial smooth minimum).
    """
    h = (a - b).abs_().mul_(-1 / k).add_(1).clamp_(min=0)
    return torch.minimum(a, b).sub_(h.mul_(h).mul_(k / 4))


class Brush:
    """Paints on (B, 3, H, W) canvases; `soft` (B, 1, 1) is the width of an edge in bird
    units: a pixel plus the blur.
    """

    def __init__(self, soft: Tensor):
        self.soft, self.sharp = soft, 1 / soft

    def cover(self, distance: Tensor) -> Tensor:
        """Share of a pixel inside the shape."""
        return (distance * -self.sharp).add_(0.5).clamp_(0, 1)

    def line(self, offset: Tensor, half: Tensor | float) -> Tensor:
        """Share of a pixel inside a stroke of half width `half` whose middle is
        `offset` away; right also below a pixel's width.
        """
        reach = half * self.sharp
        offset = (offset.abs() * self.sharp).sub_(0.5)
        return (reach - offset).clamp_(0, 1).sub_((-reach - offset).clamp_(0, 1))


def paint(canvas: Tensor, alpha: Tensor, colour: Tensor) -> None:
    """Lays `colour` (B, 3, 1, 1) or (B, 3, H, W) over the canvas where `alpha` (B, H,
    W) says, in place.
    """
    # where alpha is 0 not even the last bit changes
    canvas.add_((colour - canvas).mul_(alpha[:, None]))


# ---- geometry: what depends on species and pose only, (B,) numbers


@dataclass
class Pose:
    """How a bird holds itself, (B,) each: radians; yaw > 0 turns the head towards the
    viewer.
    """

    tilt: Tensor
    yaw: Tensor
    pitch: Tensor

    def repeat(self, times: int) -> "Pose":
        """Each pose so many times in a row."""
        return Pose(
            tilt=self.tilt.repeat_interleave(times),
            yaw=self.yaw.repeat_interleave(times),
            pitch=self.pitch.repeat_interleave(times),
        )


class Bird:
    """Geometry and colours of B birds: `values` (B, A) as in species.ATTRIBUTES, one
    Pose. Points are (x, y) pairs of (B,) tensors.
    """

    def __init__(self, values: Tensor, pose: Pose):
        device = values.device
        self.pose = pose
        self.code = {name: values[:, i] for i, name in enumerate(ATTRIBUTES)}
        index = {name: numbers.long() for name, numbers in self.code.items()}

        builds = torch.tensor(list(BUILDS.values()), device=device)[index["build"]]
        self.plump, self.head, upright, self.leg = builds.unbind(1)[:4]
        self.wing, self.tail, bill, self.bill_depth = builds.unbind(1)[4:]

        palettes = torch.tensor(list(PALETTES.values()), device=device)
        tints = (palettes[index["palette"]] / 255.0).unbind(1)  # 7 of (B, 3)
        self.upper, self.under, self.coverts, self.flight = tints[:4]
        self.cap, self.accent, self.tail_colour = tints[4:]

        def mark(name: str) -> Tensor:
            return torch.tensor(MARKS[name], device=device)[index[name]] / 255.0

        self.bill_colour = mark("bill colour")
        self.leg_colour = mark("leg colour")
        self.ring_colour = mark("eye ring")

        angle = upright * (pi / 180) + pose.tilt
        # unit vector from breast to tail; its normal towards the back is (-dy, dx)
        self.dx, self.dy = -cosine(angle), sine(angle)
        bills = torch.tensor([0.15, 0.22, 0.34], device=device)
        self.bill = bills[index["bill length"]] * bill
        self.bill_curve = self.code["bill curve"]
        self.crest = torch.tensor([0.0, 0.12, 0.24], device=device)[index["crest"]]

        self.r = HEAD * self.head
        # the middle of the head turns with the body
        turn_cos, turn_sin = cosine(pose.tilt), sine(pose.tilt)
        hx, hy = 0.165, -0.325
        self.hx = hx * turn_cos + hy * turn_sin
        self.hy = hy * turn_cos - hx * turn_sin
        # unit vector forward along the head; down is (-fy, fx)
        self.fx, self.fy = cosine(pose.pitch), -sine(pose.pitch)
        self.yaw_cos, self.yaw_sin = cosine(pose.yaw), sine(pose.yaw)

        self.perch = self.leg + 0.235  # height of the feet below the breast
        # The bill begins at the edge of the head's disc, or, turned to the viewer, on
        # it; it is foreshortened, and a curved one ends lower.
        forward = torch.where(pose.yaw > 0, self.yaw_cos, 1.0) * 0.98
        self.base = self.on_head(forward, 0.13)
        bx, by = self.base
        bx = bx + self.fx * self.bill * self.yaw_cos
        by = by + self.fy * self.bill * self.yaw_cos
        self.tip = (
            bx + -self.fy * self.bill * self.bill_curve * 0.28,
            by + self.fx * self.bill * self.bill_curve * 0.28,
        )

    def on_body(self, t: Number, s: Number) -> Point:
        """A point t along the body towards the tail and s towards the back."""
        return self.dx * t - self.dy * s, self.dy * t + self.dx * s

    def on_head(self, forward: Number, down: Number) -> Point:
        """A point of the head's disc, in radii from its middle."""
        x = self.hx + self.r * (self.fx * forward - self.fy * down)
        y = self.hy + self.r * (self.fy * forward + self.fx * down)
        return x, y

    def on_face(self, forward: float, down: float, side: float) -> tuple[Point, Tensor]:
        """Where a point of the head's sphere (head's own axes) is seen, and how far it
        faces the viewer (negative: hidden).
        """
        seen = self.on_head(forward * self.yaw_cos - side * self.yaw_sin, down)
        return seen, forward * self.yaw_sin + side * self.yaw_cos

    def feet(self) -> tuple[Point, Point]:
        """The far and the near foot, on the perch."""
        middle = self.on_body(*HIP)[0]
        return (middle + 0.085, self.perch), (middle - 0.035, self.perch)

    def ankle(self, foot: Point) -> Point:
        """The joint above a foot."""
        return foot[0] - 0.045, self.on_body(*HIP)[1] * 0.45 + foot[1] * 0.55 - 0.02

    def crest_tip(self) -> Point:
        """Where the crest ends; on the head, where there is none."""
        length = self.crest / self.r
        return self.on_head(-0.62 - length * 0.72, -0.92 - length * 0.62)

    def extent(self) -> Tensor:
        """(B, 4) xyxy around the whole bird."""
        far, near = self.feet()
        return _around(
            [
                self.tip,
                self.on_body(0.40 + self.tail, -0.13),
                self.on_body(0.40 + self.tail, 0.17),
                self.on_body(self.wing - 0.1, 0.0),
                self.crest_tip(),
                self.on_head(0, -1.08),
                self.on_head(1.08, 0),
                self.on_body(-0.27 * self.plump, 0.0),
                (far[0] + 0.10, self.perch + 0.05),
                (near[0] - 0.06, self.perch + 0.05),
            ]
        )

    def parts(self) -> Tensor:
        """(B, 15, 3): x, y and whether the pose shows it, in PART_NAMES' order for a
        bird that faces right (so its right side is seen).
        """
        eye, eye_depth = self.on_face(*EYE)
        crown, _ = self.on_face(0.0, -0.86, 0.25)
        forehead, _ = self.on_face(0.62, -0.52, 0.4)
        beak = _middle(self.base, self.tip)
        far, near = self.feet()
        wing = self.on_body(0.22, 0.02)
        ones, zeros = torch.ones_like(self.hx), torch.zeros_like(self.hx)
        parts = {
            "back": (self.on_body(0.06, 0.17), ones),
            "beak": (beak, ones),
            "belly": (self.on_body(0.20, -0.16), ones),
            "breast": (self.on_body(-0.06, -0.13), ones),
            "crown": (crown, ones),
            "forehead": (forehead, ones),
            "left eye": (eye, zeros),
            "left leg": (_middle(self.ankle(far), far), ones),
            "left wing": (wing, zeros),
            "nape": (self.on_head(-0.8, 0.3), ones),
            "right eye": (eye, (eye_depth > 0).float()),
            "right leg": (_middle(self.ankle(near), near), ones),
            "right wing": (wing, ones),
            "tail": (self.on_body(0.42 + 0.6 * self.tail, 0.0), ones),
            "throat": (self.on_head(0.42, 0.98), ones),
        }
        rows = []
        for name in PART_NAMES:
            (x, y), shown = parts[name]
            rows.append(torch.stack([x, y, shown], 1))
        return torch.stack(rows, 1)

    def areas(self) -> Tensor:
        """(B, len(LOCAL), 4) xyxy: where on the bird each local attribute is drawn."""
        bill = _around([self.base, self.tip], 0.07)
        crest = self.crest_tip()
        whole_tail, tail_end = self._tail_areas()
        hip, (far, near) = self.on_body(*HIP), self.feet()
        legs = [
            (hip[0] - 0.04, hip[1] + 0.03),
            (near[0] - 0.065, self.perch),
            (far[0] + 0.09, self.perch + 0.055),
        ]
        areas = {
            "bill length": bill,
            "bill curve": bill,
            "bill colour": bill,
            "crown": _around(
                [*self._on_head_box(-1.02, -1.08, 1.02, -0.36), crest], 0.01
            ),
            "crest": _around(
                [*self._on_head_box(-0.75, -1.0, 0.45, -0.45), crest], 0.015
            ),
            "eye ring": _around([self.on_face(*EYE)[0]], 0.43 * self.r),
            "face": _around(self._on_head_box(-1.22, -0.64, 1.12, 0.08)),
            "throat": _around(self._on_head_box(-0.28, 0.28, 1.28, 1.6)),
            "breast": self._breast_area(),
            "wing bars": self._wing_area(),
            "tail shape": whole_tail,
            "tail tip": tail_end,
            "leg colour": _around(legs, 0.01),
        }
        return torch.stack([areas[name] for name in LOCAL], 1)

    def _on_head_box(
        self, back: float, top: float, front: float, bottom: float
    ) -> list[Point]:
        """The corners of a rectangle on the head's disc, in radii."""
        return [
            self.on_head(back, top),
            self.on_head(back, bottom),
            self.on_head(front, top),
            self.on_head(front, bottom),
        ]

    def _breast_area(self) -> Tensor:
        """Around the tilted ellipse that holds the marks, with half axes 0.265 and
        0.16.
        """
        x, y = self.on_body(0.03, -0.15)
        wide = root((0.265 * self.dx) ** 2 + (0.16 * self.dy) ** 2)
        high = root((0.265 * self.dy) ** 2 + (0.16 * self.dx) ** 2)
        return torch.stack([x - wide, y - high, x + wide, y + high], 1)

    def _wing_area(self) -> Tensor:
        """Around the part of the wing that bars can cross."""
        points = []
        for u in (0.14, 0.3, 0.4, 0.46):
            points += [self.wing_point(u, -1.0), self.wing_point(u, 1.0)]
        return _around(points, 0.025)

    def _tail_areas(self) -> tuple[Tensor, Tensor]:
        """Around the whole tail, and around the part where its tip can lie."""
        shape = self.code["tail shape"]
        # where the tail ends nearest to the body
        shortest = 1 - 0.30 * (shape == 1) - 0.26 * (shape == 2) - 0.42 * (shape == 3)
        reach = self.tail + 0.04
        root = 0.36
        end = root + 1.05 * reach
        begin_of_tip = root + reach * shortest - 0.16

        def across(t: Number) -> list[Point]:
            return [self.on_body(t, -0.11), self.on_body(t, 0.15)]

        whole = _around(across(root) + across(end), 0.01)
        tip = _around(across(begin_of_tip) + across(end), 0.01)
        return whole, tip

    def wing_point(self, u: float, w: float) -> Point:
        """A point of the folded wing: u from shoulder (0) to tip (1), w across, from -1
        (lower edge) to 1 (upper edge).
        """
        half = wing_half(torch.tensor(u)) * w
        along = -0.13 + u * self.wing + 0.06 * half
        across = 0.035 - 0.06 * u * self.wing + half
        return self.on_body(along, across)


def _around(points: list[Point], margin: Number = 0.0) -> Tensor:
    """(B, 4) xyxy around points, and this much more."""
    x = torch.stack([point[0] for point in points])
    y = torch.stack([point[1] for point in points])
    sides = [
        x.amin(0) - margin,
        y.amin(0) - margin,
        x.amax(0) + margin,
        y.amax(0) + margin,
    ]
    return torch.stack(sides, 1)


def _middle(a: Point, b: Point) -> Point:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def wing_half(u: Tensor) -> Tensor:
    """Half the width of the folded wing at u in [0, 1]: a rounded shoulder, a tapered
    tip.
    """
    return (root(u.clone()) * (1 - u * 0.6 - u * u * 0.4)).mul_(0.335)


# ---- the bird


def column(value: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1), for maps; (B, 3) -> (B, 3, 1, 1), for canvases."""
    return value[..., None, None]


def point(pair: Point) -> Point:
    """A point given by (B,) numbers, for maps."""
    return column(pair[0]), column(pair[1])


def fraction(x: Tensor) -> Tensor:
    """Signed distance to the nearest whole number, in [-0.5, 0.5]."""
    return x - (x + 0.5).floor()


def draw_bird(
    canvas: Tensor, bird: Bird, x: Tensor, y: Tensor, brush: Brush, texture: Tensor
) -> Tensor:
    """Paints birds on (B, 3, H, W) in place; x, y (B, H, W) are bird coordinates,
    texture (B, H, W) any soft noise in about [0, 1].

    Returns the birds' coverage (B, H, W).
    """
    painter = Painter(canvas, bird, x, y, brush)
    # from the farthest to the nearest
    painter.far_leg()
    painter.tail()
    painter.body(texture)
    painter.wing()
    painter.bill()
    painter.eye()
    painter.near_leg()
    return painter.coverage


class Painter:
    """Paints B birds part by part on `canvas` (B, 3, H, W), in place.

    x, y (B, H, W) are the bird coordinates of the pixels; ``coverage`` (B, H, W) grows
    with each part.
    """

    def __init__(self, canvas: Tensor, bird: Bird, x: Tensor, y: Tensor, brush: Brush):
        self.canvas, self.bird, self.x, self.y = canvas, bird, x, y
        self.cover, self.line = brush.cover, brush.line
        # along the body towards the tail, and across it towards the back
        self.t = (x * column(bird.dx)).add_(y * column(bird.dy))
        self.s = (y * column(bird.dx)).sub_(x * column(bird.dy))
        self.coverage = torch.zeros_like(x)
        self.white = torch.tensor(WHITE, device=x.device)[None, :, None, None]
        self.dark = torch.tensor(DARK, device=x.device)[None, :, None, None]

    def is_(self, attribute: str, value: int) -> Tensor:
        """(B, 1, 1): 1 where a bird's attribute has this value, else 0."""
        return column((self.bird.code[attribute] == value).float())

    def add(self, alpha: Tensor, colour: Tensor) -> None:
        """Paint a part of the bird."""
        paint(self.canvas, alpha, colour)
        self.coverage = torch.maximum(self.coverage, alpha)

    def stroke(self, distance: Tensor, half: float) -> Tensor:
        """Coverage of a stroke of half width `half`, given the distance to its
        outline.
        """
        return self.line((distance + half).clamp_(min=0), half)

    def leg(self, foot: Point, start: float) -> Tensor:
        """Distance to the leg above a foot, which begins `start` behind the hip."""
        hip, ankle = self.bird.on_body(*HIP), point(self.bird.ankle(foot))
        top = (column(hip[0]) + start - 0.02, column(hip[1]) + 0.05)
        return torch.minimum(
            segment(self.x, self.y, top, ankle, 0.016, 0.014),
            segment(self.x, self.y, ankle, point(foot), 0.014, 0.016),
        )

    def far_leg(self) -> None:
        """The leg on the other side, in the shade."""
        far, _ = self.bird.feet()
        shape = self.stroke(self.leg(far, 0.05), 0.014)
        self.add(shape, column(self.bird.leg_colour) * 0.72)

    def near_leg(self) -> None:
        """The near leg below its feathered thigh, and the toes of both feet around the
        perch.
        """
        shape = self.leg(self.bird.feet()[1], 0.0)
        for foot in self.bird.feet():
            fx, fy = point(foot)
            for tx, ty in ((0.075, 0.022), (0.050, 0.042), (-0.050, 0.020)):
                end = (fx + tx, fy + ty)
                toe = segment(self.x, self.y, (fx, fy), end, 0.013, 0.010)
                shape = torch.minimum(shape, toe)
        below_thigh = self.stroke(shape, 0.013) * (1 - self.thigh)
        self.add(below_thigh, column(self.bird.leg_colour))

    def tail(self) -> None:
        """It ends at reach * (a + b |w| + c w^2), w from -1 to 1 across: square,
        forked, rounded or pointed.
        """
        along, across = self.t - 0.36, self.s - 0.02
        reach = column(self.bird.tail) + 0.04
        half = (along * 0.11).add_(0.055).clamp_(0.03, 0.125)
        w = across / half
        forked, rounded, pointed = (self.is_("tail shape", k) for k in (1, 2, 3))
        edge = w.abs().clamp_(max=1)
        end = edge * (forked * 0.34 - pointed * 0.42)
        end = end.add_(edge * edge * (rounded * -0.26))
        end = end.add_(1 - forked * 0.30).mul_(reach)
        past = along - end
        tail = torch.maximum(torch.maximum(past, across.abs() - half), -along)
        feathers = column(self.bird.tail_colour).expand_as(self.canvas).clone()
        shafts = self.line(fraction(w * 2.5).mul_(half * 0.4), 0.006)
        paint(feathers, shafts * 0.55, self.dark)
        # how far before the end the middle of the white lies
        band = 0.028 + 0.075 * self.is_("tail tip", 2)
        white = self.line(past + band, 0.029) * (1 - self.is_("tail tip", 0))
        paint(feathers, white, self.white)
        self.add(self.cover(tail), feathers)
        paint(self.canvas, self.line(tail, 0.005) * 0.35, self.dark)

    def body(self, texture: Tensor) -> None:
        """Body, neck and head are one silhouette, painted as one plumage; thigh and
        crest stick out from under it.
        """
        bird, x, y, c = self.bird, self.x, self.y, column
        shape = self.silhouette()
        plumage = self.plumage(texture)
        self.breast(plumage)
        self.head(plumage)
        # light from above, darker towards the outline
        edge = (shape * (1 / 0.11)).add_(1).clamp_(0, 1)
        light = (self.s * 0.55).clamp_(-0.16, 0.12)
        plumage.mul_(light.sub_(edge.mul_(edge).mul_(0.26)).add_(1.03)[:, None])

        nape, tip = point(bird.on_head(-0.12, -0.46)), point(bird.crest_tip())
        tuft = segment(x, y, nape, tip, c(bird.r) * 0.50, 0.010)
        upper = c(bird.upper)
        plume = upper + (c(bird.cap) - upper) * self.is_("crown", 1)[:, None]
        # 9: far away from everything
        self.add(self.cover(torch.where(c(bird.crest) > 0, tuft, 9.0)), plume)

        hip, near = point(bird.on_body(*HIP)), point(bird.feet()[1])
        top = (hip[0] - 0.02, hip[1] + 0.04)
        end = (hip[0] - 0.02, hip[1] * 0.75 + near[1] * 0.25)
        self.thigh = self.cover(segment(x, y, top, end, 0.075, 0.028))
        self.add(self.thigh, c(bird.under) * 0.82)
        self.add(self.cover(shape), plumage)

    def silhouette(self) -> Tensor:
        """Distance to body, neck and head as one."""
        bird, x, y, c = self.bird, self.x, self.y, column
        plump, r = c(bird.plump), c(bird.r)
        hx, hy = c(bird.hx), c(bird.hy)
        trunk = segment(
            self.t, self.s, (-0.02, -0.01), (0.46, 0.03), 0.232 * plump, 0.055, 0.30
        )
        face = point(bird.on_head(bird.yaw_cos * 0.40, 0.14))
        skull = blend(disc(x, y, hx, hy, r), disc(x, y, *face, r * 0.68), 0.06)
        throat = (hx - 0.02, hy + 0.03)
        neck = segment(x, y, (0.0, -0.05), throat, 0.20 * plump, r * 0.84)
        return blend(blend(trunk, neck, 0.10), skull, 0.07)

    def plumage(self, texture: Tensor) -> Tensor:
        """(B, 3, H, W): upperparts above underparts, shaded on the belly."""
        t, s = self.t, self.s
        upper, under = column(self.bird.upper), column(self.bird.under)
        plumage = under.expand_as(self.canvas).clone()
        paint(plumage, fade((texture - 0.5) * 0.05 - s - 0.02, 0.05), upper)
        shade = fade(ellipse(t, s, -0.02, -0.05, 0.30, 0.20), 0.45) * 0.22
        paint(plumage, shade, (upper + under) * 0.5)
        return plumage

    def breast(self, plumage: Tensor) -> None:
        """One lattice of marks: streaks, spots and bands differ in the sides of its
        cells and of the marks.
        """
        t, s = self.t, self.s
        streaked, spotted, banded = (self.is_("breast", k) for k in (1, 2, 3))
        marked = streaked + spotted + banded
        long = streaked * 0.120 + spotted * 0.078 + banded * 0.072 + (1 - marked)
        wide = streaked * 0.046 + spotted * 0.078 + banded * 2 + (1 - marked)
        across = (s + 0.14) / wide
        row = (across + 0.5).floor()
        # rows are shifted against each other; bands are bent instead
        shift = row * row * 0.11 * (1 - banded)
        half_step = row * (0.5 * (1 - banded))
        bend = across * across * banded * 2.2
        u = fraction((t + shift) / long + half_step + bend).mul_(long)
        v = fraction(across).mul_(wide)
        u.mul_(streaked * 0.20 + spotted + banded)
        v.mul_(1 - banded)
        mark = root(u.mul_(u).add_(v.mul_(v)))
        where = fade(ellipse(t, s, 0.03, -0.15, 0.24, 0.135), 0.05) * marked
        stroke = self.line(mark, streaked * 0.0095 + spotted * 0.0195 + banded * 0.0155)
        paint(plumage, stroke.mul_(where).mul_(0.92), column(self.bird.flight) * 0.75)

    def head(self, plumage: Tensor) -> None:
        """Cap, eyebrow or eye stripe, and throat. The head's disc is the picture of a
        sphere, so they turn with it.
        """
        bird, c = self.bird, column
        r = c(bird.r)
        fx, fy = c(bird.fx), c(bird.fy)
        yaw_cos, yaw_sin = c(bird.yaw_cos), c(bird.yaw_sin)
        # on the disc, in radii
        px, py = (self.x - c(bird.hx)) / r, (self.y - c(bird.hy)) / r
        forward = (px * fx).add_(py * fy)
        down = (py * fx).sub_(px * fy)
        # of the sphere above it, towards the viewer
        depth = root((1 - forward * forward).sub_(down * down).clamp_(min=0))
        # along the head's own axis, towards the bill, and across it
        ahead = (forward * yaw_cos).add_(depth * yaw_sin)
        aside = (depth * yaw_cos).sub_(forward * yaw_sin)
        self.sphere = ahead, down, aside

        cap = ((down + 0.40).mul_(r)).add_((ahead * ahead).mul_(0.16 * r))
        cap = torch.maximum(cap, (-1.02 - forward) * r)
        brow = torch.maximum(
            (down + 0.44 - ahead * 0.06).abs() * r - 0.02,
            ((ahead + 0.08).abs() - 0.74) * r,
        )
        stripe = torch.maximum(
            (down + 0.17 - ahead * 0.10).abs() * r - 0.024, (ahead.abs() - 0.93) * r
        )
        chin = 0.30 - down + (0.5 - forward).clamp_(min=0) * 0.35
        bib = torch.maximum(ellipse(forward, down, 0.50, 0.82, 0.76, 0.76), chin) * r
        paint(plumage, self.cover(cap) * self.is_("crown", 1), c(bird.cap))
        paint(plumage, self.cover(brow) * self.is_("face", 1), self.white)
        paint(plumage, self.cover(stripe) * self.is_("face", 2), self.dark)
        paint(plumage, self.cover(bib) * self.is_("throat", 1), c(bird.accent))

    def wing(self) -> None:
        """The folded wing in its own coordinates: u from shoulder to tip, w from the
        lower (-1) to the upper edge (1).
        """
        bird, cover, line = self.bird, self.cover, self.line
        length = column(bird.wing)
        coverts, flight = column(bird.coverts), column(bird.flight)
        u = (self.t + 0.13) / length
        v = self.s - 0.035 + u * (0.06 * length)
        u = u - v * 0.06 / length
        half = wing_half(u.clamp(0.0005, 1))
        w = v / half.clamp(min=0.004)
        shape = torch.maximum(
            (v.abs() - half).mul_(0.85), (u - 0.5).abs_().sub_(0.5).mul_(length)
        )
        # a shadow lifts it off the flank
        shadow = fade(shape - 0.012 + (v * 0.08), 0.06) * 0.25
        paint(self.canvas, shadow * self.coverage, self.dark)

        feathers = coverts.expand_as(self.canvas).clone()
        paint(feathers, fade((0.47 - u + w * w * 0.05) * length, 0.03), flight)
        # small feathers of the shoulder: rows of scallops
        rows = u * (length / 0.062)
        row = rows.floor()
        p, q = fraction(v * (1 / 0.058) + row * 0.5), rows - row - 0.25
        scallop = root(p.mul_(p).add_(q.mul_(q))).sub_(0.58).mul_(0.06)
        on_shoulder = cover((u - 0.45) * length)
        paint(feathers, line(scallop, 0.005) * on_shoulder * 0.45, flight)
        # long feathers: pale edges that meet at the tip
        edges = line(fraction(w * 2.6 + u * 0.8).mul_(half * (1 / 2.6)), 0.0065)
        edges = edges * fade((0.50 - u) * length, 0.03)
        paint(feathers, edges * 0.55, (coverts + self.white) * 0.5)
        # one broad bar or two narrow: as much white
        bars = ((0.34, 0.036, 1), (0.26, 0.020, 2), (0.42, 0.020, 2))
        inside = cover((w.abs() - 0.94) * half)
        for place, wide, wanted in bars:
            bar = line((u - place - w * 0.03 + w * w * 0.05) * length, wide) * inside
            paint(feathers, bar * self.is_("wing bars", wanted), self.white)
        feathers.mul_((w * 0.09 + 0.99)[:, None].clamp_(0.86, 1.08))
        self.add(cover(shape), feathers)
        paint(self.canvas, line(shape, 0.006) * 0.35, self.dark)

    def bill(self) -> None:
        """A middle line that bends, two mandibles, a dark gape between them."""
        bird, c = self.bird, column
        ex, ey = c(bird.tip[0] - bird.base[0]), c(bird.tip[1] - bird.base[1])
        length, deep = root(ex * ex + ey * ey), c(bird.bill_depth)
        ux, uy = ex / length, ey / length
        px, py = self.x - c(bird.base[0]), self.y - c(bird.base[1])
        along, across = (px * ux).add_(py * uy), (py * ux).sub_(px * uy)
        k = (along / length).clamp(0, 1)
        across = across + (k * (1 - k)).mul_(length * (0.45 * c(bird.bill_curve)))
        half = (1 - k * k * 0.35 - k * 0.65).mul_(deep) + 0.004
        # feathers cover the base in an arc
        rear = across * across * (0.5 / deep) - along - 0.03
        outline = torch.maximum(along - length, rear)
        inside = self.cover(torch.maximum(across.abs() - half, outline))
        self.add(inside, c(bird.bill_colour))
        paint(self.canvas, inside * self.cover(-across) * 0.28, self.dark)
        paint(self.canvas, self.line(across, 0.005) * inside * 0.55, self.dark)

    def eye(self) -> None:
        """Ring, dark disc, highlight; distances are chords of the head's sphere."""
        ahead, down, aside = self.sphere
        ox, oy, oz = ahead - EYE[0], down - EYE[1], aside - EYE[2]
        gap = root(ox.mul_(ox).add_(oy.mul_(oy)).add_(oz.mul_(oz)))
        gap = gap.mul_(column(self.bird.r))
        has_ring = 1 - self.is_("eye ring", 0)
        paint(
            self.canvas,
            self.cover(gap - 0.062) * has_ring,
            column(self.bird.ring_colour),
        )
        paint(self.canvas, self.cover(gap - 0.040), self.dark * 0.6)
        ex, ey = point(self.bird.on_face(*EYE)[0])
        highlight = disc(self.x, self.y, ex + 0.010, ey - 0.014, 0.0125)
        paint(self.canvas, self.cover(highlight) * 0.95, self.white)
