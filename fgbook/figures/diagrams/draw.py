"""Diagrams as pieces of SVG that stand in a page, and as figures."""

import hashlib
import html
from itertools import pairwise

from ..base import Shown
from ..vector import FONTS, SMALLEST
from . import glyphs
from .language import Arrow, Diagram
from .layout import GAP, POINT, SIZE, Plan, plan
from .routing import Point, Rect

LARGER = 1.15  # how much a diagram may be enlarged
ROUNDED = 5.0  # of either side of a corner
BARS = 8.0  # from the start of a stretch to the double bar


def svg(diagram: Diagram, way: str) -> str:
    """The diagram as an SVG element with the role of a picture, a name and a
    description. Text is at least 11 px large: a page too narrow for that scrolls it.
    """
    made = plan(diagram, way)
    bird = f"bird-{hashlib.sha256(f'{diagram.title} {way}'.encode()).hexdigest()[:8]}"
    drawn = [glyphs.defined(bird)]
    # on top of others those that act at test time
    for arrow in sorted(diagram.arrows, key=diagram.dashed, reverse=True):
        drawn.append(_arrow(made.routes[arrow], diagram.dashed(arrow)))
        if arrow.stopped:
            drawn.append(_bars(*bars_at(made, arrow)))
    for name in diagram.nodes:
        drawn.append(_node(diagram, made, name, bird))
    box = f"0 0 {made.width:.0f} {made.height:.0f}"
    least = SMALLEST / SIZE * made.width
    style = (
        f"width:100%;max-width:{LARGER * made.width:.0f}px;min-width:{least:.0f}px;"
        "height:auto"
    )
    name = html.escape(f"Diagram: {diagram.title}")
    return (
        f'<svg viewBox="{box}" style="{style}" role="img" fill="currentColor"'
        f' font-family="{FONTS}" font-size="{SIZE}" text-anchor="middle">'
        f"<title>{name}</title><desc>{html.escape(diagram.words)}</desc>"
        f"{''.join(drawn)}</svg>"
    )


def _node(diagram: Diagram, made: Plan, name: str, bird: str) -> str:
    node = diagram.nodes[name]
    core = made.core(name)
    dashed = name not in diagram.at_test
    if node.kind in glyphs.SIGNS:
        count = diagram.count(name)
        drawn = glyphs.SIGNS[node.kind](core.left, core.top, count, bird, dashed)
    else:
        drawn = _shape(node.kind, core, made.way, dashed)
    x, y = made.middles[name]
    for one in made.forms[name].lines:
        weight = ' font-weight="bold"' if one.bold else ""
        place = f'x="{x + one.x:.1f}" y="{y + one.y:.1f}"'
        drawn += f"<text {place}{weight}>{html.escape(one.text)}</text>"
    return drawn


def _shape(kind: str, core: Rect, way: str, dashed: bool) -> str:
    """What stands round text."""
    left, top, right, bottom = core
    width, height = right - left, bottom - top
    if kind == "loss":
        look = glyphs.frame(glyphs.TOLD, 0.14, dashed=False)
        return glyphs.rect(left, top, width, height, look, min(height / 2, 13))
    if kind == "answer":
        look = glyphs.frame().replace(f'"{glyphs.THIN}"', f'"{glyphs.THICK}"')
        return glyphs.rect(left, top, width, height, look, 3)
    if kind == "step":
        return glyphs.rect(left, top, width, height, glyphs.frame(dashed=dashed), 9)
    learns = glyphs.frame(glyphs.LEARNS, 0.14, dashed)
    if kind in ("layer", "rest"):
        look = learns if kind == "layer" else glyphs.frame(dashed=dashed)
        return glyphs.rect(left, top, width, height, look, 2)
    corners = _pointed(core, way) if kind == "head" else _narrowing(core, way)
    look = glyphs.frame(dashed=dashed) if kind == "frozen" else learns
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
    return f'<path d="M{path}Z" {look} stroke-linejoin="round"/>'


def _pointed(core: Rect, way: str) -> list[Point]:
    left, top, right, bottom = core
    x, y = (left + right) / 2, (top + bottom) / 2
    if way == "wide":
        edge = right - POINT
        return [(left, top), (edge, top), (right, y), (edge, bottom), (left, bottom)]
    edge = bottom - POINT
    return [(left, top), (right, top), (right, edge), (x, bottom), (left, edge)]


def _narrowing(core: Rect, way: str) -> list[Point]:
    left, top, right, bottom = core
    if way == "wide":
        less = 0.17 * (bottom - top)
        return [
            (left, top),
            (right, top + less),
            (right, bottom - less),
            (left, bottom),
        ]
    less = 0.08 * (right - left)
    return [(left, top), (right, top), (right - less, bottom), (left + less, bottom)]


def _arrow(corners: list[Point], dashed: bool) -> str:
    """A line with rounded corners and a point."""
    before = corners[0]
    path = f"M{before[0]:.1f} {before[1]:.1f}"
    for corner, after in pairwise(corners[1:]):
        into, out = _towards(corner, before), _towards(corner, after)
        path += f"L{into[0]:.1f} {into[1]:.1f}Q{corner[0]:.1f} {corner[1]:.1f}"
        path += f" {out[0]:.1f} {out[1]:.1f}"
        before = corner
    end_x, end_y = corners[-1]
    dx, dy = _direction(before, corners[-1])
    back_x, back_y = end_x - 6 * dx, end_y - 6 * dy
    drawn = glyphs.line(f"{path}L{back_x:.1f} {back_y:.1f}", dashed)
    side = [
        (back_x - 3.5 * dy, back_y - 3.5 * dx),
        (back_x + 3.5 * dy, back_y + 3.5 * dx),
    ]
    point = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*side, (end_x, end_y)])
    return f'{drawn}<polygon points="{point}"/>'


def bars_at(made: Plan, arrow: Arrow) -> tuple[Point, Point]:
    """Where an arrow is crossed to show that it is stopped, and its direction there: on
    a stretch that it shares with none that is not stopped.
    """
    others = []
    for other, corners in made.routes.items():
        if not other.stopped:
            others += list(pairwise(corners))
    for length in (2 * BARS, BARS, 0.0):  # the first stretch that is long enough
        for start, end in pairwise(made.routes[arrow]):
            for low, high in _alone(start, end, others):
                if high - low > length:
                    dx, dy = _direction(start, end)
                    far = low + min(BARS, (high - low) / 2)
                    return (start[0] + far * dx, start[1] + far * dy), (dx, dy)
    raise ValueError(f"{arrow} shares all of its way")


def _alone(start: Point, end: Point, others: list[tuple[Point, Point]]) -> list[Point]:
    """The parts of a stretch that no other lies on, as distances from its start."""
    dx, dy = _direction(start, end)
    whole = abs(end[0] - start[0]) + abs(end[1] - start[1])
    taken = []
    for one, two in others:
        # how far along it, and beside it, the ends of the other one are
        ends = []
        for x, y in (one, two):
            ends.append((x - start[0]) * dx + (y - start[1]) * dy)
        beside = [abs((x - start[0]) * dy - (y - start[1]) * dx) for x, y in (one, two)]
        if max(beside) < 1:
            taken.append((min(ends), max(ends)))
    free, at = [], 0.0
    for low, high in [*sorted(taken), (whole, whole)]:
        if low > at:
            free.append((at, min(low, whole)))
        at = max(at, high)
    return free


def _bars(at: Point, along: Point) -> str:
    (x, y), (dx, dy) = at, along
    path = ""
    for step in (-1.75, 1.75):
        a, b = x + step * dx, y + step * dy
        path += f"M{a - 5 * dy:.1f} {b - 5 * dx:.1f}L{a + 5 * dy:.1f} {b + 5 * dx:.1f}"
    return glyphs.line(path, width=1.6)


def _direction(start: Point, end: Point) -> Point:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = abs(dx) + abs(dy) or 1.0
    return dx / length, dy / length


def _towards(start: Point, end: Point) -> Point:
    """The point ROUNDED from `start` on the way to `end`, or half of the way."""
    dx, dy = _direction(start, end)
    far = min(ROUNDED, (abs(end[0] - start[0]) + abs(end[1] - start[1])) / 2)
    return start[0] + far * dx, start[1] + far * dy


# ---- on a page

HOW_TO_READ = "Dashed: in training alone. A double bar: no gradient comes back."


def figure(diagram: Diagram, signs: str = "") -> Shown:
    """Both ways, of which the page shows the one that it has room for, and a caption.

    signs: an address where the signs are explained; the caption then says the most
        important, and leads there.
    """
    both = ""
    for way in GAP:
        both += f'<div class="fgbook-{way}">{svg(diagram, way)}</div>'
    more = ""
    if signs:
        more = f' {HOW_TO_READ} <a href="{html.escape(signs)}">All signs</a>'
    return Shown(
        f'<figure class="fgbook-figure fgbook-diagram">{both}'
        f"<figcaption>{html.escape(diagram.says)}{more}</figcaption></figure>",
        f"[diagram] {diagram.says}",
    )
