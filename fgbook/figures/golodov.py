"""Figures and tables of the chapter on paper A (Golodov et al. 2018): losses, what
pretraining is worth, and where the time goes.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import count
from ..evaluation.latency import STAGES, Latency
from ..evidence import records, verdicts
from ..papers.golodov import PRINTED_LOSS
from ..papers.spec import Paper
from . import findings
from .base import (
    OKABE_ITO,
    WIDTH,
    Shown,
    between,
    figure,
    measured,
    sentence,
    signed,
    styled,
    table,
)
from .summary import (
    accuracy,
    accuracy_cells,
    image_mean,
    is_quick,
    measured_where,
    of_row,
    setting,
    unchanged,
)

# fmt: off
# (data set, row) -> what the backbone saw before
SEEN = {
    ("imagewoof10", "gap"): "nothing: trained from scratch",
    ("imagewoof10", "linear"): "ImageNet, in which these breeds are classes and most of"
                               " these photographs are training images",
    ("imagewoof10", "linear-birds"): "birds of iNaturalist: other photographs of other"
                                     " animals",
    ("imagewoof10", "plain"): "as for ImageNet; then the training images, end to end",
    ("cub50", "gap"): "nothing: trained from scratch",
    ("cub50", "linear"): "ImageNet: other photographs, some bird species among a"
                         " thousand classes",
    ("cub50", "linear-birds"): "birds of iNaturalist: other photographs, at least 37 of"
                               " the 50 species as classes",
    ("cub50", "plain"): "as for ImageNet; then the training images, end to end",
}
# fmt: on
KINDS = {
    "gap": "from scratch",
    "linear": "frozen, ImageNet",
    "linear-birds": "frozen, iNaturalist birds",
    "plain": "fine-tuned, ImageNet",
}
# Marker and colour of a row.
LOOKS = {
    "gap": ("o", "ink"),
    "linear": ("s", "blue"),
    "linear-birds": ("^", "orange"),
    "plain": ("D", "green"),
}


# ---- losses


def loss_table(paper: Paper, found: list[dict]) -> Shown:
    """Cross-entropy on the test images (nats; smaller is better) of the rows on frozen
    features, beside the losses that the paper prints (on validation).
    """
    found = unchanged(found)
    quick = is_quick(found)
    lines = []
    for row in paper.rows:
        here = of_row(found, row.name)
        if row.method != "transfer" or not here:
            continue
        line: dict[str, object] = {"row": html.escape(row.title)}
        if not quick:
            printed = PRINTED_LOSS.get(row.name)
            line["printed loss"] = "–" if printed is None else f"{printed:.2f}"
        # Of the log-probabilities of the true classes, as claims count them.
        loss = -image_mean(here, "nll")
        line["measured loss"] = measured(f"{loss:.2f}", "loss", here)
        line["seeds"] = len(here)
        lines.append(line)
    return table(
        lines or [{"row": "–", "measured loss": "not run", "seeds": 0}],
        "Cross-entropy in nats: printed on validation images, measured on test images."
        f" {setting(found)}",
        found,
        illustration=quick,
    )


# ---- what pretraining is worth


def pretraining_table(found: list[dict]) -> Shown:
    """What a backbone had seen, and what that is worth: accuracy, and the difference to
    the network from scratch on the same test images. Several data sets.
    """
    found = unchanged(found)
    lines = []
    gains: dict[str, verdicts.Effect | None] = {}
    for (dataset, row), seen in SEEN.items():
        here = records.select(found, dataset=dataset, row=row)
        if not here:
            continue
        there = records.select(found, dataset=dataset)
        mean, interval = accuracy_cells(here, there)
        scratch = records.select(there, row="gap")
        if row != "gap" and scratch:
            effect = verdicts.compare(here, scratch, among=there)
            gains[f"{KINDS[row]} on {dataset}"] = effect
        lines.append(
            {
                "data set": dataset,
                "network": KINDS[row],
                "what the backbone had seen": seen,
                "measured, %": mean,
                "95 % interval": interval,
                "measured gain over scratch": (
                    "–" if row == "gap" else _gain(here, scratch, there)
                ),
            }
        )
    nothing = {
        "data set": "–",
        "network": "–",
        "what the backbone had seen": "–",
        "measured, %": "not run",
    }
    used = [record for record in found if (record["dataset"], record["row"]) in SEEN]
    return table(
        lines or [nothing],
        f"What pretraining is worth, by what the backbone had seen. {setting(used)}",
        used,
        says=findings.of_effects(gains, "gain over the network from scratch"),
    )


def _gain(here: list[dict], scratch: list[dict], among: list[dict]) -> str:
    """The difference to the network from scratch."""
    if not scratch:
        return "–"
    effect = verdicts.compare(here, scratch, among=among).effect
    return measured(signed(effect), "effect", here, scratch)


def pretraining_figure(found: list[dict]) -> Shown:
    """The accuracies of :func:`pretraining_table` with their 95 % intervals, one line a
    network, one panel a data set.
    """
    found = unchanged(found)
    panels: dict[str, dict[str, list[dict]]] = {}
    for dataset, row in SEEN:
        here = records.select(found, dataset=dataset, row=row)
        if here:
            panels.setdefault(dataset, {})[row] = here
    if not panels:
        return sentence("No published runs to compare yet.")

    said = []
    with styled():
        height = 0.5 + 1.55 * len(panels)
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(panels), sharex=True, squeeze=False)
        for axes, (dataset, rows) in zip(grid.flat, panels.items(), strict=True):
            for place, (row, here) in enumerate(rows.items()):
                mean, low, high = accuracy(here, found)
                _draw_accuracy(axes, row, place, mean, low, high)
                said.append(
                    f"{dataset}, {KINDS[row]}: {mean:.1f} ({between(low, high)})"
                )
            axes.set(
                ylim=(len(rows) - 0.4, -0.7),
                yticks=range(len(rows)),
                yticklabels=[KINDS[row] for row in rows],
                title=dataset,
                xlim=(0, 100),
            )
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color="#DDDDDD", lw=0.7)
            axes.set_axisbelow(True)
        grid.flat[-1].set_xlabel("test accuracy, %")
    return figure(
        drawn,
        "Dot plots of test accuracy in percent with 95 % intervals."
        f" {'; '.join(said)}.",
        "What a backbone had seen before decides most. On the dogs, ImageNet had most"
        " of the photographs themselves; on the birds, iNaturalist had most of the"
        " species. The two data sets also differ in their numbers of classes and"
        " images.",
    )


def _draw_accuracy(
    axes: Axes, row: str, place: int, mean: float, low: float, high: float
) -> None:
    marker, colour = LOOKS[row]
    axes.errorbar(
        mean,
        place,
        xerr=[[mean - low], [high - mean]],
        fmt=marker,
        color=OKABE_ITO[colour],
        capsize=4,
        lw=2,
    )
    axes.annotate(
        f"{mean:.1f}",
        (mean, place),
        (0, 6),
        textcoords="offset points",
        ha="center",
        fontsize=11,
    )


# ---- latency


@dataclass(frozen=True)
class Speed:
    """The verdict on claim A5, "recognition takes one to two minutes an image", on one
    machine.
    """

    outcome: str  # "holds", "does not hold", "not run"
    why: str


MINUTE = 60.0  # seconds; the paper says one to two


PAPERS_BACKBONE = "inception_v3"


def speed(found: list[Latency], cold: float | None = None) -> Speed:
    """Judge A5 by the time from file to prediction of one image (batch 1) with the
    paper's backbone, nine repeats of ten; with `cold` seconds, also by a program's
    start.
    """
    alone = [one for one in found if one.name == PAPERS_BACKBONE and one.batch == 1]
    if not alone:
        why = f"{PAPERS_BACKBONE} was not timed with single images."
        return Speed("not run", why)
    median, _, high = alone[0].per_image()
    said = (
        f"from file to prediction {_time(median)} (median; nine of ten within"
        f" {_time(high)})"
    )
    if cold:
        said += f", {_time(cold)} with the start of the program"
    slowest = max(high, cold or 0.0)
    if slowest >= MINUTE:
        return Speed("holds", f"{said}: a minute or more on this machine.")
    far = slowest < MINUTE / 2
    how = "far from a minute" if far else "less than a minute"
    return Speed("does not hold", f"{said}: {how} on this machine.")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def speed_table(verdict: Speed) -> Shown:
    """Claim A5 and its verdict in one line."""
    line = {
        "claim": "<b>A5</b> recognition takes one to two minutes an image",
        "verdict": f"<b>{html.escape(verdict.outcome)}</b>",
        "why": html.escape(verdict.why),
    }
    return table(
        [line],
        "The claim about speed, judged by times measured on the machine that ran this"
        " notebook.",
    )


def latency_table(found: list[Latency], machine: dict) -> Shown:
    """Milliseconds an image by stage (medians), and the total with the range of nine
    repeats of ten. `machine`: from ``records.hardware``.
    """
    lines = []
    for one in found:
        line: dict[str, object] = {
            "network": _network(one),
            "images at a time": one.batch,
        }
        for stage in STAGES:
            line[f"{stage}, ms"] = f"{_milliseconds(one, stage):.1f}"
        median, low, high = one.per_image()
        line["total, ms"] = f"{1000 * median:.1f}"
        line["10th to 90th percentile"] = between(1000 * low, 1000 * high)
        line["repeats"] = len(one.seconds["total"])
        lines.append(line)
    return table(
        lines, f"Time from file to prediction, by image. {_where(found, machine)}"
    )


def _network(one: Latency) -> str:
    return f"{one.name} at {one.image_size} px"


def _milliseconds(one: Latency, stage: str) -> float:
    """Median of an image's time in a stage, or in all of them ("total")."""
    return 1000 * one.per_image(stage)[0]


def _where(found: list[Latency], machine: dict) -> str:
    where = measured_where(found, machine)
    return f"{where[0].upper()}{where[1:]}, random weights."


# Colour and hatch of each stage.
STAGE_STYLES = (("orange", "//"), ("sky", ".."), ("blue", ""), ("purple", "xx"))


def latency_figure(found: list[Latency], machine: dict) -> Shown:
    """Stacked bars: median milliseconds an image, stage by stage; one panel a batch
    size.
    """
    sizes = list(dict.fromkeys(one.batch for one in found))
    with styled():
        height = 0.9 + (0.5 + 0.34 * len(found) / len(sizes)) * len(sizes)
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(sizes), sharex=True, squeeze=False)
        for axes, batch in zip(grid.flat, sizes, strict=True):
            _stack(axes, [one for one in found if one.batch == batch])
            axes.set(title=f"{count(batch, 'image')} at a time")
        last = grid.flat[-1]
        last.set_xlabel("milliseconds an image (median)")
        drawn.legend(
            *last.get_legend_handles_labels(),
            loc="outside upper center",
            ncols=4,
            fontsize=11,
            handlelength=1.4,
            columnspacing=1.2,
        )
    said = "; ".join(_say_latency(one) for one in found)
    return figure(
        drawn,
        f"Stacked bars of milliseconds an image by stage. {said}.",
        "Where the time goes between a picture's file and its prediction."
        f" {_where(found, machine)}",
    )


def _stack(axes: Axes, found: Sequence[Latency]) -> None:
    """A bar for each network: its stages one after the other, and the total."""
    left = np.zeros(len(found))
    for stage, (colour, hatch) in zip(STAGES, STAGE_STYLES, strict=True):
        width = np.array([_milliseconds(one, stage) for one in found])
        axes.barh(
            range(len(found)),
            width,
            left=left,
            color=OKABE_ITO[colour],
            hatch=hatch,
            edgecolor="white",
            label=stage,
            height=0.7,
        )
        left += width
    for place, one in enumerate(found):
        axes.annotate(
            f"{_milliseconds(one, 'total'):.0f}",
            (left[place], place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
        )
    axes.set(
        yticks=range(len(found)),
        yticklabels=[f"{one.name}, {one.image_size}" for one in found],
        ylim=(len(found) - 0.5, -0.5),
    )
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)


def _say_latency(one: Latency) -> str:
    stages = []
    for stage in (*STAGES, "total"):
        stages.append(f"{stage} {_milliseconds(one, stage):.1f}")
    return f"{_network(one)}, {one.batch} at a time: {', '.join(stages)}"
