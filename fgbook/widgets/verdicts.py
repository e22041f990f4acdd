"""How a verdict comes about: an interval and its outcome by effect, number of seeds,
and how much trainings differ. Computed by :mod:`fgbook.evidence`.
"""

import numpy as np
from numpy.typing import NDArray

from ..evidence import verdicts
from ..evidence.intervals import Spread
from ..evidence.verdicts import Verdict
from ..papers.spec import Claim
from .piece import Choice, Frame, Piece

SEEDS = (2, 3, 4, 5, 7, 10, 15, 20)
EFFECTS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)  # points
SPREADS = (0.3, 0.7, 1.0, 2.0)  # standard deviation between trainings, points
# What stays as it is, about as in the published runs: test images, the share of them on
# which the two rows differ whatever the seeds, and how many rows of the paper tell the
# spread between trainings together.
IMAGES = 1600
DIFFER = 0.05
ROWS = 15
CLAIM = Claim("", "one row beats another", "first", "second")
LOW, HIGH = -8.0, 12.0  # of the scale, points
WIDE, TALL, LINE = 360, 74, 26  # units of the drawing, about pixels of a phone


def verdict(effect: float, seeds: int, spread: float) -> Verdict:
    """The verdict on a claim judged alone: the first row is `effect` points ahead in
    `seeds` trainings of either, whose accuracies have the standard deviation `spread`.
    """
    pooled = Spread(spread**2, ROWS * (seeds - 1), ROWS)
    first, second = _answers(effect, seeds)
    found = verdicts.difference(first, second, lambda: [pooled, pooled])
    return verdicts.decided(CLAIM, found)


def _answers(effect: float, seeds: int) -> tuple[NDArray, NDArray]:
    """Which images either row names rightly, (seeds, IMAGES) bool: both of them all,
    but for those on which they differ.
    """
    ahead = effect / 100
    by_first = round((DIFFER + ahead) / 2 * IMAGES)
    by_second = round((DIFFER - ahead) / 2 * IMAGES)
    first, second = np.ones((2, seeds, IMAGES), dtype=bool)
    second[:, :by_first] = False
    first[:, by_first : by_first + by_second] = False
    return first, second


def piece() -> Piece:
    """Effect, seeds and spread to choose, and the interval with its outcome."""

    def frame(spread: float, seeds: int, effect: float) -> Frame:
        found = verdict(effect, seeds, spread)
        about = found.effect
        assert about is not None
        width = about.high - about.low
        says = (
            f"{effect:+.1f} points, interval {about.low:+.1f} to {about.high:+.1f}"
            f" ({width:.1f} wide): {found.outcome}, because {found.why}."
        )
        return Frame(drawing(about.low, effect, about.high, found.outcome), says)

    return Piece(
        "How a verdict comes about",
        "The 95 % interval of a difference between two rows, and the verdict on the"
        " claim that the first is better, judged alone. Shaded: within one point of"
        f" zero, what counts as no difference. Here with {IMAGES} test images, on"
        f" {100 * DIFFER:.0f} % of which the rows differ whatever the seeds, and with a"
        f" spread between trainings that {ROWS} rows tell together.",
        (
            Choice("spread", "spread of trainings, points", SPREADS, 1.0),
            Choice("seeds", "seeds of each row", SEEDS, 3),
            Choice("effect", "effect, points", EFFECTS, 2.0, "{:+.1f}".format),
        ),
        frame,
    )


def drawing(low: float, effect: float, high: float, outcome: str) -> str:
    """The interval above a scale, as SVG."""
    left, right = _place(low), _place(high)
    return (
        f'<svg class="fgbook-interval" viewBox="0 0 {WIDE} {TALL}" role="img"'
        f' aria-label="Interval from {low:+.1f} to {high:+.1f}: {outcome}">{SCALE}'
        f'<path d="M{left} {LINE}H{right}M{left} {LINE - 6}v12M{right} {LINE - 6}v12"/>'
        f'<circle cx="{_place(effect)}" cy="{LINE}" r="6"/></svg>'
    )


def _scale() -> str:
    """What is the same in all drawings."""
    ticks = ""
    for value in range(int(LOW), int(HIGH) + 1, 4):
        x = _place(value)
        ticks += f'<text x="{x}" y="{TALL - 4}" text-anchor="middle">{value}</text>'
    negligible = CLAIM.negligible or 0.0
    band = f"M{_place(-negligible)} 6H{_place(negligible)}V48H{_place(-negligible)}z"
    return (
        f'<g class="once"><path d="{band}" fill-opacity=".15"/>'
        f'<path d="M{_place(0)} 6V52M0 48H{WIDE}" stroke="currentColor"/>{ticks}</g>'
    )


def _place(points: float) -> str:
    """Where a number lies on the scale, within the drawing."""
    inside = min(max(points, LOW), HIGH)
    return f"{12 + (WIDE - 24) * (inside - LOW) / (HIGH - LOW):.4g}"


SCALE = _scale()
