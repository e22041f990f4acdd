"""Figures and tables of the comparison of methods: what each reaches, at what cost, and
where those look that cut regions out.
"""

import html
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data.dataset import DataSet
from ..errors import InputError, count
from ..evidence import families
from ..explain import boxes_of
from ..methods import Method
from ..papers.compare import BACKBONES, FAMILIES, PASSES, USUAL_BACKBONE
from ..papers.spec import Paper, Row
from ..recipe import Recipe
from . import findings
from .base import (
    OKABE_ITO,
    QUICK_NOTE,
    WIDTH,
    Shown,
    duration,
    figure,
    sentence,
    sources,
    styled,
    table,
    without_tags,
)
from .photos import outline, photo, seen, spread
from .regions import REGION_STYLES
from .summary import (
    accuracy,
    accuracy_cells,
    by_row,
    is_quick,
    left_out,
    of_row,
    setting,
    unchanged,
)

# Marker and colour of each family.
LOOKS = {
    "frozen": ("s", "ink"),
    "plain": ("*", "ink"),
    "pooling": ("D", "purple"),
    "losses": ("v", "sky"),
    "filters": ("P", "sky"),
    "attention": ("X", "green"),
    "jigsaw": ("s", "orange"),
    "parts": ("^", "blue"),
    "regions": ("o", "blue"),
    "transformers": ("h", "red"),
}


def family(row: str) -> str:
    """The family that a row of the comparison belongs to."""
    for name, rows in FAMILIES.items():
        if row in rows:
            return name
    raise ValueError(f"{row} is in no family")


# ---- tables


def field_table(
    paper: Paper,
    found: list[dict],
    times: Mapping[str, float],
) -> Shown:
    """One line a method: family, what its own paper prints and on which network,
    accuracy with its 95 % interval, and what it cost, for records of one profile and
    data set. Nothing printed stands beside quick runs, which only illustrate.

    times: row -> milliseconds of a prediction, as ``cost.milliseconds`` measures them.
    """
    outside = left_out(found)
    among = unchanged(found)
    quick = is_quick(among)
    profiles = {record["profile"] for record in among} or {"photo"}
    lines = []
    for row in paper.rows:
        if not profiles & row.recipes.keys():
            continue
        line = {"method": html.escape(row.title), "family": family(row.name)}
        if not quick:
            line["printed, %"] = _printed(paper, row)
        of_this = of_row(among, row.name)
        lines.append(line | _measured(of_this, among, times.get(row.name)))
    caption = (
        "Top-1 accuracy on the test split with its 95 % interval. Images seen: training"
        " images times epochs; passes: what one costs in training, in passes of the"
        f" plain backbone. {setting(among)}{outside}"
    )
    if times:
        caption += (
            " Milliseconds: of predicting one image, one at a time, the median of a few"
            " on the machine that executed the notebook, with"
            f" {count(torch.get_num_threads(), 'thread')}; the other columns are from"
            " records."
        )
    if quick:
        caption += QUICK_NOTE
    says = findings.of_rows(among, {row.name: row.title for row in paper.rows})
    return table(
        lines,
        caption,
        among,
        illustration=quick,
        says=says,
        find="pmg, or family=parts",
    )


def in_short(paper: Paper, found: list[dict]) -> Shown:
    """Where the methods lie: the plain backbone, the linear probe, and of the others
    the lowest and the highest.
    """
    among = unchanged(found)
    rows = by_row(among, [row.name for row in paper.rows])
    if "plain" not in rows:
        return sentence("Not run yet.")
    named = []
    for name in ("plain", "probe"):
        if name in rows:
            mean, interval = accuracy_cells(rows[name], among)
            named.append(f"{html.escape(paper.row(name).title)} {mean} % ({interval})")
    said = f"{' and '.join(named)}."
    others = {
        name: each for name, each in rows.items() if name not in ("plain", "probe")
    }
    if others:
        order = sorted(others, key=lambda name: accuracy(others[name], among)[0])
        low, high = (accuracy_cells(others[order[i]], among)[0] for i in (0, -1))
        said += f" {len(others)} other rows lie between {low} and {high} %."
    mark = ""
    if is_quick(among):
        mark = '<span class="fgbook-illustration">illustration</span> '
        said += " Drawn birds and a training of seconds: it shows that all of them run."
    return Shown(
        f'<div class="fgbook-words"><p>{mark}{said}</p>{sources(among)}</div>',
        without_tags(said),
    )


def _printed(paper: Paper, row: Row) -> str:
    """On CUB, as "87.8 (ResNet-50)"."""
    value = paper.printed(row.name, "cub")
    if value is None:
        return "–"
    return f"{value:.1f} ({BACKBONES.get(row.name, USUAL_BACKBONE)})"


def _measured(
    records: list[dict], among: list[dict], time: float | None
) -> dict[str, object]:
    """What was measured of one row, and what it cost; `time` in milliseconds."""
    if not records:
        names = ("measured, %", "95 % interval", "seeds", "images seen", "passes")
        costs = (
            "training",
            "GFLOP to predict",
            "ms to predict",
            "parameters, millions",
        )
        nothing: dict[str, object] = dict.fromkeys((*names, *costs), "–")
        return nothing | {"measured, %": "not run"}
    mean, interval = accuracy_cells(records, among)
    first = records[0]
    seconds = float(np.mean([record["train"]["seconds"] for record in records]))
    return {
        "measured, %": mean,
        "95 % interval": interval,
        "seeds": len(records),
        "images seen": images_seen(first),
        "passes": f"{PASSES.get(first['row'], 1.0):g}",
        # in differing units: what it is sorted by
        "training": f'<span data-sort="{seconds:.1f}">{duration(seconds)}</span>',
        "GFLOP to predict": f"{first['flops'] / 1e9:.3g}",
        "ms to predict": "–" if time is None else f"{time:.3g}",
        "parameters, millions": f"{first['parameters'] / 1e6:.3g}",
    }


def images_seen(record: dict) -> int:
    """Training images times epochs; what is solved on features sees each once."""
    epochs = 1 if record["method"] == "probe" else record["train"]["epochs"]
    return record["images"]["train"] * epochs


# ---- accuracy over cost


def field_figure(paper: Paper, found: list[dict]) -> Shown:
    """Accuracy of every method over the operations of one prediction, each point with
    its name beside it.
    """
    among = unchanged(found)
    rows = by_row(among, [row.name for row in paper.rows])
    if not rows:
        return sentence("Accuracy over cost: not run yet.")
    cost = {name: records[0]["flops"] / 1e9 for name, records in rows.items()}
    reached = {name: accuracy(records, among)[0] for name, records in rows.items()}
    with styled():
        drawn = Figure(figsize=(WIDTH, 1.8 + 0.26 * len(rows)))
        axes = drawn.subplots(gridspec_kw={"right": 0.74})  # room for the names
        for shared, (marker, colour) in LOOKS.items():
            names = [name for name in rows if family(name) == shared]
            if names:
                axes.plot(
                    [cost[name] for name in names],
                    [reached[name] for name in names],
                    marker,
                    ms=7,
                    color=OKABE_ITO[colour],
                    label=shared,
                    # what all others are compared with is not to be hidden
                    zorder=3 if shared == "plain" else 2,
                )
        axes.legend(
            fontsize=10,
            ncols=4,
            columnspacing=1,
            handletextpad=0.2,
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
        )
        axes.set(xlabel="GFLOP to predict an image", ylabel="accuracy, %")
        axes.set_xscale("log")
        axes.minorticks_off()
        ticks = np.geomspace(min(cost.values()), max(cost.values()), 4)
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.margins(0.1)
        _name_points(axes, cost, reached)

    best = max(reached, key=lambda name: reached[name])
    dearest = max(cost, key=lambda name: cost[name])
    said = [_point(name, cost, reached) for name in dict.fromkeys((best, dearest))]
    caption = f"{_shown_of(paper, among)} {setting(among)} {COST_READS}"
    return figure(
        drawn,
        f"Scatter plot of {len(rows)} methods: accuracy over operations of a"
        f" prediction. Highest and costliest: {'; '.join(said)}.",
        caption + (" Drawn birds: an illustration." if is_quick(among) else ""),
    )


COST_READS = (
    "GFLOP: thousand million floating-point operations of one prediction, a"
    " multiplication with its addition being two; the axis is logarithmic. Shape and"
    " colour: family. Intervals stand in the table; most of these differences are"
    " within them."
)


def _shown_of(paper: Paper, among: list[dict]) -> str:
    """How many of the methods a picture has."""
    profiles = {record["profile"] for record in among}
    listed = [row.name for row in paper.rows if profiles & row.recipes.keys()]
    run = by_row(among, listed)
    said = f"Test accuracy of {count(len(run), 'method')} over their cost"
    missing = len(listed) - len(run)
    return (
        f"{said}; {missing} of {len(listed)} are not run yet."
        if missing
        else f"{said}."
    )


def so_far(paper: Paper, found: list[dict]) -> Shown:
    """Which rows have been measured on photographs, and which of these are above the
    plain backbone, in the mean and beyond chance, from records of one data set.
    """
    among = unchanged(found)
    listed = [row.name for row in paper.rows_at("photo")]
    rows = by_row(among, listed)
    others = [name for name in rows if name != "plain"]
    if "plain" not in rows or not others:
        return sentence("None of these methods has been measured here yet.")
    level = accuracy(rows["plain"], among)[0]
    above = [name for name in others if accuracy(rows[name], among)[0] > level]
    judged = families.judge(paper, among)
    held = [one.claim.better for one in judged if one.outcome == "holds"]
    names = findings.listed([paper.row(name).title for name in others], most=99)
    said = (
        f"Measured here so far, beside the plain backbone, on {among[0]['dataset']}:"
        f" {names} ({len(rows)} of {len(listed)} rows). "
    )
    if not above:
        said += "None of them names more test images rightly than the plain backbone."
    else:
        which = findings.listed([paper.row(name).title for name in above])
        sure = findings.listed([paper.row(name).title for name in held]) or "none"
        said += f"In the mean above it: {which}; of these beyond chance: {sure}."
    return Shown(
        f'<div class="fgbook-words"><p>{said}</p>{sources(among)}</div>',
        without_tags(said),
    )


def _point(name: str, cost: dict[str, float], reached: dict[str, float]) -> str:
    return f"{name}, {reached[name]:.1f} % at {cost[name]:.2g} GFLOP"


def _name_points(axes: Axes, cost: dict[str, float], reached: dict[str, float]) -> None:
    """Names in a column right of the axes, in the points' order from top to bottom, a
    thin line from each to its point.
    """
    names = sorted(reached, key=lambda name: reached[name])
    low, high = axes.get_ylim()
    shares = [(reached[name] - low) / (high - low) for name in names]
    for name, at in zip(names, spaced(shares, min(0.08, 1 / len(names))), strict=True):
        axes.annotate(
            name,
            (cost[name], reached[name]),
            (1.06, at),
            textcoords="axes fraction",
            va="center",
            fontsize=11,
            # from the middle of the name's left edge: the line crosses no letters
            arrowprops={
                "arrowstyle": "-",
                "lw": 0.5,
                "color": "#777777",
                "relpos": (0, 0.5),
            },
        )


def spaced(places: list[float], least: float) -> list[float]:
    """Places from 0 to 1, rising, moved as little as one sweep up and one down allow so
    that neighbours lie at least `least` apart and the last at 1 or below.
    """
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + least) if moved else place)
    limit = 1.0
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - least
    return moved


# ---- where they look


def looks_figure(
    models: Mapping[str, Method], data: DataSet, recipe: Recipe, count: int = 8
) -> Shown:
    """The first four boxes of each method on the same test images: a line a method, a
    column an image. The methods see images of one size.
    """
    index = spread(data.test, count)
    with styled():
        height = 5.6 / len(index) * len(models)
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = drawn.subplots(len(models), len(index), squeeze=False)
        for (name, model), line in zip(models.items(), grid, strict=True):
            images = seen(data.test, index, recipe, model)
            found = boxes_of(model.eval(), images)
            if found is None:
                raise InputError(f"{name} cuts out no boxes to draw; leave it out.")
            boxes = found[:, : len(REGION_STYLES)].cpu()
            line[0].set_ylabel(name, fontsize=9)
            for axes, image, of_image in zip(line, images, boxes, strict=True):
                photo(axes, image)
                for place in reversed(range(len(of_image))):  # the first one on top
                    outline(axes, of_image[place], *REGION_STYLES[place])
    return figure(
        drawn,
        f"{len(index)} test images, once for each of {', '.join(models)}, with up to"
        " four boxes each: 1 red solid, 2 green dashed, 3 blue dash-dotted, 4 yellow"
        " dotted.",
        "Where methods look: the first four boxes of each on the same images, spread"
        " evenly over the test split. First red (solid), then green (dashed), blue"
        " (dash-dotted), yellow (dotted).",
    )
