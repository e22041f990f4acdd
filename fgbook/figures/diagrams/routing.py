"""The ways of a diagram's arrows: along rows and columns, round everything that they do
not belong to, with few bends, and on one line only with arrows that come from the same
node or lead to the same.
"""

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from .language import Arrow

Point = tuple[float, float]
Place = tuple[int, int]  # numbers of a column and a row
State = tuple[int, int, int]  # the same, and the direction of the step that led there
Stretch = tuple[Place, Place]
BEND, CROSSING, SHARED = 22.0, 14.0, 8.0
"""What a bend costs, crossing another arrow, and a line that another one has (times its
length), in units of length."""
LABEL = 12.0  # to leave a node where its label is, downwards
DIFFERENT = 1.6  # the same where one of two related arrows is stopped
TOGETHER = 0.55  # a unit of length where an arrow from or to the same node goes
CLEAR = 4.0  # kept free round each node
TRACKS = (0.32, 0.62)  # where arrows may go between two rows, as shares of the gap
OUTSIDE = 9.0  # the same beyond the outermost


class Rect(NamedTuple):
    """A rectangle by its edges."""

    left: float
    top: float
    right: float
    bottom: float

    def moved(self, x: float, y: float) -> "Rect":
        """The same elsewhere."""
        return Rect(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def meets(self, other: "Rect", apart: float = 0.0) -> bool:
        """Whether they come nearer to each other than `apart`."""
        return (
            self.left < other.right + apart
            and other.left < self.right + apart
            and self.top < other.bottom + apart
            and other.top < self.bottom + apart
        )


def route(
    middles: Mapping[str, Point],
    wholes: Mapping[str, Rect],
    cores: Mapping[str, Rect],
    arrows: Sequence[Arrow],
    columns: Sequence[Point],
    rows: Sequence[Point],
) -> list[list[Point]]:
    """The corners of each arrow's way, from the edge of its source to that of its
    target. Between `columns` and `rows`, (start, end) each, arrows may go too. Raises
    ValueError where there is no way.
    """
    grid = _Grid(middles, wholes, _tracks(columns), _tracks(rows))

    def length(arrow: Arrow) -> float:
        return _distance(middles[arrow.source], middles[arrow.target])

    found: dict[Arrow, list[Point]] = {}
    for arrow in sorted(arrows, key=length):  # the shortest first
        corners = grid.way(arrow)
        source = wholes[arrow.source], cores[arrow.source]
        target = wholes[arrow.target], cores[arrow.target]
        found[arrow] = _clipped(corners, source, target)
    return [found[arrow] for arrow in arrows]


def _distance(a: Point, b: Point) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


class _Grid:
    """All rows and columns on which an arrow may go, and who goes there already."""

    def __init__(
        self,
        middles: Mapping[str, Point],
        wholes: Mapping[str, Rect],
        xs: list[float],
        ys: list[float],
    ):
        self.middles, self.wholes = middles, wholes
        self.xs = sorted({*(x for x, _ in middles.values()), *xs})
        self.ys = sorted({*(y for _, y in middles.values()), *ys})
        # a stretch between neighbours on the grid -> arrows that have it; a point ->
        # the same, and whether they pass along a row
        self.stretches: dict[Stretch, list[Arrow]] = {}
        self.points: dict[Place, list[tuple[Arrow, bool]]] = {}

    def way(self, arrow: Arrow) -> list[Point]:
        """The cheapest, from middle to middle (Dijkstra's search)."""
        start, goal = self._at(arrow.source), self._at(arrow.target)
        own = (self.wholes[arrow.source], self.wholes[arrow.target])
        others = [one for one in self.wholes.values() if one not in own]
        seen: set[State] = set()
        waiting: list[tuple[float, State, tuple]] = []
        heapq.heappush(waiting, (0.0, (*start, 0), ()))
        while waiting:
            cost, state, before = heapq.heappop(waiting)
            if state in seen:
                continue
            seen.add(state)
            trail = (state, before)
            if state[:2] == goal:
                return self._keep(trail, arrow)
            for nearby in self._neighbours(state):
                if nearby in seen or self._bends_within(own, state, nearby):
                    continue
                if self._free(state, nearby, others):
                    more = self._cost(state, nearby, arrow)
                    heapq.heappush(waiting, (cost + more, nearby, trail))
        raise ValueError(f"no way from {arrow.source} to {arrow.target}")

    def _at(self, name: str) -> Place:
        x, y = self.middles[name]
        return self.xs.index(x), self.ys.index(y)

    def _neighbours(self, state: State) -> list[State]:
        """One step further, the last number being the direction: 1 and -1 along a row,
        2 and -2 along a column; never back.
        """
        i, j, direction = state
        steps = {1: (i + 1, j), -1: (i - 1, j), 2: (i, j + 1), -2: (i, j - 1)}
        found = []
        for to, (k, l) in steps.items():  # noqa: E741  # the next row's number
            inside = 0 <= k < len(self.xs) and 0 <= l < len(self.ys)
            if inside and to != -direction:
                found.append((k, l, to))
        return found

    def _bends_within(self, own: tuple[Rect, ...], a: State, b: State) -> bool:
        """Whether the step to b turns inside one of the arrow's own nodes, as through
        its label.
        """
        x, y = self._point(a)
        inside = any(one.meets(Rect(x, y, x, y)) for one in own)
        return inside and a[2] not in (0, b[2])

    def _free(self, a: State, b: State, others: list[Rect]) -> bool:
        (x, y), (u, v) = self._point(a), self._point(b)
        stretch = Rect(min(x, u), min(y, v), max(x, u), max(y, v))
        return not any(one.meets(stretch, CLEAR) for one in others)

    def _point(self, state: State) -> Point:
        return self.xs[state[0]], self.ys[state[1]]

    def _cost(self, a: State, b: State, arrow: Arrow) -> float:
        """Of the step from a to b."""
        length = _distance(self._point(a), self._point(b))
        times = 1.0
        for other in self.stretches.get(_stretch(a, b), []):
            if not arrow.related(other):
                times += SHARED
            elif arrow.stopped != other.stopped and arrow.source == other.source:
                times += DIFFERENT
            else:
                times = min(times, TOGETHER)
        cost = times * length
        for other, flat in self.points.get(b[:2], []):
            if not arrow.related(other) and flat != (abs(b[2]) == 1):
                cost += CROSSING
        if a[2] and a[2] != b[2]:
            cost += BEND
        if not a[2] and b[2] == 2:
            cost += LABEL
        return cost

    def _keep(self, trail: tuple, arrow: Arrow) -> list[Point]:
        """The corners of a way that was found; it is taken from now on."""
        states: list[State] = []
        while trail:
            state, trail = trail
            states.append(state)
        states.reverse()
        for a, b in pairwise(states):
            self.stretches.setdefault(_stretch(a, b), []).append(arrow)
            for state in (a, b):
                self.points.setdefault(state[:2], []).append((arrow, abs(b[2]) == 1))
        corners = [self._point(states[0])]
        for state, after in pairwise(states[1:]):
            if state[2] != after[2]:
                corners.append(self._point(state))
        return [*corners, self._point(states[-1])]


def _stretch(a: State, b: State) -> Stretch:
    return (a[:2], b[:2]) if a[:2] < b[:2] else (b[:2], a[:2])


def _tracks(bands: Sequence[Point]) -> list[float]:
    """Coordinates between bands (start, end), and outside."""
    found = [bands[0][0] - OUTSIDE, bands[-1][1] + OUTSIDE]
    for (_, end), (start, _) in pairwise(bands):
        for share in TRACKS:
            found.append(end + share * (start - end))
    return found


def _clipped(
    corners: list[Point], source: tuple[Rect, Rect], target: tuple[Rect, Rect]
) -> list[Point]:
    """From edge to edge in place of from middle to middle."""
    first = _edge(corners[0], corners[1], *source)
    last = _edge(corners[-1], corners[-2], *target)
    return [first, *corners[1:-1], last]


def _edge(middle: Point, beyond: Point, whole: Rect, core: Rect) -> Point:
    """Where a line from a node's middle leaves it: below its label, beside its sign."""
    x, y = middle
    if beyond[0] > x:
        return core.right, y
    if beyond[0] < x:
        return core.left, y
    return (x, whole.bottom) if beyond[1] > y else (x, whole.top)
