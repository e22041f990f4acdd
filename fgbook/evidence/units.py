"""What an effect is printed in: every metric has a unit, and with it a scale and a
number of decimals. Differences of shares (of right answers, of a map) are printed in
points, as those of accuracies are.
"""

from dataclasses import dataclass

from ..papers.spec import Claim


@dataclass(frozen=True)
class Unit:
    """How effects of some metrics are printed."""

    heading: str  # in the name of a column
    after: str  # behind a number; {} stands for what is measured
    scale: float = 1.0
    digits: int = 3


POINTS = Unit("points", "points", digits=1)  # computed in points
SHARE = Unit("points", "points of {}", scale=100.0, digits=1)
AREA = Unit("share of the image", "of the image")
IOU = Unit("IoU", "IoU")
LOG2 = Unit("log2", "log2 units")
NATS = Unit("nats", "nats")
NONE = Unit("", "")

METRICS: dict[str, tuple[str, Unit]] = {
    "top1": ("top-1 accuracy", POINTS),
    "low_top1": ("top-1 accuracy at low resolution", POINTS),
    "nll": ("log-probability of the true class", NATS),
    "heat_area": ("area of the heat map", AREA),
    "heat_strength": ("strength of the heat map", LOG2),
    "heat_relative": ("strength of the heat map against the logits", LOG2),
    "iou_image": ("overlap with the object's box", IOU),
    "iou_foreground": ("overlap of the foreground's box", IOU),
    "iou_foreground_mean": ("overlap of the foreground's box", IOU),
    "maxbox_foreground": ("MaxBoxAccV2 of the map", SHARE),
    "focus_energy": ("the map in the object's box", SHARE),
    "focus_energy_backbone": ("the map in the box, before the gates", SHARE),
    "focus_part": ("maps with their maximum on a part", SHARE),
    "margin": ("margin to the nearest other class", LOG2),
    "robust": ("right answers under damage", SHARE),
    "robust_noise": ("right answers under noise", SHARE),
    "robust_occlusion": ("right answers under occlusion", SHARE),
    "robust_distortion": ("right answers under distortion", SHARE),
    "robust_change": ("right answers, change by damage", SHARE),
}
"""Metric -> what is measured, and its unit."""

LEGEND = (
    "Points are percentage points, of top-1 accuracy where nothing else is named; a"
    " log2 unit more is twice as much; what IoU and nats are, the glossary says."
)


def unit(metric: str) -> Unit:
    """Of a metric; of one that is not listed, none."""
    return METRICS.get(metric, (metric, NONE))[1]


def heading(metric: str) -> str:
    """As "right answers under noise, points"."""
    what, of_it = METRICS.get(metric, (metric, NONE))
    return ", ".join(filter(None, (what, of_it.heading)))


def after(metric: str) -> str:
    """What stands behind a number: "points of right answers under noise"."""
    what, of_it = METRICS.get(metric, (metric, NONE))
    return of_it.after.format(what)


def number(value: float, metric: str) -> str:
    """A difference without its unit: "+11.3"."""
    of_it = unit(metric)
    return f"{of_it.scale * value:+.{of_it.digits}f}"


def interval(low: float, high: float, metric: str) -> str:
    """Of a difference: "+7.3 to +15.3"."""
    return f"{number(low, metric)} to {number(high, metric)}"


def amount(value: float, metric: str) -> str:
    """A difference with its unit in short: "+11.3 points"."""
    short = unit(metric).after.removesuffix(" of {}")
    return f"{number(value, metric)} {short}".rstrip()


def within(claim: Claim) -> str:
    """What makes no difference: "within ±15 points"; "" where nothing is small enough
    for that.
    """
    if claim.negligible is None:
        return ""
    limit = unit(claim.metric).scale * claim.negligible
    short = unit(claim.metric).after.removesuffix(" of {}")
    if limit == 1 and short == "points":
        short = "point"
    return f"within ±{limit:.3g} {short}".rstrip()
