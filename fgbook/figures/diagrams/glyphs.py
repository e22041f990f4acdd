"""The signs that diagrams of methods are made of, as pieces of SVG: an image and what
is cut out of it, maps, where a network looks. Lines have the colour of the text around
them; three colours say what learns, where it looks and what it is told, and no sign
differs from another by its colour alone.
"""

import random
from collections.abc import Callable, Iterable

LEARNS, LOOKS, TOLD = "#2484BD", "#009E73", "#D55E00"
"""Seen on white and on black (contrast above 3), and told from each other also by those
who see no green."""

SIDE = 44.0  # of a picture or a map, with all that is stacked behind it
STEP = 4.0  # from one layer of a stack to the next
THIN, THICK = 1.2, 2.4  # lines

# A bird on a branch, in a square of 100; its eye and its wing are left out.
BIRD = (
    "M3 80 37 54C39 40 48 31 58 29 59 18 68 11 78 13 86 14 91 21 91 29L100 34 90 38"
    "C89 55 78 70 61 74L63 85H58L56 75 50 75 52 85H47L45 73C40 71 36 68 33 64L9 86Z"
    "M79 22A3.5 3.5 0 1 0 79 29 3.5 3.5 0 1 0 79 22Z"
    "M43 56C52 63 66 60 72 46 70 66 55 71 43 56Z"
    "M0 85H100V89H0Z"
)
Part = tuple[float, float, float]  # left, top and side of what is seen of it
WHOLE: Part = (0.0, 0.0, 100.0)
OBJECT: Part = (2.0, 6.0, 92.0)
HEAD: Part = (54.0, 4.0, 48.0)
# of what lies behind in a stack of crops nothing is seen; of boxes, all four
PLACES: tuple[Part, ...] = (
    HEAD,
    (34.0, 40.0, 36.0),
    (2.0, 52.0, 36.0),
    (64.0, 36.0, 30.0),
)
# 8 x 8 pixels of it, row by row
PIXELS = (
    "........",
    ".....##.",
    "....####",
    "...####.",
    "..#####.",
    ".#.###..",
    "#...#...",
    "########",
)
# How strongly cells answer, in tenths.
HEAT = ("01100", "13652", "14974", "02531", "00110")


def rect(x: float, y: float, w: float, h: float, look: str, r: float = 0) -> str:
    """A rectangle; `r` rounds its corners."""
    rounded = f' rx="{r:g}"' if r else ""
    sides = f'width="{w:g}" height="{h:g}"'
    return f'<rect x="{x:g}" y="{y:g}" {sides}{rounded} {look}/>'


def line(path: str, dashed: bool = False, width: float = THIN) -> str:
    """A line in the colour of the text."""
    look = f'fill="none" stroke="currentColor" stroke-width="{width}"'
    return f'<path d="{path}" {look}{_dashes(dashed)}/>'


def frame(
    colour: str = "currentColor", inside: float = 0.0, dashed: bool = False
) -> str:
    """The look of a frame: its colour, how much of it fills the inside, and dashes for
    what is there in training alone.
    """
    fill = f'fill="{colour}" fill-opacity="{inside}"' if inside else 'fill="none"'
    return f'{fill} stroke="{colour}" stroke-width="{THIN}"{_dashes(dashed)}'


def _dashes(dashed: bool) -> str:
    return ' stroke-dasharray="4 3"' if dashed else ""


def defined(bird: str) -> str:
    """The bird, under a name of its own on the page, for all signs of a diagram."""
    return f'<defs><path id="{bird}" fill-rule="evenodd" d="{BIRD}"/></defs>'


def piece(bird: str, x: float, y: float, side: float, part: Part) -> str:
    """A part of the bird, enlarged into a square."""
    left, top, size = part
    window = f'x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}"'
    return (
        f'<svg {window} viewBox="{left:g} {top:g} {size:g} {size:g}">'
        f'<use href="#{bird}"/></svg>'
    )


# ---- signs, each in a square of SIDE with its upper left corner at (x, y)


def photo(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """An image, or a stack of them."""
    if n > 1:
        return _stacked(x, y, WHOLE, bird, dashed)
    return piece(bird, x, y, SIDE, WHOLE) + rect(x, y, SIDE, SIDE, frame(dashed=dashed))


def object_(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """What is cut out of it round the bird."""
    return piece(bird, x, y, SIDE, OBJECT) + rect(
        x, y, SIDE, SIDE, frame(dashed=dashed)
    )


def boxes(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """An image with boxes on it: `n`, or four of more."""
    scale = SIDE / 100
    drawn = [f'<g opacity=".45">{piece(bird, x, y, SIDE, WHOLE)}</g>']
    for left, top, side in PLACES[:n] if n > 1 else (OBJECT,):
        place = (x + scale * left, y + scale * top, scale * side, scale * side)
        drawn.append(rect(*place, frame(LOOKS).replace(f"{THIN}", "2")))
    return "".join(drawn) + rect(x, y, SIDE, SIDE, frame(dashed=dashed))


def crops(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """What is cut out at these places: one, or a stack."""
    if n == 1:
        whole = piece(bird, x, y, SIDE, HEAD)
        return whole + rect(x, y, SIDE, SIDE, frame(dashed=dashed))
    return _stacked(x, y, HEAD, bird, dashed)


def _stacked(x: float, y: float, part: Part, bird: str, dashed: bool) -> str:
    side, top = SIDE - 2 * STEP, y + 2 * STEP
    front = rect(x, top, side, side, frame(dashed=dashed))
    return piece(bird, x, top, side, part) + front + _behind(x, top, side, dashed)


def _behind(x: float, y: float, side: float, dashed: bool = False) -> str:
    """What is seen of two more squares behind the one at (x, y)."""
    path = ""
    for step in (STEP, 2 * STEP):
        path += f"M{x + step:g} {y - step + STEP:g}V{y - step:g}H{x + side + step:g}"
        path += f"V{y + side - step:g}H{x + side + step - STEP:g}"
    return line(path, dashed)


def jigsaw(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """The image cut into n x n patches, which have changed places."""
    order = list(range(n * n))
    random.Random(n).shuffle(order)
    return _patches(x, y, n, bird, order) + rect(x, y, SIDE, SIDE, frame(dashed=dashed))


def dropped(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """The image without one of 3 x 3 places."""
    kept = (0, 1, None, 3, 4, 5, 6, 7, 8)
    third = SIDE / 3
    hole = rect(x + 2 * third, y, third, third, frame(LOOKS, 0.25))
    drawn = _patches(x, y, 3, bird, kept, lines=False)
    return drawn + hole + rect(x, y, SIDE, SIDE, frame(dashed=dashed))


def _patches(
    x: float,
    y: float,
    n: int,
    bird: str,
    order: Iterable[int | None],
    lines: bool = True,
) -> str:
    """Patches of the bird by their numbers, row by row."""
    side, size = SIDE / n, 100 / n
    drawn = []
    for place, number in enumerate(order):
        if number is not None:
            row, column = divmod(place, n)
            part = (size * (number % n), size * (number // n), size)
            drawn.append(piece(bird, x + side * column, y + side * row, side, part))
    return "".join(drawn) + (_grid(x, y, SIDE, n) if lines else "")


def _grid(x: float, y: float, side: float, n: int) -> str:
    """The lines within a square of n x n cells."""
    path = ""
    for i in range(1, n):
        across = side * i / n
        path += f"M{x + across:g} {y:g}v{side:g}M{x:g} {y + across:g}h{side:g}"
    return f'<g opacity=".4">{line(path, width=0.8)}</g>'


def small(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """An image of few pixels."""
    side = SIDE / len(PIXELS)
    path = ""
    for row, cells in enumerate(PIXELS):
        for column, cell in enumerate(cells):
            if cell == "#":
                corner = f"M{x + side * column:g} {y + side * row:g}"
                path += f"{corner}h{side:g}v{side:g}h-{side:g}z"
    return f'<path d="{path}" opacity=".8"/>' + rect(
        x, y, SIDE, SIDE, frame(dashed=dashed)
    )


def maps(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """Feature maps: a stack of squares of cells."""
    side, top = SIDE - 2 * STEP, y + 2 * STEP
    front = rect(x, top, side, side, frame(dashed=dashed)) + _grid(x, top, side, 4)
    return front + _behind(x, top, side, dashed)


def heat(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """Where a network looks: one map, by how much cells count; or a stack of such."""
    side = SIDE if n < 2 else SIDE - 2 * STEP
    top = y + SIDE - side
    cell = side / len(HEAT)
    drawn = []
    for row, values in enumerate(HEAT):
        for column, value in enumerate(values):
            if value != "0":
                place = (x + cell * column, top + cell * row, cell, cell)
                drawn.append(rect(*place, f'opacity=".{value}"'))
    filled = f'<g fill="{LOOKS}">{"".join(drawn)}</g>'
    behind = _behind(x, top, side, dashed) if n > 1 else ""
    return filled + rect(x, top, side, side, frame(dashed=dashed)) + behind


def tokens(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """Patches of the image, one after another, behind the class token."""
    side = SIDE / 4 - 3
    drawn = []
    for row in range(4):
        for column in range(4):
            place = (x + 1 + (side + 3) * column, y + 1 + (side + 3) * row, side, side)
            first = row == column == 0
            drawn.append(
                rect(*place, frame(inside=0.6 if first else 0.0, dashed=dashed))
            )
    return "".join(drawn)


def table(x: float, y: float, n: int, bird: str, dashed: bool) -> str:
    """Rows of numbers: kept features, or what is known of classes."""
    look = frame(dashed=dashed)
    rows = "".join(f"M{x:g} {y + SIDE * i / 5:g}h{SIDE:g}" for i in range(1, 5))
    columns = f"M{x + SIDE * 0.28:g} {y:g}v{SIDE:g}"
    return rect(x, y, SIDE, SIDE, look) + f'<g opacity=".6">{line(rows + columns)}</g>'


Sign = Callable[[float, float, int, str, bool], str]
SIGNS: dict[str, Sign] = {
    "photo": photo,
    "object": object_,
    "boxes": boxes,
    "crops": crops,
    "jigsaw": jigsaw,
    "dropped": dropped,
    "small": small,
    "maps": maps,
    "heat": heat,
    "tokens": tokens,
    "table": table,
}
"""What a node can be a picture of; its label stands below. Each is given the upper left
corner, how many there are, the bird's name, and whether it is there in training alone.
"""
