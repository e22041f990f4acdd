"""Effects as small pictures that stand within a line of text or of a table: a dot, its
interval, and a diamond at what is printed. Vector pictures in the colour of the text,
so that they suit a light and a dark page.
"""

import html
from collections.abc import Sequence

from ..errors import count
from ..evidence import units
from ..evidence.verdicts import Verdict, effect_text
from ..papers.spec import Claim
from .base import Shown

WIDTH, HEIGHT = 150, 20  # of one line, in pixels
LINE = 24  # height of a line of the forest
LABELS = 172  # room for the names of claims and their outcomes
PADDING = 7


def scale(judged: Sequence[Verdict]) -> float:
    """How far an axis for effects of one unit reaches from 0: as far as the intervals,
    and as the printed effects where nothing was measured; 1 where there is nothing.
    """
    measured, printed = [0.0], [0.0]
    for verdict in judged:
        if verdict.effect and verdict.outcome != "not run":
            measured += [abs(verdict.effect.low), abs(verdict.effect.high)]
        if verdict.claim.printed_effect is not None:
            printed.append(abs(verdict.claim.printed_effect))
    return max(measured) or max(printed) or 1.0


def unit(claim: Claim) -> str:
    """Effects on accuracy share a scale; those on another metric have their own."""
    in_points = units.unit(claim.metric) is units.POINTS
    return "points" if in_points else claim.metric


def strip(verdict: Verdict, reach: float) -> str:
    """A claim's effect on an axis from -reach to reach, as an SVG element; "" where
    there is nothing to draw.
    """
    marks = _marks(verdict, reach, HEIGHT / 2)
    if not marks:
        return ""
    middle = WIDTH / 2
    zero = f'<line class="zero" x1="{middle}" x2="{middle}" y1="1" y2="{HEIGHT - 1}"/>'
    name = html.escape(f"{verdict.claim.key}: {_said(verdict)}")
    return (
        f'<svg class="fgbook-strip" role="img" aria-label="{name}" width="{WIDTH}"'
        f' height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">{zero}{marks}</svg>'
    )


def forest(judged: Sequence[Verdict]) -> Shown:
    """The effects of several claims of one unit, a line each with key and outcome."""
    reach = scale(judged)
    height = LINE * len(judged) + 2
    lines = []
    for place, verdict in enumerate(judged):
        middle = LINE * (place + 0.5)
        text = f"{verdict.claim.key}: {verdict.outcome}"
        lines.append(f'<text x="0" y="{middle + 4}">{html.escape(text)}</text>')
        marks = _marks(verdict, reach, middle)
        lines.append(f'<g transform="translate({LABELS} 0)">{marks}</g>')
    zero = LABELS + WIDTH / 2
    lines.append(
        f'<line class="zero" x1="{zero}" x2="{zero}" y1="1" y2="{height - 1}"/>'
    )
    name = (
        f"Effects of {count(len(judged), 'claim')} with their intervals, and what is"
        " printed. The verdicts stand in the table below."
    )
    return Shown(
        f'<svg class="fgbook-forest" role="img" aria-label="{html.escape(name)}"'
        f' viewBox="0 0 {LABELS + WIDTH} {height}">{"".join(lines)}</svg>',
        "; ".join(f"{v.claim.key}: {_said(v)}" for v in judged),
    )


def _marks(verdict: Verdict, reach: float, middle: float) -> str:
    """The interval as a bar with a dot, the printed effect as an empty diamond."""

    def place(value: float) -> float:
        share = max(-1.0, min(1.0, value / reach))
        return round(WIDTH / 2 + share * (WIDTH / 2 - PADDING), 1)

    drawn = []
    printed = verdict.claim.printed_effect
    if printed is not None:
        x, y = place(printed), middle
        left, right = x - 5, x + 5
        if abs(printed) > 1.02 * reach:  # beyond the axis: a triangle that points there
            left, right = (x - 5, x) if printed < 0 else (x, x + 5)
        corners = f"{left},{y} {x},{y - 5} {right},{y} {x},{y + 5}"
        drawn.append(f'<polygon class="printed" points="{corners}"/>')
    effect = verdict.effect
    if effect and verdict.outcome != "not run":
        low, high, x = place(effect.low), place(effect.high), place(effect.effect)
        drawn.append(
            f'<line class="interval" x1="{low}" x2="{high}" y1="{middle}"'
            f' y2="{middle}"/><circle class="effect" cx="{x}" cy="{middle}" r="3.5"/>'
        )
    return "".join(drawn)


def _said(verdict: Verdict) -> str:
    if verdict.effect is None or verdict.outcome == "not run":
        return verdict.outcome
    said = effect_text(verdict.effect, verdict.claim.metric)
    return f"{verdict.outcome}, {said}"
