"""Where everything of a diagram lies: how large text is, the form of each node, and
places in bands of stages and lanes, from left to right ("wide") or, for a phone, from
top to bottom ("narrow").
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from . import glyphs
from .language import Arrow, Diagram
from .routing import Rect, route

SIZE = 11.5  # of text
LINE = 14.0  # from line to line
LIMIT, NET = 92.0, 72.0  # of the width of text, also in a backbone
PAD = 6.0  # round text
POINT = 7.0  # of a head
MARGIN = 2.0  # round it all
GAP = {"wide": (28.0, 16.0), "narrow": (25.0, 11.0)}
"""From stage to stage, and from lane to lane."""
WIDEST = {"wide": 760.0, "narrow": 343.0}
"""What a page on a desktop and a small phone have room for at this size of text."""

# ---- text


@lru_cache
def _font(bold: bool) -> Any:
    from matplotlib import font_manager

    weight = "bold" if bold else "normal"
    wanted = font_manager.FontProperties(family="DejaVu Sans", weight=weight)
    font = font_manager.get_font(font_manager.findfont(wanted))
    font.set_size(100, 72)
    return font


@lru_cache(maxsize=4096)
def width_of(text: str, bold: bool = False) -> float:
    """How wide text is, in the widest of the fonts that a browser may take."""
    font = _font(bold)
    font.set_text(text, 0)
    return font.get_width_height()[0] / 64 * SIZE / 100


def wrapped(text: str, limit: float, bold: bool = False) -> list[str]:
    """Lines no wider than `limit` where words allow that, and about equally long."""
    lines = _filled(text, limit, bold)
    narrower = limit - 2
    while len(_filled(text, narrower, bold)) == len(lines) and narrower > limit / 2:
        lines = _filled(text, narrower, bold)
        narrower -= 2
    return lines


def _filled(text: str, limit: float, bold: bool) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, bold) <= limit:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


# ---- where everything is


@dataclass(frozen=True)
class Text:
    """A line of it, centred at (x, y), y being its base."""

    text: str
    x: float
    y: float
    bold: bool = False


@dataclass(frozen=True)
class Form:
    """A node as it is drawn, relative to its middle, where arrows meet: `core` is the
    sign or shape, `whole` has the label below it too.
    """

    core: Rect
    whole: Rect
    lines: tuple[Text, ...]


def form(diagram: Diagram, name: str, way: str, limit: float) -> Form:
    """How large a node is, and its text; lines are wrapped at `limit`."""
    node = diagram.nodes[name]
    label = diagram.label(name)
    if node.kind in glyphs.SIGNS:
        return _sign(label, limit)
    head, _, more = label.partition(":")
    if node.kind == "loss":
        head, limit = f"{head} loss", limit - 6  # its ends are round
    if node.kind in ("net", "frozen"):
        limit = min(limit, NET)  # all of one size
    bold = node.kind in ("loss", "answer")
    lines = [(line, bold) for line in wrapped(head, limit, bold)]
    lines += [(line, False) for line in wrapped(more, limit)]
    width = max(width_of(*line) for line in lines) + 2 * PAD
    height = LINE * len(lines) + 2 * PAD - 2
    # what the shape needs beside its text
    left = right = top = bottom = 0.0
    if node.kind == "loss":
        left = right = 2.5
    elif node.kind == "head":
        right, bottom = (POINT, 0.0) if way == "wide" else (0.0, POINT)
    elif node.kind in ("net", "frozen"):
        height = max(height, 38.0)
        if way == "narrow":
            left = right = 0.07 * width
        else:
            top = bottom = 0.1 * height
    core = Rect(
        -width / 2 - left, -height / 2 - top, width / 2 + right, height / 2 + bottom
    )
    first = -LINE * len(lines) / 2 + LINE - 3.2
    texts = [
        Text(line, 0.0, first + LINE * i, bold) for i, (line, bold) in enumerate(lines)
    ]
    return Form(core, core, tuple(texts))


def _sign(label: str, limit: float) -> Form:
    half = glyphs.SIDE / 2
    core = Rect(-half, -half, half, half)
    lines = wrapped(label, limit)
    wide = max([width_of(line) for line in lines], default=0.0) / 2
    bottom = half + (LINE * len(lines) + 2 if lines else 0)
    texts = [Text(line, 0.0, half + LINE * (i + 1) - 2) for i, line in enumerate(lines)]
    whole = Rect(min(-half, -wide), -half, max(half, wide), bottom)
    return Form(core, whole, tuple(texts))


@dataclass
class Plan:
    """A diagram with places: of each node its middle and its form; of each arrow the
    corners of its way.
    """

    way: str
    middles: dict[str, tuple[float, float]]
    forms: dict[str, Form]
    routes: dict[Arrow, list[tuple[float, float]]] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0

    def core(self, name: str) -> Rect:
        """Where a node's sign or shape is."""
        return self.forms[name].core.moved(*self.middles[name])

    def whole(self, name: str) -> Rect:
        """The same with the label."""
        return self.forms[name].whole.moved(*self.middles[name])


@lru_cache
def plan(diagram: Diagram, way: str) -> Plan:
    """Places for a diagram that runs from left to right ("wide") or from top to bottom
    ("narrow"). Its text gets narrower until the page has room for it.
    """
    limit = LIMIT
    made, columns, rows = _placed(diagram, way, limit)
    while columns[-1][1] + 2 * MARGIN > WIDEST[way] and limit > LIMIT / 2:
        limit -= 2
        made, columns, rows = _placed(diagram, way, limit)
    wholes = {name: made.whole(name) for name in diagram.nodes}
    cores = {name: made.core(name) for name in diagram.nodes}
    found = route(made.middles, wholes, cores, diagram.arrows, columns, rows)
    made.routes = dict(zip(diagram.arrows, found, strict=True))
    return _fitted(made)


Band = tuple[float, float]  # start and end


def _placed(
    diagram: Diagram, way: str, limit: float
) -> tuple[Plan, list[Band], list[Band]]:
    """Places with lines of text of this width; the bands of columns and of rows."""
    forms, stages, lanes, x_extents, y_extents = {}, {}, {}, {}, {}
    for name, node in diagram.nodes.items():
        one = forms[name] = form(diagram, name, way, limit)
        stages[name], lanes[name] = node.stage, node.lane
        x_extents[name] = -one.whole.left, one.whole.right
        y_extents[name] = -one.whole.top, one.whole.bottom

    along, aside = GAP[way]
    if way == "wide":
        x_of, columns = _bands(stages, x_extents, along)
        y_of, rows = _bands(lanes, y_extents, aside)
    else:
        x_of, columns = _bands(lanes, x_extents, aside)
        y_of, rows = _bands(stages, y_extents, along)
    middles = {name: (x_of[name], y_of[name]) for name in diagram.nodes}
    return Plan(way, middles, forms), columns, rows


def _bands(
    numbers: dict[str, float], extents: dict[str, tuple[float, float]], gap: float
) -> tuple[dict[str, float], list[Band]]:
    """Of each node its coordinate, when those of a whole number stand in a band that is
    as wide as they need, others between two bands; and the bands.
    """
    places: list[float] = []
    bands: list[Band] = []
    end = -gap
    for number in range(int(max(numbers.values())) + 1):
        before = behind = 0.0
        for name, own in numbers.items():
            if own == number:
                before = max(before, extents[name][0])
                behind = max(behind, extents[name][1])
        start = end + gap
        end = start + before + behind
        places.append(start + before)
        bands.append((start, end))

    found = {}
    for name, own in numbers.items():
        low = int(own)
        found[name] = places[low]
        if own > low:
            found[name] += (own - low) * (places[low + 1] - places[low])
    return found, bands


def _fitted(made: Plan) -> Plan:
    """The same, moved so that nothing lies left of 0 or above it, and cut to size."""
    left = top = right = bottom = 0.0
    edges = [made.whole(name) for name in made.forms]
    for corners in made.routes.values():
        edges += [Rect(x, y, x, y) for x, y in corners]
    for edge in edges:
        left, top = min(left, edge.left), min(top, edge.top)
        right, bottom = max(right, edge.right), max(bottom, edge.bottom)
    left, top = left - MARGIN, top - MARGIN
    made.width, made.height = right + MARGIN - left, bottom + MARGIN - top
    for name, (x, y) in made.middles.items():
        made.middles[name] = (x - left, y - top)
    for arrow, corners in made.routes.items():
        made.routes[arrow] = [(x - left, y - top) for x, y in corners]
    return made
